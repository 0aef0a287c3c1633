package driver

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/nomad/plugins/drivers"

	"openclaw-sandbox/internal/sandbox"
	"openclaw-sandbox/plugin/pageout"
	"openclaw-sandbox/plugin/runtime"
)

// fakeFreezer has its memory pushed out as pushed says.
type fakeFreezer struct {
	pushed func(ctx context.Context) (pageout.Result, error)
}

func (f fakeFreezer) freeze() error { return nil }
func (f fakeFreezer) thaw() error   { return nil }
func (f fakeFreezer) pageOut(ctx context.Context) (pageout.Result, error) {
	return f.pushed(ctx)
}

// sleeper is a task that sleeps, and the events that it makes.
func sleeper(t *testing.T, after time.Duration, z freezer) (*task, <-chan *drivers.TaskEvent) {
	t.Helper()
	d := New(t.Context(), hclog.NewNullLogger())
	d.settings.pageOut, d.settings.pageOutAfter = true, after
	events, err := d.TaskEvents(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	s := &task{d: d, user: "alice", cfg: &drivers.TaskConfig{ID: "id"}, dirs: runtime.Dirs{Run: t.TempDir()}, freezer: z, exited: make(chan struct{})}
	if err := s.sleep(); err != nil {
		t.Fatal(err)
	}
	return s, events
}

// expect reads the next event.
func expect(t *testing.T, events <-chan *drivers.TaskEvent, asleep bool, message string) {
	t.Helper()
	e := <-events
	if _, got, told := sandbox.AsleepFrom(e.Annotations); !told || got != asleep || !strings.Contains(e.Message, message) {
		t.Errorf("event %q %v, want %q and asleep %v", e.Message, e.Annotations, message, asleep)
	}
}

// A sleep that lasts has the memory pushed out once, and says so; the wait goes on
// until the thaw.
func TestDozePushesOut(t *testing.T) {
	pushes := make(chan struct{}, 2)
	s, events := sleeper(t, 0, fakeFreezer{func(context.Context) (pageout.Result, error) {
		pushes <- struct{}{}
		return pageout.Result{Before: 790 << 20, After: 150 << 20}, nil
	}})
	expect(t, events, true, "Frozen")
	over := make(chan struct{})
	go func() { defer close(over); s.doze(s.asleep()) }()
	expect(t, events, true, "Frozen, 640 of 790 MB pushed out")
	select {
	case <-over:
		t.Error("the doze ended before the sleep")
	default:
	}
	if err := s.wake(); err != nil {
		t.Fatal(err)
	}
	<-over
	expect(t, events, false, "Thawed")
	if len(pushes) != 1 {
		t.Errorf("pushed out %d times", len(pushes))
	}
}

// A thaw neither waits for a push nor is followed by its event.
func TestThawEndsPush(t *testing.T) {
	began, finish := make(chan struct{}), make(chan struct{})
	s, events := sleeper(t, 0, fakeFreezer{func(ctx context.Context) (pageout.Result, error) {
		close(began)
		<-ctx.Done()
		<-finish // a step of it is still under way
		return pageout.Result{Before: 790 << 20}, ctx.Err()
	}})
	expect(t, events, true, "Frozen")
	over := make(chan struct{})
	go func() { defer close(over); s.doze(s.asleep()) }()
	<-began
	if err := s.wake(); err != nil {
		t.Fatal(err)
	}
	expect(t, events, false, "Thawed")
	close(finish)
	<-over
	s.d.note(s.cfg, "next")
	if e := <-events; e.Message != "next" {
		t.Errorf("after the thaw came %q", e.Message)
	}
}

// A sleep or a process that ends before the delay has nothing pushed out.
func TestShortSleepPaysNothing(t *testing.T) {
	for name, end := range map[string]func(s *task) error{
		"thawed": func(s *task) error { return s.wake() },
		"ended":  func(s *task) error { close(s.exited); return nil },
	} {
		t.Run(name, func(t *testing.T) {
			s, _ := sleeper(t, time.Hour, fakeFreezer{func(context.Context) (pageout.Result, error) {
				t.Error("pushed out")
				return pageout.Result{}, nil
			}})
			n := s.asleep()
			if err := end(s); err != nil {
				t.Fatal(err)
			}
			s.doze(n)
		})
	}
}
