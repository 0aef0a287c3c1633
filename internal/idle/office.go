package idle

import (
	"context"
	"maps"
	"sync"
	"time"

	"openclaw-sandbox/internal/activity"
	"openclaw-sandbox/internal/catalog"
	"openclaw-sandbox/internal/sandbox"
)

const (
	// maxActs is how many sandboxes are frozen or stopped at a time.
	maxActs = 8
	// actTimeout bounds one act, and what is asked of the gateway before.
	actTimeout = 30 * time.Second
	// busyRetry is the least pause before a busy gateway is asked again, and
	// failRetry the pause after an act failed, or a gateway did not say.
	busyRetry = 20 * time.Second
	failRetry = time.Minute
	// maxFails is how often a gateway may fail to say whether it is busy; then it is
	// stopped all the same: it may hang.
	maxFails = 3
	// thawAhead is how long before a job a frozen sandbox goes on.
	thawAhead = 5 * time.Second
	// stale is after how many periods of a router's silence nothing is done: what its
	// clients did since is not known, until its session has ended.
	stale = 3
)

// office is one term of a reaper: what it knows while it holds the lock.
type office struct {
	*Reaper
	wg     sync.WaitGroup
	slots  chan struct{}
	looked bool

	mu      sync.Mutex // guards what follows; never held while anything waits
	entries map[sandbox.User]Entry
	since   map[string]time.Time // by generation: when it was first seen
	retry   map[sandbox.User]time.Time
	fails   map[sandbox.User]int
	acting  map[sandbox.User]bool
	froze   map[sandbox.User]time.Time // when this office froze it
}

func (r *Reaper) open() *office {
	return &office{Reaper: r, since: map[string]time.Time{}, retry: map[sandbox.User]time.Time{}, fails: map[sandbox.User]int{},
		acting: map[sandbox.User]bool{}, froze: map[sandbox.User]time.Time{}, slots: make(chan struct{}, maxActs)}
}

// look looks at everybody once.
func (o *office) look(ctx context.Context) error {
	if !o.sandboxes.Ready() {
		return nil
	}
	if o.entries == nil {
		all, err := o.ledger.all(ctx)
		if err != nil {
			return err
		}
		o.entries = all
	}
	view, err := o.clients.Read(ctx)
	if err != nil {
		return err
	}
	overrides, err := o.overrides.All(ctx, func(u sandbox.User, err error) {
		o.log.Warn("a policy can not be read; the config's holds", "user", u, "error", err)
	})
	if err != nil {
		return err
	}
	// Of what another wrote before the first look nobody knows how old it is.
	policy := o.Policy()
	acts := o.looked && time.Since(view.Until) <= stale*o.config.Every
	o.looked = true
	running := map[sandbox.User]bool{}
	generations := map[string]bool{}
	for i, state := range o.sandboxes.Running {
		running[i.User], generations[i.Generation] = true, true
		o.one(ctx, i, state, view, policy.With(overrides[i.User]), acts)
	}
	o.absent(running, overrides)
	o.mu.Lock()
	defer o.mu.Unlock()
	maps.DeleteFunc(o.since, func(g string, _ time.Time) bool { return !generations[g] })
	maps.DeleteFunc(o.retry, func(u sandbox.User, _ time.Time) bool { return !running[u] })
	maps.DeleteFunc(o.fails, func(u sandbox.User, _ int) bool { return !running[u] })
	maps.DeleteFunc(o.froze, func(u sandbox.User, _ time.Time) bool { return !running[u] })
	return nil
}

// one looks at a sandbox that runs.
func (o *office) one(ctx context.Context, i catalog.Instance, state catalog.State, view activity.View, p Policy, acts bool) {
	u, now := i.User, time.Now()
	m := view.Mark(u)
	o.mu.Lock()
	defer o.mu.Unlock()
	e := o.entries[u]
	// A router that began after the freeze sees only that its check fails.
	asleep := state == catalog.Asleep || state == catalog.Critical && e.Act == Freeze && e.Generation == i.Generation
	since, known := o.since[i.Generation]
	if !known {
		since = now
		o.since[i.Generation] = now
	}
	froze, ours := o.froze[u]
	switch {
	case o.acting[u]:
		return
	case asleep && (m.Working > 0 || ours && m.Last.After(froze)):
		o.log.Warn("a frozen sandbox is in use; letting it go on", "user", u)
		o.keeper.Wake(u)
		return
	case asleep && due(e, now, thawAhead):
		o.log.Info("idle", "act", "wake", "user", u, "why", "a job is due", "due", e.Due)
		o.keeper.Wake(u)
		return
	case !asleep && due(e, now, 0):
		o.goes(ctx, u, e)
		return
	}
	d := p.Decide(view.Until, since, m, asleep)
	if d.Act == Keep || !acts || now.Before(o.retry[u]) {
		return
	}
	select {
	case o.slots <- struct{}{}:
	default:
		return // at the next look
	}
	o.acting[u] = true
	o.wg.Go(func() {
		retry := o.act(ctx, i, d, e, asleep, view)
		<-o.slots
		o.mu.Lock()
		defer o.mu.Unlock()
		delete(o.acting, u)
		if retry > 0 {
			o.retry[u] = time.Now().Add(retry)
		}
	})
}

// due tells whether an entry's job is due within a time.
func due(e Entry, now time.Time, ahead time.Duration) bool {
	return !e.Due.IsZero() && !now.Before(e.Due.Add(-ahead))
}

// goes notes that the gateway runs at the time of its job, which needs no waking any
// more. The caller holds o.mu.
func (o *office) goes(ctx context.Context, u sandbox.User, e Entry) {
	e.Due = time.Time{}
	o.entries[u] = e
	o.wg.Go(func() {
		if err := o.ledger.write(ctx, u, e); err != nil {
			o.log.Warn("a job that was run stays written down; its sandbox may be woken once more", "user", u, "error", err)
		}
	})
}

// absent wakes those who do not run, and are to.
func (o *office) absent(running map[sandbox.User]bool, overrides map[sandbox.User]Override) {
	now, ahead := time.Now(), o.terms.Load().WakeAhead
	o.mu.Lock()
	defer o.mu.Unlock()
	for u, e := range o.entries {
		if !running[u] && due(e, now, ahead) {
			o.log.Info("idle", "act", "wake", "user", u, "why", "a job is due", "due", e.Due)
			o.keeper.Wake(u)
		}
	}
	for u, p := range overrides {
		if p.AlwaysOn && !running[u] {
			o.keeper.Wake(u)
		}
	}
}
