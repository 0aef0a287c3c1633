package launch

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	consul "github.com/hashicorp/consul/api"
	nomad "github.com/hashicorp/nomad/api"

	"openclaw-sandbox/internal/catalog"
	"openclaw-sandbox/internal/sandbox"
)

// fakeNomad answers Nomad's HTTP API, one func a call. Nil answers 404.
type fakeNomad struct {
	list     func() []*nomad.JobListStub
	dispatch func(w http.ResponseWriter, r *http.Request)
	stop     func(job string)
	allocs   func(job string) []*nomad.AllocationListStub
	stream   func(w http.ResponseWriter, r *http.Request)
	alive    func() int // live children of the job
}

func (f *fakeNomad) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	path := strings.TrimPrefix(r.URL.Path, "/v1/")
	job := strings.TrimSuffix(strings.TrimPrefix(path, "job/"), "/allocations")
	switch {
	case path == "jobs" && f.list != nil:
		json.NewEncoder(w).Encode(f.list())
	case strings.HasSuffix(path, "/dispatch") && f.dispatch != nil:
		f.dispatch(w, r)
	case path == "event/stream" && f.stream != nil:
		f.stream(w, r)
	case r.Method == http.MethodDelete && f.stop != nil:
		f.stop(job)
		fmt.Fprint(w, "{}")
	case strings.HasSuffix(path, "/allocations") && f.allocs != nil:
		json.NewEncoder(w).Encode(f.allocs(job))
	case strings.HasSuffix(path, "/summary") && f.alive != nil:
		json.NewEncoder(w).Encode(nomad.JobSummary{Children: &nomad.JobChildrenSummary{Running: int64(f.alive()), Dead: 100}})
	case strings.HasSuffix(path, "/evaluations"):
		fmt.Fprint(w, "[]")
	default:
		http.NotFound(w, r)
	}
}

// fakeLocator is a catalog with one func a method. Nil is an empty catalog.
type fakeLocator struct {
	refresh func(ctx context.Context) error
	wait    func(ctx context.Context, ok func(catalog.Instance) bool) (catalog.Instance, error)
	learn   func(catalog.Instance)
	evict   func(generation string)
	lookup  func() (catalog.Instance, bool)
	dormant func() (catalog.Instance, catalog.State, bool)
	slept   func(asleep bool, generation string)
	ended   func(generation string)
}

var _ Locator = (*fakeLocator)(nil)

func (f *fakeLocator) Dormant(sandbox.User) (i catalog.Instance, s catalog.State, ok bool) {
	if f.dormant == nil {
		return i, s, false
	}
	return f.dormant()
}

func (f *fakeLocator) Sleep(_ sandbox.User, generation string) { f.sleeps(true, generation) }
func (f *fakeLocator) Rouse(_ sandbox.User, generation string) { f.sleeps(false, generation) }

func (f *fakeLocator) End(generation string) {
	if f.ended != nil {
		f.ended(generation)
	}
}

func (f *fakeLocator) sleeps(asleep bool, generation string) {
	if f.slept != nil {
		f.slept(asleep, generation)
	}
}

func (f *fakeLocator) Lookup(sandbox.User) (catalog.Instance, bool) {
	if f.lookup == nil {
		return catalog.Instance{}, false
	}
	return f.lookup()
}

func (f *fakeLocator) Evict(_ sandbox.User, generation string) {
	if f.evict != nil {
		f.evict(generation)
	}
}

func (f *fakeLocator) Learn(i catalog.Instance) {
	if f.learn != nil {
		f.learn(i)
	}
}

func (f *fakeLocator) Refresh(ctx context.Context, _ sandbox.User) error {
	if f.refresh == nil {
		return nil
	}
	return f.refresh(ctx)
}

func (f *fakeLocator) Wait(ctx context.Context, _ sandbox.User, ok func(catalog.Instance) bool) (catalog.Instance, error) {
	if f.wait == nil {
		<-ctx.Done()
		return catalog.Instance{}, ctx.Err()
	}
	return f.wait(ctx, ok)
}

func testLauncher(t *testing.T, cfg Config, n http.Handler, loc Locator) *Launcher {
	t.Helper()
	s := httptest.NewServer(n)
	nc, err := nomad.NewClient(&nomad.Config{Address: s.URL})
	if err != nil {
		t.Fatal(err)
	}
	cc, err := consul.NewClient(&consul.Config{Address: "127.0.0.1:1"}) // no Consul
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	l := New(ctx, cfg, nc, cc, loc, slog.New(slog.DiscardHandler), nil)
	t.Cleanup(func() {
		cancel()
		l.Wait()
		s.CloseClientConnections()
		s.Close()
	})
	return l
}

func child(id string, index uint64, status string) *nomad.JobListStub {
	return &nomad.JobListStub{ID: id, ParentID: "openclaw", Status: status, CreateIndex: index, Meta: map[string]string{"user": "alice"}}
}

func found(job string) func(context.Context, func(catalog.Instance) bool) (catalog.Instance, error) {
	return func(ctx context.Context, ok func(catalog.Instance) bool) (catalog.Instance, error) {
		if i := (catalog.Instance{User: "alice", Generation: "g", Job: job}); ok(i) {
			return i, nil
		}
		<-ctx.Done()
		return catalog.Instance{}, ctx.Err()
	}
}

// TestTwoChildren: an older Nomad dispatched twice; every router keeps the
// oldest and stops the other.
func TestTwoChildren(t *testing.T) {
	var mu sync.Mutex
	kids := []*nomad.JobListStub{child("openclaw/dispatch-0", 1, "dead")}
	var stopped []string
	var token string
	n := &fakeNomad{
		list: func() []*nomad.JobListStub { mu.Lock(); defer mu.Unlock(); return kids },
		dispatch: func(w http.ResponseWriter, r *http.Request) {
			mu.Lock()
			defer mu.Unlock()
			token = r.URL.Query().Get("idempotency_token")
			kids = append(kids, child("openclaw/dispatch-2", 9, "pending"), child("openclaw/dispatch-1", 8, "running"))
			fmt.Fprint(w, `{"DispatchedJobID":"openclaw/dispatch-2"}`)
		},
		stop: func(job string) { mu.Lock(); defer mu.Unlock(); stopped = append(stopped, job) },
	}
	l := testLauncher(t, DefaultConfig(), n, &fakeLocator{wait: found("openclaw/dispatch-1")})
	if _, err := l.Wake("alice", false).Wait(t.Context()); err != nil {
		t.Fatal(err)
	}
	mu.Lock()
	defer mu.Unlock()
	if len(stopped) != 1 || stopped[0] != "openclaw/dispatch-2" {
		t.Errorf("stopped %q, want the younger child", stopped)
	}
	if !strings.Contains(token, "alice") || !strings.Contains(token, "openclaw/dispatch-0") {
		t.Errorf("token %q names not the user and the last dead child", token)
	}
}

// TestRefusals: what Nomad refuses is told as such, not as an outage.
func TestRefusals(t *testing.T) {
	for name, c := range map[string]struct {
		code   int
		body   string
		reason sandbox.Reason
		says   string
	}{
		"no job":        {500, "parameterized job not found", sandbox.ReasonConfig, "nomad job run"},
		"no token":      {403, "Permission denied", sandbox.ReasonConfig, "token"},
		"other meta":    {500, "Dispatch request included unpermitted metadata keys: [generation]", sandbox.ReasonConfig, "generation"},
		"job stopped":   {500, `Specified job "openclaw" is stopped`, sandbox.ReasonConfig, "stopped"},
		"gone for good": {500, "No cluster leader", sandbox.ReasonInternal, "Nomad"},
	} {
		t.Run(name, func(t *testing.T) {
			n := &fakeNomad{list: func() []*nomad.JobListStub { return nil },
				dispatch: func(w http.ResponseWriter, r *http.Request) { http.Error(w, c.body, c.code) }}
			_, err := testLauncher(t, DefaultConfig(), n, &fakeLocator{}).Wake("alice", false).Wait(t.Context())
			var f *sandbox.Failure
			if !errors.As(err, &f) || f.Reason != c.reason || !strings.Contains(f.Message, c.says) {
				t.Errorf("got %v (%+v), want reason %q and a message with %q", err, f, c.reason, c.says)
			}
		})
	}
}

// TestElection: Nomad without a leader for a moment does not fail a start.
func TestElection(t *testing.T) {
	var tries atomic.Int32
	kids := []*nomad.JobListStub{child("openclaw/dispatch-1", 8, "running")}
	inner := &fakeNomad{list: func() []*nomad.JobListStub { return kids }}
	n := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if tries.Add(1) == 1 {
			http.Error(w, "No cluster leader", 500)
			return
		}
		inner.ServeHTTP(w, r)
	})
	if _, err := testLauncher(t, DefaultConfig(), n, &fakeLocator{wait: found("openclaw/dispatch-1")}).Wake("alice", false).Wait(t.Context()); err != nil {
		t.Errorf("one answer without a leader failed the start: %v", err)
	}
}

// TestHungNomad: a Nomad that takes the request and never answers is told long
// before the whole start's limit.
func TestHungNomad(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
		ctx, cancel := context.WithTimeout(t.Context(), 12*time.Second)
		defer cancel()
		_, err := simulated(t, DefaultConfig(), n, &fakeLocator{}).Wake("alice", false).Wait(ctx)
		var f *sandbox.Failure
		if !errors.As(err, &f) {
			t.Errorf("after 12 s of a hung Nomad: %v; want a failure", err)
		}
	})
}

// TestHungConsul: likewise the look-up before a start; the start goes on.
func TestHungConsul(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		kids := []*nomad.JobListStub{child("openclaw/dispatch-1", 8, "running")}
		n := &fakeNomad{list: func() []*nomad.JobListStub { return kids }}
		loc := &fakeLocator{wait: found("openclaw/dispatch-1"), refresh: func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }}
		ctx, cancel := context.WithTimeout(t.Context(), 12*time.Second)
		defer cancel()
		if _, err := simulated(t, DefaultConfig(), n, loc).Wake("alice", false).Wait(ctx); err != nil {
			t.Errorf("after 12 s of a hung Consul: %v", err)
		}
	})
}

// TestStreamGap: the stream breaks and loses the event; the failure is seen all
// the same.
func TestStreamGap(t *testing.T) {
	kids := []*nomad.JobListStub{child("openclaw/dispatch-1", 8, "running")}
	var lost atomic.Bool
	looked := make(chan struct{})
	look := sync.OnceFunc(func() { close(looked) })
	n := &fakeNomad{
		list: func() []*nomad.JobListStub { return kids },
		stream: func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprintln(w, `{}`)
			w.(http.Flusher).Flush()
			select {
			case <-looked:
				lost.Store(true) // and ends
			case <-r.Context().Done():
			}
		},
		allocs: func(string) []*nomad.AllocationListStub {
			defer look()
			a := &nomad.AllocationListStub{ID: "a1", NodeName: "n1", DesiredStatus: "run", ClientStatus: "pending", CreateIndex: 9}
			if lost.Load() {
				a.ClientStatus = "failed"
				a.TaskStates = map[string]*nomad.TaskState{"gateway": {Events: []*nomad.TaskEvent{{Type: nomad.TaskDriverMessage,
					DisplayMessage: "The stored state is damaged.",
					Details:        sandbox.Progress{Phase: sandbox.PhaseFailed, Reason: sandbox.ReasonStateCorrupt}.Annotations()}}}}
			}
			return []*nomad.AllocationListStub{a}
		},
	}
	l := testLauncher(t, DefaultConfig(), n, &fakeLocator{})
	f := l.Wake("alice", false)
	_, err := f.Wait(t.Context())
	var got *sandbox.Failure
	if !errors.As(err, &got) || got.Reason != sandbox.ReasonStateCorrupt || got.Message != "The stored state is damaged." {
		t.Fatalf("got %v", err)
	}
	if p, _ := f.Progress(); p.Phase != sandbox.PhaseFailed || p.Reason != sandbox.ReasonStateCorrupt {
		t.Errorf("last progress %+v", p)
	}
	if again := l.Wake("alice", false); again != f {
		t.Error("a failure for good was not remembered")
	}
	if again := l.Wake("alice", true); again == f {
		t.Error("retry did not begin anew")
	}
}
