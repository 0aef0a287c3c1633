package rollout

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"openclaw-sandbox/test/rig"
)

// The Control UI's back-off when its WebSocket has closed.
const (
	backOffMin = time.Second
	backOffMax = 30 * time.Second
)

// pause of a client between two requests, or two messages.
const pause = 100 * time.Millisecond

// clients are people with open WebSockets, and programs with steady requests.
type clients struct {
	addr string // of the load balancer
	all  sync.WaitGroup

	open     atomic.Int32 // WebSockets
	lost     atomic.Int32 // WebSockets that were told to connect again
	requests atomic.Int64
	echoes   atomic.Int64

	mu       sync.Mutex // guards what follows
	failures []error
	longest  time.Duration // that a WebSocket was away
}

func (c *clients) fail(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.failures = append(c.failures, err)
}

func (c *clients) failed() []error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.failures
}

// start begins with that many of each, until the test ends.
func (c *clients) start(t *testing.T, sockets, programs int) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(func() { cancel(); c.all.Wait() })
	for n := range sockets {
		c.all.Go(func() { c.person(ctx, n) })
	}
	for n := range programs {
		c.all.Go(func() { c.program(ctx, n) })
	}
}

func user(n int) string { return fmt.Sprintf("user-%d", n%users) }

// person keeps a WebSocket open. It may be closed with 1012 only, and must then come
// back at the first try of the back-off or a later one.
func (c *clients) person(ctx context.Context, n int) {
	var since time.Time // it is away
	for wait := backOffMin; ctx.Err() == nil; wait = min(2*wait, backOffMax) {
		conn, err := rig.Dial(ctx, c.addr, n, http.Header{"Host": {user(n) + ".localhost"}})
		if err == nil {
			c.back(since)
			err = c.talk(ctx, conn)
			c.open.Add(-1)
			since, wait = time.Now(), backOffMin
		}
		switch {
		case ctx.Err() != nil:
			return
		case websocket.IsCloseError(err, websocket.CloseServiceRestart):
			c.lost.Add(1)
		default:
			c.fail(fmt.Errorf("WebSocket %d: %w", n, err))
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return
		}
	}
}

// back notes that a WebSocket is open, which was away since then if it ever was open.
func (c *clients) back(since time.Time) {
	c.open.Add(1)
	if since.IsZero() {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.longest = max(c.longest, time.Since(since))
}

// talk echoes until the WebSocket ends, with its close error.
func (c *clients) talk(ctx context.Context, conn *websocket.Conn) error {
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	read := make(chan error, 1)
	go func() {
		for {
			if _, _, err := conn.ReadMessage(); err != nil {
				read <- err
				return
			}
			c.echoes.Add(1)
		}
	}()
	tick := time.NewTicker(pause)
	defer tick.Stop()
	for {
		select {
		case err := <-read:
			return err
		case <-tick.C:
			// A write that fails says less of the end than the read, which fails, too.
			_ = conn.WriteMessage(websocket.BinaryMessage, []byte("still there?"))
		}
	}
}

// program sends requests one after the other over a connection that it keeps, as
// everybody does; every second one must not be sent twice by net/http.
func (c *clients) program(ctx context.Context, n int) {
	transport := &http.Transport{MaxIdleConnsPerHost: 1}
	defer transport.CloseIdleConnections()
	for i := 0; ctx.Err() == nil; i++ {
		method, body := http.MethodGet, []byte(nil)
		if i%2 == 1 {
			method, body = http.MethodPost, []byte("some words")
		}
		err := ask(ctx, transport, c.addr, method, user(n), body)
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			c.fail(fmt.Errorf("program %d: %w", n, err))
		}
		c.requests.Add(1)
		select {
		case <-time.After(pause):
		case <-ctx.Done():
		}
	}
}

const size = 2000 // of an answer, in bytes

func ask(ctx context.Context, transport http.RoundTripper, addr, method, user string, body []byte) error {
	r, err := http.NewRequestWithContext(ctx, method, fmt.Sprintf("http://%s/bytes?n=%d", addr, size), bytes.NewReader(body))
	if err != nil {
		return err
	}
	r.Host = user + ".localhost"
	resp, err := transport.RoundTrip(r)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	got, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK || len(got) != size {
		return errors.New(resp.Status)
	}
	return nil
}
