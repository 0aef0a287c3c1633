package router

import (
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"openclaw-sandbox/internal/chat/chattest"
	"openclaw-sandbox/internal/identity"
	"openclaw-sandbox/internal/sandbox"
)

// dial opens a WebSocket and returns the answer's status.
func (s *stack) dial(host, path string, header ...string) int {
	s.t.Helper()
	h := http.Header{"Host": {host}}
	for _, line := range header {
		name, value, _ := strings.Cut(line, ": ")
		h.Add(name, value)
	}
	conn, resp, err := websocket.DefaultDialer.Dial("ws"+strings.TrimPrefix(s.url, "http")+path, h)
	if err == nil {
		conn.Close()
	}
	if resp == nil {
		s.t.Fatalf("dial %s%s: %v", host, path, err)
	}
	return resp.StatusCode
}

// Members use a shared sandbox as its own user would, and keep theirs.
func TestShared(t *testing.T) {
	ts := tokens(t)
	sum := sha256.Sum256([]byte("t-bob"))
	bob, err := identity.ParseToken(hex.EncodeToString(sum[:]), "bob", "user")
	if err != nil {
		t.Fatal(err)
	}
	s := start(t, identity.Sharing{Method: identity.Any{append(ts, bob)}, Shares: identity.Shares{"team-x": {Users: []sandbox.User{"alice"}}}}, time.Second)
	team := chattest.New(t, "team-x")
	s.land("team-x", team)
	s.land("alice", chattest.New(t, "alice"))
	s.land("bob", chattest.New(t, "bob"))
	const isAlice, isBob = "Authorization: Bearer t-alice", "Authorization: Bearer t-bob"
	for _, c := range []struct {
		host, path, who string
		ok              bool
	}{
		{"team-x.claw.test", "/", isAlice, true},
		{"claw.test", "/u/team-x/", isAlice, true},
		{"team-x.claw.test", "/", isBob, false},
		{"claw.test", "/u/team-x/", isBob, false},
		{"alice.claw.test", "/", isAlice, true},
		{"claw.test", "/", isAlice, true},
		{"alice.claw.test", "/", isBob, false}, // sharing one shares no other
		{"bob.claw.test", "/", isAlice, false},
	} {
		want, upgrade := http.StatusOK, http.StatusSwitchingProtocols
		if !c.ok {
			want, upgrade = http.StatusForbidden, http.StatusForbidden
		}
		if resp, body := s.ask("GET", c.host, c.path, "", c.who); resp.StatusCode != want {
			t.Errorf("%s%s by %s: %s %s, want %d", c.host, c.path, c.who, resp.Status, body, want)
		}
		if got := s.dial(c.host, c.path, c.who); got != upgrade {
			t.Errorf("WebSocket at %s%s by %s: %d, want %d", c.host, c.path, c.who, got, upgrade)
		}
	}
	s.ask("GET", "team-x.claw.test", "/", "", isAlice)
	if h := team.Header(); h.Get("X-Forwarded-User") != "team-x" || h.Get("Authorization") != "" {
		t.Errorf("the shared gateway, which knows its own user only, saw %v", h)
	}
	if resp, body := s.ask("GET", "team-x.claw.test", "/api/status", "", isAlice); resp.StatusCode != 200 || !strings.Contains(body, `"user":"team-x"`) {
		t.Errorf("status: %s %s", resp.Status, body)
	}
}
