package launch

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	nomad "github.com/hashicorp/nomad/api"

	"openclaw-sandbox/internal/catalog"
	"openclaw-sandbox/internal/sandbox"
)

// broker is an event stream to which a test sends.
type broker struct {
	lines chan string
}

func (b *broker) serve(w http.ResponseWriter, r *http.Request) {
	fmt.Fprintln(w, `{}`)
	for {
		select {
		case line := <-b.lines:
			fmt.Fprintln(w, line)
		case <-r.Context().Done():
			return
		}
	}
}

func (b *broker) alloc(a nomad.Allocation) {
	p, err := json.Marshal(map[string]any{"Index": 1, "Events": []any{map[string]any{"Topic": "Allocation", "Key": a.ID, "FilterKeys": []string{a.JobID, ""}, "Payload": map[string]any{"Allocation": a}}}})
	if err != nil {
		panic(err)
	}
	b.lines <- string(p)
}

// described is Nomad's answer for the parameterized job, whose service has mode.
func describedJob(mode string) func(w http.ResponseWriter) {
	return func(w http.ResponseWriter) {
		id, group := "openclaw", "sandbox"
		json.NewEncoder(w).Encode(nomad.Job{ID: &id, TaskGroups: []*nomad.TaskGroup{{Name: &group, Tasks: []*nomad.Task{{Name: "gateway", Services: []*nomad.Service{
			{Name: "other"}, {Name: "${NOMAD_META_service}", PortLabel: "gateway", AddressMode: mode, Meta: map[string]string{"user": "u", "generation": "g"}}}}}}}})
	}
}

func running(job string) nomad.Allocation {
	return nomad.Allocation{ID: "a1", JobID: job, NodeName: "n1", ClientStatus: "running", DesiredStatus: "run",
		TaskStates:         map[string]*nomad.TaskState{"gateway": {State: "running"}},
		NetworkStatus:      &nomad.AllocNetworkStatus{Address: "172.26.64.9"},
		AllocatedResources: &nomad.AllocatedResources{Shared: nomad.AllocatedSharedResources{Ports: []nomad.PortMapping{{Label: "x", Value: 1}, {Label: "gateway", Value: 23456, To: 18789, HostIP: "10.0.0.1"}}}}}
}

// Where Nomad says that the gateway runs is a route at once, if it can be known.
func TestAddress(t *testing.T) {
	for name, c := range map[string]struct {
		mode string
		edit func(*nomad.Allocation)
		want string // empty: left to Consul
	}{
		"host":              {"host", nil, "10.0.0.1:23456"},
		"driver":            {"driver", nil, "172.26.64.9:18789"},
		"alloc":             {"alloc", nil, "172.26.64.9:18789"},
		"same port inside":  {"alloc", func(a *nomad.Allocation) { a.AllocatedResources.Shared.Ports[1].To = 0 }, "172.26.64.9:23456"},
		"auto":              {"auto", nil, ""},
		"no network":        {"driver", func(a *nomad.Allocation) { a.NetworkStatus = nil }, ""},
		"no port":           {"host", func(a *nomad.Allocation) { a.AllocatedResources.Shared.Ports = nil }, ""},
		"task still starts": {"host", func(a *nomad.Allocation) { a.TaskStates["gateway"].State = "pending" }, ""},
		"is being stopped":  {"host", func(a *nomad.Allocation) { a.DesiredStatus = "stop" }, ""},
		"another task runs": {"host", func(a *nomad.Allocation) {
			a.TaskStates = map[string]*nomad.TaskState{"other": {State: "running"}}
		}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					if r.URL.Path == "/v1/job/openclaw" {
						describedJob(c.mode)(w)
						return
					}
					http.NotFound(w, r)
				})
				a := running("openclaw/dispatch-1")
				if c.edit != nil {
					c.edit(&a)
				}
				i, ok := simulated(t, DefaultConfig(), n, &fakeLocator{}).early(t.Context(), "alice", &a)
				if ok != (c.want != "") || i.Addr != c.want {
					t.Errorf("got %+v, %t; want %q", i, ok, c.want)
				}
				if ok && i != (catalog.Instance{User: "alice", Generation: "a1", Addr: c.want, Node: "n1", Job: "openclaw/dispatch-1"}) {
					t.Errorf("got %+v", i)
				}
			})
		})
	}
}

// A port beside the gateway's is where the service's meta will say, too.
func TestPorts(t *testing.T) {
	a := running("openclaw/dispatch-1")
	a.AllocatedResources.Shared.Ports = []nomad.PortMapping{{Label: "gateway", Value: 1, To: 18789}, {Label: "telegram", Value: 23456, To: 8787}, {Label: "free", Value: 3}, {Label: "x", Value: 4, To: 5}}
	for mode, want := range map[string]string{"host": "8787=23456,5=4", "driver": "8787=8787,5=5", "alloc": "8787=8787,5=5"} {
		if got := ports(&nomad.Service{PortLabel: "gateway", AddressMode: mode}, &a); got != want {
			t.Errorf("%s: %q, want %q", mode, got, want)
		}
	}
}

// A thousand starts at once are one stream and few calls each; and each ends with
// the address from the stream, long before Consul would say it.
func TestManyFlightsOneStream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const users = 1000
		b := &broker{lines: make(chan string)}
		var mu sync.Mutex
		of := map[string]*nomad.JobListStub{} // by user
		var streams, looks, infos atomic.Int32
		n := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			switch {
			case r.URL.Path == "/v1/event/stream":
				streams.Add(1)
				b.serve(w, r)
			case r.URL.Path == "/v1/job/openclaw":
				infos.Add(1)
				describedJob("host")(w)
			case r.URL.Path == "/v1/jobs":
				mu.Lock()
				defer mu.Unlock()
				out := []*nomad.JobListStub{}
				for u, j := range of {
					if strings.Contains(r.URL.Query().Get("filter"), `"`+u+`"`) && strings.HasPrefix(j.ID, r.URL.Query().Get("prefix")) {
						out = append(out, j)
					}
				}
				json.NewEncoder(w).Encode(out)
			case strings.HasSuffix(r.URL.Path, "/dispatch"):
				var in nomad.JobDispatchRequest
				if err := json.NewDecoder(r.Body).Decode(&in); err != nil {
					t.Error(err)
				}
				u := in.Meta["user"]
				mu.Lock()
				defer mu.Unlock()
				id := "openclaw/dispatch-" + in.IdPrefixTemplate + "-1"
				of[u] = &nomad.JobListStub{ID: id, ParentID: "openclaw", Status: "running", CreateIndex: 9, Meta: map[string]string{"user": u}}
				json.NewEncoder(w).Encode(nomad.JobDispatchResponse{DispatchedJobID: id})
			case strings.HasSuffix(r.URL.Path, "/allocations"):
				looks.Add(1)
				fmt.Fprint(w, "[]")
			case strings.HasSuffix(r.URL.Path, "/evaluations"):
				fmt.Fprint(w, "[]")
			default: // a child
				fmt.Fprint(w, "{}")
			}
		})
		var learnt atomic.Int32
		cfg := DefaultConfig()
		cfg.MaxStarting = 0
		l := simulated(t, cfg, n, &fakeLocator{learn: func(catalog.Instance) { learnt.Add(1) }})
		synctest.Wait()
		var flights []*Flight
		for u := range users {
			flights = append(flights, l.Wake(sandbox.User(fmt.Sprintf("u%d", u)), false))
		}
		time.Sleep(20 * time.Second)
		// Somebody else's, and one that is not there yet, change nothing.
		b.alloc(running("another/dispatch-1"))
		pending := running("openclaw/dispatch-u0-1")
		pending.TaskStates["gateway"].State = "pending"
		b.alloc(pending)
		synctest.Wait()
		if p, _ := flights[0].Progress(); p.Phase != sandbox.PhasePlaced {
			t.Errorf("progress %+v, want placed", p)
		}
		for u := range users {
			b.alloc(running(fmt.Sprintf("openclaw/dispatch-u%d-1", u)))
		}
		for _, f := range flights {
			if i, err := f.Wait(t.Context()); err != nil || i.Addr != "10.0.0.1:23456" {
				t.Fatalf("%s: %+v, %v", f.User, i, err)
			}
		}
		if streams.Load() != 1 || looks.Load() != users || infos.Load() != 1 || learnt.Load() != users {
			t.Errorf("%d streams, %d looks, %d reads of the job, %d learnt; want 1, %d, 1, %d", streams.Load(), looks.Load(), infos.Load(), learnt.Load(), users, users)
		}
	})
}

// Without a stream, a flight looks for itself, and sees as much.
func TestWithoutStream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		n := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			a := running("openclaw/dispatch-1")
			if time.Since(begin) < 10*time.Second {
				a.ClientStatus = "pending"
			}
			switch r.URL.Path {
			case "/v1/jobs":
				json.NewEncoder(w).Encode([]*nomad.JobListStub{child("openclaw/dispatch-1", 8, "running")})
			case "/v1/job/openclaw":
				describedJob("alloc")(w)
			case "/v1/job/openclaw/dispatch-1/allocations":
				json.NewEncoder(w).Encode([]*nomad.AllocationListStub{a.Stub()})
			case "/v1/allocation/a1":
				json.NewEncoder(w).Encode(a)
			default:
				http.NotFound(w, r)
			}
		})
		i, err := simulated(t, DefaultConfig(), n, &fakeLocator{}).Wake("alice", false).Wait(t.Context())
		if took := time.Since(begin); err != nil || i.Addr != "172.26.64.9:18789" || took > 10*time.Second+lookAgain {
			t.Errorf("%+v, %v after %s", i, err, took)
		}
	})
}

// A start without room is withdrawn in time, though the stream says nothing more.
func TestNoRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		var stopped atomic.Int32
		b := &broker{lines: make(chan string)}
		n := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			switch {
			case r.URL.Path == "/v1/event/stream":
				b.serve(w, r)
			case r.Method == http.MethodDelete:
				stopped.Add(1)
				fmt.Fprint(w, "{}")
			case r.URL.Path == "/v1/jobs":
				json.NewEncoder(w).Encode([]*nomad.JobListStub{child("openclaw/dispatch-1", 8, "pending")})
			case strings.HasSuffix(r.URL.Path, "/evaluations"):
				json.NewEncoder(w).Encode([]*nomad.Evaluation{{ID: "e", FailedTGAllocs: map[string]*nomad.AllocationMetric{"sandbox": {NodesEvaluated: 2, DimensionExhausted: map[string]int{"memory": 2}}}}})
			default:
				fmt.Fprint(w, "[]")
			}
		})
		cfg := DefaultConfig()
		_, err := simulated(t, cfg, n, &fakeLocator{}).Wake("alice", false).Wait(t.Context())
		f, ok := err.(*sandbox.Failure)
		if took := time.Since(begin); !ok || f.Reason != sandbox.ReasonNoCapacity || !strings.Contains(f.Message, "memory on 2") || took < cfg.CapacityWait || took > cfg.CapacityWait+time.Second || stopped.Load() != 1 {
			t.Errorf("%v after %s, stopped %d", err, took, stopped.Load())
		}
	})
}

// A Nomad that fails for a moment is asked again soon, though its stream is open.
func TestLookFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		var failed, dispatched atomic.Bool
		b := &broker{lines: make(chan string)}
		n := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			switch r.URL.Path {
			case "/v1/event/stream":
				b.serve(w, r)
			case "/v1/jobs":
				jobs := []*nomad.JobListStub{}
				if dispatched.Load() {
					jobs = append(jobs, child("openclaw/dispatch-1", 8, "running"))
				}
				json.NewEncoder(w).Encode(jobs)
			case "/v1/job/openclaw/dispatch":
				dispatched.Store(true)
				json.NewEncoder(w).Encode(nomad.JobDispatchResponse{DispatchedJobID: "openclaw/dispatch-1"})
			case "/v1/job/openclaw":
				describedJob("host")(w)
			case "/v1/job/openclaw/dispatch-1/allocations":
				if !failed.Swap(true) {
					http.Error(w, "no", 500)
					return
				}
				a := running("openclaw/dispatch-1")
				json.NewEncoder(w).Encode([]*nomad.AllocationListStub{a.Stub()})
			case "/v1/allocation/a1":
				json.NewEncoder(w).Encode(running("openclaw/dispatch-1"))
			default:
				http.NotFound(w, r)
			}
		})
		l := simulated(t, DefaultConfig(), n, &fakeLocator{})
		synctest.Wait() // until the stream is open
		i, err := l.Wake("alice", false).Wait(t.Context())
		if took := time.Since(begin); err != nil || i.Addr != "10.0.0.1:23456" || took > lookAgain {
			t.Errorf("%+v, %v after %s", i, err, took)
		}
	})
}
