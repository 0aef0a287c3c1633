package soak

import (
	"fmt"
	"testing"
	"time"

	"openclaw-sandbox/test/rig"
)

// router is the router under test, seen through its metrics.
type router struct{ *rig.Router }

// levels are what a router holds.
type levels struct {
	descriptors, goroutines int
	heap                    float64 // bytes; what the last collection found alive, times two (GOGC)
	rss                     float64 // bytes
}

func (l levels) String() string {
	return fmt.Sprintf("%d descriptors, %d goroutines, heap goal %.1f MB, RSS %.1f MB", l.descriptors, l.goroutines, l.heap/1e6, l.rss/1e6)
}

// settle waits until the router counts so many open WebSockets and holds no more than
// most, and returns what it holds. Asking makes garbage, so that collections go on.
func (r *router) settle(t *testing.T, open int, most levels) (now levels) {
	t.Helper()
	eventually(t, func() error {
		m, err := r.Scrape()
		if err != nil {
			return err
		}
		now = levels{descriptors: int(m["process_open_fds"]), goroutines: int(m["go_goroutines"]), heap: m["go_memstats_next_gc_bytes"], rss: m["process_resident_memory_bytes"]}
		switch got := int(m["sandbox_router_websockets"]); {
		case got != open:
			return fmt.Errorf("%d WebSockets are open, want %d", got, open)
		case now.descriptors > most.descriptors || now.goroutines > most.goroutines || most.heap > 0 && now.heap > most.heap:
			return fmt.Errorf("%v; want at most %v", now, most)
		}
		return nil
	})
	return now
}

// eventually polls another process until it is so far.
func eventually(t *testing.T, ok func() error) {
	t.Helper()
	for end := time.Now().Add(limit); ; time.Sleep(20 * time.Millisecond) {
		err := ok()
		if err == nil {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("after %s: %v", limit, err)
		}
	}
}
