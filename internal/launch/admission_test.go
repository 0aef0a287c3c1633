package launch

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
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

// gate is a locator whose users' gateways appear when the test says so, and a
// Nomad where everybody has a child.
type gate struct {
	fakeLocator
	mu    sync.Mutex // guards began
	began []sandbox.User
	open  map[sandbox.User]chan error
}

func newGate(users ...sandbox.User) *gate {
	g := &gate{open: map[sandbox.User]chan error{}}
	for _, u := range users {
		g.open[u] = make(chan error, 10)
	}
	return g
}

// Refresh is a start's first step.
func (g *gate) Refresh(_ context.Context, u sandbox.User) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.began = append(g.began, u)
	return nil
}

func (g *gate) starts() string {
	synctest.Wait()
	g.mu.Lock()
	defer g.mu.Unlock()
	return strings.Trim(fmt.Sprint(g.began), "[]")
}

func (g *gate) Wait(ctx context.Context, u sandbox.User, _ func(catalog.Instance) bool) (catalog.Instance, error) {
	select {
	case err := <-g.open[u]:
		return catalog.Instance{User: u, Generation: "g"}, err
	case <-ctx.Done():
		return catalog.Instance{}, ctx.Err()
	}
}

func (g *gate) nomad() http.Handler {
	return &fakeNomad{list: func() []*nomad.JobListStub { return nil },
		dispatch: func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprint(w, `{"DispatchedJobID":"openclaw/dispatch-x"}`)
		}}
}

// More starts than allowed wait in line, first come, first served, and know their place.
func TestQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate("a", "b", "c", "d", "e")
		cfg := DefaultConfig()
		cfg.MaxStarting = 2
		l := simulated(t, cfg, g.nomad(), g)
		flights := map[sandbox.User]*Flight{}
		for _, u := range []sandbox.User{"a", "b", "c", "d", "e"} {
			flights[u] = l.Wake(u, false)
			synctest.Wait()
		}
		want := func(began string, positions map[sandbox.User]int) {
			t.Helper()
			if got := g.starts(); got != began {
				t.Errorf("began %q, want %q", got, began)
			}
			for u, n := range positions {
				if p, _ := flights[u].Progress(); p.Position != n || n > 0 && p.Phase != sandbox.PhaseQueued {
					t.Errorf("%s: %+v, want position %d", u, p, n)
				}
			}
		}
		want("a b", map[sandbox.User]int{"a": 0, "b": 0, "c": 1, "d": 2, "e": 3})
		_, moved := flights["e"].Progress()
		g.open["b"] <- nil
		want("a b c", map[sandbox.User]int{"c": 0, "d": 1, "e": 2})
		select {
		case <-moved:
		default:
			t.Error("who waits was not told that the line moved")
		}
		g.open["a"] <- errors.New("broken") // a failure makes room, too
		want("a b c d", map[sandbox.User]int{"d": 0, "e": 1})
		if l.Wake("e", true) != flights["e"] {
			t.Error("asking again changed the place in line")
		}
		g.open["c"] <- nil
		g.open["d"] <- nil
		want("a b c d e", nil)
		g.open["e"] <- nil
		if _, err := flights["e"].Wait(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

// Who waits in line does not wait for a start that another router has made.
func TestStartedElsewhere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate("a", "b", "c")
		cfg := DefaultConfig()
		cfg.MaxStarting = 1
		l := simulated(t, cfg, g.nomad(), g)
		l.Wake("a", false)
		synctest.Wait()
		g.lookup = func() (catalog.Instance, bool) { return catalog.Instance{User: "b", Generation: "g"}, true }
		b, c := l.Wake("b", false), l.Wake("c", false)
		g.open["b"] <- nil
		if i, err := b.Wait(t.Context()); err != nil || i.Generation != "g" {
			t.Errorf("%+v, %v", i, err)
		}
		if got := g.starts(); got != "a" {
			t.Errorf("began %q, want only the first", got)
		}
		if p, _ := c.Progress(); p.Position != 1 {
			t.Errorf("who was behind: %+v, want the next", p)
		}
		if starting, queued := l.Load(); starting != 1 || queued != 1 {
			t.Errorf("%d start, %d are queued", starting, queued)
		}
		if _, ok := l.Flight("b"); ok {
			t.Error("the flight is still in the air")
		}
	})
}

// A start's time begins when it begins, not when it gets in line.
func TestQueueIsNotTheStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate("a", "b")
		cfg := DefaultConfig()
		cfg.MaxStarting = 1
		l := simulated(t, cfg, g.nomad(), g)
		a, b := l.Wake("a", false), l.Wake("b", false)
		if _, err := a.Wait(t.Context()); err == nil {
			t.Fatal("a start without an end succeeded")
		}
		time.Sleep(cfg.StartTimeout / 2)
		g.open["b"] <- nil
		if _, err := b.Wait(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

// A line has an end.
func TestQueueIsFull(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate("a", "b", "c", "d", "e")
		cfg := DefaultConfig()
		cfg.MaxStarting, cfg.MaxQueued = 1, 2
		l := simulated(t, cfg, g.nomad(), g)
		for _, u := range []sandbox.User{"a", "b", "c"} {
			l.Wake(u, false)
		}
		retries := map[time.Duration]bool{}
		for range 20 {
			_, err := l.Wake("d", false).Wait(t.Context())
			var f *sandbox.Failure
			if !errors.As(err, &f) || f.Reason != sandbox.ReasonQueueFull || f.RetryAfter < limitRetry || f.RetryAfter > limitRetry+limitSpread {
				t.Fatalf("%+v", err)
			}
			retries[f.RetryAfter] = true
		}
		if len(retries) < 10 {
			t.Errorf("20 who wait come back at %d different times", len(retries))
		}
		if _, queued := l.Load(); queued != 2 {
			t.Errorf("%d in line, want 2", queued)
		}
		g.open["a"] <- nil
		synctest.Wait()
		l.Wake("d", false)
		if _, queued := l.Load(); queued != 2 {
			t.Errorf("%d in line after there was room, want 2", queued)
		}
	})
}

// Nomad says how many there are, whoever started them.
func TestLimitOfSandboxes(t *testing.T) {
	type world struct {
		alive int                  // at the first look
		after []*nomad.JobListStub // what lives once this start has dispatched
		own   []*nomad.JobListStub // the user's
	}
	mine := child("openclaw/dispatch-alice-1", 50, "pending")
	other := func(index uint64) *nomad.JobListStub {
		return &nomad.JobListStub{ID: fmt.Sprintf("openclaw/dispatch-o-%d", index), ParentID: "openclaw", CreateIndex: index, Status: "running"}
	}
	stranger := &nomad.JobListStub{ID: "openclaw/dispatch-x", ParentID: "another", CreateIndex: 1, Status: "running"}
	for name, c := range map[string]struct {
		world
		refused    bool
		dispatched int
		stopped    string
	}{
		"room":                                   {world{alive: 2, after: []*nomad.JobListStub{other(1), other(2), mine}}, false, 1, "[]"},
		"no room":                                {world{alive: 3}, true, 0, "[]"},
		"too many already":                       {world{alive: 9}, true, 0, "[]"},
		"it lives, and is among them":            {world{alive: 3, own: []*nomad.JobListStub{mine}}, false, 0, "[]"},
		"another router took the last place":     {world{alive: 2, after: []*nomad.JobListStub{other(1), other(2), mine, other(40)}}, true, 1, "[openclaw/dispatch-alice-1]"},
		"another router came after":              {world{alive: 2, after: []*nomad.JobListStub{other(1), other(2), mine, other(60)}}, false, 1, "[]"},
		"another job's children are not counted": {world{alive: 2, after: []*nomad.JobListStub{other(1), stranger, mine, other(60)}}, false, 1, "[]"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				dispatched, stopped := 0, []string{}
				n := &fakeNomad{
					dispatch: func(w http.ResponseWriter, r *http.Request) {
						dispatched++
						json.NewEncoder(w).Encode(nomad.JobDispatchResponse{DispatchedJobID: mine.ID})
					},
					stop: func(job string) { stopped = append(stopped, job) },
				}
				n.list = func() []*nomad.JobListStub {
					if dispatched > 0 {
						return c.after
					}
					return c.own
				}
				n.alive = func() int {
					if dispatched > 0 {
						return len(c.after)
					}
					return c.alive
				}
				cfg := DefaultConfig()
				cfg.MaxSandboxes = 3
				l := simulated(t, cfg, n, &fakeLocator{wait: found(mine.ID)})
				_, err := l.Wake("alice", false).Wait(t.Context())
				var f *sandbox.Failure
				if refused := errors.As(err, &f); refused != c.refused || refused && (f.Reason != sandbox.ReasonLimit || f.RetryAfter < limitRetry || !strings.Contains(f.Message, "3")) {
					t.Errorf("%+v", err)
				}
				if fmt.Sprint(stopped) != c.stopped || dispatched != c.dispatched {
					t.Errorf("%d dispatched, stopped %v; want %d, %s", dispatched, stopped, c.dispatched, c.stopped)
				}
				if !c.refused {
					return
				}
				l.mu.Lock()
				if left := l.starts["alice"].left; left < float64(cfg.UserStarts) {
					t.Errorf("%v starts of this hour are left, though there was none", left)
				}
				l.mu.Unlock()
				// It is asked again soon, however often there was no room.
				var was *Flight
				for range 5 {
					time.Sleep(cfg.RetryMin + 1)
					again := l.Wake("alice", false)
					if again == was {
						t.Error("a limit is remembered as a failure")
					}
					again.Wait(t.Context())
					was = again
				}
			})
		})
	}
}

func TestRateOfStarts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate("a", "b")
		cfg := DefaultConfig()
		cfg.UserStarts = 6
		l := simulated(t, cfg, g.nomad(), g)
		start := func(u sandbox.User) error {
			g.open[u] <- nil
			_, err := l.Wake(u, false).Wait(t.Context())
			if err != nil {
				<-g.open[u]
			}
			return err
		}
		for n := range 6 {
			if err := start("a"); err != nil {
				t.Fatalf("start %d: %v", n, err)
			}
		}
		err := start("a")
		var f *sandbox.Failure
		if !errors.As(err, &f) || f.Reason != sandbox.ReasonTooOften || f.RetryAfter < 9*time.Minute || f.RetryAfter > 10*time.Minute+time.Second {
			t.Fatalf("the seventh: %+v", err)
		}
		if err := start("b"); err != nil {
			t.Errorf("another user: %v", err)
		}
		time.Sleep(f.RetryAfter)
		if err := start("a"); err != nil {
			t.Errorf("after the pause that was asked for: %v", err)
		}
		if err := start("a"); err == nil {
			t.Error("a tenth of an hour gave two starts of six")
		}
		time.Sleep(2 * time.Hour)
		if start("b"); len(l.starts) != 1 {
			t.Errorf("%d users are kept, want the one who starts", len(l.starts))
		}
	})
}

// Who fails is left alone for a while, longer each time, until it works or a
// person asks.
func TestFailureMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate("a")
		cfg := DefaultConfig()
		cfg.RetryMin, cfg.RetryAfter, cfg.UserStarts = 2*time.Second, 10*time.Second, 0
		l := simulated(t, cfg, g.nomad(), g)
		fail := func(retry bool) *Flight {
			g.open["a"] <- errors.New("broken")
			f := l.Wake("a", retry)
			if _, err := f.Wait(t.Context()); err == nil {
				t.Fatal("no failure")
			}
			return f
		}
		pauses := func(want ...time.Duration) {
			t.Helper()
			for _, pause := range want {
				f := fail(false)
				if f.failure.RetryAfter != pause {
					t.Errorf("asks to retry after %s, want %s", f.failure.RetryAfter, pause)
				}
				time.Sleep(pause - 1)
				if l.Wake("a", false) != f {
					t.Errorf("another start before %s have passed", pause)
				}
				time.Sleep(2)
			}
		}
		pauses(2*time.Second, 4*time.Second, 8*time.Second, 10*time.Second, 10*time.Second)
		g.open["a"] <- nil
		if _, err := l.Wake("a", false).Wait(t.Context()); err != nil {
			t.Fatal(err)
		}
		pauses(2*time.Second, 4*time.Second)
		was := fail(false)
		if fail(true) == was {
			t.Error("a person asked, and nothing was tried")
		}
		time.Sleep(2*time.Second + 1)
		pauses(4 * time.Second)
		time.Sleep(time.Hour)
		l.mu.Lock()
		l.tidy()
		kept := len(l.failed)
		l.mu.Unlock()
		if kept != 0 {
			t.Errorf("%d failures are kept for ever", kept)
		}
	})
}

// TestExtraChildren: two live already, say one dispatched by hand; the oldest is
// followed, and the other stopped.
func TestExtraChildren(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var stopped []string
		n := &fakeNomad{
			list: func() []*nomad.JobListStub {
				return []*nomad.JobListStub{child("openclaw/dispatch-alice-2", 12, "running"), child("openclaw/dispatch-17", 11, "running"), child("openclaw/dispatch-alice-3", 13, "pending")}
			},
			stop: func(job string) { stopped = append(stopped, job) },
			dispatch: func(http.ResponseWriter, *http.Request) {
				t.Error("dispatched, though two live")
			},
		}
		l := simulated(t, DefaultConfig(), n, &fakeLocator{wait: found("openclaw/dispatch-17")})
		if _, err := l.Wake("alice", false).Wait(t.Context()); err != nil {
			t.Fatal(err)
		}
		if fmt.Sprint(stopped) != "[openclaw/dispatch-alice-2 openclaw/dispatch-alice-3]" {
			t.Errorf("stopped %q, want the younger two", stopped)
		}
	})
}
