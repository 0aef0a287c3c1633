package catalog

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	consul "github.com/hashicorp/consul/api"

	"openclaw-sandbox/internal/sandbox"
)

// fakeConsul answers health queries as serve says.
type fakeConsul struct {
	serve func(w http.ResponseWriter, r *http.Request)
}

func (f *fakeConsul) start(t *testing.T, c Config, log io.Writer) *Catalog {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { f.serve(w, r) }))
	t.Cleanup(s.Close)
	client, err := consul.NewClient(&consul.Config{Address: strings.TrimPrefix(s.URL, "http://")})
	if err != nil {
		t.Fatal(err)
	}
	cat, err := New(c, client, slog.New(slog.NewTextHandler(log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	return cat
}

// run keeps the catalog until the test ends, and waits for it.
func run(t *testing.T, c *Catalog) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("Run returned %v", err)
		}
	})
}

func quick() Config {
	c := DefaultConfig()
	c.MinBackoff, c.MaxBackoff = time.Millisecond, 2*time.Millisecond
	return c
}

func registered(user, generation string, port int, created uint64) *consul.ServiceEntry {
	return &consul.ServiceEntry{Node: &consul.Node{Node: "n1", Address: "10.0.0.1"}, Service: &consul.AgentService{ID: "id-" + user + generation,
		Port: port, CreateIndex: created, Meta: map[string]string{"user": user, "generation": generation, "node": "n1"}}}
}

func answer(w http.ResponseWriter, index uint64, entries ...*consul.ServiceEntry) {
	if entries == nil {
		entries = []*consul.ServiceEntry{}
	}
	w.Header().Set("X-Consul-Index", strconv.FormatUint(index, 10))
	json.NewEncoder(w).Encode(entries)
}

func within(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func TestInstances(t *testing.T) {
	for name, c := range map[string]struct {
		entries []*consul.ServiceEntry
		want    string // generation; empty for none
	}{
		"one":                         {[]*consul.ServiceEntry{registered("alice", "g1", 80, 5)}, "g1"},
		"newest registration":         {[]*consul.ServiceEntry{registered("alice", "g2", 80, 9), registered("alice", "g1", 80, 5)}, "g2"},
		"newest, other order":         {[]*consul.ServiceEntry{registered("alice", "g1", 80, 5), registered("alice", "g2", 80, 9)}, "g2"},
		"tie goes by generation":      {[]*consul.ServiceEntry{registered("alice", "g1", 80, 5), registered("alice", "g2", 80, 5)}, "g2"},
		"bad user":                    {[]*consul.ServiceEntry{registered("Alice/../x", "g1", 80, 5)}, ""},
		"no generation":               {[]*consul.ServiceEntry{registered("alice", "", 80, 5)}, ""},
		"no port":                     {[]*consul.ServiceEntry{registered("alice", "g1", 0, 5)}, ""},
		"a bad one beside a good one": {[]*consul.ServiceEntry{registered("-", "g0", 80, 7), registered("alice", "g1", 80, 5)}, "g1"},
	} {
		t.Run(name, func(t *testing.T) {
			f := &fakeConsul{serve: func(w http.ResponseWriter, r *http.Request) { answer(w, 7, c.entries...) }}
			cat := f.start(t, quick(), io.Discard)
			if err := cat.Refresh(within(t), "alice"); err != nil {
				t.Fatal(err)
			}
			if i, ok := cat.Lookup("alice"); i.Generation != c.want || ok != (c.want != "") {
				t.Errorf("got %+v, %v; want generation %q", i, ok, c.want)
			}
		})
	}
}

// TestIndexReset: an index that goes back starts over at 0, and so does an error.
func TestIndexReset(t *testing.T) {
	var mu sync.Mutex
	var asked []string
	enough := make(chan struct{})
	f := &fakeConsul{serve: func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		n := len(asked)
		asked = append(asked, r.URL.Query().Get("index"))
		mu.Unlock()
		switch n {
		case 0:
			answer(w, 50)
		case 1:
			answer(w, 3) // back: a restored Consul
		case 2:
			answer(w, 4)
		case 3:
			http.Error(w, "No cluster leader", 500)
		case 4:
			answer(w, 6)
		case 5:
			close(enough)
			<-r.Context().Done()
		default:
			<-r.Context().Done()
		}
	}}
	run(t, f.start(t, quick(), io.Discard))
	select {
	case <-enough:
	case <-within(t).Done():
		t.Fatal("the watch did not go on")
	}
	mu.Lock()
	defer mu.Unlock()
	want := []string{"", "50", "", "4", "", "6"}
	if strings.Join(asked, ",") != strings.Join(want, ",") {
		t.Errorf("asked with indexes %q, want %q", asked, want)
	}
}

// TestViewStands: while Consul fails the last view stands, and waiters are woken
// by the first answer after it.
func TestViewStands(t *testing.T) {
	var broken atomic.Bool
	failed := make(chan struct{}, 100)
	f := &fakeConsul{}
	change := make(chan struct{})
	f.serve = func(w http.ResponseWriter, r *http.Request) {
		switch {
		case broken.Load():
			select {
			case failed <- struct{}{}:
			default:
			}
			http.Error(w, "gone", 500)
		case r.URL.Query().Get("index") == "":
			select {
			case <-change:
				answer(w, 9, registered("alice", "g1", 80, 5), registered("bob", "g2", 81, 8))
			default:
				answer(w, 7, registered("alice", "g1", 80, 5))
			}
		default: // hangs until the outage
			broken.Store(true)
			http.Error(w, "gone", 500)
		}
	}
	cat := f.start(t, quick(), io.Discard)
	run(t, cat)
	ctx := within(t)
	if _, err := cat.Wait(ctx, "alice", nil); err != nil {
		t.Fatal(err)
	}
	for range 5 { // several failures long
		select {
		case <-failed:
		case <-ctx.Done():
			t.Fatal("no further tries")
		}
	}
	if i, ok := cat.Lookup("alice"); !ok || i.Addr != "10.0.0.1:80" || !cat.Ready() {
		t.Errorf("during the outage: %+v, %v, ready %v", i, ok, cat.Ready())
	}
	close(change)
	broken.Store(false)
	if _, err := cat.Wait(ctx, "bob", nil); err != nil {
		t.Errorf("after the outage: %v", err)
	}
}

// TestLateRefresh: a point look-up whose answer is older than the view does not
// take the view back; the next change may be minutes away.
func TestLateRefresh(t *testing.T) {
	refreshing, release, seen := make(chan struct{}), make(chan struct{}), make(chan struct{})
	var watches atomic.Int32
	f := &fakeConsul{serve: func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Get("wait") == "" { // the point look-up
			close(refreshing)
			<-release
			answer(w, 5)
			return
		}
		if watches.Add(1) > 1 {
			<-r.Context().Done()
			return
		}
		<-seen
		answer(w, 6, registered("alice", "g1", 80, 6))
	}}
	cat := f.start(t, quick(), io.Discard)
	run(t, cat)
	ctx := within(t)
	done := make(chan error, 1)
	go func() { done <- cat.Refresh(ctx, "alice") }()
	<-refreshing
	close(seen)
	if _, err := cat.Wait(ctx, "alice", nil); err != nil {
		t.Fatal(err)
	}
	close(release)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if _, ok := cat.Lookup("alice"); !ok {
		t.Error("an older answer removed a gateway that the watch had seen")
	}
}

// TestNoIndex: answers without an index cannot be waited on, and must not become
// a busy loop.
func TestNoIndex(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		asked := 0
		client, err := consul.NewClient(&consul.Config{Address: "consul.test", HttpClient: &http.Client{Transport: trip(func(r *http.Request) (*http.Response, error) {
			if asked++; asked > 1000 {
				<-r.Context().Done() // so that a busy loop ends the test instead of hanging it
				return nil, r.Context().Err()
			}
			return &http.Response{StatusCode: 200, Header: http.Header{"X-Consul-Index": {"0"}}, Body: io.NopCloser(strings.NewReader("[]")), Request: r}, nil
		})}})
		if err != nil {
			t.Fatal(err)
		}
		cat, err := New(DefaultConfig(), client, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		cat.Run(ctx)
		if asked > 100 {
			t.Errorf("asked %d times in one second", asked)
		}
	})
}

type trip func(*http.Request) (*http.Response, error)

func (f trip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// TestHungConsul: a Consul that takes the request and never answers is an outage
// too, to be seen within the wait and a margin.
func TestHungConsul(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		asked := 0
		client, err := consul.NewClient(&consul.Config{Address: "consul.test", HttpClient: &http.Client{Transport: trip(func(r *http.Request) (*http.Response, error) {
			asked++
			<-r.Context().Done()
			return nil, r.Context().Err()
		})}})
		if err != nil {
			t.Fatal(err)
		}
		c := DefaultConfig()
		cat, _ := New(c, client, slog.New(slog.DiscardHandler))
		ctx, cancel := context.WithTimeout(t.Context(), 3*c.Wait)
		defer cancel()
		cat.Run(ctx)
		if asked < 2 {
			t.Errorf("in three times the wait, Consul was asked %d times", asked)
		}
	})
}

// TestWarnOnce: a bad registration is named once, not with every change.
func TestWarnOnce(t *testing.T) {
	var log strings.Builder
	f := &fakeConsul{serve: func(w http.ResponseWriter, r *http.Request) { answer(w, 7, registered("Bad", "g1", 80, 5)) }}
	cat := f.start(t, quick(), &log)
	for range 3 {
		if err := cat.shards[0].ask(within(t)); err != nil {
			t.Fatal(err)
		}
	}
	if n := strings.Count(log.String(), "id-Badg1"); n != 1 {
		t.Errorf("named %d times:\n%s", n, log.String())
	}
}

func TestEvict(t *testing.T) {
	f := &fakeConsul{serve: func(w http.ResponseWriter, r *http.Request) { answer(w, 7, registered("alice", "g1", 80, 5)) }}
	cat := f.start(t, quick(), io.Discard)
	if err := cat.shards[0].ask(within(t)); err != nil {
		t.Fatal(err)
	}
	cat.Evict("alice", "g0")
	if _, ok := cat.Lookup("alice"); !ok {
		t.Fatal("evicting another generation removed this one")
	}
	cat.Evict("alice", "g1")
	if _, ok := cat.Lookup("alice"); ok {
		t.Fatal("still there")
	}
	// A wake begins with a point look-up; Consul has not noticed the dead node yet.
	if err := cat.shards[0].ask(within(t)); err != nil {
		t.Fatal(err)
	}
	if _, ok := cat.Lookup("alice"); ok {
		t.Error("a look-up right after the eviction brings the unreachable gateway back")
	}
}

func TestWaitEnds(t *testing.T) {
	cat := (&fakeConsul{}).start(t, quick(), io.Discard)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := cat.Wait(ctx, sandbox.User("alice"), nil); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}
