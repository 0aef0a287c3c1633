package launch

import (
	"context"
	"sync"
	"time"

	"openclaw-sandbox/internal/catalog"
	"openclaw-sandbox/internal/sandbox"
)

// Flight is one start of one user's sandbox. Any number of requests follow it;
// it outlives each of them.
type Flight struct {
	User  sandbox.User
	since time.Time // the first request

	dispatched bool   // a new child was dispatched for it; the flight's own goroutine only
	terms      Terms  // since it began
	begins     func() // ends its wait in line
	thaw       bool   // of a sandbox that was frozen when it began, until the thaw fails; Launcher.mu guards it
	thawTried  bool   // the thaw failed; set before the start begins

	mu       sync.Mutex
	progress sandbox.Progress
	changed  chan struct{} // closed and replaced at each change of progress

	done     chan struct{} // closed at the end; then instance or failure is set
	instance catalog.Instance
	failure  *sandbox.Failure
}

func newFlight(u sandbox.User) *Flight {
	return &Flight{User: u, since: time.Now(), changed: make(chan struct{}), done: make(chan struct{}),
		progress: asking}
}

// asking is the progress of a start that begins.
var asking = sandbox.Progress{Phase: sandbox.PhaseQueued, Message: "Asking for a place to run"}

// Progress is how far the start is, and a channel that is closed at the next change.
func (f *Flight) Progress() (sandbox.Progress, <-chan struct{}) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.progress, f.changed
}

// Done is closed when the start has ended, either way.
func (f *Flight) Done() <-chan struct{} { return f.done }

// Wait blocks until the gateway is in the catalog. It returns a *sandbox.Failure
// if the start failed, or ctx's error.
func (f *Flight) Wait(ctx context.Context) (catalog.Instance, error) {
	select {
	case <-f.done:
		if f.failure != nil {
			return catalog.Instance{}, f.failure
		}
		return f.instance, nil
	case <-ctx.Done():
		return catalog.Instance{}, ctx.Err()
	}
}

func (f *Flight) report(p sandbox.Progress) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.progress == p {
		return
	}
	f.progress = p
	close(f.changed)
	f.changed = make(chan struct{})
}

func (f *Flight) land(i catalog.Instance) {
	f.instance = i
	f.report(sandbox.Progress{Phase: sandbox.PhaseReady, Message: "Ready"})
	close(f.done)
}

func (f *Flight) fail(e *sandbox.Failure) {
	f.failure = e
	f.report(sandbox.Progress{Phase: sandbox.PhaseFailed, Reason: e.Reason, Message: e.Message})
	close(f.done)
}
