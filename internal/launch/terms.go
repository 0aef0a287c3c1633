package launch

import "time"

// Terms are the settings of starts that may change while the launcher runs. A start
// keeps those that it began with.
type Terms struct {
	// StartTimeout bounds a start, from the first request to the gateway in the catalog.
	StartTimeout time.Duration
	// CapacityWait is how long a start may wait for a node with room. Then it is
	// withdrawn, so that nothing starts later by surprise.
	CapacityWait time.Duration
	// RetryMin is how long a first failure is remembered; each further one doubles
	// that, up to RetryAfter.
	RetryMin, RetryAfter time.Duration

	// MaxStarting is how many starts there are at a time; further ones queue, MaxQueued
	// of them at most. MaxSandboxes is how many sandboxes may live in all, whoever
	// started them, and UserStarts how many starts one user has an hour. Zero is no
	// limit.
	MaxStarting, MaxQueued, MaxSandboxes, UserStarts int
}

// Set has starts begin by other terms from now on. What waits in line stays there, and
// what users have spent of their starts counts on.
func (l *Launcher) Set(t Terms) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.terms = t
	l.admit()
}
