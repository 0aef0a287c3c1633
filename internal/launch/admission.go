package launch

import (
	"fmt"
	"math"
	"math/rand/v2"
	"time"

	"openclaw-sandbox/internal/sandbox"
)

// admit begins the starts that may begin now, first come, first served, and tells
// the others how many are before them. The caller holds l.mu.
func (l *Launcher) admit() {
	for len(l.queue) > 0 && (l.config.MaxStarting == 0 || l.starting < l.config.MaxStarting) {
		f := l.queue[0]
		l.queue[0] = nil // or the array would keep it
		l.queue = l.queue[1:]
		l.starting++
		f.report(asking)
		l.wg.Go(func() { l.fly(f) })
	}
	for n, f := range l.queue {
		f.report(sandbox.Progress{Phase: sandbox.PhaseQueued, Position: n + 1, Message: inLine(n + 1)})
	}
}

func inLine(position int) string {
	if position == 1 {
		return "Many sandboxes start at the moment; yours is next"
	}
	return fmt.Sprintf("Many sandboxes start at the moment; yours is number %d in line", position)
}

const (
	// limitRetry is when to ask again after max_sandboxes, spread by limitSpread so
	// that those who wait do not come back all at once.
	limitRetry  = 20 * time.Second
	limitSpread = 20 * time.Second
)

// refuse says why a start of the user may not be; nil if it may. The caller holds
// l.mu.
func (l *Launcher) refuse(u sandbox.User) *sandbox.Failure {
	// What starts here is not in the catalog yet; what starts by other routers is
	// not counted, so that together they may pass the limit by a few.
	if most := l.config.MaxSandboxes; most > 0 && l.locator.Len()+len(l.flights) >= most {
		return &sandbox.Failure{Reason: sandbox.ReasonLimit, RetryAfter: limitRetry + rand.N(limitSpread),
			Message: fmt.Sprintf("The operator's limit of %d running sandboxes is reached; yours can start when another has stopped.", most)}
	}
	if l.config.UserStarts == 0 {
		return nil
	}
	a := l.starts[u]
	if a == nil {
		a = &allowance{left: float64(l.config.UserStarts), at: time.Now()}
		l.starts[u] = a
	}
	if wait := a.spend(l.config.UserStarts); wait > 0 {
		return &sandbox.Failure{Reason: sandbox.ReasonTooOften, RetryAfter: wait,
			Message: fmt.Sprintf("This sandbox was started more than %d times within an hour; the next start is possible in %s.", l.config.UserStarts, wait.Round(time.Second))}
	}
	return nil
}

// refund gives a user back what refuse took. The caller holds l.mu.
func (l *Launcher) refund(u sandbox.User) {
	if a := l.starts[u]; a != nil {
		a.left++
	}
}

// allowance is how many starts a user has left; it fills up within an hour.
type allowance struct {
	left float64
	at   time.Time // when left was so many
}

func (a *allowance) fill(perHour int) {
	now := time.Now()
	a.left = math.Min(float64(perHour), a.left+now.Sub(a.at).Hours()*float64(perHour))
	a.at = now
}

// spend takes one, or says how long until there is one.
func (a *allowance) spend(perHour int) time.Duration {
	a.fill(perHour)
	if a.left >= 1 {
		a.left--
		return 0
	}
	wait := time.Duration((1 - a.left) / float64(perHour) * float64(time.Hour))
	return max(wait.Truncate(time.Second)+time.Second, time.Second)
}
