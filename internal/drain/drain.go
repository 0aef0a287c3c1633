// Package drain ends a server without cutting anybody off who can be served:
// readiness fails first, then new connections, then requests, then WebSockets,
// which are told to reconnect elsewhere.
package drain

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"sync"
	"time"

	"openclaw-sandbox/internal/forwarded"
)

// Drain tracks what a server has in hand.
type Drain struct {
	// Left, if set before the first request, is called once for each upgraded
	// connection, when it is closed, with the client's address; it must return at once.
	Left func(from netip.Addr)

	once  sync.Once
	begun chan struct{}
	mu    sync.Mutex // guards what follows
	conns map[upgraded]bool
	over  bool // upgraded connections are being closed
}

// upgraded is a connection that is told to restart, and is closed then.
type upgraded interface{ restart() }

// New returns a Drain that takes requests.
func New() *Drain { return &Drain{begun: make(chan struct{}), conns: map[upgraded]bool{}} }

// Begun is closed when the end has begun: readiness must fail, and a stream
// that its client can resume elsewhere should end.
func (d *Drain) Begun() <-chan struct{} { return d.begun }

// Open is the number of upgraded connections.
func (d *Drain) Open() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.conns)
}

// Handler tracks the connections that next upgrades.
func (d *Drain) Handler(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		select {
		case <-d.begun:
			w.Header().Set("Connection", "close")
		default:
		}
		next.ServeHTTP(&writer{ResponseWriter: w, drain: d}, r)
	})
}

// forget takes a connection off the list, and lets go of the list with the last one: a
// map keeps the room of the most that it ever had. The caller holds d.mu.
func (d *Drain) forget(c upgraded) {
	if delete(d.conns, c); len(d.conns) == 0 {
		d.conns = map[upgraded]bool{}
	}
}

// left tells that an upgraded connection is closed.
func (d *Drain) left(from netip.Addr) {
	if d.Left != nil {
		d.Left(from)
	}
}

// Server is what Run shuts down: an http.Server, or one that serves for it.
type Server interface {
	// Shutdown returns ctx's error if requests were still running at its end.
	Shutdown(ctx context.Context) error
	Close() error
}

// Run shuts srv down: it waits delay with readiness failing, stops accepting,
// gives requests until timeout, and then closes what was upgraded with 1012
// (RFC 6455, "service restart"). It returns an error if requests were cut off.
func (d *Drain) Run(srv Server, delay, timeout time.Duration) error {
	d.once.Do(func() { close(d.begun) })
	time.Sleep(delay) // load balancers and Consul must see readiness fail
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	err := srv.Shutdown(ctx)
	d.mu.Lock()
	d.over = true
	open := slices.Collect(maps.Keys(d.conns))
	d.mu.Unlock()
	var wg sync.WaitGroup
	for _, c := range open {
		wg.Go(c.restart)
	}
	wg.Wait()
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

// ReadFrom lets the server move a body from one connection to another.
func (w *writer) ReadFrom(r io.Reader) (int64, error) { return io.Copy(w.ResponseWriter, r) }

// Hijack tracks the connection until it is closed.
func (w *writer) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	raw, rw, err := http.NewResponseController(w.ResponseWriter).Hijack()
	if err != nil {
		return nil, nil, err
	}
	c := &conn{Conn: raw, drain: w.drain, closed: make(chan struct{})}
	w.drain.mu.Lock()
	defer w.drain.mu.Unlock()
	if w.drain.over { // this one was on its way when the others were told
		w.drain.left(forwarded.Remote(raw))
		return nil, nil, errors.Join(http.ErrServerClosed, raw.Close())
	}
	w.drain.conns[c] = true
	return c, rw, nil
}
