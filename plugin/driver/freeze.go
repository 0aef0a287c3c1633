package driver

import (
	"context"
	"errors"
	"fmt"
	"time"

	"openclaw-sandbox/plugin/pageout"
)

// freezer stops a task's processes and lets them go on, all at once.
type freezer interface {
	freeze() error
	thaw() error
	// pageOut pushes their memory out of RAM while they stand still, until ctx ends.
	// It returns errors.ErrUnsupported where that can not be done.
	pageOut(ctx context.Context) (pageout.Result, error)
}

// freezeTries is how often a freeze is tried.
const freezeTries = 3

// frozen runs f while the task stands still, and returns for how long it stood.
// It always thaws, also when f fails.
func frozen(z freezer, f func() error) (time.Duration, error) {
	begin := time.Now()
	if err := hold(z); err != nil {
		return 0, err
	}
	err := f()
	if terr := z.thaw(); terr != nil {
		err = errors.Join(err, fmt.Errorf("thaw: %w", terr))
	}
	return time.Since(begin), err
}

// hold freezes, or leaves the task thawed and says why.
func hold(z freezer) error {
	// A v1 freezer can miss a process that is just forking; it then asks to be
	// thawed and tried again.
	for try := 1; ; try++ {
		err := z.freeze()
		if err == nil {
			return nil
		}
		if terr := z.thaw(); terr != nil || try == freezeTries {
			return errors.Join(fmt.Errorf("freeze: %w", err), terr)
		}
	}
}

// gone is the freezer of a task whose processes do not move: they have ended, or
// stand still already.
type gone struct{}

func (gone) freeze() error { return nil }
func (gone) thaw() error   { return nil }

func (gone) pageOut(context.Context) (pageout.Result, error) { return pageout.Result{}, nil }
