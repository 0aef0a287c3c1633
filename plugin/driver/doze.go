package driver

import (
	"context"
	"errors"
	"fmt"
	"time"
)

const (
	// pageOutLimit bounds how long one sandbox's memory is being pushed out.
	pageOutLimit = time.Minute
	// worthTelling is how much must have gone, in bytes, for a task event of it:
	// Nomad keeps a task's last ten.
	worthTelling = 16 << 20
)

// doze waits out a sleep whose state is saved, and pushes the sandbox's memory out
// if the sleep lasts. It ends with the sleep, the process or the plugin.
func (t *task) doze(n *nap) {
	if t.d.settings.pageOut {
		timer := time.NewTimer(time.Until(n.since.Add(t.d.settings.pageOutAfter)))
		defer timer.Stop()
		select {
		case <-n.over.Done():
			return
		case <-t.exited:
			return
		case <-timer.C:
		}
		t.pageOut(n)
	}
	select {
	case <-n.over.Done():
	case <-t.exited:
	}
}

// pageOut pushes the memory of a sandbox that sleeps out of RAM. A thaw ends it, and
// does not wait for it.
func (t *task) pageOut(n *nap) {
	ctx, cancel := context.WithTimeout(n.over, pageOutLimit)
	defer cancel()
	t.still.Lock()
	z := t.freezer
	t.still.Unlock()
	begin := time.Now()
	r, err := z.pageOut(ctx)
	t.d.metrics.pagedOut.Add(float64(r.Gone()))
	took := time.Since(begin)
	switch {
	case errors.Is(err, errors.ErrUnsupported):
		t.d.log.Warn("this kernel pushes no memory of frozen sandboxes out; freeze.page_out needs Linux 5.10", "alloc", t.cfg.AllocID)
	case err != nil && ctx.Err() == nil:
		t.d.log.Warn("push the memory of a frozen sandbox out", "alloc", t.cfg.AllocID, "error", err)
	default:
		t.d.log.Debug("pushed the memory of a frozen sandbox out", "alloc", t.cfg.AllocID, "before", r.Before, "gone", r.Gone(), "took", took, "thawed", n.over.Err() != nil)
	}
	t.still.Lock()
	defer t.still.Unlock()
	if t.nap == n && r.Gone() >= worthTelling { // not after the event of a thaw
		t.tellSleep(true, fmt.Sprintf("Frozen, %d of %d MB pushed out of memory", r.Gone()>>20, r.Before>>20))
	}
}
