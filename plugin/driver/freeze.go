package driver

import (
	"errors"
	"fmt"
	"time"
)

// freezer stops a task's processes and lets them go on, all at once.
type freezer interface {
	freeze() error
	thaw() error
}

// frozen runs f while the task stands still, and returns for how long it stood.
// It always thaws, also when f fails.
func frozen(z freezer, f func() error) (time.Duration, error) {
	begin := time.Now()
	if err := z.freeze(); err != nil {
		return 0, errors.Join(fmt.Errorf("freeze: %w", err), z.thaw())
	}
	err := f()
	if terr := z.thaw(); terr != nil {
		err = errors.Join(err, fmt.Errorf("thaw: %w", terr))
	}
	return time.Since(begin), err
}

// gone is the freezer of a task that has no process any more.
type gone struct{}

func (gone) freeze() error { return nil }
func (gone) thaw() error   { return nil }
