package proxy

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"openclaw-sandbox/internal/http1/http1test"
)

// front is a proxy before gateway, as a server.
func front(t *testing.T, c Config, target func() Target) *http1test.Server {
	t.Helper()
	if c.DialTimeout == 0 {
		c = Config{DialTimeout: 5 * time.Second, IdleTimeout: 4 * time.Second, ForwardedClient: "192.0.2.1", Scheme: "http"}
	}
	p := New(c, slog.New(slog.DiscardHandler))
	srv := http1test.NewServer(forward(p, target))
	t.Cleanup(func() { srv.Close(); p.Close() })
	return srv
}

// forward answers with 502 what the proxy does not, and with 503 what was not sent.
func forward(p *Proxy, target func() Target) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		Guard(w, r)
		var lost *Unreached
		switch err := p.Forward(w, r, target()); {
		case errors.As(err, &lost) && !lost.Sent:
			http.Error(w, "lost", http.StatusServiceUnavailable)
		case err != nil:
			http.Error(w, "down", http.StatusBadGateway)
		}
	})
}

// to is the target of one gateway.
func to(generation string, srv *httptest.Server) func() Target {
	return func() Target {
		return Target{User: "alice", Generation: generation, Addr: srv.Listener.Addr().String()}
	}
}

func TestHeaders(t *testing.T) {
	var got *http.Request
	gateway := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { got = r }))
	defer gateway.Close()
	srv := front(t, Config{}, to("g1", gateway))

	r, err := http.NewRequest("GET", srv.URL+"/a%2Fb//c?q=1;2&empty", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Host = "alice.example.com"
	for name, forged := range map[string]string{
		"X-Forwarded-User": "bob", "X-Forwarded-For": "10.0.0.1", "X-Forwarded-Host": "evil", "X-Forwarded-Proto": "gopher",
		"X-Forwarded-Prefix": "/x", "X-Forwarded-Anything": "x", "Forwarded": "for=10.0.0.1", "X-Real-Ip": "10.0.0.1",
		"X-Openclaw-Scopes": "operator.admin", "X-Openclaw-Scopes-Extra": "x", "Tailscale-User-Login": "bob",
		"Connection": "X-Hop", "X-Hop": "1", "Origin": "http://alice.example.com", "X-Kept": "yes",
	} {
		r.Header.Set(name, forged)
	}
	r.Header["x-forwarded-user"] = []string{"bob"} // another spelling of the same name
	if resp, err := http.DefaultClient.Do(r); err != nil {
		t.Fatal(err)
	} else {
		resp.Body.Close()
	}
	want := map[string]string{
		"X-Forwarded-User": "alice", "X-Forwarded-For": "192.0.2.1", "X-Forwarded-Host": "alice.example.com", "X-Forwarded-Proto": "http",
		"X-Forwarded-Prefix": "", "X-Forwarded-Anything": "", "Forwarded": "", "X-Real-Ip": "",
		"X-Openclaw-Scopes": "", "X-Openclaw-Scopes-Extra": "", "Tailscale-User-Login": "",
		"X-Hop": "", "Origin": "http://alice.example.com", "X-Kept": "yes",
	}
	for name, w := range want {
		if g := strings.Join(got.Header.Values(name), ","); g != w {
			t.Errorf("the gateway got %s = %q, want %q", name, g, w)
		}
	}
	if got.Host != "alice.example.com" || got.RequestURI != "/a%2Fb//c?q=1;2&empty" {
		t.Errorf("the gateway got host %q and %q, want both as they came", got.Host, got.RequestURI)
	}
}

func TestClientAddress(t *testing.T) {
	p := New(Config{ForwardedClient: "192.0.2.1"}, slog.New(slog.DiscardHandler))
	for remote, want := range map[string]string{
		"203.0.113.9:1234": "203.0.113.9", "127.0.0.1:1": "192.0.2.1", "127.8.8.8:1": "192.0.2.1", "[::1]:1": "192.0.2.1",
		"[2001:db8::7]:1": "2001:db8::7", "": "192.0.2.1", "@": "192.0.2.1",
	} {
		if got := p.clientIP(remote); got != want {
			t.Errorf("clientIP(%q) = %q, want %q", remote, got, want)
		}
	}
}

// An event must pass while the answer goes on.
func TestStreamsAsItComes(t *testing.T) {
	release := make(chan struct{})
	gateway := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, "data: one\n\n")
		w.(http.Flusher).Flush()
		<-release
		w.Header().Set(http.TrailerPrefix+"X-Sum", "42")
	}))
	defer gateway.Close()
	srv := front(t, Config{}, to("g1", gateway))
	resp, err := http.Get(srv.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	line, err := bufio.NewReader(resp.Body).ReadString('\n') // hangs if it was buffered
	close(release)
	if err != nil || line != "data: one\n" {
		t.Errorf("first line = %q, %v", line, err)
	}
	io.Copy(io.Discard, resp.Body)
	if resp.Trailer.Get("X-Sum") != "42" {
		t.Errorf("trailer = %v, want X-Sum: 42", resp.Trailer)
	}
}

func TestWebSocket(t *testing.T) {
	up := websocket.Upgrader{CheckOrigin: func(*http.Request) bool { return true }}
	gateway := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		conn, err := up.Upgrade(w, r, nil)
		if err != nil {
			return
		}
		defer conn.Close()
		conn.WriteMessage(websocket.TextMessage, []byte(r.Header.Get("X-Forwarded-User")+" "+r.Header.Get("Origin")))
		for {
			kind, b, err := conn.ReadMessage()
			if err != nil {
				return
			}
			conn.WriteMessage(kind, b)
		}
	}))
	defer gateway.Close()
	srv := front(t, Config{}, to("g1", gateway))
	conn, _, err := websocket.DefaultDialer.Dial("ws"+strings.TrimPrefix(srv.URL, "http"), http.Header{"Origin": {"http://o"}, "X-Forwarded-User": {"bob"}})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetReadDeadline(time.Now().Add(10 * time.Second))
	if _, b, err := conn.ReadMessage(); err != nil || string(b) != "alice http://o" {
		t.Errorf("the gateway saw %q (%v), want alice and the browser's origin", b, err)
	}
	big := strings.Repeat("x", 300_000)
	conn.WriteMessage(websocket.TextMessage, []byte(big))
	if _, b, err := conn.ReadMessage(); err != nil || string(b) != big {
		t.Errorf("%d bytes came back (%v), want %d", len(b), err, len(big))
	}
}

// A new generation must not meet a connection of the one before, even at the
// same address.
func TestGenerationsDoNotShareConnections(t *testing.T) {
	conns := map[string]bool{}
	gateway := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { conns[r.RemoteAddr] = true }))
	defer gateway.Close()
	generation := "g1"
	srv := front(t, Config{}, func() Target { return to(generation, gateway)() })
	for i, want := range []int{1, 1, 2, 2} {
		if i == 2 {
			generation = "g2"
		}
		resp, err := http.Get(srv.URL)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if len(conns) != want {
			t.Errorf("after request %d of generation %s: %d connections, want %d", i, generation, len(conns), want)
		}
	}
}

// What was not sent says so, with a body or not, so that it can be sent again.
func TestUnreached(t *testing.T) {
	gateway := httptest.NewServer(nil)
	closed := to("g1", gateway)
	gateway.Close()
	for name, srv := range map[string]*http1test.Server{
		"a closed port": front(t, Config{}, closed),
		"a node away":   front(t, Config{DialTimeout: time.Nanosecond, ForwardedClient: "192.0.2.1"}, closed),
	} {
		for _, header := range []http.Header{{}, {"Connection": {"Upgrade"}, "Upgrade": {"websocket"}}, {"Connection": {"Upgrade"}, "Upgrade": {"other"}}} {
			for _, body := range []string{"", "hello"} {
				r, err := http.NewRequest("GET", srv.URL, strings.NewReader(body))
				if err != nil {
					t.Fatal(err)
				}
				r.Header = header
				resp, err := http.DefaultTransport.RoundTrip(r)
				if err != nil {
					t.Fatal(err)
				}
				resp.Body.Close()
				if resp.StatusCode != http.StatusServiceUnavailable {
					t.Errorf("%s, %v, body %q: %s", name, header, body, resp.Status)
				}
			}
		}
	}
}

func TestWhatIsUnreached(t *testing.T) {
	dial := func(err error) error {
		return fmt.Errorf("x: %w", &net.OpError{Op: "dial", Err: os.NewSyscallError("connect", err)})
	}
	for _, c := range []struct {
		err  error
		want bool
	}{
		{dial(syscall.ECONNREFUSED), true},
		{dial(syscall.ECONNRESET), true},
		{dial(syscall.EHOSTUNREACH), true},
		{dial(syscall.ENETUNREACH), true},
		{&net.OpError{Op: "dial", Err: os.ErrDeadlineExceeded}, true},
		{dial(syscall.EMFILE), false}, // the fault is here
		{dial(syscall.EADDRNOTAVAIL), false},
	} {
		if got := unreached(c.err); got != c.want {
			t.Errorf("unreached(%v) = %t, want %t", c.err, got, c.want)
		}
	}
}

// A client that goes away ends its request at the gateway.
func TestClientGone(t *testing.T) {
	ended, started := make(chan struct{}), make(chan struct{})
	gateway := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		close(started)
		<-r.Context().Done()
		close(ended)
	}))
	defer gateway.Close()
	srv := front(t, Config{}, to("g1", gateway))
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-started; cancel() }()
	r, _ := http.NewRequestWithContext(ctx, "GET", srv.URL, nil)
	var failed *url.Error
	if _, err := http.DefaultClient.Do(r); !errors.As(err, &failed) {
		t.Errorf("err = %v", err)
	}
	select {
	case <-ended:
	case <-time.After(10 * time.Second):
		t.Error("the gateway still works for a client that is gone")
	}
}
