package driver

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/hashicorp/nomad/plugins/drivers"

	"openclaw-sandbox/internal/sandbox"
)

// TaskEvents are ours and the inner driver's.
func (d *Driver) TaskEvents(ctx context.Context) (<-chan *drivers.TaskEvent, error) {
	return d.events.TaskEvents(ctx)
}

// forwardEvents passes the inner driver's events on for as long as the plugin lives.
func (d *Driver) forwardEvents() {
	ch, err := d.inner().TaskEvents(d.ctx)
	if err != nil {
		d.log.Warn("the inner driver's events will be missing", "error", err)
		return
	}
	go func() { // ends with the plugin's context, which ends ch
		for {
			select {
			case <-d.ctx.Done():
				return
			case e, ok := <-ch:
				if !ok {
					return
				}
				d.events.EmitEvent(e)
			}
		}
	}()
}

// say makes a task event of p. Nomad keeps a task's last ten, so there must not
// be many.
func (d *Driver) say(cfg *drivers.TaskConfig, p sandbox.Progress) {
	d.events.EmitEvent(&drivers.TaskEvent{TaskID: cfg.ID, TaskName: cfg.Name, AllocID: cfg.AllocID, Timestamp: time.Now(),
		Message: p.Message, Annotations: p.Annotations()})
}

// note makes a task event that is not about a start's progress.
func (d *Driver) note(cfg *drivers.TaskConfig, format string, args ...any) {
	d.events.EmitEvent(&drivers.TaskEvent{TaskID: cfg.ID, TaskName: cfg.Name, AllocID: cfg.AllocID, Timestamp: time.Now(),
		Message: fmt.Sprintf(format, args...)})
}

// tellSleep makes a task event that tells the router too that the sandbox is frozen
// or thawed.
func (d *Driver) tellSleep(cfg *drivers.TaskConfig, asleep bool, message string) {
	d.events.EmitEvent(&drivers.TaskEvent{TaskID: cfg.ID, TaskName: cfg.Name, AllocID: cfg.AllocID, Timestamp: time.Now(),
		Message: message, Annotations: sandbox.SleepAnnotations(asleep)})
}

// progressEvery is how often a restore reports, at most.
const progressEvery = time.Second

// restoreProgress returns a callback that reports the first call, then at most
// one a progressEvery. Small restores are over before a second event.
func (d *Driver) restoreProgress(cfg *drivers.TaskConfig) func(done, total int64) {
	var mu sync.Mutex
	var last time.Time
	return func(done, total int64) {
		mu.Lock()
		defer mu.Unlock()
		if time.Since(last) < progressEvery {
			return
		}
		last = time.Now()
		d.say(cfg, sandbox.Progress{Phase: sandbox.PhaseRestoring, Done: done, Total: total,
			Message: fmt.Sprintf("Restoring %s of %s", size(done), size(total))})
	}
}

// size is a number of bytes for people.
func size(n int64) string {
	switch {
	case n < 10<<10:
		return fmt.Sprintf("%d bytes", n)
	case n < 10<<20:
		return fmt.Sprintf("%d KB", n>>10)
	}
	return fmt.Sprintf("%d MB", n>>20)
}
