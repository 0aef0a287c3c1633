// Package meter measures what a benchmark's own process costs.
package meter

import (
	"context"
	"syscall"
	"time"

	"openclaw-sandbox/internal/pause"
)

// CPU is what the process used of one core while f ran, in percent; its error is f's.
func CPU(f func() error) (float64, error) {
	begin, before := time.Now(), used()
	err := f()
	return 100 * float64(used()-before) / float64(time.Since(begin)), err
}

func used() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err) // it can not fail for oneself
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// Pause waits for d, or returns ctx's error if that ends first.
func Pause(ctx context.Context, d time.Duration) error {
	if !pause.For(ctx, d) {
		return ctx.Err()
	}
	return nil
}
