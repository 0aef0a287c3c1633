package snapshot

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"
)

// scanner walks a tree, several folders at a time: each is opened once, so that a
// name in it is looked up without its whole path, and never through a link that
// leads out.
type scanner struct {
	ctx context.Context
	g   *errgroup.Group
	top *os.Root
	run *Run
	now int64

	copies atomic.Int64

	mu   sync.Mutex // guards c and look
	c    *Capture
	look *Changes // not nil: only look
}

// walk looks at the whole tree.
func (s *scanner) walk(ctx context.Context) error {
	s.g, s.ctx = errgroup.WithContext(ctx)
	s.g.SetLimit(2 * runtime.GOMAXPROCS(0))
	s.now = time.Now().UnixNano()
	s.run.index.scan++
	s.g.Go(func() error { return s.folder(".") })
	return s.g.Wait()
}

func scan(ctx context.Context, dir *os.Root, c *Capture, r *Run) error {
	s := &scanner{top: dir, run: r, c: c}
	if err := s.walk(ctx); err != nil {
		return err
	}
	for p, k := range r.index.Paths {
		if k.seen != r.index.scan {
			c.deleted = append(c.deleted, p)
		}
	}
	return nil
}

// folder looks at everything in the folder at path, and then in those below it. It
// holds no folder open while it is in another: a deep tree must not use up the
// process's descriptors.
func (s *scanner) folder(path string) error {
	below, err := s.names(path)
	if err != nil {
		return err
	}
	for _, p := range below {
		into := func() error { return s.folder(p) }
		if !s.g.TryGo(into) {
			if err := into(); err != nil {
				return err
			}
		}
	}
	return nil
}

// names looks at everything in the folder at path, and returns the folders in it.
func (s *scanner) names(path string) (below []string, err error) {
	dir, err := s.top.OpenRoot(path)
	if gone(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	self, err := dir.Open(".")
	if err != nil {
		return nil, err
	}
	defer self.Close()
	// Names only: ReadDir looks at each of them, in a folder that os.Root opened.
	names, err := self.Readdirnames(-1)
	if err != nil && !gone(err) {
		return nil, err
	}
	fd := int(self.Fd())
	for _, name := range names {
		if err := s.ctx.Err(); err != nil {
			return nil, err
		}
		p := name
		if path != "." {
			p = path + "/" + name
		}
		if s.run.skip.match(p) || pathname(p).check() != nil {
			continue
		}
		e, st, err := describe(dir, fd, name, pathname(p))
		switch {
		case errors.Is(err, errNotKept), gone(err):
			s.skip()
			continue
		case err != nil:
			return nil, err
		}
		if err := s.path(dir, name, e, st); err != nil {
			return nil, err
		}
		if e.Kind == kindDir {
			below = append(below, p)
		}
	}
	return below, nil
}

// path takes one name in dir to account, and copies it out if it changed.
func (s *scanner) path(dir *os.Root, name string, e entry, st stamp) error {
	p := e.Path
	was := s.run.index.Paths[p]
	if was != nil {
		was.seen = s.run.index.scan
	}
	if err := s.count(e); err != nil {
		return err
	}
	if was != nil && sameMeta(was.Record.Entry, e) && (e.Kind != kindFile || was.Stamp == st) && !s.c.gone[was.Record.Home] && !anyIn(was.Record.At, s.c.gone) {
		return nil
	}
	newest := max(st.MTime, st.CTime)
	if s.look != nil {
		s.note(p, newest)
		return nil
	}
	ch := captured{entry: e, stamp: st, seen: st}
	if s.now-newest < racyWindow.Nanoseconds() {
		ch.stamp = stamp{}
	}
	if e.Kind == kindFile && s.c.still == nil {
		ch.copy = strconv.FormatInt(s.copies.Add(1), 10)
		n, err := copyOut(dir, name, filepath.Join(s.c.staging, ch.copy))
		lost := gone(err) || errors.Is(err, errNotKept)
		if err != nil && !lost {
			return err
		}
		if lost {
			if was != nil {
				was.seen = 0
			}
			s.skip()
			return nil
		}
		ch.entry.Size = n
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.c.changed = append(s.c.changed, ch)
	if e.Kind == kindFile {
		s.c.copied += ch.entry.Size
	}
	return nil
}

func (s *scanner) skip() {
	s.mu.Lock()
	s.c.skipped++
	s.mu.Unlock()
}

// count adds a path to the totals, and holds them against the limits.
func (s *scanner) count(e entry) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	c, o := s.c, s.run.opts
	c.files++
	c.bytes += e.Size
	if c.files > o.MaxFiles || c.bytes > o.MaxBytes || e.Size > o.MaxFile {
		return fmt.Errorf("%w: %d paths, %d bytes so far, %.80q has %d", ErrTooLarge, c.files, c.bytes, e.Path, e.Size)
	}
	return nil
}

// gone tells of a path that became something else since it was seen: it, or a
// folder above it, was removed, or replaced by a file or a link. That happens
// only to a tree that was not frozen. Some of os.Root's refusals have no value to
// compare with.
func gone(err error) bool {
	for _, known := range []error{fs.ErrNotExist, syscall.ENOTDIR, syscall.ELOOP, syscall.EINVAL} {
		if errors.Is(err, known) {
			return true
		}
	}
	if err == nil {
		return false
	}
	text := err.Error()
	return strings.HasSuffix(text, "path escapes from parent") || strings.HasSuffix(text, "not a directory")
}
