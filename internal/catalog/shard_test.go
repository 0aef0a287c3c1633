package catalog

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"path"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	consul "github.com/hashicorp/consul/api"

	"openclaw-sandbox/internal/sandbox"
)

// The hash is a contract with everything that names a gateway's service.
func TestShardOf(t *testing.T) {
	for u, want := range map[sandbox.User]string{"alice": "openclaw-gateway-103", "bob": "openclaw-gateway-84", "u1": "openclaw-gateway-115"} {
		c := DefaultConfig()
		if got := c.ServiceOf(u); got != "openclaw-gateway" {
			t.Errorf("%s with one shard: %s", u, got)
		}
		c.Shards = 128
		if got := c.ServiceOf(u); got != want {
			t.Errorf("%s: %s, want %s", u, got, want)
		}
	}
	count := make([]int, 64)
	for n := range 6400 {
		count[Shard(sandbox.User("user-"+strconv.Itoa(n)), 64)]++
	}
	if least, most := slices.Min(count), slices.Max(count); least < 50 || most > 200 {
		t.Errorf("6400 users over 64 shards: %d to %d each", least, most)
	}
}

// registry is a Consul with several names, whose blocking queries hang until a change.
type registry struct {
	mu      sync.Mutex // guards what follows
	index   uint64
	of      map[string][]*consul.ServiceEntry
	changed chan struct{}
	silent  string // the name that is never answered
}

func newRegistry() *registry {
	return &registry{index: 10, of: map[string][]*consul.ServiceEntry{}, changed: make(chan struct{})}
}

func (g *registry) set(name string, entries ...*consul.ServiceEntry) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.index++
	g.of[name] = entries
	close(g.changed)
	g.changed = make(chan struct{})
}

func (g *registry) serve(w http.ResponseWriter, r *http.Request) {
	name := path.Base(r.URL.Path)
	after, _ := strconv.ParseUint(r.URL.Query().Get("index"), 10, 64)
	g.mu.Lock()
	for g.index <= after || g.silent == name {
		changed := g.changed
		g.mu.Unlock()
		select {
		case <-changed:
		case <-r.Context().Done():
			return
		}
		g.mu.Lock()
	}
	defer g.mu.Unlock()
	answer(w, g.index, g.of[name]...)
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("in vain waited for %s", what)
		}
	}
}

// Every name is followed, also the one without a number; and the view is full
// only once each has answered.
func TestShards(t *testing.T) {
	g := newRegistry()
	c := quick()
	c.Shards = 4
	g.silent = "openclaw-gateway-0"
	g.set(c.ServiceOf("alice"), registered("alice", "g1", 80, 5))
	g.set("openclaw-gateway", registered("hand", "g2", 81, 6), registered("alice", "g0", 82, 4))
	if c.ServiceOf("alice") == g.silent {
		t.Fatal("the test needs alice elsewhere")
	}
	cat := (&fakeConsul{serve: g.serve}).start(t, c, io.Discard)
	run(t, cat)
	for u, generation := range map[sandbox.User]string{"alice": "g1", "hand": "g2"} {
		if i, err := cat.Wait(within(t), u, func(i Instance) bool { return i.Generation == generation }); err != nil {
			t.Errorf("%s: %+v, %v; want %s", u, i, err, generation)
		}
	}
	eventually(t, "the other shards", func() bool {
		for s := range cat.all {
			if s.name != g.silent && s.view.Load() == nil {
				return false
			}
		}
		return true
	})
	if cat.Ready() || cat.Age() != 0 {
		t.Error("full before the last shard has answered")
	}
	g.mu.Lock()
	g.silent = ""
	g.mu.Unlock()
	g.set("openclaw-gateway", registered("hand", "g2", 81, 6), registered("alice", "g3", 83, 9))
	eventually(t, "a full view", cat.Ready)
	if i, err := cat.Wait(within(t), "alice", func(i Instance) bool { return i.Generation == "g3" }); err != nil {
		t.Errorf("a newer one under the plain name: %+v, %v", i, err)
	}
	if cat.Age() <= 0 {
		t.Error("a full view has no age")
	}
}

// Who waits for one user is not woken by another's changes.
func TestWaitersOfOneUser(t *testing.T) {
	g := newRegistry()
	cat := (&fakeConsul{serve: g.serve}).start(t, quick(), io.Discard)
	run(t, cat)
	eventually(t, "a view", cat.Ready)
	var looks atomic.Int32
	done := make(chan error, 1)
	go func() {
		_, err := cat.Wait(t.Context(), "alice", func(Instance) bool { return looks.Add(1) == 2 })
		done <- err
	}()
	alice := registered("alice", "g1", 80, 5)
	for n := range 20 {
		u := "bob" + strconv.Itoa(n)
		g.set("openclaw-gateway", alice, registered(u, "g", 81, 6))
		if _, err := cat.Wait(within(t), sandbox.User(u), nil); err != nil {
			t.Fatal(err)
		}
	}
	if n := looks.Load(); n > 1 {
		t.Errorf("alice's waiter looked %d times, and her gateway changed once", n)
	}
	g.set("openclaw-gateway", registered("alice", "g2", 80, 50))
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// Many misses at once are one query.
func TestRefreshTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		asked := 0
		client, err := consul.NewClient(&consul.Config{Address: "consul.test", HttpClient: &http.Client{Transport: trip(func(r *http.Request) (*http.Response, error) {
			asked++
			time.Sleep(time.Second)
			if err := r.Context().Err(); err != nil {
				return nil, err
			}
			return &http.Response{StatusCode: 200, Header: http.Header{"X-Consul-Index": {"7"}}, Body: io.NopCloser(emptyList()), Request: r}, nil
		})}})
		if err != nil {
			t.Fatal(err)
		}
		cat, err := New(DefaultConfig(), client, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		// The first asks and goes away; the others must have their answer all the same.
		gone, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() { cat.Refresh(gone, "user0") })
		synctest.Wait()
		for n := range 500 {
			wg.Go(func() {
				if err := cat.Refresh(t.Context(), sandbox.User("user"+strconv.Itoa(n))); err != nil {
					t.Error(err)
				}
			})
		}
		synctest.Wait()
		cancel()
		wg.Wait()
		if asked != 2 {
			t.Errorf("Consul was asked %d times, want one that was given up and one", asked)
		}
		if err := cat.Refresh(t.Context(), "late"); err != nil || asked != 2 {
			t.Errorf("right after it: asked %d times, %v", asked, err)
		}
		time.Sleep(freshFor)
		if err := cat.Refresh(t.Context(), "late"); err != nil || asked != 3 {
			t.Errorf("later: asked %d times, %v", asked, err)
		}
	})
}
