package driver

import (
	"context"
	"fmt"
	"os"
	"time"

	"openclaw-sandbox/internal/snapshot"
)

// due decides when to save: when what changed has settled for debounce, but not
// later than interval after it began to change. What is only a sign of life waits
// for quiet.
type due struct {
	debounce, interval, quiet time.Duration
	dirty                     time.Time // since when there is something to save; zero if there is not
	saved                     time.Time
}

// save tells whether to save now, after a look.
func (d *due) save(now time.Time, c snapshot.Changes) bool {
	if c.Paths == 0 {
		d.dirty = time.Time{}
		return c.Quiet > 0 && now.Sub(d.saved) >= d.quiet
	}
	if d.dirty.IsZero() {
		d.dirty = now
	}
	return now.Sub(d.dirty) >= d.interval || now.Sub(c.Newest) >= d.debounce
}

// did notes a save.
func (d *due) did(now time.Time) { d.dirty, d.saved = time.Time{}, now }

const (
	// leastPoll and mostPoll bound how often a running sandbox's files are looked at.
	leastPoll = 200 * time.Millisecond
	mostPoll  = 2 * time.Second
	// pollShare is how much more time passes between looks than one takes, so that a
	// large tree does not keep a core busy.
	pollShare = 50
)

// poll is how long to wait for the next look after one that took so long.
func (d *due) poll(took time.Duration) time.Duration {
	return max(min(max(d.debounce/4, leastPoll), mostPoll), took*pollShare)
}

// look finds out what changed since the last save, and how long that took; waiting
// for a store that is away does not count.
func (t *task) look() (changes snapshot.Changes, took time.Duration, err error) {
	ctx, cancel := context.WithTimeout(t.d.ctx, t.d.settings.timeout)
	defer cancel()
	if err := t.resume(ctx); err != nil {
		return changes, 0, err
	}
	dir, err := os.OpenRoot(t.dirs.State)
	if err != nil {
		return changes, 0, fmt.Errorf("open the state: %w", err)
	}
	defer dir.Close()
	begin := time.Now()
	changes, err = t.run.Look(ctx, dir)
	return changes, time.Since(begin), err
}
