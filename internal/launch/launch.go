// Package launch starts a user's sandbox, exactly once, however many requests
// and routers ask. In this process one Flight per user; across processes, in
// this order: a Consul lock per user, a look at the user's live children of the
// parameterized Nomad job (the oldest that lives is followed, also one that was
// dispatched by hand, and the others are stopped), a dispatch with an idempotency
// token made of the user and the last dead child, and a second look that keeps the
// oldest live child. Without Consul the last three still hold.
//
// Not every wish is a start: see admission.go for how many at once, in all and per
// user, and memory.go for what has just failed.
//
// Lock order: a Launcher's mutex, then a Flight's.
package launch

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	consul "github.com/hashicorp/consul/api"
	nomad "github.com/hashicorp/nomad/api"

	"openclaw-sandbox/internal/catalog"
	"openclaw-sandbox/internal/events"
	"openclaw-sandbox/internal/pause"
	"openclaw-sandbox/internal/sandbox"
)

// Config are the settings of starts.
type Config struct {
	// Job is the parameterized job, and Namespace its Nomad namespace ("" for default).
	Job, Namespace string
	// Service names what the user's gateway is to register under, as the job's meta
	// key `service`; nil leaves it to the job.
	Service func(u sandbox.User) string
	Terms   // at first; see Launcher.Set
	// LockWait bounds the wait for Consul before a start goes on without it: for
	// one look-up, and for the lock of another router's dispatch.
	LockWait time.Duration

	// Reach tells whether a gateway takes connections at addr (host:port). It is asked
	// about one that was evicted and that Consul still shows; nil believes Consul.
	Reach func(ctx context.Context, addr string) error
	// Answers tells whether a gateway at addr answers, which more than takes a
	// connection: one that is frozen does not. Nil believes that one that was let go on does.
	Answers func(ctx context.Context, addr string) error
	// Waits tells whether somebody waits for an answer of the user's gateway. If so
	// while it falls asleep, it is let go on at once. Nil: nobody ever does.
	Waits func(u sandbox.User) bool
}

// DefaultConfig are the settings that a deployment rarely changes.
func DefaultConfig() Config {
	return Config{Job: "openclaw", LockWait: 5 * time.Second, Terms: Terms{StartTimeout: 3 * time.Minute, CapacityWait: 10 * time.Second,
		RetryMin: 2 * time.Second, RetryAfter: time.Minute, MaxStarting: 64, MaxQueued: 1000, UserStarts: 60}}
}

// Locator is where a started gateway turns up.
type Locator interface {
	Lookup(u sandbox.User) (catalog.Instance, bool)
	// Wait blocks until the user has a gateway for which ok holds, or returns ctx's
	// error. It finds gateways that were evicted, too; Lookup tells.
	Wait(ctx context.Context, u sandbox.User, ok func(catalog.Instance) bool) (catalog.Instance, error)
	// Refresh asks the source of truth once, now, for the user.
	Refresh(ctx context.Context, u sandbox.User) error
	// Learn adds what is known to be ready, before the source of truth shows it or
	// although it was evicted.
	Learn(i catalog.Instance)
	// Evict takes away what does not answer, for a while.
	Evict(u sandbox.User, generation string)
	// Sleep and Rouse note that a gateway was frozen, or let go on by somebody; Dormant
	// is the user's gateway that is frozen, or whose check fails.
	Sleep(u sandbox.User, generation string)
	Rouse(u sandbox.User, generation string)
	// End removes the route of a generation whose tasks have ended.
	End(generation string)
	Dormant(u sandbox.User) (catalog.Instance, catalog.State, bool)
}

// maxCalls bounds how many flights talk to Consul and Nomad at once: their agents
// allow one address about a hundred connections.
const maxCalls = 16

// Launcher starts sandboxes. Its flights end when the context of New does.
type Launcher struct {
	ctx     context.Context
	config  Config // but for its Terms
	nomad   *nomad.Client
	consul  *consul.Client
	locator Locator
	log     *slog.Logger
	observe func(outcome string, took time.Duration)

	calls     chan struct{} // one for each flight that talks to Consul and Nomad
	events    *events.Stream
	described described

	wg       sync.WaitGroup
	mu       sync.Mutex // guards what follows; never held while anything waits
	terms    Terms
	flights  map[sandbox.User]*Flight
	queue    []*Flight // of flights, those that have not begun
	starting int       // of flights, those that have
	failed   map[sandbox.User]failed
	starts   map[sandbox.User]*allowance
	tidied   time.Time // when failed and starts were last looked through
}

// New returns a launcher; ctx ends all its flights. observe is told of each
// flight's end ("ready"; "elsewhere", if it stood in line while another router made the
// start; or the reason of the failure) and its time from the first request; it may be nil.
func New(ctx context.Context, c Config, nc *nomad.Client, cc *consul.Client, l Locator, log *slog.Logger, observe func(string, time.Duration)) *Launcher {
	if observe == nil {
		observe = func(string, time.Duration) {}
	}
	stream := events.DefaultConfig()
	stream.Namespace, stream.Prefix, stream.Mark = c.Namespace, c.children(), sandbox.SleepAnnotation
	launcher := &Launcher{calls: make(chan struct{}, maxCalls), ctx: ctx, config: c, terms: c.Terms, nomad: nc, consul: cc, locator: l, log: log, observe: observe,
		flights: map[sandbox.User]*Flight{}, failed: map[sandbox.User]failed{}, starts: map[sandbox.User]*allowance{}}
	stream.Marked = launcher.notice
	stream.Ended = func(a *nomad.Allocation) { launcher.locator.End(a.ID) }
	launcher.events = events.New(stream, nc, log)
	launcher.wg.Go(func() { launcher.events.Run(ctx) })
	return launcher
}

// children is what the ids of the job's children begin with.
func (c Config) children() string { return c.Job + "/dispatch-" }

// take waits for the right to talk to Consul and Nomad; give returns it.
func (l *Launcher) take(ctx context.Context) error {
	select {
	case l.calls <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (l *Launcher) give() { <-l.calls }

// Wait blocks until every flight has ended; call it after New's context has.
func (l *Launcher) Wait() { l.wg.Wait() }

// Load is how many starts are under way here, and how many wait in line.
func (l *Launcher) Load() (starting, queued int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.starting, len(l.queue)
}

// Following reports whether Nomad's event stream is open.
func (l *Launcher) Following() bool { return l.events.Live() }

// Flight is the user's flight, if one is in the air or has just failed for good.
func (l *Launcher) Flight(u sandbox.User) (*Flight, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if f, ok := l.flights[u]; ok {
		return f, true
	}
	if f := l.remembered(u); f != nil {
		return f, true
	}
	return nil, false
}

// Wake joins the user's flight, and begins one if there is none. After a failure
// it returns the failed flight for a while, unless retry says that a person asks
// again. A start that is not allowed is a flight that has failed.
func (l *Launcher) Wake(u sandbox.User, retry bool) *Flight {
	l.mu.Lock()
	defer l.mu.Unlock()
	if f, ok := l.flights[u]; ok {
		return f
	}
	l.tidy()
	if retry {
		delete(l.failed, u)
	} else if f := l.remembered(u); f != nil {
		return f
	}
	f := newFlight(u)
	if _, state, ok := l.locator.Dormant(u); ok && state == catalog.Asleep {
		// It has its place already, so that no limit of starts is in its way.
		f.thaw, f.terms = true, l.terms
		l.flights[u] = f
		l.wg.Go(func() { l.flyThaw(f) })
		return f
	}
	if refused := l.refuse(u); refused != nil {
		f.fail(refused)
		return f
	}
	l.flights[u] = f
	l.enqueue(f)
	return f
}

// enqueue lets a flight wait in line, or begin if it may. The caller holds l.mu.
func (l *Launcher) enqueue(f *Flight) {
	l.queue = append(l.queue, f)
	var ctx context.Context
	ctx, f.begins = context.WithCancel(l.ctx)
	if l.admit(); ctx.Err() == nil {
		l.wg.Go(func() { l.stand(ctx, f) })
	}
}

func (l *Launcher) fly(f *Flight) {
	ctx, cancel := context.WithTimeout(l.ctx, f.terms.StartTimeout)
	defer cancel()
	instance, err := l.start(ctx, f)
	l.finish(ctx, f, instance, err)
}

// flyThaw thaws a frozen sandbox. If that fails, the flight becomes an ordinary start,
// which the limits of starts apply to: many sandboxes fail to thaw when their node is lost.
func (l *Launcher) flyThaw(f *Flight) {
	ctx, cancel := context.WithTimeout(l.ctx, f.terms.StartTimeout)
	defer cancel()
	i, err := l.thaw(ctx, f)
	if err == nil || l.ctx.Err() != nil {
		l.finish(ctx, f, i, err)
		return
	}
	if err != errNotAsleep {
		l.log.Warn("a frozen sandbox did not thaw; starting it", "user", f.User, "error", err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	f.thaw, f.thawTried = false, true
	if refused := l.refuse(f.User); refused != nil {
		delete(l.flights, f.User)
		f.fail(refused)
		return
	}
	l.enqueue(f)
}

// finish ends a flight with its instance or its error.
func (l *Launcher) finish(ctx context.Context, f *Flight, instance catalog.Instance, err error) {
	outcome := "ready"
	var failure *sandbox.Failure
	if err != nil {
		failure = l.explain(ctx, f, err)
		outcome = string(failure.Reason)
	}
	took := time.Since(f.since)
	l.observe(outcome, took)
	if failure != nil {
		l.log.Warn("a start failed", "user", f.User, "reason", failure.Reason, "after", took.Round(time.Millisecond), "error", err)
	} else {
		l.log.Info("a sandbox is ready", "user", f.User, "generation", instance.Generation, "after", took.Round(time.Millisecond))
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.flights, f.User)
	if failure != nil {
		l.remember(f, failure)
		f.fail(failure)
	} else {
		delete(l.failed, f.User)
		f.land(instance)
	}
	if f.thaw {
		return
	}
	if !f.dispatched {
		l.refund(f.User) // it ran already, or nothing came of the start
	}
	l.starting--
	l.admit()
}

// explain gives an error of a start its class.
func (l *Launcher) explain(ctx context.Context, f *Flight, err error) *sandbox.Failure {
	var failure *sandbox.Failure
	switch {
	case errors.As(err, &failure):
		return failure
	case l.ctx.Err() != nil:
		return &sandbox.Failure{Reason: sandbox.ReasonInternal, Message: "The router is shutting down; try again.", Err: err}
	case ctx.Err() != nil:
		return &sandbox.Failure{Reason: sandbox.ReasonNotReady, Err: err,
			Message: fmt.Sprintf("The sandbox was not ready within %s; it may still be starting, try again.", f.terms.StartTimeout)}
	}
	return &sandbox.Failure{Reason: sandbox.ReasonInternal, Message: "Nomad does not answer, so nothing can be started now; try again in a moment.", Err: err}
}

// start brings the user's gateway into the catalog.
func (l *Launcher) start(ctx context.Context, f *Flight) (catalog.Instance, error) {
	if !f.thawTried {
		if i, err := l.thaw(ctx, f); err == nil {
			return i, nil
		} else if err != errNotAsleep {
			l.log.Warn("a frozen sandbox did not thaw; starting it", "user", f.User, "error", err)
		}
	}
	// The catalog may be a moment behind: a gateway that Consul knows needs no start.
	if err := l.refresh(ctx, f.User); err != nil {
		l.log.Warn("start without Consul", "user", f.User, "error", err)
	} else if i, ok := l.locator.Lookup(f.User); ok {
		return i, nil
	}
	for n, next := 0, endingPause; ; n, next = n+1, min(2*next, longPause) {
		child, err := l.dispatchOnce(ctx, f)
		if err != nil {
			return catalog.Instance{}, err
		}
		i, err := l.follow(ctx, f, child)
		if ended, ok := errors.AsType[*endedError](err); !ok {
			return i, err
		} else if n == endedLooks {
			return i, ended.as
		}
		l.log.Info("the sandbox that was there has ended", "user", f.User, "job", child)
		if !pause.For(ctx, next) {
			return i, ctx.Err()
		}
	}
}

// endedLooks is how often an allocation may be found ended before Nomad calls its
// job dead, which takes it a moment; with the pauses between them about 12 s.
const endedLooks = 8

// refresh asks Consul about the user, for no longer than a start may wait for it.
func (l *Launcher) refresh(ctx context.Context, u sandbox.User) error {
	ctx, cancel := context.WithTimeout(ctx, l.config.LockWait)
	defer cancel()
	return l.locator.Refresh(ctx, u)
}
