// Package idle tests routers that decide together who sleeps, on a real Consul:
// one of them is cut off while it is the one that acts, and sessions are lost.
package idle

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	consul "github.com/hashicorp/consul/api"

	"openclaw-sandbox/internal/activity"
	"openclaw-sandbox/internal/catalog"
	"openclaw-sandbox/internal/devcluster"
	"openclaw-sandbox/internal/idle"
	"openclaw-sandbox/internal/sandbox"
)

const (
	period      = 500 * time.Millisecond
	freezeAfter = 4 * time.Second
	stopAfter   = 10 * time.Second
	ttl         = 10 * time.Second // the least that Consul allows
	// takeover is how long Consul may take to give the lock to another: twice the TTL
	// and its own delay of 15 s, on a busy machine.
	takeover = 90 * time.Second
)

// fleet is what runs; every router sees it.
type fleet struct {
	mu   sync.Mutex // guards what follows
	of   map[sandbox.User]catalog.State
	acts []act
}

type act struct {
	by, what string
	user     sandbox.User
	at       time.Time
}

func (f *fleet) Ready() bool { return true }

func (f *fleet) Running(yield func(catalog.Instance, catalog.State) bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for u, s := range f.of {
		if !yield(catalog.Instance{User: u, Generation: "g-" + string(u), Job: "j"}, s) {
			return
		}
	}
}

func (f *fleet) find(what string, u sandbox.User) (act, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	at := slices.IndexFunc(f.acts, func(a act) bool { return a.what == what && a.user == u })
	if at < 0 {
		return act{}, false
	}
	return f.acts[at], true
}

// hands are how one router acts.
type hands struct {
	*fleet
	name string
}

func (h hands) do(what string, u sandbox.User) {
	h.acts = append(h.acts, act{h.name, what, u, time.Now()})
}

func (h hands) Freeze(_ context.Context, i catalog.Instance) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.do("freeze", i.User)
	h.of[i.User] = catalog.Asleep
	return nil
}

func (h hands) Stop(_ context.Context, i catalog.Instance) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.do("stop", i.User)
	delete(h.of, i.User)
	return nil
}

func (h hands) Wake(u sandbox.User) {}

func (h hands) Probe(context.Context, catalog.Instance) (idle.Rest, error) {
	return idle.Rest{End: func(bool) {}}, nil
}

// wire is a router's way to Consul, which can be cut.
type wire struct {
	l     net.Listener
	mu    sync.Mutex // guards what follows
	conns []net.Conn
	gone  bool
}

func newWire(t *testing.T, to string) *wire {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w := &wire{l: l}
	t.Cleanup(w.cut)
	go func() { // ends with the listener
		for {
			near, err := l.Accept()
			if err != nil {
				return
			}
			far, err := net.Dial("tcp", to)
			if err != nil || !w.keep(near, far) {
				near.Close()
				continue
			}
			go func() { io.Copy(far, near); far.Close() }() // both end with the wire
			go func() { io.Copy(near, far); near.Close() }()
		}
	}()
	return w
}

func (w *wire) keep(conns ...net.Conn) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.conns = append(w.conns, conns...)
	return !w.gone
}

func (w *wire) cut() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.gone = true
	w.l.Close()
	for _, c := range w.conns {
		c.Close()
	}
}

// router is as much of one as decides who sleeps.
type router struct {
	*activity.Tracker
	board  *activity.Board
	reaper *idle.Reaper
	wire   *wire
	begun  time.Time
}

func newRouter(t *testing.T, name, consulAddr string, f *fleet) *router {
	t.Helper()
	r := &router{Tracker: activity.NewTracker(), wire: newWire(t, consulAddr), begun: time.Now()}
	cc, err := consul.NewClient(&consul.Config{Address: r.wire.l.Addr().String()})
	if err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.NewTextHandler(io.Discard, nil))
	told := activity.DefaultConfig()
	told.Name, told.Period, told.SessionTTL = name, period, ttl
	r.board = activity.NewBoard(told, cc, r.Tracker, log)
	c := idle.DefaultConfig()
	c.Policy, c.Every, c.LockTTL = idle.Policy{FreezeAfter: freezeAfter, StopAfter: stopAfter}, period, ttl
	h := hands{f, name}
	r.reaper = idle.New(c, cc, r.board, f, h, h, log, nil)
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { r.board.Run(ctx) })
	wg.Go(func() { r.reaper.Run(ctx) })
	t.Cleanup(func() { cancel(); wg.Wait() })
	return r
}

// keeps lets a client do something all the time, until the test ends or stop is closed.
func (r *router) keeps(t *testing.T, u sandbox.User, stop <-chan struct{}) {
	var wg sync.WaitGroup
	done := make(chan struct{})
	wg.Go(func() {
		tick := time.NewTicker(period / 2)
		defer tick.Stop()
		for {
			r.Note(u, activity.Message)
			select {
			case <-tick.C:
			case <-stop:
				return
			case <-done:
				return
			}
		}
	})
	t.Cleanup(func() { close(done); wg.Wait() })
}

func eventually(t *testing.T, limit time.Duration, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(limit); !ok(); time.Sleep(period / 10) {
		if time.Now().After(end) {
			t.Fatalf("no %s within %s", what, limit)
		}
	}
}

func TestReaperIsCutOff(t *testing.T) {
	if _, err := devcluster.Tool("consul"); err != nil {
		t.Fatal(err)
	}
	server, err := devcluster.StartConsul(t.Context(), filepath.Join(t.TempDir(), "consul"), 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { server.Stop(context.Background()) })
	f := &fleet{of: map[sandbox.User]catalog.State{"nobody": catalog.Serving, "atone": catalog.Serving, "attwo": catalog.Serving, "tab": catalog.Serving}}
	one := newRouter(t, "one", server.Addr, f)
	eventually(t, takeover, "first reaper", one.reaper.Holds)
	two := newRouter(t, "two", server.Addr, f)
	cutOff := make(chan struct{})
	one.keeps(t, "atone", cutOff)
	two.keeps(t, "attwo", nil)
	two.Open("tab") // connected, and silent

	// What each router alone knows is respected by the other.
	eventually(t, time.Minute, "freeze of who is not used", func() bool { _, ok := f.find("freeze", "nobody"); return ok })
	eventually(t, time.Minute, "stop of who is not used", func() bool { _, ok := f.find("stop", "nobody"); return ok })
	eventually(t, time.Minute, "stop of the forgotten tab", func() bool { _, ok := f.find("stop", "tab"); return ok })
	if a, ok := f.find("freeze", "tab"); ok {
		t.Errorf("the sandbox of a connected tab was frozen: %+v", a)
	}

	one.wire.cut()
	close(cutOff)
	at := time.Now()
	eventually(t, takeover, "second reaper", two.reaper.Holds)
	t.Logf("the other took over after %s", time.Since(at).Round(time.Second))
	var froze act
	eventually(t, time.Minute, "freeze of who was used at the one that is gone", func() (ok bool) { froze, ok = f.find("freeze", "atone"); return ok })
	if early := froze.at.Sub(at); early < freezeAfter || froze.by != "two" {
		t.Errorf("frozen by %s %s after its router was cut off, want %s or more", froze.by, early, freezeAfter)
	}

	// Every session is lost at once: the lock's and the signs of life.
	sessions, _, err := server.Client().Session().List(nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range sessions {
		if _, err := server.Client().Session().Destroy(s.ID, nil); err != nil {
			t.Fatal(err)
		}
	}
	f.mu.Lock()
	f.of["late"] = catalog.Serving
	f.mu.Unlock()
	eventually(t, takeover, "freeze after the sessions were lost", func() bool { _, ok := f.find("freeze", "late"); return ok })

	f.mu.Lock()
	defer f.mu.Unlock()
	for _, a := range f.acts {
		if a.user == "attwo" {
			t.Errorf("a sandbox in use: %s by %s", a.what, a.by)
		}
		if a.by == "one" && a.at.After(at.Add(ttl)) {
			t.Errorf("the one that was cut off still acted: %+v", a)
		}
	}
	for name, r := range map[string]*router{"one": one, "two": two} {
		if most := uint64(time.Since(r.begun)/period) + 2; r.board.Writes() > most {
			t.Errorf("%s wrote %d times, want one each %s at most: %s", name, r.board.Writes(), period, fmt.Sprint(most))
		}
	}
}
