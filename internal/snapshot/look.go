package snapshot

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"
)

// Changes are what a look finds to differ from the last save.
type Changes struct {
	// Paths is how many changed, but for the quiet ones.
	Paths int
	// Quiet is how many of Options.Quiet did.
	Quiet int
	// Newest is when the last of the Paths changed, as its file system says.
	Newest time.Time
}

// Look finds out what a save would have to do, while the sandbox runs: nothing is
// copied, nothing is sent. A state that passes the limits is a change, whose save
// says so. It returns ErrFenced and ErrNotRestored as Capture.
func (r *Run) Look(ctx context.Context, dir *os.Root) (Changes, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case r.fenced:
		return Changes{}, ErrFenced
	case !r.restored:
		return Changes{}, ErrNotRestored
	}
	s := &scanner{top: dir, run: r, c: &Capture{}, look: &Changes{}}
	if err := s.walk(ctx); errors.Is(err, ErrTooLarge) {
		return Changes{Paths: 1}, nil
	} else if err != nil {
		return Changes{}, fmt.Errorf("look: %w", err)
	}
	for p, k := range r.index.Paths {
		if k.seen != r.index.scan {
			s.note(p, 0)
		}
	}
	if len(r.worn) > 0 { // a save is due to write these anew
		s.look.Paths++
	}
	return *s.look, nil
}

// note takes a change in; at is when, in Unix nanoseconds.
func (s *scanner) note(p pathname, at int64) {
	quiet := s.run.quiet.match(string(p))
	s.mu.Lock()
	defer s.mu.Unlock()
	if quiet {
		s.look.Quiet++
		return
	}
	s.look.Paths++
	if t := time.Unix(0, at); t.After(s.look.Newest) {
		s.look.Newest = t
	}
}
