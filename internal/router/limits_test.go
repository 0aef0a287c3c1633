package router

import (
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"openclaw-sandbox/internal/catalog"
	"openclaw-sandbox/internal/chat/chattest"
	"openclaw-sandbox/internal/identity"
)

// limited is a stack with limits, and which of them were told.
type limited struct {
	*stack
	mu   sync.Mutex
	told []string
}

func startLimited(t *testing.T, m identity.Method, l Limits) *limited {
	t.Helper()
	s := &limited{}
	l.Refused = func(limit string) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.told = append(s.told, limit)
	}
	s.stack = startWith(t, m, time.Second, func(rt *Router) { rt.config.Limits, rt.rates = l, newRates(l) })
	return s
}

func (s *limited) want(t *testing.T, limits ...string) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if !slices.Equal(s.told, limits) {
		t.Errorf("told %v, want %v", s.told, limits)
	}
}

func TestRateOfAnAddress(t *testing.T) {
	s := startLimited(t, dev, Limits{AddressPerMinute: 1, Burst: 2})
	s.land("alice", chattest.New(t, "alice"))
	for range 2 {
		if resp, _ := s.ask("GET", "evil.test", "/", ""); resp.StatusCode != http.StatusMisdirectedRequest {
			t.Errorf("within the limit: %s", resp.Status)
		}
	}
	resp, body := s.ask("GET", "alice.claw.test", "/x", "")
	if resp.StatusCode != 429 || resp.Header.Get("Retry-After") != "60" || resp.Header.Get("Content-Type") != "application/problem+json" || !strings.Contains(body, "your address") {
		t.Errorf("beyond it: %s %v %s", resp.Status, resp.Header, body)
	}
	if resp, body := s.ask("GET", "alice.claw.test", "/x", "", page); resp.StatusCode != 429 || !strings.Contains(body, "<h1") {
		t.Errorf("a person sees %s %.80s, want a page", resp.Status, body)
	}
	for _, path := range []string{"/health", "/_sandbox/healthz", "/_sandbox/readyz"} {
		if resp, _ := s.ask("GET", "10.0.0.1", path, ""); resp.StatusCode != 200 {
			t.Errorf("%s: %s", path, resp.Status)
		}
	}
	s.want(t, LimitAddress, LimitAddress)
}

func TestRateOfAUser(t *testing.T) {
	s := startLimited(t, tokens(t), Limits{UserPerMinute: 1, Burst: 1})
	s.land("alice", chattest.New(t, "alice"))
	const alice = "Authorization: Bearer t-alice"
	for _, c := range []struct {
		header string
		status int
	}{{alice, 200}, {alice, 429}, {"Authorization: Bearer wrong", 401}, {"Authorization: Bearer t-ops", 200}, {alice, 429}} {
		if resp, _ := s.ask("GET", "alice.claw.test", "/api/status", "", c.header); resp.StatusCode != c.status {
			t.Errorf("%s: %s, want %d", c.header, resp.Status, c.status)
		}
	}
	s.want(t, LimitUser, LimitUser)
}

// With dev, the user is whoever's sandbox is meant.
func TestRateOfDev(t *testing.T) {
	s := startLimited(t, dev, Limits{UserPerMinute: 1, Burst: 1})
	for host, want := range map[string]int{"alice.claw.test": 200, "bob.claw.test": 200} {
		if resp, _ := s.ask("GET", host, "/api/status", ""); resp.StatusCode != want {
			t.Errorf("%s: %s", host, resp.Status)
		}
	}
}

func TestMaxBody(t *testing.T) {
	s := startLimited(t, dev, Limits{MaxBody: 10})
	gateway := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, err := io.ReadAll(r.Body)
		if err == nil {
			w.Write(b)
		}
	}))
	t.Cleanup(gateway.Close)
	s.cluster.mu.Lock()
	s.users["alice"] = catalog.Instance{User: "alice", Generation: "g", Addr: gateway.Listener.Addr().String()}
	s.cluster.mu.Unlock()
	for body, want := range map[string]int{"ten bytes!": 200, "eleven byte": 413, strings.Repeat("x", 1<<20): 413} {
		for _, chunks := range []bool{false, true} {
			var from io.Reader = strings.NewReader(body)
			if chunks {
				from = struct{ io.Reader }{from}
			}
			r, err := http.NewRequest("POST", s.url+"/x", from)
			if err != nil {
				t.Fatal(err)
			}
			r.Host = "alice.claw.test"
			resp, err := http.DefaultTransport.RoundTrip(r)
			if err != nil {
				t.Fatal(err)
			}
			got, _ := io.ReadAll(resp.Body)
			resp.Body.Close()
			if resp.StatusCode != want || want == 200 && string(got) != body || want == 413 && !strings.Contains(string(got), "10 B") {
				t.Errorf("%d bytes, in chunks %t: %s %.80s; want %d", len(body), chunks, resp.Status, got, want)
			}
		}
	}
	s.want(t, LimitBody, LimitBody, LimitBody, LimitBody)
}

func TestWebSocketsOfAUser(t *testing.T) {
	s := startLimited(t, dev, Limits{WebSockets: 2})
	s.land("alice", chattest.New(t, "alice"))
	s.land("bob", chattest.New(t, "bob"))
	dial := func(user string) (*websocket.Conn, int) {
		t.Helper()
		conn, resp, err := websocket.DefaultDialer.Dial("ws"+strings.TrimPrefix(s.url, "http"), http.Header{"Host": {user + ".claw.test"}})
		if resp == nil {
			t.Fatal(err)
		}
		if err == nil {
			t.Cleanup(func() { conn.Close() })
		}
		return conn, resp.StatusCode
	}
	first, a := dial("alice")
	_, b := dial("alice")
	_, c := dial("alice")
	_, other := dial("bob")
	if a != 101 || b != 101 || c != 429 || other != 101 {
		t.Fatalf("answers %d %d %d, another user %d; want 101 101 429 101", a, b, c, other)
	}
	s.want(t, LimitWebSockets)
	// What is no upgrade does not count.
	if resp, _ := s.ask("GET", "alice.claw.test", "/x", ""); resp.StatusCode != 200 {
		t.Errorf("a request: %s", resp.Status)
	}
	first.Close()
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
		if _, again := dial("alice"); again == 101 {
			break
		}
		if time.Now().After(end) {
			t.Fatal("refused, though one has gone")
		}
	}
}
