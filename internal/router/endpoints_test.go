package router

import (
	"bufio"
	"encoding/json"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"openclaw-sandbox/internal/chat/chattest"
	"openclaw-sandbox/internal/sandbox"
)

// sse reads server-sent events: name, data.
type sse struct {
	t     *testing.T
	lines *bufio.Scanner
}

func read(t *testing.T, body io.ReadCloser) *sse {
	t.Cleanup(func() { body.Close() })
	return &sse{t, bufio.NewScanner(body)}
}

// next returns "" at the end of the stream.
func (s *sse) next() (name, data string) {
	s.t.Helper()
	for s.lines.Scan() {
		line := s.lines.Text()
		if v, ok := strings.CutPrefix(line, "event: "); ok {
			name = v
		}
		if v, ok := strings.CutPrefix(line, "data: "); ok {
			data = v
		}
		if line == "" && name != "" {
			return name, data
		}
	}
	return "", ""
}

func (s *sse) want(event string, p sandbox.Progress) {
	s.t.Helper()
	name, data := s.next()
	var got sandbox.Progress
	if err := json.Unmarshal([]byte(data), &got); err != nil || name != event || got != p {
		s.t.Fatalf("event %q %s (%v), want %q %+v", name, data, err, event, p)
	}
}

func TestEvents(t *testing.T) {
	s := start(t, dev, time.Second)
	resp := s.open("GET", "alice.claw.test", "/_sandbox/events", "", "Sec-Fetch-Site: same-origin")
	if resp.Header.Get("Vary") != "*" {
		t.Error("the Control UI's service worker would store the stream")
	}
	a := read(t, resp.Body)
	b := read(t, s.open("GET", "claw.test", "/u/alice/_sandbox/events", "").Body)
	f := s.woken(t, "alice")
	for _, p := range []sandbox.Progress{
		{Phase: sandbox.PhaseQueued, Message: "Asking for a place to run"},
		{Phase: sandbox.PhaseRestoring, Done: 34, Total: 118, Message: "Restoring"},
		{Phase: sandbox.PhaseStarting},
	} {
		if p.Phase != sandbox.PhaseQueued {
			f.report(p)
		}
		a.want("progress", p)
		b.want("progress", p)
	}
	s.land("alice", chattest.New(t, "alice"))
	for _, r := range []*sse{a, b} {
		for name, data := r.next(); name != "ready"; name, data = r.next() {
			if name != "progress" { // that of phase ready may come first
				t.Fatalf("%q %s, want ready", name, data)
			}
		}
		if name, _ := r.next(); name != "" {
			t.Errorf("%q after ready, want the end", name)
		}
	}
	if s.wakes != 1 {
		t.Errorf("%d starts, want 1", s.wakes)
	}
	c := read(t, s.open("GET", "alice.claw.test", "/_sandbox/events", "").Body)
	c.want("ready", sandbox.Progress{Phase: sandbox.PhaseReady})
}

func TestEventsOfAFailure(t *testing.T) {
	s := start(t, dev, time.Second)
	a := read(t, s.open("GET", "alice.claw.test", "/_sandbox/events", "").Body)
	s.woken(t, "alice").fail(&sandbox.Failure{Reason: sandbox.ReasonNoCapacity, Message: "No node has room."})
	for {
		name, data := a.next()
		if name == "progress" {
			continue
		}
		if name != "failed" || !strings.Contains(data, "No node has room.") || !strings.Contains(data, "no_capacity") {
			t.Errorf("%q %s, want failed with the reason", name, data)
		}
		break
	}
	if _, body := s.ask("GET", "alice.claw.test", "/api/status", ""); !strings.Contains(body, `"failed"`) {
		t.Errorf("status: %s", body)
	}
	// The button: with JavaScript the status, without it back to where one was.
	if resp, body := s.ask("POST", "alice.claw.test", "/_sandbox/start", ""); resp.StatusCode != 200 || !strings.Contains(body, `"starting"`) {
		t.Errorf("start: %s %s", resp.Status, body)
	}
	const form = "Content-Type: application/x-www-form-urlencoded"
	for body, want := range map[string]string{"to=%2Fchat%3Fx%3D1": "/chat?x=1", "to=%2F%2Fevil.test": "/", "": "/"} {
		if resp, _ := s.ask("POST", "alice.claw.test", "/_sandbox/start", body, form); resp.StatusCode != http.StatusSeeOther || resp.Header.Get("Location") != want {
			t.Errorf("form %q: %s to %q, want %q", body, resp.Status, resp.Header.Get("Location"), want)
		}
	}
	if s.retries != 4 {
		t.Errorf("%d retries, want 4", s.retries)
	}
}

// At the end of this router a page follows on another.
func TestEventsEndAtDrain(t *testing.T) {
	s := start(t, dev, time.Second)
	a := read(t, s.open("GET", "alice.claw.test", "/_sandbox/events", "").Body)
	s.woken(t, "alice")
	close(s.drain)
	for name, _ := a.next(); name != ""; name, _ = a.next() {
		if name != "progress" {
			t.Errorf("the page was told %q", name)
		}
	}
}

func TestStatus(t *testing.T) {
	s := start(t, dev, time.Second)
	s.land("alice", chattest.New(t, "alice"))
	s.Wake("bob", false)
	for user, want := range map[string][]string{"alice": {`"running"`, `"generation":"g-alice"`, `"node":"n1"`}, "bob": {`"starting"`, `"phase":"queued"`}, "carol": {`"stopped"`}} {
		resp, body := s.ask("GET", user+".claw.test", "/api/status", "")
		for _, w := range append(want, `"user":"`+user+`"`) {
			if resp.StatusCode != 200 || !strings.Contains(body, w) {
				t.Errorf("%s: %s %s, want %s", user, resp.Status, body, w)
			}
		}
	}
}

func TestChat(t *testing.T) {
	s := start(t, dev, 20*time.Second)
	alice := chattest.New(t, "alice")
	go func() { s.woken(t, "alice"); s.land("alice", alice) }()

	resp, body := s.ask("POST", "alice.claw.test", "/api/chat", `{"message":"hello","session":"agent:main:work"}`, isJSON)
	if resp.StatusCode != 200 || !strings.Contains(body, `"reply":"You said: hello"`) {
		t.Errorf("cold: %s %s", resp.Status, body)
	}
	if !slices.Equal(alice.Sessions(), []string{"agent:main:work"}) {
		t.Errorf("sessions = %q", alice.Sessions())
	}
	for name, c := range map[string]struct{ body, accept string }{"Accept": {`{"message":"hello"}`, "text/event-stream"}, "stream": {`{"message":"hello","stream":true}`, "*/*"}} {
		resp := s.open("POST", "alice.claw.test", "/api/chat", c.body, isJSON, "Accept: "+c.accept)
		events := read(t, resp.Body)
		var names []string
		text := ""
		for {
			event, data := events.next()
			if event == "" {
				break
			}
			names = append(names, event)
			var d struct{ Text, Reply string }
			if err := json.Unmarshal([]byte(data), &d); err != nil {
				t.Fatal(err)
			}
			text += d.Text
			if event == "final" && d.Reply != text {
				t.Errorf("%s: the pieces make %q, the reply is %q", name, text, d.Reply)
			}
		}
		if want := []string{"delta", "delta", "delta", "final"}; !slices.Equal(names, want) {
			t.Errorf("%s: events %q, want %q", name, names, want)
		}
	}
}

func TestChatFails(t *testing.T) {
	s := start(t, dev, time.Second)
	s.land("alice", chattest.New(t, "alice"))
	s.land("bob", chattest.New(t, "another")) // it refuses bob
	for _, c := range []struct {
		host, body, kind string
		status           int
		mention          string
	}{
		{"alice", `{"message":"  "}`, isJSON, 400, "message"},
		{"alice", `{`, isJSON, 400, "message"},
		{"alice", `{"message":"` + strings.Repeat("x", maxChat) + `"}`, isJSON, 400, "1 MB"},
		{"alice", `{"message":"hello"}`, "Content-Type: text/plain", 415, "application/json"},
		{"alice", `{"message":"FAIL"}`, isJSON, 502, "the model has no key"},
		{"alice", `{"message":"REFUSE"}`, isJSON, 502, "gateway suspension"},
		{"alice", `{"message":"x","session":"agent:nobody:main"}`, isJSON, 400, "no longer exists"},
		{"alice", `{"message":"VANISH"}`, isJSON, 502, "broke"},
		{"bob", `{"message":"hello"}`, isJSON, 502, "did not let the router in"},
	} {
		resp, body := s.ask("POST", c.host+".claw.test", "/api/chat", c.body, c.kind)
		if resp.StatusCode != c.status || !strings.Contains(body, c.mention) || resp.Header.Get("Content-Type") != "application/problem+json" {
			t.Errorf("%.60s: %s %s, want %d with %q", c.body, resp.Status, body, c.status, c.mention)
		}
	}
	stream := read(t, s.open("POST", "alice.claw.test", "/api/chat", `{"message":"FAIL","stream":true}`, isJSON).Body)
	if name, data := stream.next(); name != "error" || !strings.Contains(data, "the model has no key") {
		t.Errorf("streamed: %q %s, want an error", name, data)
	}
}
