package launch

import (
	"context"
	"time"

	nomad "github.com/hashicorp/nomad/api"

	"openclaw-sandbox/internal/catalog"
	"openclaw-sandbox/internal/events"
	"openclaw-sandbox/internal/sandbox"
)

// follow watches a child job until its gateway is a route or it failed.
func (l *Launcher) follow(ctx context.Context, f *Flight, job string) (catalog.Instance, error) {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	type end struct {
		instance catalog.Instance
		err      error
	}
	ended := make(chan end, 1)
	go func() { // owned by this call: it ends with ctx, and is waited for
		defer close(ended)
		if i, err := l.watch(ctx, f, job); ctx.Err() == nil {
			ended <- end{i, err}
			stop()
		}
	}()
	instance, err := l.locator.Wait(ctx, f.User, func(i catalog.Instance) bool { return i.Job == "" || i.Job == job })
	stop()
	nomads, told := <-ended
	switch {
	case err == nil:
		return instance, nil
	case told:
		return nomads.instance, nomads.err
	}
	return catalog.Instance{}, err
}

const (
	// lookAgain is how often a flight looks for itself while there is no event stream.
	lookAgain = 2 * time.Second
	// lookAnyway is the same beside a stream that works, for what it may not tell.
	lookAnyway = 30 * time.Second
)

// watch reports the job's progress until it can say that the gateway is ready, and
// where, or that the start failed. What is reported is a whole state, from Nomad's
// event stream or from the job itself after a gap, so nothing lost matters for long.
func (l *Launcher) watch(ctx context.Context, f *Flight, job string) (catalog.Instance, error) {
	follower := l.events.Follow(job)
	defer follower.Close()
	var full time.Time     // since when no node has room
	begins := f.dispatched // whether this start saw the sandbox begin
	timer := time.NewTimer(lookAnyway)
	defer timer.Stop()
	for {
		var news events.News
		select {
		case <-ctx.Done():
			return catalog.Instance{}, ctx.Err()
		case <-follower.C:
			news = follower.Take()
		case <-timer.C:
			news.Gap = true
		}
		p, alloc, known := l.tidings(ctx, job, news)
		if known {
			// Of a task that ran before this start, Nomad may not know yet that it has ended.
			begins = begins || alloc == nil || alloc.ClientStatus == nomad.AllocClientStatusPending
			if alloc != nil {
				if i, ok := l.early(ctx, f.User, alloc); ok && begins {
					return l.learn(i), nil
				}
			}
			if p.Phase == sandbox.PhaseFailed {
				return catalog.Instance{}, &sandbox.Failure{Reason: p.Reason, Message: p.Message}
			}
			f.report(p)
			switch {
			case p.Reason != sandbox.ReasonNoCapacity:
				full = time.Time{}
			case full.IsZero():
				full = time.Now()
			case time.Since(full) >= l.config.CapacityWait:
				return catalog.Instance{}, l.withdraw(ctx, job, p.Message)
			}
		}
		timer.Reset(l.nextLook(known, full))
	}
}

// nextLook is when a flight looks if it hears nothing; known is false after a look
// that taught nothing.
func (l *Launcher) nextLook(known bool, full time.Time) time.Duration {
	next := lookAnyway
	if !known || !l.events.Live() {
		next = lookAgain
	}
	if !full.IsZero() {
		next = min(next, max(l.config.CapacityWait-time.Since(full), 0))
	}
	return next
}

// tidings makes progress of news; known is false if there is none. The allocation
// is nil if there is none, or if only its outline is known.
func (l *Launcher) tidings(ctx context.Context, job string, news events.News) (p sandbox.Progress, alloc *nomad.Allocation, known bool) {
	if news.Gap {
		p, alloc, err := l.look(ctx, job)
		if err != nil {
			if ctx.Err() == nil {
				l.log.Debug("look at a start", "job", job, "error", err)
			}
			return p, nil, false
		}
		return p, alloc, true
	}
	switch {
	case news.Allocation != nil:
		return ofAllocation(news.Allocation.Stub()), news.Allocation, true
	case news.Evaluation != nil:
		return ofEvaluation(news.Evaluation), nil, true
	}
	return p, nil, false
}

// learn makes an early instance a route. If the catalog knows better, that counts.
func (l *Launcher) learn(i catalog.Instance) catalog.Instance {
	l.locator.Learn(i)
	if known, ok := l.locator.Lookup(i.User); ok {
		return known
	}
	return i
}

// withdraw stops a job for which no node has room.
func (l *Launcher) withdraw(ctx context.Context, job, why string) error {
	if err := l.deregister(ctx, job); err != nil {
		return err
	}
	return &sandbox.Failure{Reason: sandbox.ReasonNoCapacity, Message: why}
}
