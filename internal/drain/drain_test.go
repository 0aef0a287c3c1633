package drain

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"openclaw-sandbox/internal/http1/http1test"
)

// server is a drained server around h, and the end of its Run.
func server(t *testing.T, h http.Handler, delay, timeout time.Duration) (srv *http1test.Server, d *Drain, end func() <-chan error) {
	t.Helper()
	d = New()
	srv = http1test.NewServer(d.Handler(h))
	t.Cleanup(srv.Close)
	return srv, d, func() <-chan error {
		done := make(chan error, 1)
		go func() { done <- d.Run(srv.Server, delay, timeout) }()
		return done
	}
}

func receive[T any](t *testing.T, from <-chan T, what string) T {
	t.Helper()
	select {
	case v := <-from:
		return v
	case <-time.After(20 * time.Second):
		t.Fatalf("no %s", what)
		panic("unreachable")
	}
}

// While readiness already fails, requests are still taken, and told to go.
func TestDelay(t *testing.T) {
	srv, d, end := server(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "ok") }), 300*time.Millisecond, time.Second)
	done := end()
	receive(t, d.Begun(), "beginning")
	resp, err := http.Get(srv.URL)
	if err != nil {
		t.Fatalf("a request within the delay: %v", err)
	}
	resp.Body.Close()
	if !resp.Close {
		t.Error("the answer lacks Connection: close")
	}
	if err := receive(t, done, "end"); err != nil {
		t.Error(err)
	}
	if _, err := net.Dial("tcp", srv.Listener.Addr().String()); err == nil {
		t.Error("the listener is still open")
	}
}

func TestRequestsFinish(t *testing.T) {
	inside, release := make(chan struct{}), make(chan struct{})
	srv, d, end := server(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		close(inside)
		<-release
		fmt.Fprint(w, "whole")
	}), 0, 20*time.Second)
	got := make(chan string, 1)
	go func() {
		resp, err := http.Get(srv.URL)
		if err != nil {
			got <- err.Error()
			return
		}
		defer resp.Body.Close()
		b, _ := io.ReadAll(resp.Body)
		got <- string(b)
	}()
	receive(t, inside, "request")
	done := end()
	receive(t, d.Begun(), "beginning")
	close(release)
	if body := receive(t, got, "answer"); body != "whole" {
		t.Errorf("the request got %q, want all of its answer", body)
	}
	if err := receive(t, done, "end"); err != nil {
		t.Error(err)
	}
}

func TestRequestsCutOff(t *testing.T) {
	inside := make(chan struct{})
	srv, _, end := server(t, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { close(inside); <-r.Context().Done() }), 0, 50*time.Millisecond)
	go http.Get(srv.URL)
	receive(t, inside, "request")
	if err := receive(t, end(), "end"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("err = %v, want one that says that requests were cut off", err)
	}
}

// socket is a reverse proxy before a gateway that upgrades, and then writes what
// send gives it.
func socket(t *testing.T, send <-chan []byte) http.Handler {
	up := websocket.Upgrader{}
	gateway := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		conn, err := up.Upgrade(w, r, nil)
		if err != nil {
			return
		}
		defer conn.Close()
		go func() {
			for b := range send {
				conn.NetConn().Write(b)
			}
		}()
		for {
			if _, _, err := conn.ReadMessage(); err != nil {
				return
			}
		}
	}))
	t.Cleanup(gateway.Close)
	to, err := url.Parse(gateway.URL)
	if err != nil {
		t.Fatal(err)
	}
	return &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(to) }, ErrorLog: log.New(io.Discard, "", 0)}
}

func open(t *testing.T, srv *http1test.Server) *websocket.Conn {
	t.Helper()
	conn, _, err := websocket.DefaultDialer.Dial("ws"+strings.TrimPrefix(srv.URL, "http"), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetReadDeadline(time.Now().Add(20 * time.Second))
	return conn
}

func TestWebSocketsAreToldToReconnect(t *testing.T) {
	send := make(chan []byte, 1)
	defer close(send)
	srv, d, end := server(t, socket(t, send), 0, time.Second)
	conn := open(t, srv)
	send <- []byte{0x81, 2, 'h', 'i'}
	if _, b, err := conn.ReadMessage(); err != nil || string(b) != "hi" {
		t.Fatalf("%q, %v", b, err)
	}
	if n := d.Open(); n != 1 {
		t.Errorf("Open() = %d, want 1", n)
	}
	done := end()
	if _, _, err := conn.ReadMessage(); !websocket.IsCloseError(err, websocket.CloseServiceRestart) {
		t.Errorf("the client read %v, want close 1012", err)
	}
	if err := receive(t, done, "end"); err != nil {
		t.Error(err)
	}
	if n := d.Open(); n != 0 {
		t.Errorf("Open() = %d after the end", n)
	}
}

// A close frame in the middle of another frame would be taken for a part of it.
func TestNoCloseFrameInsideAnother(t *testing.T) {
	send := make(chan []byte, 1)
	defer close(send)
	srv, d, end := server(t, socket(t, send), 0, time.Second)
	ws := open(t, srv)
	send <- []byte{0x82, 6, 'h', 'a'} // 4 bytes are missing: as many as the close frame has
	for passed := false; !passed; {   // until the pieces went through
		d.mu.Lock()
		for u := range d.conns {
			c := u.(*conn)
			c.mu.Lock()
			passed = !c.frames.atBoundary()
			c.mu.Unlock()
		}
		d.mu.Unlock()
	}
	done := end()
	if _, b, err := ws.ReadMessage(); err == nil {
		t.Errorf("the client got the message %q, which nobody sent", b)
	}
	receive(t, done, "end")
}

func TestBoundary(t *testing.T) {
	payload := func(n int) []byte { return make([]byte, n) }
	for name, frame := range map[string][]byte{
		"empty":       {0x8a, 0},
		"short":       append([]byte{0x81, 5}, payload(5)...),
		"two bytes":   append([]byte{0x82, 126, 1, 0}, payload(256)...),
		"eight bytes": append([]byte{0x82, 127, 0, 0, 0, 0, 0, 1, 0, 0}, payload(1<<16)...),
		"masked":      append([]byte{0x81, 0x83, 1, 2, 3, 4}, payload(3)...),
	} {
		for _, piece := range []int{1, 3, 1 << 20} {
			var b boundary
			if piece != 3 {
				for _, c := range []byte("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n") {
					b.pass([]byte{c})
				}
			}
			twice := append(append([]byte{}, frame...), frame...)
			for at := 0; at < len(twice); at += piece {
				if want := at == 0 || at == len(frame); b.atBoundary() != want {
					t.Errorf("%s in pieces of %d: atBoundary at byte %d = %t", name, piece, at, !want)
				}
				b.pass(twice[at:min(at+piece, len(twice))])
			}
			if !b.atBoundary() {
				t.Errorf("%s in pieces of %d: no boundary at the end", name, piece)
			}
		}
	}
}

// hijack is a tracked connection and its client.
func hijack(t *testing.T) (*Drain, *conn, net.Conn, func() <-chan error) {
	t.Helper()
	got := make(chan *conn, 1)
	srv, d, end := server(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		c, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
		}
		got <- c.(*conn)
	}), 0, time.Second)
	client, err := net.Dial("tcp", srv.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	fmt.Fprint(client, "GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
	return d, receive(t, got, "connection"), client, end
}

// A new owner of the connection is who tells the client, and says when it is over.
func TestHandOver(t *testing.T) {
	for _, early := range []bool{false, true} { // it may be over at once
		d, c, _, end := hijack(t)
		told := 0
		ok := c.HandOver(func(raw net.Conn, done func()) func() {
			if early {
				raw.Close()
				done()
			}
			return func() { told++; raw.Close(); done() }
		})
		if !ok {
			t.Fatal("was not handed over")
		}
		if want := map[bool]int{false: 1, true: 0}[early]; d.Open() != want {
			t.Errorf("Open() = %d, want %d", d.Open(), want)
		}
		if err := receive(t, end(), "end"); err != nil {
			t.Error(err)
		}
		if want := map[bool]int{false: 1, true: 0}[early]; told != want || d.Open() != 0 {
			t.Errorf("told %d times, want %d; %d are open", told, want, d.Open())
		}
	}
}

// Whoever comes after the restart does not get the connection.
func TestNoHandOverAfterTheRestart(t *testing.T) {
	_, c, client, end := hijack(t)
	done := end()
	client.SetReadDeadline(time.Now().Add(20 * time.Second))
	if b, err := io.ReadAll(client); err != nil || string(b) != string(closeFrame) {
		t.Errorf("the client got %x (%v), want a close frame", b, err)
	}
	if c.HandOver(func(net.Conn, func()) func() { t.Error("was started"); return nil }) {
		t.Error("was handed over")
	}
	receive(t, done, "end")
}
