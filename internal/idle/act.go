package idle

import (
	"context"
	"errors"
	"fmt"
	"time"

	"openclaw-sandbox/internal/activity"
	"openclaw-sandbox/internal/catalog"
	"openclaw-sandbox/internal/sandbox"
)

// act freezes or stops a sandbox, unless its gateway is busy, and returns for how
// long it is to be left alone then.
func (o *office) act(ctx context.Context, i catalog.Instance, d Decision, was Entry, asleep bool, view activity.View) (retry time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, actTimeout)
	defer cancel()
	u := i.User
	e := Entry{Act: d.Act, Why: d.Why, At: time.Now().UTC(), Generation: i.Generation, Due: was.Due}
	end := func(bool) {} // of the gateway's rest
	if !asleep {
		if end, retry = o.ask(ctx, i, &e, was); retry > 0 {
			return retry
		}
	}
	used := func() bool {
		m := view.Own(u)
		return m.Working > 0 || !m.Last.Before(view.Until)
	}
	if used() {
		end(true)
		return 0
	}
	// First the word, then the deed: a reaper that dies in between has told at least
	// when to wake it.
	err := o.note(ctx, u, e)
	switch {
	case err != nil:
		end(true)
	case d.Act == Freeze:
		end(true) // frozen, it could not end its rest in time
		err = o.keeper.Freeze(ctx, i)
	default:
		err = o.keeper.Stop(ctx, i)
		end(err != nil)
	}
	if err != nil {
		o.log.Warn("an idle sandbox is left running", "user", u, "error", err)
		return failRetry
	}
	o.log.Info("idle", "act", d.Act, "user", u, "why", e.Why, "generation", i.Generation, "due", e.Due)
	o.observe(d.Act)
	if d.Act == Freeze {
		o.mu.Lock()
		o.froze[u] = time.Now()
		o.mu.Unlock()
		if used() {
			o.keeper.Wake(u) // somebody came in between
		}
	}
	return busyRetry // until the catalog has seen it
}

// ask asks a gateway for a rest, which end ends, and notes in e when its next job is
// due. A retry above zero says that it is to be left alone for so long.
func (o *office) ask(ctx context.Context, i catalog.Instance, e *Entry, was Entry) (end func(resume bool), retry time.Duration) {
	rest, err := o.prober.Probe(ctx, i)
	switch {
	case err != nil && (o.failed(i.User) < maxFails || e.Act == Freeze):
		o.log.Warn("a gateway does not say whether it is busy", "user", i.User, "error", err)
		return nil, failRetry
	case err != nil:
		e.Why += "; its gateway does not say whether it is busy: " + err.Error()
		return func(bool) {}, 0
	case rest.Busy != "":
		rest.End(true)
		e.Act, e.Why, e.Due = Keep, "busy: "+rest.Busy, time.Time{}
		if was.Act != Keep || was.Generation != i.Generation { // else it is known
			o.log.Info("idle", "act", Keep, "user", i.User, "why", e.Why, "generation", i.Generation)
			if err := o.note(ctx, i.User, *e); err != nil {
				o.log.Warn("that a sandbox is busy is not written down", "user", i.User, "error", err)
			}
		}
		return nil, max(rest.RetryAfter, busyRetry)
	}
	e.Due = rest.Due
	if due(*e, e.At, 2*o.terms.Load().WakeAhead) {
		rest.End(true) // it would have to be woken at once
		return nil, busyRetry
	}
	return rest.End, 0
}

// failed counts a gateway that did not say.
func (o *office) failed(u sandbox.User) int {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.fails[u]++
	return o.fails[u]
}

// note writes down what is done.
func (o *office) note(ctx context.Context, u sandbox.User, e Entry) error {
	if err := o.ledger.write(ctx, u, e); err != nil {
		return errors.Join(fmt.Errorf("nothing is done that is not written down"), err)
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.entries[u] = e
	return nil
}
