package router

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"openclaw-sandbox/internal/chat/chattest"
	"openclaw-sandbox/internal/identity"
	"openclaw-sandbox/internal/sandbox"
)

const (
	page   = "Accept: text/html"
	isJSON = "Content-Type: application/json"
)

var dev = identity.Dev{Self: "me"}

func tokens(t *testing.T) identity.Tokens {
	t.Helper()
	var ts identity.Tokens
	for _, c := range [][3]string{{"t-alice", "alice", "user"}, {"t-ops", "ops", "admin"}} {
		sum := sha256.Sum256([]byte(c[0]))
		tok, err := identity.ParseToken(hex.EncodeToString(sum[:]), c[1], c[2])
		if err != nil {
			t.Fatal(err)
		}
		ts = append(ts, tok)
	}
	return ts
}

func TestProxies(t *testing.T) {
	s := start(t, dev, time.Second)
	alice, me := chattest.New(t, "alice"), chattest.New(t, "me")
	s.land("alice", alice)
	s.land("me", me)
	for _, c := range []struct{ host, path, want string }{
		{"alice.claw.test", "/chat?session=1", "Control UI of alice</title>/chat?session=1"},
		{"claw.test", "/u/alice/chat?x", "Control UI of alice</title>/chat?x"},
		{"claw.test", "/chat", "Control UI of me</title>/chat"},
		{"alice.claw.test", "/api/statuses", "Control UI of alice</title>/api/statuses"}, // only our own names are ours
	} {
		if resp, body := s.ask("GET", c.host, c.path, "", page); resp.StatusCode != http.StatusOK || !strings.Contains(body, c.want) {
			t.Errorf("%s%s: %s %s, want %q", c.host, c.path, resp.Status, body, c.want)
		}
	}
	s.ask("GET", "alice.claw.test", "/", "", "X-Forwarded-User: bob", "Forwarded: for=1.2.3.4")
	if h := alice.Header(); h.Get("X-Forwarded-User") != "alice" || h.Get("Forwarded") != "" || h.Get("Host") != "alice.claw.test" {
		t.Errorf("the gateway saw %v", h)
	}
	if s.wakes != 0 {
		t.Errorf("%d starts of running sandboxes", s.wakes)
	}
}

func TestRefusals(t *testing.T) {
	s := start(t, tokens(t), time.Second)
	ga := chattest.New(t, "alice")
	s.land("alice", ga)
	s.land("bob", chattest.New(t, "bob"))
	s.land("ops", chattest.New(t, "ops"))
	const alice, ops = "Authorization: Bearer t-alice", "Authorization: Bearer t-ops"
	for name, c := range map[string]struct {
		method, host, path string
		header             []string
		want               int
	}{
		"own":                       {"GET", "alice.claw.test", "/", []string{alice}, 200},
		"my own":                    {"GET", "claw.test", "/", []string{alice}, 200},
		"own by path":               {"GET", "claw.test", "/u/alice/", []string{alice}, 200},
		"admin":                     {"GET", "bob.claw.test", "/", []string{ops}, 200},
		"no identity":               {"GET", "alice.claw.test", "/", nil, 401},
		"wrong token":               {"GET", "alice.claw.test", "/", []string{"Authorization: Bearer no"}, 401},
		"a forged user":             {"GET", "alice.claw.test", "/", []string{"X-Forwarded-User: alice"}, 401},
		"another's":                 {"GET", "bob.claw.test", "/", []string{alice}, 403},
		"another's by path":         {"GET", "claw.test", "/u/bob/", []string{alice}, 403},
		"another's status":          {"GET", "bob.claw.test", "/api/status", []string{alice}, 403},
		"another's start":           {"POST", "bob.claw.test", "/_sandbox/start", []string{alice}, 403},
		"another's events":          {"GET", "bob.claw.test", "/_sandbox/events", []string{alice}, 403},
		"bad id":                    {"GET", "a_b.claw.test", "/", []string{alice}, 400},
		"bad id by path":            {"GET", "claw.test", "/u/A/", []string{alice}, 400},
		"unknown host":              {"GET", "evil.test", "/", []string{alice}, 421},
		"no slash":                  {"GET", "claw.test", "/u/alice?x=1", []string{alice, page}, 308},
		"cross-site post":           {"POST", "alice.claw.test", "/api/chat", []string{alice, "Sec-Fetch-Site: cross-site"}, 403},
		"sister's post":             {"POST", "alice.claw.test", "/_sandbox/start", []string{alice, "Sec-Fetch-Site: same-site"}, 403},
		"foreign origin's post":     {"POST", "alice.claw.test", "/_sandbox/start", []string{alice, "Origin: http://evil.test"}, 403},
		"foreign origin's socket":   {"GET", "alice.claw.test", "/", []string{alice, "Origin: http://evil.test", "Connection: Upgrade", "Upgrade: websocket"}, 403},
		"sister's socket":           {"GET", "alice.claw.test", "/", []string{alice, "Origin: http://bob.claw.test", "Connection: Upgrade", "Upgrade: websocket"}, 403},
		"socket of a data: page":    {"GET", "alice.claw.test", "/", []string{alice, "Origin: null", "Connection: Upgrade", "Upgrade: websocket"}, 403},
		"foreign page's events":     {"GET", "alice.claw.test", "/_sandbox/events", []string{alice, "Sec-Fetch-Site: cross-site"}, 403},
		"nothing there":             {"GET", "alice.claw.test", "/_sandbox/nothing", []string{alice}, 404},
		"start is a POST":           {"GET", "alice.claw.test", "/_sandbox/start", []string{alice}, 405},
		"chat is a POST":            {"GET", "alice.claw.test", "/api/chat", []string{alice}, 405},
		"health needs no identity":  {"GET", "anything", "/health", nil, 200},
		"healthz needs no identity": {"GET", "anything", "/_sandbox/healthz", nil, 200},
	} {
		t.Run(name, func(t *testing.T) {
			resp, body := s.ask(c.method, c.host, c.path, "", c.header...)
			if resp.StatusCode != c.want {
				t.Errorf("%s: %s, want %d", resp.Status, body, c.want)
			}
			if kind := resp.Header.Get("Content-Type"); c.want >= 400 {
				var p problem
				if err := json.Unmarshal([]byte(body), &p); err != nil || kind != "application/problem+json" || p.Status != c.want || p.Title == "" || p.Detail == "" {
					t.Errorf("%s %s (%v), want a problem document", kind, body, err)
				}
			}
			if strings.Contains(body, "t-alice") {
				t.Error("the answer bears the token")
			}
		})
	}
	if resp, _ := s.ask("GET", "claw.test", "/u/alice?x=1", "", alice, page); resp.Header.Get("Location") != "/u/alice/?x=1" {
		t.Errorf("Location = %q", resp.Header.Get("Location"))
	}
	s.ask("GET", "alice.claw.test", "/", "", alice)
	if got := ga.Header().Get("Authorization"); got != "" {
		t.Error("the router's token travelled on to the gateway")
	}
	if resp, body := s.ask("GET", "bob.claw.test", "/", "", page, alice); resp.StatusCode != 403 || !strings.Contains(body, "<h1") {
		t.Errorf("a person sees %s %.80s, want a page", resp.Status, body)
	}
	if s.wakes != 0 {
		t.Errorf("refusals began %d starts", s.wakes)
	}
}

func TestNavigationGetsTheProgressPage(t *testing.T) {
	s := start(t, dev, time.Second)
	resp, body := s.ask("GET", "alice.claw.test", "/chat?a=1&b=%22%3E", "", page)
	if resp.StatusCode != http.StatusServiceUnavailable || resp.Header.Get("Retry-After") == "" || !strings.Contains(body, "Waking your sandbox") {
		t.Errorf("%s %v %.200s, want 503 and the page", resp.Status, resp.Header, body)
	}
	if !strings.Contains(body, `value="/chat?a=1&amp;b=%22%3E"`) {
		t.Error("the page forgot what was asked for")
	}
	if _, body = s.ask("GET", "claw.test", "/u/alice/x", "", page); !strings.Contains(body, `action="/u/alice/_sandbox/start"`) || !strings.Contains(body, `value="/u/alice/x"`) {
		t.Error("by path, the page's addresses lack the path")
	}
	if s.wakes != 1 {
		t.Errorf("%d starts, want 1", s.wakes)
	}
	s.woken(t, "alice").fail(&sandbox.Failure{Reason: sandbox.ReasonStateCorrupt, Message: "Segment 3 is damaged."})
	resp, body = s.ask("GET", "alice.claw.test", "/", "", page)
	if resp.StatusCode != http.StatusInternalServerError || !strings.Contains(body, "Segment 3 is damaged.") || strings.Contains(body, "http-equiv") {
		t.Errorf("after a failure: %s %.300s, want 500, the reason, and no reload", resp.Status, body)
	}
}

func TestWhoMayNotWake(t *testing.T) {
	s := start(t, dev, time.Second)
	for _, header := range [][]string{
		{"Sec-Fetch-Mode: cors", "Sec-Fetch-Site: same-origin"},
		{"Connection: Upgrade", "Upgrade: websocket", "Origin: http://alice.claw.test"},
		{page, "Sec-Fetch-Mode: navigate", "Sec-Purpose: prefetch"},
	} {
		resp, body := s.ask("GET", "alice.claw.test", "/", "", header...)
		if resp.StatusCode != http.StatusServiceUnavailable || resp.Header.Get("Retry-After") == "" {
			t.Errorf("%v: %s %s, want 503 with Retry-After", header, resp.Status, body)
		}
	}
	for _, path := range []string{"/api/status", "/_sandbox/status"} {
		if resp, body := s.ask("GET", "alice.claw.test", path, ""); resp.StatusCode != 200 || !strings.Contains(body, `"stopped"`) {
			t.Errorf("%s: %s %s", path, resp.Status, body)
		}
	}
	if s.wakes != 0 {
		t.Errorf("%d starts, want none", s.wakes)
	}
}

func TestHeldCallers(t *testing.T) {
	s := start(t, dev, 20*time.Second)
	alice := chattest.New(t, "alice")
	got := make(chan int, 2)
	go func() { resp, _ := s.ask("GET", "alice.claw.test", "/startupz", ""); got <- resp.StatusCode }()
	go func() {
		conn, resp, err := websocket.DefaultDialer.Dial("ws"+strings.TrimPrefix(s.url, "http"), http.Header{"Host": {"alice.claw.test"}})
		if err == nil {
			conn.Close()
		}
		got <- resp.StatusCode
	}()
	s.woken(t, "alice")
	s.land("alice", alice)
	if a, b := <-got, <-got; a+b != http.StatusOK+http.StatusSwitchingProtocols {
		t.Errorf("the held call and upgrade got %d and %d, want 200 and 101", a, b)
	}

	for reason, want := range map[sandbox.Reason]struct {
		status int
		retry  string
		after  time.Duration
	}{sandbox.ReasonNoCapacity: {503, "10", 0}, sandbox.ReasonNotReady: {503, "5", 2 * time.Second}, sandbox.ReasonExited: {503, "40", 40 * time.Second},
		sandbox.ReasonConfig: {500, "", 0}, sandbox.ReasonLimit: {503, "31", 30*time.Second + 1}, sandbox.ReasonTooOften: {429, "600", 10 * time.Minute}, sandbox.ReasonQueueFull: {429, "25", 25 * time.Second}} {
		s.Wake("bob", true).(*flight).fail(&sandbox.Failure{Reason: reason, Message: "Because.", RetryAfter: want.after})
		// A person's page says as much as a program's answer.
		if resp, body := s.ask("GET", "bob.claw.test", "/", "", "Accept: text/html"); resp.StatusCode != want.status || resp.Header.Get("Retry-After") != want.retry || !strings.Contains(body, "Because.") {
			t.Errorf("%s: a page with %s, Retry-After %q; want %v", reason, resp.Status, resp.Header.Get("Retry-After"), want)
		}
		resp, body := s.ask("GET", "bob.claw.test", "/", "")
		if resp.StatusCode != want.status || resp.Header.Get("Retry-After") != want.retry || !strings.Contains(body, string(reason)) || !strings.Contains(body, "Because.") {
			t.Errorf("%s: %s, Retry-After %q, %s; want %v", reason, resp.Status, resp.Header.Get("Retry-After"), body, want)
		}
	}
}

func TestHoldTimeout(t *testing.T) {
	s := start(t, dev, time.Millisecond)
	resp, body := s.ask("GET", "alice.claw.test", "/v1/models", "")
	if resp.StatusCode != 503 || resp.Header.Get("Retry-After") != "3" || !strings.Contains(body, "Still starting") {
		t.Errorf("%s %v %s", resp.Status, resp.Header, body)
	}
}

func TestReadiness(t *testing.T) {
	s := start(t, dev, time.Second)
	for _, c := range []struct {
		do   func()
		want int
	}{{func() {}, 200}, {func() { s.ready = false }, 503}, {func() { s.ready = true; close(s.drain) }, 503}} {
		c.do()
		if resp, body := s.ask("GET", "10.0.0.1:8080", "/_sandbox/readyz", ""); resp.StatusCode != c.want {
			t.Errorf("%s %s, want %d", resp.Status, body, c.want)
		}
	}
	if resp, _ := s.ask("GET", "10.0.0.1:8080", "/_sandbox/healthz", ""); resp.StatusCode != 200 {
		t.Errorf("healthz while draining: %s", resp.Status)
	}
}

// What the router answers itself ends the connection of a request in chunks, too.
func TestChunkedRequestIsTheLast(t *testing.T) {
	s := start(t, dev, time.Second)
	s.land("alice", chattest.New(t, "alice"))
	for _, host := range []string{"evil.test", "alice.claw.test"} {
		r, err := http.NewRequest("POST", s.url+"/x", struct{ io.Reader }{strings.NewReader("body")}) // of no known length
		if err != nil {
			t.Fatal(err)
		}
		r.Host = host
		resp, err := http.DefaultTransport.RoundTrip(r)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if !resp.Close {
			t.Errorf("%s: %s, and the connection stays", host, resp.Status)
		}
	}
}
