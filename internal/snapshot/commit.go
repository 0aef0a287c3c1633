package snapshot

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"
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
	Warning    error // what went wrong without harm to the save
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
	next := r.head
	next.Seq++
	name := fmt.Sprintf("%08d-%08d-%s", next.Epoch, next.Seq, rand.Text())
	seg := r.newSegment(ctx, name)
	defer seg.close()
	saved, err := seg.add(c, r.index)
	if err != nil {
		return stats, fmt.Errorf("commit: %w", err)
	}
	seg.bury(c, r.index)
	stats.Changed, stats.Deleted, stats.Raw = len(seg.meta.Entries), len(seg.meta.Deleted), seg.raw
	next.Files, next.Bytes = c.files, c.bytes
	if stats.Changed > 0 || stats.Deleted > 0 || len(c.gone) > 0 {
		ref, err := r.upload(seg)
		if err != nil {
			return stats, fmt.Errorf("commit: %w", err)
		}
		stats.Uploaded = ref.Size
		next.Segments = slices.DeleteFunc(slices.Clone(next.Segments), func(s segmentRef) bool { return c.gone[s.Name] })
		next.Segments = append(next.Segments, ref)
	} else if !final {
		r.remember(c, name, saved)
		return stats, nil
	} else {
		next.Seq = r.head.Seq
	}
	if final {
		next.State = StateClean
	}
	next.Saved = time.Now().UTC()
	if err := r.putHead(ctx, next); err != nil {
		return stats, fmt.Errorf("commit: %w", err)
	}
	r.remember(c, name, saved)
	stats.Seq, stats.Saved = next.Seq, next.Saved
	stats.Warning = r.keep(ctx, final)
	if !final { // nobody resumes after that
		stats.Warning = errors.Join(stats.Warning, saveIndex(r.opts.IndexFile, r.head.Write, r.index))
	}
	return stats, nil
}

// remember takes a committed capture into the index.
func (r *Run) remember(c *Capture, name string, saved []*known) {
	for _, k := range saved {
		r.index.Paths[k.Record.Entry.Path] = k
		delete(r.index.Tombs, k.Record.Entry.Path)
	}
	for _, p := range c.deleted {
		delete(r.index.Paths, p)
		r.index.Tombs[p] = name
	}
	for p, seg := range r.index.Tombs {
		if c.gone[seg] {
			r.index.Tombs[p] = name
		}
	}
	if len(r.head.Segments) <= 1 {
		clear(r.index.Tombs) // there is nothing older that they could hide
	}
	r.worn = worn(r.head.Segments, r.index.live(), r.opts)
}

// newSegment begins a segment of that name, which nobody else uses: it is random.
func (r *Run) newSegment(ctx context.Context, name string) *builder {
	send := func(body io.Reader) error { return r.store.Upload(ctx, segmentKey(r.head.User, name), body) }
	return newBuilder(ctx, name, send, r.opts.Parallel, r.sealer)
}

// upload ends the segment with its metadata and sees it into the store.
func (r *Run) upload(seg *builder) (segmentRef, error) {
	raw, err := json.Marshal(seg.meta)
	if err != nil {
		return segmentRef{}, err
	}
	if len(raw) > maxMeta {
		return segmentRef{}, fmt.Errorf("%w: the metadata of %d paths", ErrTooLarge, len(seg.meta.Entries))
	}
	packed, err := r.sealer.encrypt(seg.name, metaPart, encoder.EncodeAll(raw, nil))
	if err != nil {
		return segmentRef{}, err
	}
	sum := sha256.Sum256(packed)
	ref := segmentRef{
		Name: seg.name, Size: seg.size + int64(len(packed)), Raw: seg.raw, Sealed: r.sealer != nil,
		MetaOff: seg.size, MetaRaw: int64(len(raw)), MetaSum: sum[:],
	}
	if _, err := seg.out.Write(packed); err != nil {
		return segmentRef{}, err
	}
	return ref, seg.out.finish()
}
