package http1_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"openclaw-sandbox/internal/http1"
	"openclaw-sandbox/internal/http1/http1test"
)

// patience bounds what must happen some time.
const patience = 20 * time.Second

const ask = "GET / HTTP/1.1\r\nHost: a\r\n\r\n"

// dial opens a connection to a server.
func dial(t *testing.T, addr net.Addr) (net.Conn, *bufio.Reader) {
	t.Helper()
	c, err := net.Dial("tcp", addr.String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(patience))
	return c, bufio.NewReader(c)
}

func receive[T any](t *testing.T, from <-chan T, what string) T {
	t.Helper()
	select {
	case v := <-from:
		return v
	case <-time.After(patience):
		t.Fatalf("no %s", what)
		panic("unreachable")
	}
}

// A client that leaves ends the request's context.
func TestClientGone(t *testing.T) {
	began, ended := make(chan bool, 1), make(chan error, 2)
	srv := http1test.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		context.AfterFunc(r.Context(), func() { ended <- r.Context().Err() })
		sub, cancel := context.WithCancel(r.Context())
		defer cancel()
		began <- true
		<-sub.Done()
		ended <- sub.Err()
	}))
	defer srv.Close()
	c, _ := dial(t, srv.Listener.Addr())
	io.WriteString(c, ask+ask) // what waits to be read hides nothing
	receive(t, began, "request")
	c.Close()
	for range 2 {
		if err := receive(t, ended, "end of the request"); err != context.Canceled {
			t.Error(err)
		}
	}
}

// The context ends with the request, too, and a function that was stopped is not called.
func TestContext(t *testing.T) {
	contexts := make(chan context.Context, 1)
	srv := http1test.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		stop := context.AfterFunc(r.Context(), func() { t.Error("was stopped") })
		if !stop() || stop() {
			t.Error("stop must report true, once")
		}
		if r.Context().Value(http.ServerContextKey).(*http.Server) == nil || r.Context().Value(http.LocalAddrContextKey).(net.Addr).String() == "" {
			t.Error("lacks what net/http's have")
		}
		contexts <- r.Context()
	}))
	defer srv.Close()
	c, br := dial(t, srv.Listener.Addr())
	io.WriteString(c, ask)
	if _, err := http.ReadResponse(br, nil); err != nil {
		t.Fatal(err)
	}
	ctx := receive(t, contexts, "request")
	receive(t, ctx.Done(), "end of its context")
	after := make(chan bool)
	stop := context.AfterFunc(ctx, func() { close(after) })
	receive(t, after, "call after the end")
	if stop() {
		t.Error("stop reports true after the call")
	}
}

// Requests that come in pieces, with a body or an upgrade are served all the same,
// after plain ones on the same connection.
func TestLeftToNetHTTP(t *testing.T) {
	srv := http1test.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Upgrade") != "" {
			c, rw, err := http.NewResponseController(w).Hijack()
			if err != nil {
				t.Error(err)
				return
			}
			defer c.Close()
			if _, ok := c.(*net.TCPConn); !ok {
				t.Errorf("a hijacker gets a %T", c)
			}
			line, _ := rw.ReadString('\n')
			fmt.Fprintf(c, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n%s", line)
			return
		}
		b, _ := io.ReadAll(r.Body)
		fmt.Fprintf(w, "%s %s %d", r.Method, b, len(r.Header.Get("Large")))
	}))
	defer srv.Close()
	for _, c := range []struct {
		pieces []string
		want   string
	}{
		{[]string{"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n", "hi"}, "POST hi 0"},
		{[]string{"GET / HTTP/1.1\r\nHo", "st: a\r\n\r\n"}, "GET  0"},
		{[]string{"GET / HTTP/1.1\r\nHost: a\r\nLarge: " + strings.Repeat("x", 9000) + "\r\n\r\n"}, "GET  9000"},
		{[]string{"GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\nearly\n"}, "early\n"},
	} {
		conn, br := dial(t, srv.Listener.Addr())
		answer := func() string {
			resp, err := http.ReadResponse(br, nil)
			if err != nil {
				t.Fatal(err)
			}
			if resp.StatusCode == http.StatusSwitchingProtocols {
				b, _ := io.ReadAll(br)
				return string(b)
			}
			b, _ := io.ReadAll(resp.Body)
			return string(b)
		}
		io.WriteString(conn, ask)
		if got := answer(); got != "GET  0" {
			t.Errorf("a plain request: %q", got)
		}
		for i, p := range c.pieces {
			if i > 0 {
				settle(t, srv)
			}
			io.WriteString(conn, p)
		}
		if got := answer(); got != c.want {
			t.Errorf("%q: %q, want %q", c.pieces, got, c.want)
		}
	}
}

// settle returns when the server has read what was sent before: it has answered
// somebody who came later.
func settle(t *testing.T, srv *http1test.Server) {
	c, br := dial(t, srv.Listener.Addr())
	io.WriteString(c, ask)
	if _, err := http.ReadResponse(br, nil); err != nil {
		t.Fatal(err)
	}
	c.Close()
}

// Each connection is told of once when it comes and once when it goes, whoever
// served it.
func TestConnState(t *testing.T) {
	var mu sync.Mutex
	open, all := map[net.Conn]bool{}, 0
	closed := make(chan bool, 10)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := http1.New(&http.Server{Handler: http.NotFoundHandler(), ConnState: func(c net.Conn, s http.ConnState) {
		mu.Lock()
		defer mu.Unlock()
		switch s {
		case http.StateNew:
			if all++; open[c] {
				t.Error("came twice")
			}
			open[c] = true
		case http.StateClosed:
			if !open[c] {
				t.Error("went without having come, or twice")
			}
			delete(open, c)
			closed <- true
		}
	}})
	served := make(chan error, 1)
	go func() { served <- srv.Serve(l) }()
	for _, raw := range []string{"", ask, "POST / HTTP/1.1\r\nHost: a\r\n\r\n", "nonsense\r\n\r\n"} {
		c, br := dial(t, l.Addr())
		io.WriteString(c, raw)
		if raw != "" {
			br.ReadByte()
		}
		c.Close()
		receive(t, closed, "end of the connection")
	}
	if err := srv.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
	if err := receive(t, served, "end of Serve"); err != http.ErrServerClosed {
		t.Error(err)
	}
	if len(open) > 0 || all != 4 {
		t.Errorf("%d came, %d are still open", all, len(open))
	}
}

// Connections that do nothing end after the timeouts.
func TestTimeouts(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := http1.New(&http.Server{Handler: http.NotFoundHandler(), ReadHeaderTimeout: time.Millisecond, IdleTimeout: time.Millisecond})
	go srv.Serve(l)
	defer srv.Close()
	for _, raw := range []string{"", ask, ask[:10]} {
		c, br := dial(t, l.Addr())
		io.WriteString(c, raw)
		if _, err := io.ReadAll(br); err != nil {
			t.Errorf("after %q the connection does not end well: %v", raw, err)
		}
	}
}

// A shutdown ends idle connections, lets requests end, and says so in their answers;
// beyond its time, Close ends them.
func TestShutdown(t *testing.T) {
	began, goOn := make(chan bool, 2), make(chan bool)
	srv := http1test.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/slow" {
			began <- true
			select {
			case <-goOn:
			case <-r.Context().Done():
			}
		}
		io.WriteString(w, "done")
	}))
	defer srv.Close()
	idle, idleReader := dial(t, srv.Listener.Addr())
	io.WriteString(idle, ask)
	if _, err := http.ReadResponse(idleReader, nil); err != nil {
		t.Fatal(err)
	}
	idleReader.Discard(len("done"))
	busy, busyReader := dial(t, srv.Listener.Addr())
	io.WriteString(busy, "GET /slow HTTP/1.1\r\nHost: a\r\n\r\n")
	stuck, stuckReader := dial(t, srv.Listener.Addr())
	io.WriteString(stuck, "GET /slow HTTP/1.1\r\nHost: a\r\n\r\n")
	receive(t, began, "request")
	receive(t, began, "request")
	ctx, cancel := context.WithCancel(t.Context())
	over := make(chan error, 1)
	go func() { over <- srv.Shutdown(ctx) }()
	if _, err := idleReader.ReadByte(); err != io.EOF {
		t.Errorf("the idle connection: %v", err)
	}
	goOn <- true
	goOn <- true
	for _, br := range []*bufio.Reader{busyReader, stuckReader} {
		resp, err := http.ReadResponse(br, nil)
		if err != nil || !resp.Close {
			t.Fatalf("a request within the shutdown: %+v, %v", resp, err)
		}
	}
	if err := receive(t, over, "end of the shutdown"); err != nil {
		t.Error(err)
	}
	cancel()
	if _, err := net.Dial("tcp", srv.Listener.Addr().String()); err == nil {
		t.Error("still listens")
	}
}

// Close does not wait for requests.
func TestClose(t *testing.T) {
	began, ended := make(chan bool, 1), make(chan bool, 1)
	srv := http1test.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		began <- true
		<-r.Context().Done()
		ended <- true
	}))
	c, br := dial(t, srv.Listener.Addr())
	io.WriteString(c, ask)
	receive(t, began, "request")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := srv.Shutdown(ctx); err == nil {
		t.Error("a shutdown without time says that all has ended")
	}
	srv.Server.Close()
	receive(t, ended, "end of the request")
	if _, err := br.ReadByte(); err == nil {
		t.Error("the connection is still open")
	}
	srv.Close()
}
