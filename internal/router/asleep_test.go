package router

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"openclaw-sandbox/internal/activity"
	"openclaw-sandbox/internal/catalog"
	"openclaw-sandbox/internal/chat/chattest"
	"openclaw-sandbox/internal/sandbox"
)

// asleep is a stack where alice's sandbox is frozen.
func asleep(t *testing.T) (*stack, *chattest.Gateway) {
	s := start(t, dev, 20*time.Second)
	g := chattest.New(t, "alice")
	s.mu.Lock()
	s.asleep["alice"] = catalog.Instance{User: "alice", Generation: "g-alice", Addr: g.Addr(), Node: "n1"}
	s.mu.Unlock()
	return s, g
}

// Whoever asks for something of a frozen sandbox waits until it has gone on, a
// forgotten tab too: that costs next to nothing, and does not keep it up.
func TestFrozenSandboxGoesOn(t *testing.T) {
	for name, header := range map[string]string{"call": "X: y", "page": page, "background": "Sec-Fetch-Mode: cors"} {
		t.Run(name, func(t *testing.T) {
			s, g := asleep(t)
			got := make(chan string, 1)
			go func() {
				resp, body := s.ask("GET", "alice.claw.test", "/chat", "", header)
				got <- resp.Status + " " + body
			}()
			s.woken(t, "alice")
			s.land("alice", g)
			if answer := <-got; !strings.HasPrefix(answer, "200") || !strings.Contains(answer, "Control UI of alice") {
				t.Errorf("%.200s", answer)
			}
			if s.count(&s.wakes) != 1 {
				t.Errorf("%d wakes", s.wakes)
			}
		})
	}
}

// A thaw that takes its time shows a person the progress.
func TestSlowThaw(t *testing.T) {
	s, _ := asleep(t)
	if resp, body := s.ask("GET", "alice.claw.test", "/chat", "", page); resp.StatusCode != http.StatusServiceUnavailable || !strings.Contains(body, "Waking your sandbox") {
		t.Errorf("%s %.200s", resp.Status, body)
	}
}

func TestFrozenStatus(t *testing.T) {
	s, _ := asleep(t)
	if _, body := s.ask("GET", "alice.claw.test", "/api/status", ""); !strings.Contains(body, `"frozen"`) || !strings.Contains(body, `"g-alice"`) {
		t.Error(body)
	}
	if s.count(&s.wakes) != 0 {
		t.Error("a status woke it")
	}
}

// A tab whose sandbox goes away while a person uses it may wake it; a minute later
// it is a forgotten one.
func TestTabInUseMayWake(t *testing.T) {
	s := start(t, dev, 20*time.Second)
	s.clients.Note("alice", activity.Message)
	got := make(chan int, 1)
	go func() {
		resp, _ := s.ask("GET", "alice.claw.test", "/x", "", "Sec-Fetch-Mode: cors")
		got <- resp.StatusCode
	}()
	s.woken(t, "alice")
	s.land("alice", chattest.New(t, "alice"))
	if status := <-got; status != http.StatusOK {
		t.Errorf("status %d", status)
	}
}

// Requests are counted while they are answered, those of a page by itself apart.
func TestRequestsAreCounted(t *testing.T) {
	s := start(t, dev, 20*time.Second)
	for user, header := range map[sandbox.User]string{"alice": "X: y", "bob": "Sec-Fetch-Mode: cors"} {
		g := chattest.New(t, string(user))
		s.land(user, g)
		s.ask("GET", string(user)+".claw.test", "/x", "", header)
		m := s.clients.Mark(user)
		if m.Clients != 0 || m.Working != 0 || m.Waiting != 0 || m.Left.IsZero() {
			t.Errorf("%s after the answer: %+v", user, m)
		}
		if (m.Kind == activity.Call) != (user == "alice") {
			t.Errorf("%s: the last activity was %s", user, m.Kind)
		}
	}
	s.ask("GET", "carol.claw.test", "/api/status", "")
	if m := s.clients.Mark("carol"); m != (activity.Mark{}) {
		t.Errorf("a status is not a client: %+v", m)
	}
	done := make(chan bool)
	go func() { defer close(done); s.ask("GET", "dora.claw.test", "/x", "") }()
	s.woken(t, "dora")
	if m := s.clients.Mark("dora"); m.Clients != 1 || m.Working != 1 || m.Waiting != 1 {
		t.Errorf("while it is held: %+v", m)
	}
	s.land("dora", chattest.New(t, "dora"))
	<-done
}
