package idle

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	consul "github.com/hashicorp/consul/api"

	"openclaw-sandbox/internal/activity"
	"openclaw-sandbox/internal/catalog"
	"openclaw-sandbox/internal/pause"
	"openclaw-sandbox/internal/sandbox"
)

// Terms are the settings that may change while the reaper runs.
type Terms struct {
	// Policy is that of users who have no override.
	Policy Policy
	// WakeAhead is how long before a scheduled job its stopped sandbox is started.
	WakeAhead time.Duration
}

// Config are the reaper's settings.
type Config struct {
	Terms // at first; see Reaper.Set
	// Every is how often the reaper looks.
	Every time.Duration
	// Job is the parameterized job whose sandboxes are looked after. What routers write
	// about them lies below its name in Consul's KV.
	Job string
	// LockTTL is how long a reaper may be silent before another takes over; 10 s or more.
	LockTTL time.Duration
}

// DefaultConfig are the settings that a deployment rarely changes.
func DefaultConfig() Config {
	return Config{Terms: Terms{Policy: Policy{FreezeAfter: 5 * time.Minute, StopAfter: 30 * time.Minute}, WakeAhead: 30 * time.Second},
		Every: 10 * time.Second, Job: "openclaw", LockTTL: 15 * time.Second}
}

// Sandboxes are those that run.
type Sandboxes interface {
	Running(yield func(catalog.Instance, catalog.State) bool)
	// Ready reports whether they are known yet.
	Ready() bool
}

// Keeper freezes, stops and wakes.
type Keeper interface {
	Freeze(ctx context.Context, i catalog.Instance) error
	Stop(ctx context.Context, i catalog.Instance) error
	// Wake starts the user's sandbox, or lets it go on; it does not wait for that.
	Wake(u sandbox.User)
}

// Prober asks a gateway whether it can be frozen or stopped.
type Prober interface {
	// Probe asks; a gateway that is not busy takes no new work until Rest.End.
	Probe(ctx context.Context, i catalog.Instance) (Rest, error)
}

// Rest is what a gateway says of itself.
type Rest struct {
	Busy       string        // with what; "" if with nothing
	RetryAfter time.Duration // when a busy one asks to be asked again
	Due        time.Time     // when its next job is; zero if it has none
	// End lets it take new work again, if resume says so. It must be called.
	End func(resume bool)
}

// Clients are what the clients of all routers do.
type Clients interface {
	Read(ctx context.Context) (activity.View, error)
}

// Reaper is one router's candidate for the job. Run does it, while it holds the lock.
type Reaper struct {
	config    Config // but for its Terms
	terms     atomic.Pointer[Terms]
	consul    *consul.Client
	clients   Clients
	sandboxes Sandboxes
	keeper    Keeper
	prober    Prober
	ledger    Ledger
	overrides Policies
	log       *slog.Logger
	observe   func(Act)
	holds     atomic.Bool
}

// New returns a candidate. observe is told of each act that was done; it may be nil.
func New(c Config, cc *consul.Client, a Clients, s Sandboxes, k Keeper, p Prober, log *slog.Logger, observe func(Act)) *Reaper {
	if observe == nil {
		observe = func(Act) {}
	}
	r := &Reaper{config: c, consul: cc, clients: a, sandboxes: s, keeper: k, prober: p, ledger: NewLedger(cc, c.Job), overrides: NewPolicies(cc, c.Job), log: log, observe: observe}
	r.Set(c.Terms)
	return r
}

// Set has the reaper go by other terms from its next look on. It may be called at any time.
func (r *Reaper) Set(t Terms) { r.terms.Store(&t) }

// Policy is that of users who have no override.
func (r *Reaper) Policy() Policy { return r.terms.Load().Policy }

// Holds reports whether this router is the reaper now.
func (r *Reaper) Holds() bool { return r.holds.Load() }

// lockRetry is how long a candidate waits after Consul failed.
const lockRetry = 5 * time.Second

// Run waits for the lock and then reaps, until ctx ends.
func (r *Reaper) Run(ctx context.Context) error {
	for ctx.Err() == nil {
		if err := r.hold(ctx); err != nil && ctx.Err() == nil {
			r.log.Warn("this router can not become the one that stops idle sandboxes", "error", err)
		}
		pause.For(ctx, lockRetry)
	}
	return ctx.Err()
}

// hold reaps for as long as it has the lock.
func (r *Reaper) hold(ctx context.Context) error {
	lock, err := r.consul.LockOpts(&consul.LockOptions{Key: r.config.Job + "/reaper", SessionName: "openclaw reaper", SessionTTL: r.config.LockTTL.String(),
		MonitorRetries: 2, MonitorRetryTime: time.Second})
	if err != nil {
		return err
	}
	lost, err := lock.Lock(ctx.Done())
	if err != nil || lost == nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	wg.Go(func() {
		select {
		case <-lost:
			cancel()
		case <-ctx.Done():
		}
	})
	r.holds.Store(true)
	defer r.holds.Store(false)
	r.log.Info("this router stops idle sandboxes from now on")
	r.reap(ctx)
	r.log.Info("this router no longer stops idle sandboxes")
	if err := lock.Unlock(); err != nil && err != consul.ErrLockNotHeld {
		return fmt.Errorf("give the lock back: %w", err)
	}
	return nil
}

// reap looks, again and again.
func (r *Reaper) reap(ctx context.Context) {
	o := r.open()
	defer o.wg.Wait()
	failing := false
	for ctx.Err() == nil {
		err := o.look(ctx)
		if err != nil && ctx.Err() == nil && !failing {
			r.log.Warn("idle sandboxes can not be looked for", "error", err)
		}
		failing = err != nil
		pause.For(ctx, r.config.Every)
	}
}
