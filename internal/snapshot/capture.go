package snapshot

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"
)

// Capture is a copy of what changed since the last save, taken while the
// sandbox was frozen.
type Capture struct {
	staging string
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
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case r.fenced:
		return nil, ErrFenced
	case !r.restored:
		return nil, ErrNotRestored
	}
	if err := os.MkdirAll(staging, 0o700); err != nil {
		return nil, fmt.Errorf("capture: %w", err)
	}
	c := &Capture{staging: staging, gone: r.worn}
	if err := scan(ctx, dir, c, r); err != nil {
		return nil, errors.Join(fmt.Errorf("capture: %w", err), c.Discard())
	}
	return c, nil
}

// Discard removes the copies.
func (c *Capture) Discard() error { return os.RemoveAll(c.staging) }

// sameMeta compares what can change without the content.
func sameMeta(a, b entry) bool {
	return a.Kind == b.Kind && a.Mode == b.Mode && a.Target == b.Target && (a.Kind != kindFile || (a.Size == b.Size && a.MTime == b.MTime))
}

// errNotKept marks what the format leaves out: sockets, FIFOs, devices.
var errNotKept = errors.New("not a file, directory or link")

// describe looks at a name in a folder without following it; p is its path.
func describe(dir *os.Root, name string, p pathname) (entry, stamp, error) {
	info, err := dir.Lstat(name)
	if err != nil {
		return entry{}, stamp{}, err
	}
	e := entry{Path: p, Mode: uint32(info.Mode().Perm()), MTime: info.ModTime().UnixNano()}
	switch info.Mode().Type() {
	case 0:
		e.Kind, e.Size = kindFile, info.Size()
	case fs.ModeDir:
		e.Kind = kindDir
	case fs.ModeSymlink:
		e.Kind, e.Mode = kindLink, 0
		target, err := dir.Readlink(name)
		if err != nil {
			return entry{}, stamp{}, err
		}
		e.Target = pathname(target)
	default:
		return entry{}, stamp{}, errNotKept
	}
	return e, stampOf(info), nil
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
	if !clone(dst, src) {
		// Not past the size: a file that grows meanwhile must not grow without end.
		n, err = io.Copy(dst, io.LimitReader(src, n))
	}
	return n, errors.Join(err, dst.Close())
}
