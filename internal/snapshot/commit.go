package snapshot

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sync/errgroup"

	"openclaw-sandbox/internal/objstore"
)

// Stats says what a commit did.
type Stats struct {
	Epoch, Seq uint64
	Changed    int   // paths written
	Deleted    int   // paths gone
	Skipped    int   // paths that can not be kept
	Raw        int64 // bytes of changed content
	Uploaded   int64 // bytes sent
	Files      int64 // paths of the whole state
	Bytes      int64 // content of the whole state
	Saved      time.Time
}

// Commit saves a capture: one segment, then the head. When nothing changed it
// sends nothing, unless final, which also marks the head as clean. It removes
// the capture's copies. It returns ErrFenced when a newer run exists, or the
// store's error; then nothing is committed and the next capture has it all again.
func (r *Run) Commit(ctx context.Context, c *Capture, final bool) (Stats, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	stats, err := r.commit(ctx, c, final)
	if derr := c.Discard(); err == nil && derr != nil {
		err = fmt.Errorf("commit: %w", derr)
	}
	return stats, err
}

func (r *Run) commit(ctx context.Context, c *Capture, final bool) (Stats, error) {
	stats := Stats{Epoch: r.head.Epoch, Seq: r.head.Seq, Skipped: c.skipped, Files: c.files, Bytes: c.bytes, Saved: r.head.Saved}
	if r.fenced {
		return stats, ErrFenced
	}
	if !r.restored {
		return stats, ErrNotRestored
	}
	seg := &builder{dir: c.staging, parallel: r.opts.Parallel}
	defer seg.close()
	if err := seg.add(ctx, c, r.index); err != nil {
		return stats, fmt.Errorf("commit: %w", err)
	}
	stats.Changed, stats.Raw = len(seg.meta.Entries), seg.raw
	if !c.full {
		seg.meta.Deleted = c.deleted
		stats.Deleted = len(c.deleted)
	}
	next := r.head
	next.Files, next.Bytes = c.files, c.bytes
	if stats.Changed > 0 || len(seg.meta.Deleted) > 0 || c.full {
		next.Seq++
		ref, err := r.upload(ctx, seg, next.Seq)
		if err != nil {
			return stats, fmt.Errorf("commit: %w", err)
		}
		stats.Uploaded = ref.Size
		if c.full {
			next.Segments = nil
		}
		next.Segments = append(next.Segments[:len(next.Segments):len(next.Segments)], ref)
	} else if !final {
		r.remember(c, seg)
		return stats, nil
	}
	if final {
		next.State = StateClean
	}
	next.Saved = time.Now().UTC()
	if err := r.putHead(ctx, next); err != nil {
		return stats, fmt.Errorf("commit: %w", err)
	}
	r.remember(c, seg)
	stats.Seq, stats.Saved = next.Seq, next.Saved
	return stats, nil
}

// remember takes a committed capture into the index.
func (r *Run) remember(c *Capture, seg *builder) {
	for i, ch := range c.changed {
		r.index[ch.entry.Path] = known{entry: seg.described[i], stamp: ch.stamp}
	}
	for _, p := range c.deleted {
		delete(r.index, p)
	}
}

// upload ends the segment with its metadata and sends it.
func (r *Run) upload(ctx context.Context, seg *builder, seq uint64) (segmentRef, error) {
	raw, err := json.Marshal(seg.meta)
	if err != nil {
		return segmentRef{}, err
	}
	if len(raw) > maxMeta {
		return segmentRef{}, fmt.Errorf("%w: the metadata of %d paths", ErrTooLarge, len(seg.meta.Entries))
	}
	packed := encoder.EncodeAll(raw, nil)
	sum := sha256.Sum256(packed)
	ref := segmentRef{
		Name: fmt.Sprintf("%08d-%08d-%s", r.head.Epoch, seq, rand.Text()), Size: seg.size + int64(len(packed)),
		MetaOff: seg.size, MetaRaw: int64(len(raw)), MetaSum: sum[:],
	}
	body, err := seg.finish(packed)
	if err != nil {
		return segmentRef{}, err
	}
	_, err = r.store.Put(ctx, segmentKey(r.head.User, ref.Name), body, objstore.IfAbsent())
	if errors.Is(err, objstore.ErrPrecondition) {
		err = nil // the name is random: only an earlier try of this very request can have written it
	}
	return ref, err
}

// builder packs changed files into a segment, in a file of the staging folder
// (or in memory while it is small).
type builder struct {
	dir       string
	parallel  int
	meta      segmentMeta
	described []entry // each captured path as it now stands, also those not written again
	raw       int64
	size      int64 // of the blocks so far
	mem       bytes.Buffer
	spill     *os.File
}

// spillSize is how much of a segment is held in memory.
const spillSize = 8 << 20

// add packs what differs from the index. Blocks are compressed in parallel and
// written in order.
func (b *builder) add(ctx context.Context, c *Capture, index map[pathname]known) error {
	g, ctx := errgroup.WithContext(ctx)
	slots := make(chan struct{}, max(1, b.parallel))
	order := make(chan chan []byte, max(1, b.parallel))
	var raws []int64
	g.Go(func() error { // the writer
		for ch := range order {
			select {
			case packed := <-ch:
				if err := b.write(packed); err != nil {
					return err
				}
				<-slots
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		return nil
	})
	g.Go(func() error { // the reader
		defer close(order)
		var buf []byte
		flush := func() error {
			if len(buf) == 0 {
				return nil
			}
			out, content := make(chan []byte, 1), buf
			select {
			case slots <- struct{}{}:
			case <-ctx.Done():
				return ctx.Err()
			}
			raws = append(raws, int64(len(content)))
			g.Go(func() error { out <- encoder.EncodeAll(content, nil); return nil })
			buf = nil
			select {
			case order <- out:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		for i, ch := range c.changed {
			e := ch.entry
			if e.Kind == kindFile {
				if err := b.addFile(filepath.Join(c.staging, strconv.Itoa(i)), &e, index[e.Path].entry, c.full, &buf, &raws, flush); err != nil {
					return err
				}
			} else if was, had := index[e.Path]; !had || c.full || !sameMeta(was.entry, e) {
				b.meta.Entries = append(b.meta.Entries, e)
			}
			b.described = append(b.described, e)
		}
		return flush()
	})
	if err := g.Wait(); err != nil {
		return err
	}
	for i := range b.meta.Blocks {
		b.meta.Blocks[i].Raw = raws[i]
	}
	return nil
}

// addFile reads one copy: its digest first, and if that is new, its content into blocks.
func (b *builder) addFile(file string, e *entry, was entry, full bool, buf *[]byte, raws *[]int64, flush func() error) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return err
	}
	e.Sum = h.Sum(nil)
	if !full && was.Kind == kindFile && was.Size == e.Size && was.Mode == e.Mode && bytes.Equal(was.Sum, e.Sum) {
		return nil // touched, not changed
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return err
	}
	b.raw += e.Size
	for left := e.Size; left > 0; {
		if *buf == nil {
			*buf = make([]byte, 0, min(blockSize, max(left, 64<<10)))
		}
		n := min(left, int64(blockSize-len(*buf)))
		at := len(*buf)
		*buf = append(*buf, make([]byte, n)...)
		if _, err := io.ReadFull(f, (*buf)[at:]); err != nil {
			return err
		}
		e.Extents = append(e.Extents, extent{Block: len(*raws), Off: int64(at), Len: n})
		left -= n
		if len(*buf) == blockSize {
			if err := flush(); err != nil {
				return err
			}
		}
	}
	b.meta.Entries = append(b.meta.Entries, *e)
	return nil
}

func (b *builder) write(packed []byte) error {
	sum := sha256.Sum256(packed)
	b.meta.Blocks = append(b.meta.Blocks, block{Off: b.size, Len: int64(len(packed)), Sum: sum[:]})
	b.size += int64(len(packed))
	if b.spill == nil && b.mem.Len()+len(packed) > spillSize {
		f, err := os.OpenFile(filepath.Join(b.dir, "segment"), os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
		if err != nil {
			return err
		}
		b.spill = f
		if _, err := b.mem.WriteTo(f); err != nil {
			return err
		}
	}
	if b.spill != nil {
		_, err := b.spill.Write(packed)
		return err
	}
	b.mem.Write(packed)
	return nil
}

// finish appends the metadata and returns the whole segment.
func (b *builder) finish(meta []byte) (io.ReadSeeker, error) {
	if b.spill == nil {
		b.mem.Write(meta)
		return bytes.NewReader(b.mem.Bytes()), nil
	}
	if _, err := b.spill.Write(meta); err != nil {
		return nil, err
	}
	_, err := b.spill.Seek(0, io.SeekStart)
	return b.spill, err
}

func (b *builder) close() {
	if b.spill != nil {
		b.spill.Close()
	}
}
