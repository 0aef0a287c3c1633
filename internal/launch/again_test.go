package launch

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	nomad "github.com/hashicorp/nomad/api"

	"openclaw-sandbox/internal/catalog"
	"openclaw-sandbox/internal/sandbox"
)

// died is a sandbox whose gateway died: Nomad has its job, the catalog perhaps its
// route, which was evicted. What happens next is the test's.
type died struct {
	broker
	mu         sync.Mutex // guards what follows
	alloc      nomad.Allocation
	dead       bool // the job
	unreadable bool // the allocation
	open       bool // the port
	shown      bool // by Consul
	dispatched int
	probes     int
	evicted    int
	learnt     []catalog.Instance
}

func (d *died) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "/v1/event/stream" {
		d.serve(w, r)
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	switch path := r.URL.Path; {
	case path == "/v1/jobs":
		old := child("openclaw/dispatch-1", 8, "running")
		if d.dead {
			old.Status = "dead"
		}
		jobs := []*nomad.JobListStub{old}
		if d.dispatched > 0 {
			jobs = append(jobs, child("openclaw/dispatch-2", 9, "running"))
		}
		json.NewEncoder(w).Encode(jobs)
	case path == "/v1/job/openclaw":
		describedJob("host")(w)
	case strings.HasSuffix(path, "/dispatch"):
		d.dispatched++
		d.alloc = running("openclaw/dispatch-2")
		d.alloc.ID = "a2"
		json.NewEncoder(w).Encode(nomad.JobDispatchResponse{DispatchedJobID: "openclaw/dispatch-2"})
	case strings.HasSuffix(path, "/allocations"):
		json.NewEncoder(w).Encode([]*nomad.AllocationListStub{d.alloc.Stub()})
	case path == "/v1/allocation/"+d.alloc.ID && !d.unreadable:
		json.NewEncoder(w).Encode(d.alloc)
	default:
		http.NotFound(w, r)
	}
}

// set changes what Nomad says, and tells it.
func (d *died) set(change func(a *nomad.Allocation)) {
	d.mu.Lock()
	change(&d.alloc)
	a := d.alloc
	d.mu.Unlock()
	d.broker.alloc(a)
}

func (d *died) launcher(t *testing.T) *Launcher {
	d.lines = make(chan string)
	d.alloc = running("openclaw/dispatch-1")
	i := catalog.Instance{User: "alice", Generation: "a1", Addr: "10.0.0.1:1", Job: "openclaw/dispatch-1"}
	loc := &fakeLocator{
		wait: func(ctx context.Context, ok func(catalog.Instance) bool) (catalog.Instance, error) {
			d.mu.Lock()
			shown := d.shown
			d.mu.Unlock()
			if shown && ok(i) {
				return i, nil
			}
			<-ctx.Done()
			return catalog.Instance{}, ctx.Err()
		},
		evict: func(string) { d.mu.Lock(); d.evicted++; d.mu.Unlock() },
		learn: func(i catalog.Instance) { d.mu.Lock(); d.learnt = append(d.learnt, i); d.mu.Unlock() },
	}
	cfg := DefaultConfig()
	cfg.Reach = func(context.Context, string) error {
		d.mu.Lock()
		defer d.mu.Unlock()
		if d.probes++; d.open {
			return nil
		}
		return errors.New("closed")
	}
	return simulated(t, cfg, d, loc)
}

func TestGatewayThatDied(t *testing.T) {
	pending := func(a *nomad.Allocation) {
		a.ClientStatus, a.TaskStates["gateway"] = "pending", &nomad.TaskState{State: "pending", Restarts: 1}
	}
	runs := func(a *nomad.Allocation) {
		a.ClientStatus, a.TaskStates["gateway"] = "running", &nomad.TaskState{State: "running", Restarts: 1}
	}
	failed := func(a *nomad.Allocation) { a.ClientStatus = "failed" }
	for name, c := range map[string]struct {
		begin, then func(d *died)
		generation  string
		reason      sandbox.Reason
		dispatched  int
	}{
		"Nomad's word of a run that may be over is not believed": {then: func(d *died) {
			time.Sleep(time.Minute)
			d.set(func(*nomad.Allocation) {})
		}, reason: sandbox.ReasonNotReady},
		"nor when the allocation can not be read at first": {begin: func(d *died) { d.unreadable = true }, then: func(d *died) {
			d.mu.Lock()
			d.unreadable = false
			d.mu.Unlock()
		}, reason: sandbox.ReasonNotReady},
		"it is started again in its place": {then: func(d *died) {
			d.set(pending)
			time.Sleep(8 * time.Second)
			d.set(runs)
		}, generation: "a1"},
		"and nobody saw it begin": {then: func(d *died) { time.Sleep(8 * time.Second); d.set(runs) }, generation: "a1"},
		"Consul shows it, and it answers again": {begin: func(d *died) { d.shown = true }, then: func(d *died) {
			time.Sleep(8 * time.Second)
			d.mu.Lock()
			d.open = true
			d.mu.Unlock()
		}, generation: "a1"},
		"Consul shows it, and it stays closed": {begin: func(d *died) { d.shown = true }, then: func(d *died) {}, reason: sandbox.ReasonUnanswered},
		"it ends, and another is started": {then: func(d *died) {
			d.set(failed)
			time.Sleep(3 * time.Second) // Nomad takes its time to see that the job is dead
			d.mu.Lock()
			d.dead = true
			d.mu.Unlock()
		}, generation: "a2", dispatched: 1},
		"it was stopped": {then: func(d *died) {
			d.mu.Lock()
			d.dead = true
			d.mu.Unlock()
			d.set(func(a *nomad.Allocation) { a.DesiredStatus = "stop" })
		}, generation: "a2", dispatched: 1},
		"it had ended already": {begin: func(d *died) { d.alloc.ClientStatus = "failed" }, then: func(d *died) {
			time.Sleep(time.Second)
			d.mu.Lock()
			d.dead = true
			d.mu.Unlock()
		}, generation: "a2", dispatched: 1},
		"it had ended, and its job goes on": {begin: func(d *died) { d.alloc.ClientStatus = "failed" }, then: func(d *died) {}, reason: sandbox.ReasonInternal},
		"it can not be started again":       {then: func(d *died) { d.set(pending); d.set(failed); d.mu.Lock(); d.dead = true; d.mu.Unlock() }, generation: "a2", dispatched: 1},
		"a start under way fails":           {begin: func(d *died) { pending(&d.alloc) }, then: func(d *died) { d.set(failed) }, reason: sandbox.ReasonInternal},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := &died{}
				l := d.launcher(t)
				if c.begin != nil {
					c.begin(d)
				}
				synctest.Wait() // until the stream is open
				begin := time.Now()
				f := l.Wake("alice", false)
				synctest.Wait()
				c.then(d)
				i, err := f.Wait(t.Context())
				d.mu.Lock()
				defer d.mu.Unlock()
				var failure *sandbox.Failure
				if errors.As(err, &failure); (err == nil) != (c.reason == "") || failure != nil && failure.Reason != c.reason || i.Generation != c.generation {
					t.Errorf("%+v, %v; want generation %q, reason %q", i, err, c.generation, c.reason)
				}
				if d.dispatched != c.dispatched {
					t.Errorf("%d dispatches, want %d", d.dispatched, c.dispatched)
				}
				if err == nil && (len(d.learnt) != 1 || d.learnt[0].Generation != c.generation) {
					t.Errorf("learnt %+v", d.learnt)
				}
				// Each look at a closed port costs a connection: there must not be many.
				if most := 7 + int(time.Since(begin)/longPause); d.probes > most || d.evicted > d.probes {
					t.Errorf("tried %d times, evicted %d times in %s", d.probes, d.evicted, time.Since(begin))
				}
				if d.shown && d.probes == 0 {
					t.Error("the port was never tried")
				}
			})
		})
	}
}
