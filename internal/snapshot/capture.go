package snapshot

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// Capture is what changed since the last save: copies, taken while the sandbox was
// frozen, or the files themselves, where nothing moves any more.
type Capture struct {
	staging string
	still   *os.Root // not nil: the files are read where they are
	changed []captured
	deleted []pathname
	gone    map[string]bool // segments that this save does without
	files   int64
	bytes   int64 // of the whole state
	copied  int64
	skipped int // paths that are no file, directory or link, or could not be read
}

// captured is one changed path.
type captured struct {
	entry entry
	stamp stamp
	seen  stamp  // as it was looked at; stamp is empty where it proves nothing
	copy  string // a file's copy, in the staging folder
}

// racyWindow is how close to the capture a file's time stamp may be before it
// proves nothing: a later write can get the same one (kernels stamp by ticks).
const racyWindow = 20 * time.Millisecond

// Capture scans dir and copies what changed into staging, a folder that is
// empty or does not exist. The caller has frozen the sandbox, so this does only
// what must be done while nothing moves: no hashing, no compression, no network.
// It returns ErrNotRestored for a run that did not restore, and ErrTooLarge. The
// caller ends with Commit or Discard.
func (r *Run) Capture(ctx context.Context, dir *os.Root, staging string) (*Capture, error) {
	if err := os.MkdirAll(staging, 0o700); err != nil {
		return nil, fmt.Errorf("capture: %w", err)
	}
	return r.capture(ctx, dir, &Capture{staging: staging})
}

// Still is Capture for a tree in which nothing moves any more: nothing is copied, so
// that it needs no room on the disk. Commit, for which dir must stay open, reads the
// files where they are, and returns ErrMoved if one changes after all.
func (r *Run) Still(ctx context.Context, dir *os.Root) (*Capture, error) {
	return r.capture(ctx, dir, &Capture{still: dir})
}

func (r *Run) capture(ctx context.Context, dir *os.Root, c *Capture) (*Capture, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	var err error
	switch c.gone = r.worn; {
	case r.fenced:
		err = ErrFenced
	case !r.restored:
		err = ErrNotRestored
	default:
		if err = scan(ctx, dir, c, r); err != nil {
			err = fmt.Errorf("capture: %w", err)
		}
	}
	if err != nil {
		return nil, errors.Join(err, c.Discard())
	}
	return c, nil
}

// Discard removes the copies.
func (c *Capture) Discard() error {
	if c.still != nil {
		return nil
	}
	return os.RemoveAll(c.staging)
}

// ErrMoved: a file changed in a tree that was said to be still.
var ErrMoved = errors.New("a file changes while it is saved")

// open opens a captured file: its copy, or itself.
func (c *Capture) open(ch captured) (*os.File, error) {
	if c.still == nil {
		return os.Open(filepath.Join(c.staging, ch.copy))
	}
	f, err := c.still.OpenFile(string(ch.entry.Path), openFlags, 0)
	if gone(err) {
		return nil, fmt.Errorf("%w: %.200q", ErrMoved, ch.entry.Path)
	}
	if err != nil {
		return nil, err
	}
	if err := c.held(ch, f); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// held says whether an open file is still as it was looked at.
func (c *Capture) held(ch captured, f *os.File) error {
	if c.still == nil {
		return nil
	}
	info, err := f.Stat()
	if err == nil && (!info.Mode().IsRegular() || stampOf(info) != ch.seen) {
		err = fmt.Errorf("%w: %.200q", ErrMoved, ch.entry.Path)
	}
	return err
}

// sameMeta compares what can change without the content.
func sameMeta(a, b entry) bool {
	return a.Kind == b.Kind && a.Mode == b.Mode && a.Target == b.Target && (a.Kind != kindFile || (a.Size == b.Size && a.MTime == b.MTime))
}

// errNotKept marks what the format leaves out: sockets, FIFOs, devices.
var errNotKept = errors.New("not a file, directory or link")

// describe looks at a name in a folder, of which fd is the descriptor, without
// following it; p is its path.
func describe(dir *os.Root, fd int, name string, p pathname) (entry, stamp, error) {
	var st unix.Stat_t
	err := uninterrupted(func() error { return unix.Fstatat(fd, name, &st, unix.AT_SYMLINK_NOFOLLOW) })
	if err != nil {
		return entry{}, stamp{}, &fs.PathError{Op: "lstat", Path: string(p), Err: err}
	}
	seen := stampOfStat(&st)
	e := entry{Path: p, Mode: uint32(st.Mode) & uint32(fs.ModePerm), MTime: seen.MTime}
	switch uint32(st.Mode) & unix.S_IFMT {
	case unix.S_IFREG:
		e.Kind, e.Size = kindFile, st.Size
	case unix.S_IFDIR:
		e.Kind = kindDir
	case unix.S_IFLNK:
		e.Kind, e.Mode = kindLink, 0
		target, err := dir.Readlink(name)
		if err != nil {
			return entry{}, stamp{}, err
		}
		e.Target = pathname(target)
	default:
		return entry{}, stamp{}, errNotKept
	}
	return e, seen, nil
}

// copyOut copies a sandbox's file to a path of ours.
func copyOut(dir *os.Root, name, to string) (int64, error) {
	src, err := dir.OpenFile(name, openFlags, 0)
	if err != nil {
		return 0, err
	}
	defer src.Close()
	info, err := src.Stat()
	if err != nil {
		return 0, err
	}
	if !info.Mode().IsRegular() {
		return 0, errNotKept // swapped since it was looked at
	}
	dst, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return 0, err
	}
	n := info.Size()
	// A clone of a file that was just written waits until the disk has it.
	if n < chunkedFrom || !clone(dst, src) {
		// Not past the size: a file that grows meanwhile must not grow without end.
		n, err = io.Copy(dst, io.LimitReader(src, n))
	}
	return n, errors.Join(err, dst.Close())
}
