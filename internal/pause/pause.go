// Package pause waits for a time that a context may end early.
package pause

import (
	"context"
	"time"
)

// For waits for d, and reports whether it was waited out: false if ctx ended first.
// A d of zero or less is no wait.
func For(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
