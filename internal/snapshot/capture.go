package snapshot

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Capture is a copy of what changed since the last save, taken while the
// sandbox was frozen.
type Capture struct {
	staging string
	changed []captured
	deleted []pathname
	full    bool // holds the whole state, not only what changed
	files   int64
	bytes   int64 // of the whole state
	copied  int64
	skipped int // paths that are no file, directory or link, or could not be read
}

// captured is one changed path. A file's copy is at staging/<its index>.
type captured struct {
	entry entry
	stamp stamp
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
	c := &Capture{staging: staging, full: len(r.head.Segments) >= r.opts.MaxSegments}
	if err := r.scan(ctx, dir, c); err != nil {
		return nil, errors.Join(fmt.Errorf("capture: %w", err), c.Discard())
	}
	return c, nil
}

// Discard removes the copies.
func (c *Capture) Discard() error { return os.RemoveAll(c.staging) }

func (r *Run) scan(ctx context.Context, dir *os.Root, c *Capture) error {
	now := time.Now()
	seen := make(map[pathname]bool, len(r.index))
	err := fs.WalkDir(folders{dir}, ".", func(path string, d fs.DirEntry, err error) error {
		if path == "." {
			return err
		}
		if err == nil {
			err = ctx.Err()
		}
		if gone(err) {
			return nil // since its folder was read
		}
		if err != nil {
			return err
		}
		p := pathname(path)
		if r.skip.match(path) || p.check() != nil {
			if d.IsDir() {
				return fs.SkipDir
			}
			return nil
		}
		e, st, err := describe(dir, p)
		switch {
		case errors.Is(err, errNotKept), gone(err):
			c.skipped++
			return nil
		case err != nil:
			return err
		}
		seen[p] = true
		c.files++
		c.bytes += e.Size
		if c.files > r.opts.MaxFiles || c.bytes > r.opts.MaxBytes || e.Size > r.opts.MaxFile {
			return fmt.Errorf("%w: %d paths, %d bytes so far, %.80q has %d", ErrTooLarge, c.files, c.bytes, path, e.Size)
		}
		was, had := r.index[p]
		if had && !c.full && sameMeta(was.entry, e) && (e.Kind != kindFile || was.stamp == st) {
			return nil
		}
		if newest := max(st.mtime, st.ctime); now.UnixNano()-newest < racyWindow.Nanoseconds() {
			st = stamp{}
		}
		if e.Kind == kindFile {
			n, err := copyOut(dir, p, filepath.Join(c.staging, strconv.Itoa(len(c.changed))))
			if gone(err) || errors.Is(err, errNotKept) {
				c.skipped++
				delete(seen, p)
				return nil
			}
			if err != nil {
				return err
			}
			e.Size = n
			c.copied += n
		}
		c.changed = append(c.changed, captured{e, st})
		return nil
	})
	if err != nil {
		return err
	}
	for p := range r.index {
		if !seen[p] {
			c.deleted = append(c.deleted, p)
		}
	}
	return nil
}

// folders lets fs.WalkDir see every folder: os.Root's own FS refuses names that are
// not UTF-8, and a sandbox can make one.
type folders struct{ dir *os.Root }

func (t folders) Open(name string) (fs.File, error) { return t.dir.Open(name) }

func (t folders) Stat(name string) (fs.FileInfo, error) { return t.dir.Stat(name) }

func (t folders) ReadDir(name string) ([]fs.DirEntry, error) {
	f, err := t.dir.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	entries, err := f.ReadDir(-1)
	slices.SortFunc(entries, func(a, b fs.DirEntry) int { return strings.Compare(a.Name(), b.Name()) }) // the format packs in path order
	return entries, err
}

// sameMeta compares what can change without the content.
func sameMeta(a, b entry) bool {
	return a.Kind == b.Kind && a.Mode == b.Mode && a.Target == b.Target && (a.Kind != kindFile || (a.Size == b.Size && a.MTime == b.MTime))
}

// errNotKept marks what the format leaves out: sockets, FIFOs, devices.
var errNotKept = errors.New("not a file, directory or link")

// gone tells of a path that became something else since it was seen: it, or a
// folder above it, was removed, or replaced by a file or a link. That happens
// only to a tree that was not frozen. os.Root's refusal of a link that leads out
// has no name of its own.
func gone(err error) bool {
	var p *fs.PathError
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) || errors.Is(err, syscall.ELOOP) || errors.Is(err, syscall.EINVAL) ||
		errors.As(err, &p) && p.Err.Error() == "path escapes from parent"
}

// describe looks at a path without following it.
func describe(dir *os.Root, p pathname) (entry, stamp, error) {
	info, err := dir.Lstat(string(p))
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
		target, err := dir.Readlink(string(p))
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
func copyOut(dir *os.Root, p pathname, to string) (int64, error) {
	src, err := dir.OpenFile(string(p), openFlags, 0)
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
