package launch

import (
	"context"
	"time"

	"openclaw-sandbox/internal/catalog"
	"openclaw-sandbox/internal/events"
	"openclaw-sandbox/internal/pause"
	"openclaw-sandbox/internal/sandbox"
)

// endedError is the end of a job that was there before this start, which never saw
// it begin. What it served until then says nothing about another start.
type endedError struct{ as *sandbox.Failure }

func (e *endedError) Error() string { return e.as.Error() }

// follow watches a child job until its gateway is a route or it failed. It returns
// an *endedError if another one is to be started.
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
	instance, err := l.arrive(ctx, f, job)
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

// arrive waits until the job's gateway is a route. One that was evicted must answer
// first: it may be starting again in its place, and Consul may not know that it died.
func (l *Launcher) arrive(ctx context.Context, f *Flight, job string) (catalog.Instance, error) {
	for next := reachPause; ; next = min(2*next, longPause) {
		i, err := l.locator.Wait(ctx, f.User, func(i catalog.Instance) bool { return i.Job == "" || i.Job == job })
		if err != nil {
			return i, err
		}
		if believed, ok := l.locator.Lookup(f.User); ok && believed.Generation == i.Generation || l.config.Reach == nil {
			return i, nil
		}
		closed := l.config.Reach(ctx, i.Addr)
		if closed == nil {
			return l.learn(i), nil
		}
		l.locator.Evict(f.User, i.Generation) // for as long as it is so
		if !pause.For(ctx, next) {
			return i, &sandbox.Failure{Reason: sandbox.ReasonUnanswered, Err: closed, Message: unanswered}
		}
		if err := l.refresh(ctx, f.User); err != nil {
			l.log.Debug("ask Consul about a gateway that does not answer", "user", f.User, "error", err)
		}
	}
}

// unanswered is the end of a wait for a gateway that is there and does not answer.
const unanswered = "Nomad and Consul say that the sandbox runs, but its gateway takes no connections from this router; its log says why, and stopping the sandbox makes the next request start it anew."

// reachPause is the first pause before a gateway is tried again.
const reachPause = 50 * time.Millisecond

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
	var first *sight       // what this start met
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
		s, known := l.tidings(ctx, job, news)
		if known {
			// Of a task that ran before this start, Nomad may not know yet that it has ended.
			begins = begins || s.begins || first != nil && s.startedSince(first)
			if first == nil {
				first = &s
			}
			runs := false
			if s.alloc != nil {
				i, ok := l.early(ctx, f.User, s.alloc)
				if runs = ok; ok && begins {
					return l.learn(i), nil
				}
			}
			if s.progress.Phase == sandbox.PhaseFailed {
				failure := &sandbox.Failure{Reason: s.progress.Reason, Message: s.progress.Message}
				if !f.dispatched && !first.begins {
					return catalog.Instance{}, &endedError{failure}
				}
				return catalog.Instance{}, failure
			}
			if runs {
				s.progress = sandbox.Progress{Phase: sandbox.PhaseStarting, Message: "It runs; waiting for its gateway to answer"}
			}
			f.report(s.progress)
			switch {
			case s.progress.Reason != sandbox.ReasonNoCapacity:
				full = time.Time{}
			case full.IsZero():
				full = time.Now()
			case time.Since(full) >= f.terms.CapacityWait:
				return catalog.Instance{}, l.withdraw(ctx, job, s.progress.Message)
			}
		}
		timer.Reset(l.nextLook(known, full, f.terms.CapacityWait))
	}
}

// nextLook is when a flight looks if it hears nothing; known is false after a look
// that taught nothing. It was full since full, for which it waits so long.
func (l *Launcher) nextLook(known bool, full time.Time, wait time.Duration) time.Duration {
	next := lookAnyway
	if !known || !l.events.Live() {
		next = lookAgain
	}
	if !full.IsZero() {
		next = min(next, max(wait-time.Since(full), 0))
	}
	return next
}

// tidings makes sense of news; known is false if it teaches nothing.
func (l *Launcher) tidings(ctx context.Context, job string, news events.News) (s sight, known bool) {
	if news.Gap {
		s, err := l.look(ctx, job)
		if err != nil && ctx.Err() == nil {
			l.log.Debug("look at a start", "job", job, "error", err)
		}
		return s, err == nil
	}
	switch {
	case news.Allocation != nil:
		return ofNews(news.Allocation), true
	case news.Evaluation != nil:
		return sight{progress: ofEvaluation(news.Evaluation), begins: true}, true // what has no place does not run
	}
	return s, false
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
