package router

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"openclaw-sandbox/internal/audit"
	"openclaw-sandbox/internal/chat/chattest"
	"openclaw-sandbox/internal/identity"
	"openclaw-sandbox/internal/sandbox"
)

// trail collects audit lines.
type trail struct {
	mu  sync.Mutex // guards buf
	buf bytes.Buffer
}

func (t *trail) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.buf.Write(b)
}

// acts are the lines as "act caller-or-by user as-or-reason".
func (t *trail) acts(test *testing.T) []string {
	test.Helper()
	t.mu.Lock()
	defer t.mu.Unlock()
	var acts []string
	for line := range strings.Lines(t.buf.String()) {
		var l struct{ Msg, Act, Caller, By, User, As, Reason, From, Host string }
		if err := json.Unmarshal([]byte(line), &l); err != nil || l.Msg != "audit" || l.From == "" || l.Host == "" {
			test.Errorf("an audit line is %s (%v)", line, err)
		}
		acts = append(acts, strings.Join(strings.Fields(strings.Join([]string{l.Act, l.Caller + l.By, l.User, l.As + l.Reason}, " ")), " "))
	}
	return acts
}

// Denials, and what is done in somebody else's sandbox, are written; a user's own
// requests are not.
func TestAudit(t *testing.T) {
	var out trail
	shares := identity.Shares{"team-x": {Users: []sandbox.User{"alice"}}}
	s := startWith(t, identity.Sharing{Method: identity.Any{tokens(t)}, Shares: shares}, time.Second, func(rt *Router) {
		rt.config.Audit = audit.New(slog.New(slog.NewJSONHandler(&out, nil)))
	})
	for _, u := range []sandbox.User{"alice", "bob", "team-x"} {
		s.land(u, chattest.New(t, string(u)))
	}
	const alice, ops = "Authorization: Bearer t-alice", "Authorization: Bearer t-ops"
	for range 3 {
		s.ask("GET", "alice.claw.test", "/", "", alice)
		s.ask("GET", "team-x.claw.test", "/", "", alice)
		s.ask("GET", "claw.test", "/u/bob/", "", ops)
		s.ask("POST", "bob.claw.test", "/_sandbox/start", "", ops)
	}
	s.ask("GET", "bob.claw.test", "/?token=t-alice", "", alice)
	s.dial("bob.claw.test", "/", alice)
	s.ask("POST", "alice.claw.test", "/_sandbox/start", "", alice)
	s.ask("POST", "alice.claw.test", "/_sandbox/start", "", alice, "Origin: http://evil.test")
	s.ask("GET", "alice.claw.test", "/_sandbox/events", "", alice, "Sec-Fetch-Site: cross-site")
	want := []string{"visit alice team-x member", "visit ops bob admin", "start ops bob admin", "denied alice bob", "denied alice bob",
		"denied alice a page of another origin", "denied alice alice a page of another origin"}
	if got := out.acts(t); !slices.Equal(got, want) {
		t.Errorf("the audit says\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if strings.Contains(out.buf.String(), "t-alice") {
		t.Error("the audit has a token")
	}
	// A flood is answered, and not written.
	for range 100 {
		if resp, _ := s.ask("GET", "bob.claw.test", "/", "", alice); resp.StatusCode != http.StatusForbidden {
			t.Fatal(resp.Status)
		}
	}
	if n := len(out.acts(t)); n > 30 {
		t.Errorf("%d lines after a flood", n)
	}
}
