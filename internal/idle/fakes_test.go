package idle

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	consul "github.com/hashicorp/consul/api"

	"openclaw-sandbox/internal/activity"
	"openclaw-sandbox/internal/catalog"
	"openclaw-sandbox/internal/sandbox"
)

// fakeKV is as much of Consul's KV as needs no session, beside the client, so that
// time may be simulated.
type fakeKV struct {
	mu    sync.Mutex // guards what follows
	index uint64
	pairs map[string]*consul.KVPair
	deaf  bool // it takes no writes
	puts  int
}

func (f *fakeKV) RoundTrip(r *http.Request) (*http.Response, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	w := httptest.NewRecorder()
	key := strings.TrimPrefix(r.URL.Path, "/v1/kv/")
	switch {
	case r.Method == http.MethodPut && f.deaf:
		return nil, errors.New("away")
	case r.Method == http.MethodPut:
		value, err := io.ReadAll(r.Body)
		if err != nil {
			return nil, err
		}
		f.put(key, value)
		io.WriteString(w, "true")
	default:
		found := consul.KVPairs{}
		for k, p := range f.pairs {
			if k == key || r.URL.Query().Has("recurse") && strings.HasPrefix(k, key) {
				found = append(found, p)
			}
		}
		if len(found) == 0 {
			w.WriteHeader(http.StatusNotFound)
			break
		}
		json.NewEncoder(w).Encode(found)
	}
	return w.Result(), nil
}

func (f *fakeKV) put(key string, value []byte) {
	f.index++
	f.puts++
	f.pairs[key] = &consul.KVPair{Key: key, Value: value, ModifyIndex: f.index}
}

// set writes as somebody else would.
func (f *fakeKV) set(key, value, session string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.put(key, []byte(value))
	f.pairs[key].Session = session
}

// cluster is what a reaper looks after: it is the sandboxes, their keeper, and their
// gateways.
type cluster struct {
	mu    sync.Mutex // guards what follows
	of    map[sandbox.User]catalog.Instance
	state map[sandbox.User]catalog.State
	acts  []string
	rest  Rest
	mute  bool   // the gateway does not say
	asked int    // how often a gateway was asked
	ends  []bool // how rests ended
	while func() // what happens while the gateway is asked
	away  bool   // Nomad takes no orders
}

var (
	_ Sandboxes = (*cluster)(nil)
	_ Keeper    = (*cluster)(nil)
	_ Prober    = (*cluster)(nil)
)

func (c *cluster) Ready() bool { return true }

func (c *cluster) Running(yield func(catalog.Instance, catalog.State) bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for u, i := range c.of {
		if !yield(i, c.state[u]) {
			return
		}
	}
}

func (c *cluster) do(what string, u sandbox.User) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.away {
		return errors.New("away")
	}
	c.acts = append(c.acts, what+" "+string(u))
	return nil
}

func (c *cluster) Freeze(_ context.Context, i catalog.Instance) error {
	err := c.do("freeze", i.User)
	c.mu.Lock()
	defer c.mu.Unlock()
	if err == nil {
		c.state[i.User] = catalog.Asleep
	}
	return err
}

func (c *cluster) Stop(_ context.Context, i catalog.Instance) error {
	err := c.do("stop", i.User)
	c.mu.Lock()
	defer c.mu.Unlock()
	if err == nil {
		delete(c.of, i.User)
		delete(c.state, i.User)
	}
	return err
}

// Wake is called with locks held: it only takes note.
func (c *cluster) Wake(u sandbox.User) { go c.do("wake", u) }

func (c *cluster) Probe(context.Context, catalog.Instance) (Rest, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.asked++
	if c.while != nil {
		c.while()
	}
	if c.mute {
		return Rest{}, errors.New("no answer")
	}
	rest := c.rest
	rest.End = func(resume bool) {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.ends = append(c.ends, resume)
	}
	return rest, nil
}

// did is what was done since it was asked last.
func (c *cluster) did() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	all := strings.Join(c.acts, ", ")
	c.acts = nil
	return all
}

// term is an office with its surroundings, in simulated time.
type term struct {
	*office
	t *testing.T
	*cluster
	kv      *fakeKV
	clients *activity.Tracker
}

const period = 10 * time.Second

func newTerm(t *testing.T) *term {
	t.Helper()
	kv := &fakeKV{pairs: map[string]*consul.KVPair{}}
	cc, err := consul.NewClient(&consul.Config{Address: "consul.test", HttpClient: &http.Client{Transport: kv}})
	if err != nil {
		t.Fatal(err)
	}
	c := &cluster{of: map[sandbox.User]catalog.Instance{}, state: map[sandbox.User]catalog.State{}}
	tracker := activity.NewTracker()
	log := slog.New(slog.DiscardHandler)
	told := activity.DefaultConfig()
	told.Name = "me"
	r := New(DefaultConfig(), cc, activity.NewBoard(told, cc, tracker, log), c, c, c, log, nil)
	return &term{office: r.open(), t: t, cluster: c, kv: kv, clients: tracker}
}

func (m *term) runs(u sandbox.User, s catalog.State) {
	m.cluster.mu.Lock()
	defer m.cluster.mu.Unlock()
	m.of[u], m.state[u] = catalog.Instance{User: u, Generation: "g-" + string(u), Job: "j-" + string(u)}, s
}

// looks looks once, and waits for what comes of it.
func (m *term) looks() {
	m.t.Helper()
	if err := m.look(m.t.Context()); err != nil {
		m.t.Fatal(err)
	}
	m.wg.Wait()
}

// pass looks every period for so long.
func (m *term) pass(d time.Duration) {
	m.t.Helper()
	for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(period) {
		m.looks()
	}
}

func (m *term) want(acts string) {
	m.t.Helper()
	if got := m.did(); got != acts {
		m.t.Errorf("did %q, want %q", got, acts)
	}
}

func (m *term) entry(u sandbox.User) Entry {
	m.t.Helper()
	e, _, err := m.ledger.Of(m.t.Context(), u)
	if err != nil {
		m.t.Fatal(err)
	}
	return e
}
