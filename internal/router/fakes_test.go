package router

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"openclaw-sandbox/internal/activity"
	"openclaw-sandbox/internal/catalog"
	"openclaw-sandbox/internal/chat/chattest"
	"openclaw-sandbox/internal/http1/http1test"
	"openclaw-sandbox/internal/identity"
	"openclaw-sandbox/internal/proxy"
	"openclaw-sandbox/internal/sandbox"
)

// cluster stands for Consul and Nomad: it is the catalog and the launcher.
type cluster struct {
	mu      sync.Mutex // guards what follows
	users   map[sandbox.User]catalog.Instance
	asleep  map[sandbox.User]catalog.Instance
	flights map[sandbox.User]*flight
	wakes   int // how many starts were begun
	retries int // how many of them because a person said so
	ready   bool

	evictions int
	ports     string // Instance.Ports of who lands
}

var (
	_ Catalog  = (*cluster)(nil)
	_ Launcher = (*cluster)(nil)
	_ Flight   = (*flight)(nil)
)

func (c *cluster) Lookup(u sandbox.User) (catalog.Instance, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	i, ok := c.users[u]
	return i, ok
}

func (c *cluster) Evict(u sandbox.User, generation string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.users[u].Generation == generation {
		delete(c.users, u)
		c.evictions++
	}
}

func (c *cluster) Dormant(u sandbox.User) (catalog.Instance, catalog.State, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	i, ok := c.asleep[u]
	return i, catalog.Asleep, ok
}

func (c *cluster) Ready() bool        { c.mu.Lock(); defer c.mu.Unlock(); return c.ready }
func (c *cluster) Age() time.Duration { return time.Second }

func (c *cluster) Wake(u sandbox.User, retry bool) Flight {
	c.mu.Lock()
	defer c.mu.Unlock()
	if f, ok := c.flights[u]; ok && !retry {
		return f
	}
	c.wakes++
	if retry {
		c.retries++
	}
	f := &flight{changed: make(chan struct{}), done: make(chan struct{}), progress: sandbox.Progress{Phase: sandbox.PhaseQueued, Message: "Asking for a place to run"}}
	c.flights[u] = f
	return f
}

func (c *cluster) Flight(u sandbox.User) (Flight, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f, ok := c.flights[u]
	if !ok {
		return nil, false
	}
	return f, true
}

// woken waits until somebody woke u, and returns the flight.
func (c *cluster) woken(t *testing.T, u sandbox.User) *flight {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(time.Millisecond) {
		if f, ok := c.Flight(u); ok {
			return f.(*flight)
		}
	}
	t.Fatalf("nobody woke %s", u)
	return nil
}

// land puts u's gateway into the catalog and ends the flight.
func (c *cluster) land(u sandbox.User, g *chattest.Gateway) {
	i := catalog.Instance{User: u, Generation: "g-" + string(u), Addr: g.Addr(), Node: "n1", Ports: c.ports}
	c.mu.Lock()
	f := c.flights[u]
	c.users[u] = i
	delete(c.asleep, u)
	delete(c.flights, u)
	c.mu.Unlock()
	if f != nil {
		f.instance = i
		f.report(sandbox.Progress{Phase: sandbox.PhaseReady, Message: "Ready"})
		close(f.done)
	}
}

type flight struct {
	mu       sync.Mutex // guards progress and changed
	progress sandbox.Progress
	changed  chan struct{}
	done     chan struct{}
	instance catalog.Instance
	failure  *sandbox.Failure
}

func (f *flight) Progress() (sandbox.Progress, <-chan struct{}) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.progress, f.changed
}

func (f *flight) Done() <-chan struct{} { return f.done }

func (f *flight) Wait(ctx context.Context) (catalog.Instance, error) {
	select {
	case <-f.done:
		if f.failure != nil {
			return catalog.Instance{}, f.failure
		}
		return f.instance, nil
	case <-ctx.Done():
		return catalog.Instance{}, ctx.Err()
	}
}

func (f *flight) report(p sandbox.Progress) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.progress = p
	close(f.changed)
	f.changed = make(chan struct{})
}

func (f *flight) fail(e *sandbox.Failure) {
	f.failure = e
	f.report(sandbox.Progress{Phase: sandbox.PhaseFailed, Reason: e.Reason, Message: e.Message})
	close(f.done)
}

// stack is a router on a cluster.
type stack struct {
	*cluster
	t       *testing.T
	url     string
	drain   chan struct{}
	clients *activity.Tracker
	acts    []string // what the proxy told of clients; mu guards it
}

func (s *stack) active(user string, kind proxy.Kind) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.acts = append(s.acts, user+" "+[...]string{"call", "page", "background", "message"}[kind])
}

func start(t *testing.T, m identity.Method, hold time.Duration) *stack {
	t.Helper()
	return startWith(t, m, hold, func(*Router) {})
}

// startWith is start for a router that is changed first.
func startWith(t *testing.T, m identity.Method, hold time.Duration, change func(*Router)) *stack {
	t.Helper()
	s := &stack{t: t, drain: make(chan struct{}), clients: activity.NewTracker(), cluster: &cluster{users: map[sandbox.User]catalog.Instance{}, asleep: map[sandbox.User]catalog.Instance{}, flights: map[sandbox.User]*flight{}, ready: true}}
	log := slog.New(slog.DiscardHandler)
	px := proxy.New(proxy.Config{DialTimeout: 5 * time.Second, IdleTimeout: 4 * time.Second, ForwardedClient: "192.0.2.1", Scheme: "http", Active: s.active}, log)
	_, dev := m.(identity.Dev)
	if _, shared := m.(identity.Sharing); !shared { // as the program has it
		m = identity.Sharing{Method: m}
	}
	rt := New(Config{Domain: "claw.test", HoldTimeout: hold, Paths: dev}, m, s, s, s.clients, px, s.drain, log)
	change(rt)
	srv := http1test.NewServer(rt)
	t.Cleanup(func() { srv.CloseClientConnections(); srv.Close(); px.Close() })
	s.url = srv.URL
	return s
}

// ask sends a request to a host of the router; header lines are "Name: value".
// Redirects are not followed.
func (s *stack) ask(method, host, path, body string, header ...string) (*http.Response, string) {
	s.t.Helper()
	resp := s.open(method, host, path, body, header...)
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		s.t.Fatalf("%s %s%s: %v", method, host, path, err)
	}
	return resp, string(b)
}

// open is ask, with the body still to be read.
func (s *stack) open(method, host, path, body string, header ...string) *http.Response {
	s.t.Helper()
	r, err := http.NewRequestWithContext(s.t.Context(), method, s.url+path, strings.NewReader(body))
	if err != nil {
		s.t.Fatal(err)
	}
	r.Host = host
	for _, line := range header {
		name, value, _ := strings.Cut(line, ": ")
		r.Header.Add(name, value)
	}
	resp, err := http.DefaultTransport.RoundTrip(r)
	if err != nil {
		s.t.Fatalf("%s %s%s: %v", method, host, path, err)
	}
	return resp
}

// gone is a gateway whose port is closed.
func (s *stack) gone(t *testing.T) *chattest.Gateway {
	g := chattest.New(t, "alice")
	g.Close()
	return g
}

func (c *cluster) count(n *int) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return *n
}
