package snapshot

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"openclaw-sandbox/internal/objstore"
)

// rangeSize is about how much one ranged GET of a restore asks for.
const rangeSize = 8 << 20

func isNotFound(err error) bool { return errors.Is(err, objstore.ErrNotFound) }

// Restore writes the committed state into dir, which must be empty, and verifies
// every byte. progress (may be nil) is called with the bytes of content written
// so far and in all; calls do not overlap. It returns ErrCorrupt, ErrTooLarge or
// the store's error; then dir holds a part, and the run can not save.
func (r *Run) Restore(ctx context.Context, dir *os.Root, progress func(done, total int64)) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.restore(ctx, dir, progress); err != nil {
		return fmt.Errorf("restore %s: %w", r.head.User, err)
	}
	r.restored = true
	return nil
}

func (r *Run) restore(ctx context.Context, dir *os.Root, progress func(done, total int64)) error {
	if names, err := fs.ReadDir(dir.FS(), "."); err != nil || len(names) > 0 {
		return fmt.Errorf("the folder is not empty (%d names): %w", len(names), errors.Join(err, fs.ErrExist))
	}
	live, metas, err := r.readSegments(ctx)
	if err != nil {
		return err
	}
	t := &target{run: r, dir: dir, live: live, progress: progress}
	for _, l := range live {
		t.total += l.entry.Size
	}
	steps := []func(context.Context) error{t.makeDirs, func(ctx context.Context) error { return t.makeFiles(ctx, metas) }, t.makeLinks, t.finish}
	for _, step := range steps {
		if err := step(ctx); err != nil {
			return err
		}
	}
	return nil
}

// target is a folder that is being restored into. All its paths go through
// os.Root, and links come last, so nothing is ever written through one.
type target struct {
	run      *Run
	dir      *os.Root
	live     map[pathname]located
	total    int64
	done     atomic.Int64
	progress func(done, total int64)
	mu       sync.Mutex // one progress call at a time
}

// sorted are the live paths of one kind, parents before children.
func (t *target) sorted(k kind) []pathname {
	var out []pathname
	for p, l := range t.live {
		if l.entry.Kind == k {
			out = append(out, p)
		}
	}
	slices.Sort(out)
	return out
}

func (t *target) makeDirs(context.Context) error {
	for _, p := range t.sorted(kindDir) {
		if err := t.dir.Mkdir(string(p), 0o700); err != nil {
			return err
		}
	}
	return nil
}

// piece is a part of a file that lies in one block.
type piece struct {
	path pathname
	at   int64 // in the file
	from extent
}

// makeFiles fetches the blocks that live files need, in ranges, and writes them.
func (t *target) makeFiles(ctx context.Context, metas []segmentMeta) error {
	needs := make([]map[int][]piece, len(metas)) // segment → block → pieces
	for _, p := range t.sorted(kindFile) {
		l := t.live[p]
		if l.entry.Size == 0 {
			if err := t.write(p, nil, 0, 0); err != nil {
				return err
			}
			continue
		}
		if needs[l.segment] == nil {
			needs[l.segment] = map[int][]piece{}
		}
		var at int64
		for _, x := range l.entry.Extents {
			needs[l.segment][x.Block] = append(needs[l.segment][x.Block], piece{p, at, x})
			at += x.Len
		}
	}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(max(1, t.run.opts.Parallel))
	for seg, blocks := range needs {
		for first, last := range ranges(metas[seg].Blocks, blocks) {
			g.Go(func() error {
				if err := t.fetchRange(ctx, seg, metas[seg].Blocks, first, last, blocks); err != nil {
					return fmt.Errorf("segment %s: %w", t.run.head.Segments[seg].Name, err)
				}
				return nil
			})
		}
	}
	return g.Wait()
}

// ranges yields runs of neighbouring blocks that are needed, each about rangeSize.
func ranges(all []block, needed map[int][]piece) func(yield func(first, last int) bool) {
	return func(yield func(first, last int) bool) {
		for i := 0; i < len(all); i++ {
			if needed[i] == nil {
				continue
			}
			first, end := i, all[i].Off+all[i].Len
			for i+1 < len(all) && needed[i+1] != nil && all[i+1].Off == end && end-all[first].Off < rangeSize {
				i++
				end += all[i].Len
			}
			if !yield(first, i) {
				return
			}
		}
	}
}

func (t *target) fetchRange(ctx context.Context, seg int, all []block, first, last int, needed map[int][]piece) error {
	start := all[first].Off
	stored, err := t.run.fetch(ctx, t.run.head.Segments[seg].Name, start, all[last].Off+all[last].Len-start)
	if err != nil {
		return err
	}
	for i := first; i <= last; i++ {
		b := all[i]
		raw, err := unpack(blockDecoder, stored[b.Off-start:b.Off-start+b.Len], b.Sum, b.Raw)
		if err != nil {
			return fmt.Errorf("block %d: %w", i, err)
		}
		for _, p := range needed[i] {
			if err := t.write(p.path, raw[p.from.Off:p.from.Off+p.from.Len], p.at, t.live[p.path].entry.Size); err != nil {
				return err
			}
		}
	}
	return nil
}

// write puts a piece of a file in its place. A file that this piece fills is
// written, dressed and stamped at once; the pieces of a larger file come in any order.
func (t *target) write(p pathname, content []byte, at, size int64) error {
	whole := int64(len(content)) == size
	flags := os.O_CREATE | os.O_WRONLY
	if whole {
		flags |= os.O_EXCL
	}
	f, err := t.dir.OpenFile(string(p), flags, 0o600)
	if err != nil {
		return err
	}
	if len(content) > 0 {
		_, err = f.WriteAt(content, at)
	}
	if whole && err == nil {
		err = t.dress(p, f)
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	if done := t.done.Add(int64(len(content))); t.progress != nil && len(content) > 0 {
		t.mu.Lock()
		t.progress(done, t.total)
		t.mu.Unlock()
	}
	return nil
}

// dress gives an open file its owner and mode.
func (t *target) dress(p pathname, f *os.File) error {
	if o := t.run.opts; o.UID >= 0 || o.GID >= 0 {
		if err := f.Chown(o.UID, o.GID); err != nil {
			return err
		}
	}
	return f.Chmod(fs.FileMode(t.live[p].entry.Mode))
}

func (t *target) makeLinks(context.Context) error {
	for _, p := range t.sorted(kindLink) {
		if err := t.dir.Symlink(string(t.live[p].entry.Target), string(p)); err != nil {
			return err
		}
		if o := t.run.opts; o.UID >= 0 || o.GID >= 0 {
			if err := t.dir.Lchown(string(p), o.UID, o.GID); err != nil {
				return err
			}
		}
	}
	return nil
}

// finish dresses what write did not, stamps every file, and fills the index:
// a time stamp holds only once nothing in a folder is made any more.
func (t *target) finish(context.Context) error {
	for _, p := range t.sorted(kindFile) {
		e := t.live[p].entry
		if len(e.Extents) > 1 {
			f, err := t.dir.OpenFile(string(p), os.O_RDWR, 0)
			if err != nil {
				return err
			}
			if err := errors.Join(t.dress(p, f), f.Close()); err != nil {
				return err
			}
		}
		if err := t.stamp(p, e); err != nil {
			return err
		}
	}
	dirs := t.sorted(kindDir)
	slices.SortFunc(dirs, func(a, b pathname) int { return strings.Compare(string(b), string(a)) }) // children first
	for _, p := range dirs {
		e := t.live[p].entry
		if o := t.run.opts; o.UID >= 0 || o.GID >= 0 {
			if err := t.dir.Lchown(string(p), o.UID, o.GID); err != nil {
				return err
			}
		}
		if err := t.dir.Chmod(string(p), fs.FileMode(e.Mode)); err != nil {
			return err
		}
		if err := t.stamp(p, e); err != nil {
			return err
		}
	}
	for _, p := range t.sorted(kindLink) {
		t.run.index[p] = known{entry: t.live[p].entry}
	}
	return nil
}

func (t *target) stamp(p pathname, e entry) error {
	mtime := time.Unix(0, e.MTime)
	if err := t.dir.Chtimes(string(p), mtime, mtime); err != nil {
		return err
	}
	info, err := t.dir.Lstat(string(p))
	if err != nil {
		return err
	}
	t.run.index[p] = known{entry: e, stamp: stampOf(info)}
	return nil
}
