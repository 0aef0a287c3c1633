package idle

import (
	"fmt"
	"time"

	"openclaw-sandbox/internal/activity"
)

// Act is what is to be done with a sandbox.
type Act string

// The acts.
const (
	Keep   Act = "keep"
	Freeze Act = "freeze"
	Stop   Act = "stop"
)

// Decision is an act and why: one clause for a person.
type Decision struct {
	Act Act
	Why string
	// Next is what comes if nothing happens until At; Keep if nothing will.
	Next Act
	At   time.Time
}

// Decide says what is to be done at a moment with a sandbox that runs, and that
// this router has known since since. What clients did is known until now, no later.
func (p Policy) Decide(now, since time.Time, m activity.Mark, asleep bool) Decision {
	switch {
	case p.AlwaysOn:
		return Decision{Act: Keep, Why: "it is always on", Next: Keep}
	case m.Working > 0:
		return Decision{Act: Keep, Why: plural(m.Working, "request is", "requests are") + " being answered", Next: Keep}
	}
	last := "nothing was heard of its clients"
	used := since
	if !m.Last.IsZero() {
		last = fmt.Sprintf("the last was %s at %s", m.Kind, m.Last.UTC().Format(time.RFC3339))
	}
	if m.Last.After(used) {
		used = m.Last
	}
	gone := used
	if m.Left.After(gone) {
		gone = m.Left
	}
	idle := func(from time.Time) time.Duration { return now.Sub(from).Round(time.Second) }
	if p.StopAfter > 0 && now.Sub(used) >= p.StopAfter {
		return Decision{Act: Stop, Why: fmt.Sprintf("no activity for %s, %s", idle(used), last)}
	}
	d := Decision{Act: Keep, Why: fmt.Sprintf("activity %s ago, %s", max(idle(used), 0), last), Next: Keep}
	if p.StopAfter > 0 {
		d.Next, d.At = Stop, used.Add(p.StopAfter)
	}
	switch freeze := gone.Add(p.FreezeAfter); {
	case asleep:
		d.Why = fmt.Sprintf("frozen, no activity for %s, %s", idle(used), last)
	case m.Clients > 0:
		d.Why = plural(m.Clients, "client is", "clients are") + " connected, " + d.Why
	case p.FreezeAfter == 0:
	case !now.Before(freeze):
		return Decision{Act: Freeze, Why: fmt.Sprintf("nobody connected for %s, %s", idle(gone), last)}
	case p.StopAfter == 0 || freeze.Before(d.At):
		d.Next, d.At = Freeze, freeze
	}
	return d
}

func plural(n int, one, many string) string {
	if n == 1 {
		return "a " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}
