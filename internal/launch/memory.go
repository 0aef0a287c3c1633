package launch

import (
	"time"

	"openclaw-sandbox/internal/sandbox"
)

// failed is what is remembered of a user's last start, which failed.
type failed struct {
	flight *Flight
	pause  time.Duration // twice as long as after the failure before
	until  time.Time     // no start before, unless a person asks
}

// remembered is the user's failed flight, if it is too soon for another. The
// caller holds l.mu.
func (l *Launcher) remembered(u sandbox.User) *Flight {
	if was, ok := l.failed[u]; ok && time.Now().Before(was.until) {
		return was.flight
	}
	return nil
}

// remember keeps a failed flight, so that clients in a loop do not start in a loop.
// The caller holds l.mu.
func (l *Launcher) remember(f *Flight, e *sandbox.Failure) {
	if l.ctx.Err() != nil {
		return // it says nothing of the sandbox
	}
	pause := f.terms.RetryMin
	// A limit is not the sandbox's failure: there may be room in a moment.
	if was, ok := l.failed[f.User]; ok && e.Reason != sandbox.ReasonLimit {
		pause = 2 * was.pause
	}
	pause = min(pause, f.terms.RetryAfter)
	l.failed[f.User] = failed{f, pause, time.Now().Add(pause)}
	if !e.Reason.Permanent() {
		e.RetryAfter = max(e.RetryAfter, pause)
	}
}

// tidyEvery is how often what is remembered of users is looked through.
const tidyEvery = time.Minute

// tidy forgets what no longer matters. A failure outlives its pause, so that the
// next one's is longer. The caller holds l.mu.
func (l *Launcher) tidy() {
	now := time.Now()
	if now.Sub(l.tidied) < tidyEvery {
		return
	}
	l.tidied = now
	for u, was := range l.failed {
		if now.After(was.until.Add(l.terms.RetryAfter)) {
			delete(l.failed, u)
		}
	}
	for u, a := range l.starts {
		if a.fill(l.terms.UserStarts); a.left >= float64(l.terms.UserStarts) {
			delete(l.starts, u)
		}
	}
}
