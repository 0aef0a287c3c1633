package router

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"openclaw-sandbox/internal/catalog"
	"openclaw-sandbox/internal/identity"
	"openclaw-sandbox/internal/launch"
	"openclaw-sandbox/internal/proxy"
	"openclaw-sandbox/internal/sandbox"
)

// fakeCatalog is the process boundary: what Consul knows.
type fakeCatalog map[sandbox.User]catalog.Instance

func (f fakeCatalog) Lookup(u sandbox.User) (catalog.Instance, bool) { i, ok := f[u]; return i, ok }
func (f fakeCatalog) Ready() bool                                    { return true }
func (f fakeCatalog) Age() time.Duration                             { return 0 }

// fakeLauncher counts wakes; nothing ever gets ready.
type fakeLauncher struct{ woken []sandbox.User }

func (f *fakeLauncher) Wake(u sandbox.User, _ bool) *launch.Flight {
	f.woken = append(f.woken, u)
	return launch.Stuck(u)
}
func (f *fakeLauncher) Flight(sandbox.User) (*launch.Flight, bool) { return nil, false }

func tokens(t *testing.T) identity.Tokens {
	t.Helper()
	sum := sha256.Sum256([]byte("secret"))
	tok, err := identity.ParseToken(hex.EncodeToString(sum[:]), "alice", "user")
	if err != nil {
		t.Fatal(err)
	}
	return identity.Tokens{tok}
}

type setup struct {
	router   *Router
	launcher *fakeLauncher
	gateway  *httptest.Server
	seen     chan *http.Request
}

// start makes a router in front of a gateway of alice that reports what it gets.
func start(t *testing.T, m identity.Method) *setup {
	t.Helper()
	s := &setup{launcher: &fakeLauncher{}, seen: make(chan *http.Request, 10)}
	s.gateway = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.seen <- r.Clone(r.Context())
		if isUpgrade(r) {
			up := websocket.Upgrader{CheckOrigin: func(*http.Request) bool { return true }}
			c, err := up.Upgrade(w, r, nil)
			if err != nil {
				return
			}
			defer c.Close()
			kind, b, err := c.ReadMessage()
			if err == nil {
				c.WriteMessage(kind, append([]byte("echo "), b...))
			}
			return
		}
		io.WriteString(w, "from the gateway: "+r.URL.RequestURI())
	}))
	t.Cleanup(s.gateway.Close)
	log := slog.New(slog.DiscardHandler)
	cat := fakeCatalog{"alice": {User: "alice", Generation: "g1", Addr: s.gateway.Listener.Addr().String()}}
	s.router = New(Config{Domain: "localhost", HoldTimeout: 20 * time.Millisecond}, m, cat, s.launcher, func() bool { return false }, log)
	s.router.Use(proxy.New(proxy.Config{DialTimeout: time.Second, IdleTimeout: time.Second, ForwardedClient: "192.0.2.1", Scheme: "http"},
		func(proxy.Target) {}, s.router.GatewayDown, log))
	return s
}

func (s *setup) ask(method, host, path string, h http.Header) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, "http://"+host+path, nil)
	r.RemoteAddr = "127.0.0.1:1"
	for k, v := range h {
		r.Header[k] = v
	}
	w := httptest.NewRecorder()
	s.router.ServeHTTP(w, r)
	return w
}

var bearer = http.Header{"Authorization": {"Bearer secret"}}

// Whose sandbox, and may they: refused before anything is touched.
func TestWhoAndWhose(t *testing.T) {
	for name, c := range map[string]struct {
		host, path string
		header     http.Header
		status     int
	}{
		"own by host":        {"alice.localhost", "/x", bearer, 200},
		"own by path":        {"localhost:8080", "/u/alice/x", bearer, 200},
		"own by default":     {"localhost", "/x", bearer, 200},
		"own by loopback":    {"127.0.0.1:8080", "/x", bearer, 200},
		"upper case host":    {"ALICE.localhost", "/x", bearer, 200},
		"no slash":           {"localhost", "/u/alice", bearer, 308},
		"another's":          {"bob.localhost", "/x", bearer, 403},
		"another's by path":  {"localhost", "/u/bob/x", bearer, 403},
		"no token":           {"alice.localhost", "/x", nil, 401},
		"wrong token":        {"alice.localhost", "/x", http.Header{"Authorization": {"Bearer wrong"}}, 401},
		"forged user":        {"bob.localhost", "/x", http.Header{"X-Forwarded-User": {"bob"}}, 401},
		"bad user":           {"a_b.localhost", "/x", bearer, 400},
		"bad user by path":   {"localhost", "/u/A/x", bearer, 400},
		"two labels":         {"x.alice.localhost", "/x", bearer, 400},
		"another host":       {"evil.example", "/x", bearer, 421},
		"rebinding":          {"localhost.evil.example", "/x", bearer, 421},
		"cross-site POST":    {"alice.localhost", "/x", http.Header{"Authorization": {"Bearer secret"}, "Sec-Fetch-Site": {"cross-site"}}, 403},
		"unknown own path":   {"alice.localhost", "/_sandbox/secret", bearer, 404},
		"chat needs POST":    {"alice.localhost", "/api/chat", bearer, 405},
		"health":             {"alice.localhost", "/health", bearer, 200},
		"readyz on any host": {"10.1.2.3", "/_sandbox/readyz", nil, 200},
	} {
		t.Run(name, func(t *testing.T) {
			s := start(t, tokens(t))
			method := http.MethodGet
			if strings.HasPrefix(name, "cross-site") {
				method = http.MethodPost
			}
			w := s.ask(method, c.host, c.path, c.header)
			if w.Code != c.status {
				t.Errorf("%s%s: %d %s, want %d", c.host, c.path, w.Code, w.Body, c.status)
			}
			if len(s.launcher.woken) > 0 {
				t.Errorf("woke %v", s.launcher.woken)
			}
		})
	}
}

// What reaches the gateway: the router's word, and nothing of the client's.
func TestHeaders(t *testing.T) {
	s := start(t, tokens(t))
	h := http.Header{"Authorization": {"Bearer secret"}, "X-Forwarded-User": {"admin"}, "X-Forwarded-For": {"8.8.8.8"}, "X-Forwarded-Anything": {"x"},
		"Forwarded": {"for=1.1.1.1"}, "X-Real-Ip": {"9.9.9.9"}, "X-Openclaw-Scopes": {"operator.admin"}, "Tailscale-User-Login": {"root"}, "X-Mine": {"kept"}}
	if w := s.ask(http.MethodGet, "localhost:8080", "/u/alice/a%2Fb?q=1", h); w.Code != 200 {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
	got := <-s.seen
	for k, want := range map[string]string{"X-Forwarded-User": "alice", "X-Forwarded-For": "192.0.2.1", "X-Forwarded-Host": "localhost:8080", "X-Forwarded-Proto": "http",
		"X-Forwarded-Anything": "", "Forwarded": "", "X-Real-Ip": "", "X-Openclaw-Scopes": "", "Tailscale-User-Login": "", "Authorization": "", "X-Mine": "kept"} {
		if v := strings.Join(got.Header[k], ","); v != want {
			t.Errorf("%s = %q at the gateway, want %q", k, v, want)
		}
	}
	if got.Host != "localhost:8080" || got.URL.RequestURI() != "/a%2Fb?q=1" {
		t.Errorf("the gateway saw %s %s", got.Host, got.URL.RequestURI())
	}
}

// Who may wake a stopped sandbox, and what they get meanwhile.
func TestWhoMayWake(t *testing.T) {
	page := "text/html,application/xhtml+xml"
	for name, c := range map[string]struct {
		header http.Header
		wakes  bool
		html   bool
	}{
		"navigation":           {http.Header{"Sec-Fetch-Mode": {"navigate"}, "Accept": {page}}, true, true},
		"old browser":          {http.Header{"Accept": {page}}, true, true},
		"program":              {http.Header{"Accept": {"*/*"}}, true, false},
		"program's WebSocket":  {http.Header{"Upgrade": {"websocket"}, "Connection": {"Upgrade"}}, true, false},
		"page's fetch":         {http.Header{"Sec-Fetch-Mode": {"cors"}, "Accept": {"*/*"}}, false, false},
		"page's asset":         {http.Header{"Sec-Fetch-Mode": {"no-cors"}}, false, false},
		"page's WebSocket":     {http.Header{"Upgrade": {"websocket"}, "Connection": {"Upgrade"}, "Origin": {"http://bob.localhost"}}, false, false},
		"new page's WebSocket": {http.Header{"Upgrade": {"websocket"}, "Sec-Fetch-Mode": {"websocket"}, "Origin": {"http://bob.localhost"}}, false, false},
		"old page's fetch":     {http.Header{"X-Requested-With": {"XMLHttpRequest"}, "Accept": {page}}, false, false},
	} {
		t.Run(name, func(t *testing.T) {
			s := start(t, identity.Dev{Self: "me"})
			w := s.ask(http.MethodGet, "bob.localhost", "/deep/link?x=1", c.header)
			if w.Code != http.StatusServiceUnavailable || w.Header().Get("Retry-After") == "" {
				t.Errorf("%d, Retry-After %q; want 503 with one", w.Code, w.Header().Get("Retry-After"))
			}
			if (len(s.launcher.woken) > 0) != c.wakes {
				t.Errorf("woken %v, want wakes = %v", s.launcher.woken, c.wakes)
			}
			if html := strings.HasPrefix(w.Header().Get("Content-Type"), "text/html"); html != c.html {
				t.Errorf("content type %q", w.Header().Get("Content-Type"))
			}
			var p problem
			if !c.html && (json.Unmarshal(w.Body.Bytes(), &p) != nil || p.Status != 503 || p.Detail == "") {
				t.Errorf("body = %s, want problem details", w.Body)
			}
		})
	}
}

// A WebSocket goes through, and one of a page of another origin does not.
func TestWebSocket(t *testing.T) {
	s := start(t, identity.Dev{Self: "me"})
	srv := httptest.NewServer(s.router)
	defer srv.Close()
	dial := func(origin string) (*websocket.Conn, *http.Response, error) {
		h := http.Header{"Host": {"alice.localhost"}}
		if origin != "" {
			h.Set("Origin", origin)
		}
		return websocket.DefaultDialer.DialContext(t.Context(), "ws"+strings.TrimPrefix(srv.URL, "http")+"/", h)
	}
	for _, origin := range []string{"", "http://alice.localhost"} {
		c, _, err := dial(origin)
		if err != nil {
			t.Fatalf("origin %q: %v", origin, err)
		}
		if err := c.WriteMessage(websocket.TextMessage, []byte("hi")); err != nil {
			t.Fatal(err)
		}
		if _, b, err := c.ReadMessage(); err != nil || string(b) != "echo hi" {
			t.Errorf("origin %q: %q %v", origin, b, err)
		}
		c.Close()
	}
	for _, origin := range []string{"http://evil.example", "null", "http://bob.localhost"} {
		_, resp, err := dial(origin)
		if !errors.Is(err, websocket.ErrBadHandshake) || resp.StatusCode != http.StatusForbidden {
			t.Errorf("origin %q: %v, want 403", origin, err)
		}
	}
}

// A failure's status and reason.
func TestOfFailure(t *testing.T) {
	for reason, want := range map[sandbox.Reason]int{sandbox.ReasonNoCapacity: 503, sandbox.ReasonStoreUnreachable: 503, sandbox.ReasonExited: 503,
		sandbox.ReasonStoreDenied: 500, sandbox.ReasonStateCorrupt: 500, sandbox.ReasonConfig: 500} {
		if p := ofFailure(&sandbox.Failure{Reason: reason, Message: "m"}); p.Status != want || p.Reason != reason || (p.RetryAfter == 0) != reason.Permanent() {
			t.Errorf("%s: %+v, want %d", reason, p, want)
		}
	}
}
