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

// sleeper is a catalog with one gateway, and the Nomad that freezes it.
type sleeper struct {
	mu      sync.Mutex // guards what follows
	state   catalog.State
	absent  bool
	believe bool // Lookup finds it
	signals []string
	slept   []string
	refuse  bool // Nomad takes no signals
	frozen  bool // what the allocation's events say
}

var alices = catalog.Instance{User: "alice", Generation: "a1", Addr: "10.0.0.1:80", Job: "openclaw/dispatch-alice-1"}

func (s *sleeper) locator() *fakeLocator {
	return &fakeLocator{
		dormant: func() (catalog.Instance, catalog.State, bool) {
			s.mu.Lock()
			defer s.mu.Unlock()
			return alices, s.state, !s.absent && !s.believe
		},
		lookup: func() (catalog.Instance, bool) {
			s.mu.Lock()
			defer s.mu.Unlock()
			return alices, s.believe
		},
		learn: func(catalog.Instance) { s.mu.Lock(); defer s.mu.Unlock(); s.believe = true },
		slept: func(asleep bool, g string) {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.slept = append(s.slept, map[bool]string{true: "sleep ", false: "rouse "}[asleep]+g)
		},
	}
}

func (s *sleeper) alloc() nomad.Allocation {
	a := running("openclaw/dispatch-alice-1")
	a.TaskStates["gateway"].Events = []*nomad.TaskEvent{{Type: "Started", Time: 1}, {Type: "Driver", Time: 3, Details: sandbox.SleepAnnotations("alice", s.frozen)},
		{Type: "Driver", Time: 2, Details: sandbox.SleepAnnotations("alice", !s.frozen)}}
	return a
}

func (s *sleeper) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case strings.HasSuffix(r.URL.Path, "/signal") && s.refuse:
		http.Error(w, "Unknown allocation", http.StatusNotFound)
	case strings.HasSuffix(r.URL.Path, "/signal"):
		var in nomad.AllocSignalRequest
		json.NewDecoder(r.Body).Decode(&in)
		s.signals = append(s.signals, in.Task+" "+in.Signal)
		w.Write([]byte("{}"))
	case r.URL.Path == "/v1/allocation/a1":
		json.NewEncoder(w).Encode(s.alloc())
	case r.URL.Path == "/v1/jobs":
		w.Write([]byte("[]"))
	default:
		http.NotFound(w, r)
	}
}

func (s *sleeper) sent() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return strings.Join(s.signals, ", ")
}

// A frozen sandbox is let go on, once however many ask, and past every limit of
// starts; it is a route when it answers.
func TestThaw(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &sleeper{state: catalog.Asleep}
		cfg := DefaultConfig()
		cfg.UserStarts, cfg.MaxStarting, cfg.MaxQueued = 1, 1, 1
		tries := 0
		cfg.Answers = func(context.Context, string) error {
			if tries++; tries < 8 {
				return errors.New("not yet")
			}
			return nil
		}
		l := simulated(t, cfg, s, s.locator())
		l.mu.Lock()
		l.starting, l.queue = 1, []*Flight{newFlight("bob")} // others' starts fill the line
		l.mu.Unlock()
		first := l.Wake("alice", false)
		if second := l.Wake("alice", false); second != first {
			t.Error("two thaws of one sandbox")
		}
		i, err := first.Wait(t.Context())
		if err != nil || i != alices || s.sent() != "gateway SIGCONT" {
			t.Errorf("%+v, %v; sent %q", i, err, s.sent())
		}
		l.mu.Lock()
		defer l.mu.Unlock()
		if l.starting != 1 || len(l.queue) != 1 {
			t.Errorf("%d starts and %d in line, want those of others", l.starting, len(l.queue))
		}
		l.queue = nil
	})
}

// Of one whose check fails, Nomad knows whether it is frozen.
func TestThawOfOneWhoseCheckFails(t *testing.T) {
	for name, c := range map[string]struct {
		frozen bool
		want   string
	}{"frozen": {true, "gateway SIGCONT"}, "hangs": {false, ""}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &sleeper{state: catalog.Critical, frozen: c.frozen}
				cfg := DefaultConfig()
				cfg.StartTimeout = time.Second
				l := simulated(t, cfg, s, s.locator())
				_, err := l.Wake("alice", false).Wait(t.Context())
				if s.sent() != c.want || (err == nil) != c.frozen {
					t.Errorf("sent %q, %v; want %q", s.sent(), err, c.want)
				}
			})
		})
	}
}

// A sandbox that is gone meanwhile is started.
func TestThawOfOneThatIsGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &sleeper{state: catalog.Asleep, refuse: true}
		cfg := DefaultConfig()
		cfg.StartTimeout = 30 * time.Second
		l := simulated(t, cfg, s, s.locator())
		_, err := l.Wake("alice", false).Wait(t.Context())
		var f *sandbox.Failure
		if !errors.As(err, &f) || f.Reason != sandbox.ReasonConfig {
			t.Errorf("%v, want that it tried to dispatch a job that Nomad does not have here", err)
		}
	})
}

// A sandbox that does not thaw is started like any other: the limits of starts apply.
func TestThawThatFailsWaitsInLine(t *testing.T) {
	for name, c := range map[string]struct {
		queued int // MaxQueued
		want   sandbox.Reason
	}{"in line": {5, ""}, "the line is full": {1, sandbox.ReasonQueueFull}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &sleeper{state: catalog.Asleep, refuse: true}
				locator := s.locator()
				locator.wait = func(ctx context.Context, _ func(catalog.Instance) bool) (catalog.Instance, error) {
					<-ctx.Done()
					return catalog.Instance{}, ctx.Err()
				}
				cfg := DefaultConfig()
				cfg.MaxStarting, cfg.MaxQueued = 1, c.queued
				l := simulated(t, cfg, s, locator)
				bob := newFlight("bob")
				l.mu.Lock()
				l.starting, l.queue = 1, []*Flight{bob} // others' starts fill the line
				l.mu.Unlock()
				f := l.Wake("alice", false)
				synctest.Wait()
				p, _ := f.Progress()
				l.mu.Lock()
				defer l.mu.Unlock()
				if p.Reason != c.want || c.want == "" && (p.Position != 2 || len(l.queue) != 2) {
					t.Errorf("%+v with %d in line, want %q", p, len(l.queue), c.want)
				}
				if c.want == "" {
					l.queue[1].begins() // ends the wait in line
				}
				l.queue = nil
			})
		})
	}
}

// What Nomad tells of sleeps goes to the catalog; whoever waits for an answer then
// lets it go on.
func TestNews(t *testing.T) {
	for name, c := range map[string]struct {
		frozen, waits bool
		status        string
		want, sent    string
	}{
		"frozen":                    {true, false, "running", "sleep a1", ""},
		"thawed":                    {false, false, "running", "rouse a1", ""},
		"frozen, and somebody came": {true, true, "running", "sleep a1", "gateway SIGCONT"},
		"ended":                     {true, true, "complete", "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &sleeper{state: catalog.Asleep, frozen: c.frozen}
				b := &broker{lines: make(chan string)}
				cfg := DefaultConfig()
				cfg.Waits = func(sandbox.User) bool { return c.waits }
				simulated(t, cfg, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					if r.URL.Path == "/v1/event/stream" {
						b.serve(w, r)
						return
					}
					s.ServeHTTP(w, r)
				}), s.locator())
				a := s.alloc()
				a.ClientStatus = c.status
				b.alloc(running("openclaw/dispatch-alice-1")) // says nothing of it
				b.alloc(a)
				synctest.Wait()
				s.mu.Lock()
				got := strings.Join(s.slept, ", ")
				s.mu.Unlock()
				if got != c.want || s.sent() != c.sent {
					t.Errorf("%q, sent %q; want %q, %q", got, s.sent(), c.want, c.sent)
				}
			})
		})
	}
}

func TestFreezeAndStop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &sleeper{}
		l := simulated(t, DefaultConfig(), s, s.locator())
		if err := l.Freeze(t.Context(), alices); err != nil || s.sent() != "gateway SIGSTOP" || strings.Join(s.slept, ", ") != "sleep a1" {
			t.Errorf("%v, sent %q, told %q", err, s.sent(), s.slept)
		}
		s.mu.Lock()
		s.refuse, s.slept = true, nil
		s.mu.Unlock()
		if err := l.Freeze(t.Context(), alices); err == nil || strings.Join(s.slept, ", ") != "sleep a1, rouse a1" {
			t.Errorf("refused: %v, told %q", err, s.slept)
		}
		if err := l.Stop(t.Context(), catalog.Instance{User: "alice", Generation: "a1"}); err == nil {
			t.Error("a job without a name was stopped")
		}
	})
}
