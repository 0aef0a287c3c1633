package launch

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"time"

	nomad "github.com/hashicorp/nomad/api"

	"openclaw-sandbox/internal/catalog"
	"openclaw-sandbox/internal/sandbox"
)

// admit begins the starts that may begin now, first come, first served, and tells
// the others how many are before them. The caller holds l.mu.
func (l *Launcher) admit() {
	for len(l.queue) > 0 && (l.terms.MaxStarting == 0 || l.starting < l.terms.MaxStarting) {
		f := l.queue[0]
		l.queue[0] = nil // or the array would keep it
		l.queue = l.queue[1:]
		l.starting++
		f.terms = l.terms
		f.begins()
		f.report(asking)
		l.wg.Go(func() { l.fly(f) })
	}
	for n, f := range l.queue {
		f.report(sandbox.Progress{Phase: sandbox.PhaseQueued, Position: n + 1, Message: inLine(n + 1)})
	}
}

// stand ends a flight's wait in line when its user has a gateway all the same: another
// router started it. It returns when the flight begins, too, which ends ctx.
func (l *Launcher) stand(ctx context.Context, f *Flight) {
	defer f.begins() // so that nothing of ctx stays
	i, err := l.locator.Wait(ctx, f.User, func(catalog.Instance) bool { return true })
	if err != nil {
		return
	}
	if known, ok := l.locator.Lookup(f.User); !ok || known.Generation != i.Generation {
		return // it was evicted; the flight finds out when it begins
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	at := slices.Index(l.queue, f)
	if at < 0 {
		return
	}
	l.queue = slices.Delete(l.queue, at, at+1)
	delete(l.flights, f.User)
	delete(l.failed, f.User)
	l.refund(f.User)
	l.observe("elsewhere", time.Since(f.since))
	f.land(i)
	l.admit()
}

func inLine(position int) string {
	if position == 1 {
		return "Many sandboxes start at the moment; yours is next"
	}
	return fmt.Sprintf("Many sandboxes start at the moment; yours is number %d in line", position)
}

const (
	// limitRetry is when to ask again after a limit of all users, spread by limitSpread
	// so that those who wait do not come back all at once.
	limitRetry  = 20 * time.Second
	limitSpread = 20 * time.Second
)

func later() time.Duration { return limitRetry + rand.N(limitSpread) }

// refuse says why a start of the user may not even wait in line; nil if it may. The
// caller holds l.mu.
func (l *Launcher) refuse(u sandbox.User) *sandbox.Failure {
	if most := l.terms.MaxQueued; most > 0 && len(l.queue) >= most {
		return &sandbox.Failure{Reason: sandbox.ReasonQueueFull, RetryAfter: later(),
			Message: fmt.Sprintf("%d starts wait in line already, as many as the operator allows; try again in a moment.", most)}
	}
	if l.terms.UserStarts == 0 {
		return nil
	}
	a := l.starts[u]
	if a == nil {
		a = &allowance{left: float64(l.terms.UserStarts), at: time.Now()}
		l.starts[u] = a
	}
	if wait := a.spend(l.terms.UserStarts); wait > 0 {
		return &sandbox.Failure{Reason: sandbox.ReasonTooOften, RetryAfter: wait,
			Message: fmt.Sprintf("This sandbox was started more than %d times within an hour; the next start is possible in %s.", l.terms.UserStarts, wait.Round(time.Second))}
	}
	return nil
}

// room returns a *sandbox.Failure if there are as many live sandboxes as there may
// be: most, or any number if that is 0. Nomad counts them, those that other routers or people start among them.
func (l *Launcher) room(ctx context.Context, most int) error {
	if most == 0 {
		return nil
	}
	n, err := l.alive(ctx)
	if err != nil || n < most {
		return err
	}
	return limit(most)
}

func limit(most int) *sandbox.Failure {
	return &sandbox.Failure{Reason: sandbox.ReasonLimit, RetryAfter: later(),
		Message: fmt.Sprintf("The operator's limit of %d running sandboxes is reached; yours can start when another has stopped.", most)}
}

// alive is the number of live children of the job.
func (l *Launcher) alive(ctx context.Context) (int, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	s, _, err := l.nomad.Jobs().Summary(l.config.Job, (&nomad.QueryOptions{Namespace: l.config.Namespace}).WithContext(ctx))
	if err != nil {
		return 0, fmt.Errorf("count the sandboxes: %w", err)
	}
	if s.Children == nil {
		return 0, nil
	}
	return int(s.Children.Pending + s.Children.Running), nil
}

// withdrawSurplus stops a job that was dispatched while others took the last place:
// between a look and a dispatch other routers dispatch, too. Of all that live, those
// with the lowest create index stay; every router sees the same.
func (l *Launcher) withdrawSurplus(ctx context.Context, job string, most int) error {
	if most == 0 {
		return nil
	}
	if n, err := l.alive(ctx); err != nil || n <= most {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	q := (&nomad.QueryOptions{Namespace: l.config.Namespace, Prefix: l.config.children(), Filter: `Status != "dead"`}).WithContext(ctx)
	jobs, _, err := l.nomad.Jobs().List(q)
	if err != nil {
		return fmt.Errorf("list the sandboxes: %w", err)
	}
	jobs = slices.DeleteFunc(jobs, func(j *nomad.JobListStub) bool { return j.ParentID != l.config.Job || j.Status == "dead" })
	slices.SortFunc(jobs, oldest)
	if at := slices.IndexFunc(jobs, func(j *nomad.JobListStub) bool { return j.ID == job }); at < most {
		return nil
	}
	if err := l.deregister(ctx, job); err != nil {
		return err
	}
	return limit(most)
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
