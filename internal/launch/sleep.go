package launch

import (
	"context"
	"errors"
	"fmt"
	"time"

	nomad "github.com/hashicorp/nomad/api"

	"openclaw-sandbox/internal/catalog"
	"openclaw-sandbox/internal/pause"
	"openclaw-sandbox/internal/sandbox"
)

// The signals by which the driver freezes a whole sandbox, and lets it go on.
const (
	signalFreeze = "SIGSTOP"
	signalThaw   = "SIGCONT"
)

// Freeze freezes the sandbox of a gateway. From before it happens the catalog calls
// it asleep, so that a request lets it go on rather than hang.
func (l *Launcher) Freeze(ctx context.Context, i catalog.Instance) error {
	l.locator.Sleep(i.User, i.Generation)
	if err := l.signal(ctx, i, signalFreeze); err != nil {
		l.locator.Rouse(i.User, i.Generation)
		return fmt.Errorf("freeze the sandbox of %s: %w", i.User, err)
	}
	return nil
}

// Stop ends the sandbox of a gateway, which saves its state.
func (l *Launcher) Stop(ctx context.Context, i catalog.Instance) error {
	if i.Job == "" {
		return fmt.Errorf("stop the sandbox of %s: its registration lacks the meta key job", i.User)
	}
	return l.deregister(ctx, i.Job)
}

func (l *Launcher) signal(ctx context.Context, i catalog.Instance, name string) error {
	task := taskDefault
	if s := l.service(ctx); s != nil {
		task = s.TaskName
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	q := (&nomad.QueryOptions{Namespace: l.config.Namespace}).WithContext(ctx)
	return l.nomad.Allocations().Signal(&nomad.Allocation{ID: i.Generation}, q, task, name)
}

// taskDefault is the gateway's task where the job does not say.
const taskDefault = "gateway"

// thawing is the progress of a start that need not be one.
var thawing = sandbox.Progress{Phase: sandbox.PhaseStarting, Message: "It was frozen; letting it go on"}

// errNotAsleep: there is nothing to let go on.
var errNotAsleep = errors.New("it is not frozen")

// thaw lets a frozen gateway go on, and waits until it answers. It returns
// errNotAsleep if there is none.
func (l *Launcher) thaw(ctx context.Context, f *Flight) (catalog.Instance, error) {
	i, state, ok := l.locator.Dormant(f.User)
	switch {
	case !ok:
		return i, errNotAsleep
	case state == catalog.Critical:
		// Frozen before this router began, or without its hearing of it; or it hangs.
		asleep, err := l.asleep(ctx, i)
		if err != nil {
			return i, err
		}
		if !asleep {
			return i, errNotAsleep
		}
		l.locator.Sleep(f.User, i.Generation)
	}
	f.report(thawing)
	begin := time.Now()
	if err := l.signal(ctx, i, signalThaw); err != nil {
		return i, fmt.Errorf("let the sandbox go on: %w", err)
	}
	if err := l.answers(ctx, i); err != nil {
		return i, err
	}
	l.log.Info("a frozen sandbox goes on", "user", f.User, "generation", i.Generation, "after", time.Since(begin).Round(time.Millisecond))
	return l.learn(i), nil
}

// asleep asks Nomad whether the allocation is frozen.
func (l *Launcher) asleep(ctx context.Context, i catalog.Instance) (bool, error) {
	if err := l.take(ctx); err != nil {
		return false, err
	}
	defer l.give()
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	a, _, err := l.nomad.Allocations().Info(i.Generation, (&nomad.QueryOptions{Namespace: l.config.Namespace}).WithContext(ctx))
	if err != nil {
		return false, fmt.Errorf("read allocation %s: %w", i.Generation, err)
	}
	u, asleep := sleeps(a)
	return asleep && u == i.User, nil
}

// sleeps is what the newest task event about it says, and of whose sandbox; the user
// is "" if none does, or the allocation has ended.
func sleeps(a *nomad.Allocation) (u sandbox.User, asleep bool) {
	if a.ClientStatus != nomad.AllocClientStatusRunning {
		return "", false
	}
	var at int64
	for _, t := range a.TaskStates {
		for _, e := range t.Events {
			if whose, now, told := sandbox.AsleepFrom(e.Details); told && e.Time >= at {
				u, asleep, at = whose, now, e.Time
			}
		}
	}
	return u, asleep
}

const (
	// thawWait is how long a gateway that was let go on may take to answer.
	thawWait = 10 * time.Second
	// thawPause is between two tries of one that refuses.
	thawPause = 25 * time.Millisecond
)

// answers waits until the gateway gives an answer: that the kernel takes its
// connections says nothing of a process that stood still.
func (l *Launcher) answers(ctx context.Context, i catalog.Instance) error {
	if l.config.Answers == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, thawWait)
	defer cancel()
	for {
		err := l.config.Answers(ctx, i.Addr)
		if err == nil {
			return nil
		}
		if !pause.For(ctx, thawPause) {
			return fmt.Errorf("the gateway of %s was let go on, and does not answer: %w", i.User, err)
		}
	}
}

// notice hears of every allocation that was frozen or let go on, whoever did it.
func (l *Launcher) notice(a *nomad.Allocation) {
	u, asleep := sleeps(a)
	switch {
	case u == "":
	case !asleep:
		l.locator.Rouse(u, a.ID)
	default:
		l.locator.Sleep(u, a.ID)
		if l.config.Waits != nil && l.config.Waits(u) {
			l.Wake(u, false) // somebody came while it fell asleep
		}
	}
}
