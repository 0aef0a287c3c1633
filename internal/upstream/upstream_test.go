package upstream

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// A connection that ends while it is idle, or that carries what nobody asked for,
// serves nothing more; the next request does not notice, with a body or without.
func TestIdleEnds(t *testing.T) {
	for name, extra := range map[string]string{"closed": "", "bytes nobody asked for": "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nforged"} {
		for _, method := range []string{"GET", "POST"} {
			t.Run(method+" "+name, func(t *testing.T) {
				served, over := make(chan struct{}), make(chan struct{})
				srv, p, _ := proxy(t, Options{}, gateway(t, func(n int, c net.Conn, br *bufio.Reader) {
					http.ReadRequest(br)
					io.WriteString(c, okAnswer)
					if n == 1 {
						<-served
						io.WriteString(c, extra)
						if extra == "" {
							c.Close()
						}
						close(over)
					}
					io.Copy(io.Discard, br)
				}))
				var body io.Reader
				do(t, request(t, "GET", srv.URL, nil))
				waitIdle(t, p, 1)
				close(served)
				<-over
				waitReadable(t, p)
				if method == "POST" {
					body = strings.NewReader("x")
				}
				resp, got, err := do(t, request(t, method, srv.URL, body))
				if err != nil || resp.StatusCode != 200 || got != "ok" {
					t.Errorf("%s %q, %v", resp.Status, got, err)
				}
			})
		}
	}
}

// What ends only after it was taken is tried again if that is safe.
func TestRetry(t *testing.T) {
	for _, c := range []struct {
		method, body string
		partial      string
		status       int
		conns        int32
	}{
		{"GET", "", "", 200, 2},
		{"HEAD", "", "", 200, 2},
		{"OPTIONS", "", "", 200, 2},
		{"GET", "x", "", 502, 1},
		{"POST", "", "", 502, 1},
		{"DELETE", "", "", 502, 1},
		{"GET", "", "HTTP", 502, 1}, // something came
	} {
		t.Run(c.method+c.body+c.partial, func(t *testing.T) {
			var conns atomic.Int32
			srv, p, _ := proxy(t, Options{}, gateway(t, func(n int, conn net.Conn, br *bufio.Reader) {
				conns.Add(1)
				http.ReadRequest(br)
				io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
				if r, err := http.ReadRequest(br); err == nil { // taken again: now it ends
					io.Copy(io.Discard, r.Body)
					if n > 1 {
						t.Error("the new connection was used twice")
					}
				}
				io.WriteString(conn, c.partial)
			}))
			do(t, request(t, "GET", srv.URL, nil))
			waitIdle(t, p, 1)
			var body io.Reader
			if c.body != "" {
				body = strings.NewReader(c.body)
			}
			resp, _, _ := do(t, request(t, c.method, srv.URL, body))
			if resp.StatusCode != c.status || conns.Load() != c.conns {
				t.Errorf("%s over %d connections, want %d over %d", resp.Status, conns.Load(), c.status, c.conns)
			}
			p.Close()
		})
	}
}

func TestIdleTimeout(t *testing.T) {
	ended := make(chan struct{})
	srv, p, _ := proxy(t, Options{IdleTimeout: 30 * time.Millisecond}, gateway(t, func(_ int, c net.Conn, br *bufio.Reader) {
		each(okAnswer)(0, c, br)
		close(ended)
	}))
	do(t, request(t, "GET", srv.URL, nil))
	select {
	case <-ended:
	case <-time.After(patience):
		t.Fatal("an unused connection stays open")
	}
	waitIdle(t, p, 0)
}

func TestBoundsAndClose(t *testing.T) {
	addr := gateway(t, each(okAnswer))
	p := client(Options{MaxIdle: 2}).Pool(addr)
	var conns []*conn
	for range 3 {
		c, err := p.dial(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		conns = append(conns, c)
	}
	for _, c := range conns[:2] {
		p.put(c)
	}
	if p.put(conns[2]); len(p.idle) != 2 {
		t.Errorf("%d idle, want 2", len(p.idle))
	}
	if got := p.take(); got != conns[1] {
		t.Error("not the last one that was used")
	}
	p.Close()
	if p.put(conns[1]); len(p.idle) != 0 || p.take() != nil {
		t.Error("a closed pool keeps connections")
	}
	for i, c := range conns {
		if _, err := c.Conn.Write([]byte("x")); err == nil {
			t.Errorf("connection %d is open", i)
		}
	}
}

// waitIdle waits until p has n idle connections: the client has its answer before
// the connection is back.
func waitIdle(t *testing.T, p *Pool, n int) {
	t.Helper()
	until(t, func() bool {
		p.mu.Lock()
		defer p.mu.Unlock()
		return len(p.idle) == n
	})
}

// waitReadable waits until what the gateway did has reached the idle connection.
func waitReadable(t *testing.T, p *Pool) {
	t.Helper()
	until(t, func() bool {
		p.mu.Lock()
		defer p.mu.Unlock()
		return !p.idle[0].quiet()
	})
}

func until(t *testing.T, what func() bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(patience); !what(); <-tick.C {
		if time.Now().After(deadline) {
			t.Fatal("it does not happen")
		}
	}
}
