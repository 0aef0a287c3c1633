package proxy

import (
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gorilla/websocket"
)

// tenant is a gateway of one user that notes whom it heard of, and echoes what comes
// over WebSockets.
type tenant struct {
	mu    sync.Mutex
	heard map[string]bool
}

func (g *tenant) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	g.hear(r.Header.Get("X-Forwarded-User"))
	if !websocket.IsWebSocketUpgrade(r) {
		io.WriteString(w, "ok")
		return
	}
	up := websocket.Upgrader{CheckOrigin: func(*http.Request) bool { return true }}
	conn, err := up.Upgrade(w, r, nil)
	if err != nil {
		return
	}
	defer conn.Close()
	for {
		kind, b, err := conn.ReadMessage()
		if err != nil {
			return
		}
		g.hear(string(b))
		conn.WriteMessage(kind, b)
	}
}

func (g *tenant) hear(whom string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.heard == nil {
		g.heard = map[string]bool{}
	}
	g.heard[whom] = true
}

func (g *tenant) whom() string {
	g.mu.Lock()
	defer g.mu.Unlock()
	var out []string
	for u := range g.heard {
		out = append(out, u)
	}
	slices.Sort(out)
	return strings.Join(out, " ")
}

// listen serves a gateway at addr; port 0 takes any.
func listen(t *testing.T, addr string, g http.Handler) *httptest.Server {
	t.Helper()
	l, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	srv := &httptest.Server{Listener: l, Config: &http.Server{Handler: g}}
	srv.Start()
	t.Cleanup(func() { srv.CloseClientConnections(); srv.Close() })
	return srv
}

// The address and port of alice's gateway become bob's, while hers lives on
// elsewhere and her old connections are still open: nothing of either reaches the
// other's gateway.
func TestAddressHandedOver(t *testing.T) {
	var mu sync.Mutex
	targets := map[string]Target{}
	route := func(user, generation, addr string) {
		mu.Lock()
		defer mu.Unlock()
		targets[user] = Target{User: user, Generation: generation, Addr: addr}
	}
	p := New(Config{DialTimeout: patience, IdleTimeout: patience, ForwardedClient: "192.0.2.1", Scheme: "http"}, slog.New(slog.DiscardHandler))
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		to := targets[r.Header.Get("X-User")]
		mu.Unlock()
		if err := p.Forward(w, r, to); err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
		}
	}))
	t.Cleanup(func() { srv.Close(); p.Close() })
	get := func(user string) {
		t.Helper()
		r, err := http.NewRequest("GET", srv.URL, nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("X-User", user)
		resp, err := http.DefaultTransport.RoundTrip(r)
		if err != nil {
			t.Fatal(err)
		}
		io.Copy(io.Discard, resp.Body)
		if resp.Body.Close(); resp.StatusCode != http.StatusOK {
			t.Errorf("%s: %s", user, resp.Status)
		}
	}
	open := func(user string) *websocket.Conn {
		t.Helper()
		conn, _, err := websocket.DefaultDialer.Dial("ws"+strings.TrimPrefix(srv.URL, "http"), http.Header{"X-User": {user}})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		conn.SetReadDeadline(time.Now().Add(patience))
		return conn
	}
	say := func(conn *websocket.Conn, user string) {
		t.Helper()
		conn.WriteMessage(websocket.TextMessage, []byte(user))
		if _, b, err := conn.ReadMessage(); err != nil || string(b) != user {
			t.Fatalf("%q, %v", b, err)
		}
	}

	var first, bobs, second tenant
	old := listen(t, "127.0.0.1:0", &first)
	addr := old.Listener.Addr().String()
	route("alice", "a1", addr)
	for range 3 {
		get("alice") // leaves a pooled connection
	}
	socket, other := open("alice"), open("alice")
	say(socket, "alice")

	old.Listener.Close() // its process still lives, as on a node that Nomad gave up
	listen(t, addr, &bobs)
	elsewhere := listen(t, "127.0.0.1:0", &second)
	route("bob", "b1", addr)
	route("alice", "a2", elsewhere.Listener.Addr().String())
	get("bob")
	bobSocket := open("bob")
	say(bobSocket, "bob")
	get("alice")
	for _, conn := range []*websocket.Conn{socket, other} {
		if _, _, err := conn.ReadMessage(); !websocket.IsCloseError(err, websocket.CloseServiceRestart) {
			t.Errorf("the WebSocket to the generation before ended with %v, want 1012", err)
		}
	}
	again := open("alice")
	say(again, "alice")
	say(bobSocket, "bob")
	for g, want := range map[*tenant]string{&first: "alice", &bobs: "bob", &second: "alice"} {
		if got := g.whom(); got != want {
			t.Errorf("a gateway of %s heard of %q", want, got)
		}
	}
	for _, conn := range []*websocket.Conn{again, bobSocket} {
		conn.Close()
	}
	for end := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		p.mu.Lock()
		n := len(p.sockets)
		p.mu.Unlock()
		if n == 0 {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("%d users have sockets after all have ended", n)
		}
	}
}

// What a client does is told by its kind; what only keeps a connection alive, and
// what the gateway sends, is not.
func TestActive(t *testing.T) {
	target, _ := gateway(t, agreed)
	var mu sync.Mutex
	var told []string
	c := Config{DialTimeout: patience, IdleTimeout: patience, ForwardedClient: "192.0.2.1", Active: func(user string, kind Kind) {
		mu.Lock()
		defer mu.Unlock()
		told = append(told, fmt.Sprint(user, kind))
	}}
	target.Kind = KindBackground
	srv := front(t, c, func() Target { return target })
	conn, br := ask(t, srv, "", "")
	if _, err := http.ReadResponse(br, nil); err != nil {
		t.Fatal(err)
	}
	frames := []struct {
		frame string
		want  string
	}{
		{"\x89\x80aaaa", ""}, {"\x8a\x80aaaa", ""}, // ping, pong
		{"\x81\x81aaaax", "alice3"}, {"\x82\x81aaaax", "alice3"}, // text, binary
		{"\x01\x81aaaax", "alice3"}, {"\x80\x81aaaax", "alice3"}, // in fragments
		{"\x88\x80aaaa", ""},
	}
	want := []string{"alice2"}
	for _, f := range frames {
		io.WriteString(conn, f.frame)
		got := make([]byte, len(f.frame))
		if _, err := io.ReadFull(br, got); err != nil || string(got) != f.frame { // the gateway echoes it
			t.Fatalf("%q, %v", got, err)
		}
		if f.want != "" {
			want = append(want, f.want)
		}
	}
	mu.Lock()
	defer mu.Unlock()
	if !slices.Equal(told, want) {
		t.Errorf("told %v, want %v", told, want)
	}
}
