// Package patience lets the limits of tests grow with the slowness of the machine.
package patience

import (
	"sync/atomic"
	"time"
)

// most bounds the factor, so that a test that hangs ends within its package's limit.
const most = 6

var percent atomic.Int64 // 0 until Measure

// Measure sets the factor: how often reference goes into took, from 1 to 6. Call it
// once, before the tests run.
func Measure(took, reference time.Duration) {
	percent.Store(int64(100 * min(most, max(1, float64(took)/float64(reference)))))
}

// Of returns limit times the factor that was measured, or limit if none was.
func Of(limit time.Duration) time.Duration {
	return limit * time.Duration(max(100, percent.Load())) / 100
}
