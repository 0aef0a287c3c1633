package router

import (
	"encoding/json"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"openclaw-sandbox/internal/chat/chattest"
	"openclaw-sandbox/internal/sandbox"
)

// dead is a stack where alice's gateway has died: its route is there, its port closed.
func dead(t *testing.T, hold time.Duration) (*stack, *chattest.Gateway) {
	t.Helper()
	s := start(t, dev, hold)
	g := chattest.New(t, "alice")
	s.land("alice", g)
	g.Close()
	return s, g
}

// again starts a gateway at the address of one that died, as a task that is started
// again in its place.
func again(t *testing.T, g *chattest.Gateway) {
	t.Helper()
	l, err := net.Listen("tcp", g.Addr())
	if err != nil {
		t.Fatal(err)
	}
	srv := &httptest.Server{Listener: l, Config: &http.Server{Handler: g}}
	srv.Start()
	t.Cleanup(srv.Close)
}

// dying takes connections at g's address and ends them after answer, once or for
// ever. It returns how many there were.
func dying(t *testing.T, g *chattest.Gateway, answer string, once bool) *atomic.Int32 {
	t.Helper()
	l, err := net.Listen("tcp", g.Addr())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	var n atomic.Int32
	go func() { // ends with the listener
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			n.Add(1)
			if once {
				l.Close()
			}
			conn.Read(make([]byte, 4096)) // all of it: else the end would be a reset, and the answer lost
			conn.Write([]byte(answer))
			conn.Close()
		}
	}()
	return &n
}

// A gateway dies with a harmless request in its hands: the request is sent once more.
func TestDiesWithARequest(t *testing.T) {
	s, g := dead(t, 20*time.Second)
	dying(t, g, "", true)
	got := make(chan int, 1)
	go func() { resp, _ := s.ask("GET", "alice.claw.test", "/startupz", ""); got <- resp.StatusCode }()
	s.woken(t, "alice")
	again(t, g)
	s.land("alice", g)
	if status := <-got; status != http.StatusOK {
		t.Errorf("status %d", status)
	}
}

// A request of which every gateway dies is not sent for ever, and one that may have
// done something is not sent twice.
func TestDiesOfARequest(t *testing.T) {
	for method, want := range map[string]int32{"GET": 2, "POST": 1} {
		t.Run(method, func(t *testing.T) {
			s, g := dead(t, 20*time.Second)
			n := dying(t, g, "", false)
			got := make(chan int, 1)
			go func() { resp, _ := s.ask(method, "alice.claw.test", "/x", ""); got <- resp.StatusCode }()
			if want > 1 {
				s.woken(t, "alice")
				s.land("alice", g)
			}
			if status := <-got; status != http.StatusBadGateway || n.Load() != want {
				t.Errorf("status %d after %d connections, want 502 after %d", status, n.Load(), want)
			}
		})
	}
}

// A page is not held: it looks again by itself.
func TestDiesWithAPage(t *testing.T) {
	s, g := dead(t, 20*time.Second)
	dying(t, g, "", false)
	if resp, body := s.ask("GET", "alice.claw.test", "/", "", page); resp.StatusCode != 502 || !strings.Contains(body, `http-equiv="refresh"`) || s.wakes != 0 {
		t.Errorf("%s after %d wakes: %.200s, want a page that looks again", resp.Status, s.wakes, body)
	}
}

// Whatever waits for a gateway gets its answer when the gateway is back, and
// nothing is sent twice.
func TestHeldWhileTheGatewayIsAway(t *testing.T) {
	for name, back := range map[string]func(t *testing.T, s *stack, g *chattest.Gateway){
		"in its place": func(t *testing.T, s *stack, g *chattest.Gateway) { again(t, g); s.land("alice", g) },
		"elsewhere":    func(t *testing.T, s *stack, g *chattest.Gateway) { s.land("alice", chattest.New(t, "alice")) },
		"late": func(t *testing.T, s *stack, g *chattest.Gateway) {
			s.land("alice", g) // a start that ended too early
			for s.woken(t, "alice"); s.count(&s.evictions) < 2; time.Sleep(time.Millisecond) {
			}
			again(t, g)
			s.land("alice", g)
		},
	} {
		t.Run(name, func(t *testing.T) {
			for kind, ask := range map[string]func(s *stack) int{
				"call": func(s *stack) int {
					resp, _ := s.ask("GET", "alice.claw.test", "/startupz", "")
					return resp.StatusCode
				},
				"call + body": func(s *stack) int { resp, _ := s.ask("POST", "alice.claw.test", "/x", "body"); return resp.StatusCode },
				"chat": func(s *stack) int {
					resp, body := s.ask("POST", "alice.claw.test", "/api/chat", `{"message":"x"}`, isJSON)
					if !strings.Contains(body, "You said: x") {
						t.Errorf("the reply is %s", body)
					}
					return resp.StatusCode
				},
				"upgrade": func(s *stack) int {
					conn, resp, err := websocket.DefaultDialer.Dial("ws"+strings.TrimPrefix(s.url, "http"), http.Header{"Host": {"alice.claw.test"}})
					if err != nil {
						t.Error(err)
						return 0
					}
					conn.Close()
					return resp.StatusCode - 101 + 200
				},
			} {
				t.Run(kind, func(t *testing.T) {
					s, g := dead(t, 20*time.Second)
					got := make(chan int, 1)
					go func() { got <- ask(s) }()
					s.woken(t, "alice")
					back(t, s, g)
					if status := <-got; status != http.StatusOK {
						t.Errorf("status %d", status)
					}
				})
			}
		})
	}
}

func TestGatewayStaysAway(t *testing.T) {
	s, _ := dead(t, 100*time.Millisecond)
	resp, body := s.ask("GET", "alice.claw.test", "/", "", "Sec-Fetch-Mode: cors", "Sec-Fetch-Site: same-origin")
	if resp.StatusCode != 503 || resp.Header.Get("Retry-After") == "" || !strings.Contains(body, "takes no connections") {
		t.Errorf("a background request: %s %s", resp.Status, body)
	}
	if _, ok := s.Lookup("alice"); !ok || s.count(&s.wakes) != 0 {
		t.Errorf("a background request woke, or took the route away: %d, %t", s.wakes, ok)
	}
	for _, ask := range [][4]string{{"GET", "/v1/models", ""}, {"POST", "/api/chat", `{"message":"x"}`}} {
		s.land("alice", s.gone(t))
		resp, body := s.ask(ask[0], "alice.claw.test", ask[1], ask[2], isJSON)
		var p problem
		if err := json.Unmarshal([]byte(body), &p); err != nil || resp.StatusCode != 502 || p.Status != 502 || p.Detail == "" || resp.Header.Get("Retry-After") == "" {
			t.Errorf("%s: %s %s (%v)", ask[1], resp.Status, body, err)
		}
	}
	s.land("alice", s.gone(t))
	if resp, body := s.ask("GET", "alice.claw.test", "/", "", page); resp.StatusCode != 503 || !strings.Contains(body, "Waking your sandbox") {
		t.Errorf("a page: %s %.200s, want the progress page", resp.Status, body)
	}
	if _, body := s.ask("GET", "alice.claw.test", "/", "", "Sec-Fetch-Mode: cors"); !strings.Contains(body, "Still starting") {
		t.Errorf("a background request meanwhile: %s", body)
	}
	s.woken(t, "alice").fail(&sandbox.Failure{Reason: sandbox.ReasonUnanswered, Message: "Its port is closed."})
	for _, header := range []string{page, isJSON} {
		if resp, body := s.ask("GET", "alice.claw.test", "/", "", header); resp.StatusCode != 502 || !strings.Contains(body, "does not answer") || !strings.Contains(body, "Its port is closed.") {
			t.Errorf("after the wait failed: %s %.400s", resp.Status, body)
		}
	}
}

// A gateway that answers nothing that can be passed on is not tried again.
func TestGatewayThatBreaksOff(t *testing.T) {
	s, g := dead(t, 20*time.Second)
	dying(t, g, "nonsense\r\n\r\n", false)
	if resp, body := s.ask("GET", "alice.claw.test", "/v1/models", ""); resp.StatusCode != 502 {
		t.Errorf("%s %s", resp.Status, body)
	}
	if resp, body := s.ask("GET", "alice.claw.test", "/", "", page); resp.StatusCode != 502 || !strings.Contains(body, `http-equiv="refresh"`) {
		t.Errorf("%s %.200s, want a page that looks again", resp.Status, body)
	}
	if s.wakes+s.evictions != 0 {
		t.Errorf("%d wakes, %d evictions", s.wakes, s.evictions)
	}
}

// What clients do is told with its kind; what the router answers itself is not.
func TestActivity(t *testing.T) {
	s := start(t, dev, time.Second)
	s.land("alice", chattest.New(t, "alice"))
	s.ask("GET", "alice.claw.test", "/v1/models", "")
	s.ask("GET", "alice.claw.test", "/", "", page)
	s.ask("GET", "alice.claw.test", "/x.js", "", "Sec-Fetch-Mode: no-cors", "Sec-Fetch-Site: same-origin")
	s.ask("GET", "alice.claw.test", "/api/status", "")
	s.ask("POST", "alice.claw.test", "/api/chat", `{"message":"x"}`, isJSON)
	s.ask("GET", "bob.claw.test", "/", "", "Sec-Fetch-Mode: cors", "Sec-Fetch-Site: same-origin")
	want := "alice call, alice page, alice background, alice call"
	s.mu.Lock()
	defer s.mu.Unlock()
	if got := strings.Join(s.acts, ", "); got != want {
		t.Errorf("told %s; want %s", got, want)
	}
}
