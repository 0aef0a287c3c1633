package pause

import (
	"context"
	"testing"
	"testing/synctest"
	"time"
)

func TestFor(t *testing.T) {
	for name, c := range map[string]struct {
		d, end time.Duration // end is when ctx ends; 0 is before
		whole  bool
		took   time.Duration
	}{
		"waited out":             {d: time.Second, end: time.Minute, whole: true, took: time.Second},
		"ended early":            {d: time.Minute, end: time.Second, took: time.Second},
		"ended before":           {d: time.Minute},
		"no wait":                {d: 0, end: time.Second, whole: true},
		"less than none":         {d: -time.Second, end: time.Second, whole: true},
		"no wait, ended already": {d: 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithTimeout(t.Context(), c.end)
				defer cancel()
				begin := time.Now()
				if whole := For(ctx, c.d); whole != c.whole || time.Since(begin) != c.took {
					t.Errorf("%v after %s, want %v after %s", whole, time.Since(begin), c.whole, c.took)
				}
			})
		})
	}
}
