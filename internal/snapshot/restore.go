package snapshot

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime"
	"slices"
	"sync"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"openclaw-sandbox/internal/objstore"
)

// A ranged GET of a restore asks for an equal share of what is needed, about: each
// connection and each processor has a part then, and they end together. No more than
// maxRange, so that the last ones do not take long, nor less than minRange, which is
// much compared with a round trip. Memory does not depend on it, but a server's work does.
const minRange, maxRange = 2 << 20, 16 << 20

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
	rd := r.reader()
	s := r.ahead
	r.ahead = nil
	if s == nil {
		var err error
		if s, err = rd.state(ctx); err != nil {
			return err
		}
	}
	t := &target{reader: rd, state: s, index: r.index, dir: dir, progress: progress}
	if err := t.make(ctx); err != nil {
		return err
	}
	for i, ref := range r.head.Segments {
		r.head.Segments[i].Raw = 0 // version 1 did not say
		for _, b := range s.blocks[ref.Name] {
			r.head.Segments[i].Raw += b.Raw
		}
	}
	r.worn = worn(r.head.Segments, r.index.live(), r.opts)
	return nil
}

// make writes the whole state.
func (t *target) make(ctx context.Context) error {
	for _, k := range t.state.live {
		t.total += k.Record.Entry.Size
	}
	for _, step := range []func(context.Context) error{t.makeFiles, t.makeLinks, t.finish} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	return nil
}

// target is a folder that is being restored into. All its paths go through
// os.Root, and links come last, so nothing is ever written through one.
type target struct {
	reader   *reader
	state    *state
	index    *index // learns what was written
	dir      *os.Root
	total    int64
	progress func(done, total int64)
	dirs     func() error // makes the folders, once; the others wait
	parted   []*known     // files whose content comes in several pieces
	// raw has room for a decompressed block for each that is written at the same
	// time: as many as there are processors, as more would take memory, not be faster.
	raw chan []byte

	mu   sync.Mutex // guards done; one progress call at a time
	done int64
}

// sorted are the live paths of one kind, parents before children.
func (t *target) sorted(of kind) []*known {
	var out []*known
	for _, k := range t.state.live {
		if k.Record.Entry.Kind == of {
			out = append(out, k)
		}
	}
	slices.SortFunc(out, func(a, b *known) int { return cmp.Compare(a.Record.Entry.Path, b.Record.Entry.Path) })
	return out
}

// makeDirs makes the folders, parents first.
func (t *target) makeDirs() error {
	in := &folder{top: t.dir}
	defer in.close()
	for _, k := range t.sorted(kindDir) {
		dir, name, err := in.at(k.Record.Entry.Path)
		if err != nil {
			return err
		}
		if err := dir.Mkdir(name, 0o700); err != nil {
			return err
		}
	}
	return nil
}

// makeFiles makes the folders, fetches the blocks that live files need, in ranges,
// and writes the files. What comes is found out, and asked for, while folders are made.
func (t *target) makeFiles(ctx context.Context) error {
	parallel := max(1, t.reader.opts.Parallel)
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(parallel)
	t.dirs = sync.OnceValue(t.makeDirs)
	g.Go(t.dirs)
	t.index.fill(t.state)
	needs, empty := t.plan()
	t.raw = make(chan []byte, runtime.GOMAXPROCS(0))
	for range cap(t.raw) {
		t.raw <- make([]byte, 0, roomy)
	}
	size := min(max(t.stored(needs)/int64(parallel), minRange), maxRange)
	for seg, blocks := range needs {
		for first, last := range ranges(t.state.blocks[seg], blocks, size) {
			g.Go(func() error {
				if err := t.fetchRange(ctx, seg, first, last, blocks); err != nil {
					return fmt.Errorf("segment %s: %w", seg, err)
				}
				return nil
			})
		}
	}
	if err := g.Wait(); err != nil {
		return err
	}
	in := &folder{top: t.dir}
	defer in.close()
	for _, k := range empty {
		if err := t.write(in, k, nil, 0); err != nil {
			return err
		}
	}
	return nil
}

// plan finds what is needed of each segment's blocks, and the files that need nothing.
// The pieces of files in a segment are listed by block.
func (t *target) plan() (needs map[string][][]piece, empty []*known) {
	needs = map[string][][]piece{}
	for _, k := range t.index.Paths {
		rec := &k.Record
		if rec.Entry.Kind != kindFile {
			continue
		}
		if rec.Entry.Size == 0 {
			empty = append(empty, k)
			continue
		}
		if rec.Entry.Size >= chunkedFrom && aligned(rec.At) {
			k.Chunks = make([]digest, chunks(rec.Entry.Size))
		}
		if len(rec.At) > 1 {
			t.parted = append(t.parted, k)
		}
		var at int64
		for _, x := range rec.At {
			blocks := needs[x.Seg]
			if blocks == nil {
				blocks = make([][]piece, len(t.state.blocks[x.Seg]))
				needs[x.Seg] = blocks
			}
			blocks[x.Block] = append(blocks[x.Block], piece{k, at, x})
			at += x.Len
		}
	}
	return needs, empty
}

// aligned says whether every piece holds whole chunks.
func aligned(at []span) bool {
	for _, s := range at[:len(at)-1] {
		if s.Len%chunkSize != 0 {
			return false
		}
	}
	return true
}

// stored adds up what the blocks take in the store.
func (t *target) stored(needs map[string][][]piece) (n int64) {
	for seg, blocks := range needs {
		for i, pieces := range blocks {
			if pieces != nil {
				n += t.state.blocks[seg][i].Len
			}
		}
	}
	return n
}

// ranges yields runs of neighbouring blocks that are needed, each of about size bytes.
func ranges(all []block, needed [][]piece, size int64) func(yield func(first, last int) bool) {
	return func(yield func(first, last int) bool) {
		for i := 0; i < len(all); i++ {
			if needed[i] == nil {
				continue
			}
			first, end := i, all[i].Off+all[i].Len
			for i+1 < len(all) && needed[i+1] != nil && all[i+1].Off == end && end-all[first].Off < size {
				i++
				end += all[i].Len
			}
			if !yield(first, i) {
				return
			}
		}
	}
}

// storedBlocks hold one block each, as stored. A range is read block by block, so
// that a restore needs a block of memory per request under way, and content is
// written while more comes in.
var storedBlocks = sync.Pool{New: func() any { return new([maxStored]byte) }}

func (t *target) fetchRange(ctx context.Context, seg string, first, last int, needed [][]piece) error {
	all := t.state.blocks[seg]
	start := all[first].Off
	body, err := t.reader.open(ctx, seg, start, all[last].Off+all[last].Len-start)
	if err != nil {
		return err
	}
	defer body.Close()
	if err := t.dirs(); err != nil {
		return err
	}
	buf := storedBlocks.Get().(*[maxStored]byte)
	defer storedBlocks.Put(buf)
	in := &folder{top: t.dir}
	defer in.close()
	for i := first; i <= last; i++ {
		stored := buf[:all[i].Len]
		err := readFull(body, stored)
		if err == nil {
			err = t.writeBlock(in, seg, i, stored, needed[i])
		}
		if err != nil {
			return fmt.Errorf("block %d: %w", i, err)
		}
	}
	return nil
}

// writeBlock decompresses a block and writes the pieces of files in it.
func (t *target) writeBlock(in *folder, seg string, i int, stored []byte, pieces []piece) error {
	buf := <-t.raw
	defer func() { t.raw <- buf }()
	b := t.state.blocks[seg][i]
	raw, err := t.reader.unpack(blockDecoder, seg, uint32(i), stored, b.Sum, b.Raw, buf)
	if err != nil {
		return err
	}
	inOrder(pieces)
	for _, p := range pieces {
		// A goroutine that goes on for 10 ms is taken for one that a call holds up: Go's
		// monitor hands its processor to another thread at its next call, and then looks
		// every 20 µs. Whoever lets others run is left alone.
		runtime.Gosched()
		content := raw[p.from.Off : p.from.Off+p.from.Len]
		if sums := p.file.Chunks; sums != nil {
			digests(content, sums[p.at/chunkSize:p.at/chunkSize+chunks(p.from.Len)])
		}
		if err := t.write(in, p.file, content, p.at); err != nil {
			return err
		}
	}
	return nil
}

func (t *target) makeLinks(context.Context) error {
	for _, k := range t.sorted(kindLink) {
		e := &k.Record.Entry
		if err := t.dir.Symlink(string(e.Target), string(e.Path)); err != nil {
			return err
		}
		if o := t.reader.opts; o.UID >= 0 || o.GID >= 0 {
			if err := t.dir.Lchown(string(e.Path), o.UID, o.GID); err != nil {
				return err
			}
		}
	}
	return nil
}

// finish dresses the files that came in pieces, and the folders: a folder's time
// holds only once nothing in it is made any more.
func (t *target) finish(context.Context) error {
	in := &folder{top: t.dir}
	defer in.close()
	for _, k := range t.parted {
		if err := t.dressAt(in, k, unix.O_WRONLY); err != nil {
			return err
		}
	}
	dirs := t.sorted(kindDir)
	slices.Reverse(dirs) // children first
	for _, k := range dirs {
		if err := t.dressAt(in, k, unix.O_RDONLY|unix.O_DIRECTORY); err != nil {
			return err
		}
	}
	return nil
}

func (t *target) dressAt(in *folder, k *known, flags int) error {
	return in.open(k.Record.Entry.Path, flags, 0, func(dir int, name string, fd int) error { return t.dress(k, dir, name, fd) })
}
