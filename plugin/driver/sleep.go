package driver

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// SignalTask gives the task's process a signal. SIGSTOP and SIGCONT are for the
// whole sandbox: they freeze it and let it go on. Both may come twice.
func (d *Driver) SignalTask(id, signal string) error {
	t, err := d.task(id)
	if err != nil {
		return err
	}
	switch signal {
	case "SIGSTOP":
		return t.sleep()
	case "SIGCONT":
		return t.wake()
	}
	return d.inner().SignalTask(id, signal)
}

// errFrozen refuses a command in a sandbox that sleeps: it would be frozen at its
// first step, and hold Nomad's executor.
var errFrozen = errors.New("the sandbox is frozen; let it go on with nomad alloc signal -s SIGCONT, then try again")

// awake returns errFrozen for a task that sleeps.
func (d *Driver) awake(id string) error {
	t, err := d.task(id)
	if err == nil && t.asleep() != nil {
		return errFrozen
	}
	return err
}

// asleepFile is there while a task sleeps, so that a plugin that was replaced
// does not take the freeze for a snapshot's that was cut off.
func (t *task) asleepFile() string { return filepath.Join(t.dirs.Run, ".asleep") }

// sleep freezes the sandbox until wake. What the last snapshot does not have yet
// is saved while it sleeps.
func (t *task) sleep() error {
	t.still.Lock()
	defer t.still.Unlock()
	if t.nap != nil {
		return nil
	}
	if t.stopping.Load() {
		return errors.New("freeze: the sandbox is being stopped")
	}
	select {
	case <-t.exited:
		return errors.New("freeze: the sandbox has ended")
	default:
	}
	if err := os.WriteFile(t.asleepFile(), nil, 0o600); err != nil {
		return fmt.Errorf("freeze: %w", err)
	}
	if err := hold(t.freezer); err != nil {
		return errors.Join(err, os.Remove(t.asleepFile()))
	}
	t.nap = t.d.newNap()
	t.tellSleep(true, "Frozen")
	return nil
}

// wake lets the sandbox go on. It thaws one that nobody froze too: that does no harm.
func (t *task) wake() error {
	t.still.Lock()
	defer t.still.Unlock()
	// The mark first: a plugin that takes over in between thaws.
	if err := os.Remove(t.asleepFile()); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("thaw: %w", err)
	}
	if err := t.freezer.thaw(); err != nil {
		return fmt.Errorf("thaw: %w", err)
	}
	if t.nap != nil {
		t.endNap()
		t.tellSleep(false, "Thawed")
	}
	return nil
}

// nap is one sleep, from its freeze to its thaw.
type nap struct {
	over  context.Context // ends with it, and with the plugin
	end   context.CancelFunc
	since time.Time
}

func (d *Driver) newNap() *nap {
	n := &nap{since: time.Now()}
	n.over, n.end = context.WithCancel(d.ctx)
	return n
}

// endNap makes the task one that is awake; still is held.
func (t *task) endNap() {
	if t.nap != nil {
		t.nap.end()
		t.nap = nil
	}
}

// asleep is the sleep that the sandbox was put to, nil if it is awake.
func (t *task) asleep() *nap {
	t.still.Lock()
	defer t.still.Unlock()
	return t.nap
}

// recoverSleep goes on with the sleep that the last plugin began. Else it thaws: a
// save that was cut off may have left the sandbox frozen.
func (t *task) recoverSleep() error {
	t.still.Lock()
	defer t.still.Unlock()
	_, err := os.Stat(t.asleepFile())
	switch {
	case errors.Is(err, os.ErrNotExist):
		return t.freezer.thaw()
	case err != nil:
		return err
	}
	if err := hold(t.freezer); err != nil {
		return err
	}
	t.nap = t.d.newNap()
	return nil
}
