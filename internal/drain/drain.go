// Package drain ends a server without cutting anybody off who can be served:
// readiness fails first, then new connections, then requests, then WebSockets,
// which are told to reconnect elsewhere.
package drain

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// Drain tracks what a server has in hand.
type Drain struct {
	draining atomic.Bool
	mu       sync.Mutex // guards conns
	conns    map[*conn]bool
}

// New returns a Drain that takes requests.
func New() *Drain { return &Drain{conns: map[*conn]bool{}} }

// Draining reports whether the end has begun: readiness must fail.
func (d *Drain) Draining() bool { return d.draining.Load() }

// Open is the number of upgraded connections.
func (d *Drain) Open() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.conns)
}

// Handler tracks the connections that next upgrades.
func (d *Drain) Handler(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if d.Draining() {
			w.Header().Set("Connection", "close")
		}
		next.ServeHTTP(&writer{ResponseWriter: w, drain: d}, r)
	})
}

// Run shuts srv down: it waits delay with readiness failing, stops accepting,
// gives requests until timeout, and then closes what was upgraded with 1012
// (RFC 6455, "service restart"). It returns an error if requests were cut off.
func (d *Drain) Run(srv *http.Server, delay, timeout time.Duration) error {
	d.draining.Store(true)
	time.Sleep(delay) // load balancers and Consul must see readiness fail
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	err := srv.Shutdown(ctx)
	d.mu.Lock()
	open := make([]*conn, 0, len(d.conns))
	for c := range d.conns {
		open = append(open, c)
	}
	d.mu.Unlock()
	for _, c := range open {
		c.restart()
	}
	if err != nil {
		return errors.Join(fmt.Errorf("requests were still running after %s: %w", timeout, err), srv.Close())
	}
	return nil
}

// writer hands out tracked connections.
type writer struct {
	http.ResponseWriter
	drain *Drain
}

// Unwrap lets http.ResponseController reach the real writer.
func (w *writer) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// Flush passes on what was written.
func (w *writer) Flush() { http.NewResponseController(w.ResponseWriter).Flush() }

// Hijack tracks the connection until it is closed.
func (w *writer) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	raw, rw, err := http.NewResponseController(w.ResponseWriter).Hijack()
	if err != nil {
		return nil, nil, err
	}
	c := &conn{Conn: raw, drain: w.drain}
	w.drain.mu.Lock()
	w.drain.conns[c] = true
	w.drain.mu.Unlock()
	return c, rw, nil
}

// conn is an upgraded connection.
type conn struct {
	net.Conn
	drain *Drain
	mu    sync.Mutex // one write at a time: the close frame must not land inside another
}

func (c *conn) Write(b []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.Conn.Write(b)
}

func (c *conn) Close() error {
	c.drain.mu.Lock()
	delete(c.drain.conns, c)
	c.drain.mu.Unlock()
	return c.Conn.Close()
}

// closeFrame is a WebSocket close frame with code 1012.
var closeFrame = []byte{0x88, 0x02, 0x03, 0xf4}

// restartWait bounds the close frame's write: the peer may not read.
const restartWait = time.Second

func (c *conn) restart() {
	c.SetWriteDeadline(time.Now().Add(restartWait))
	c.Write(closeFrame)
	c.Close()
}
