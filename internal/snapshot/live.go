package snapshot

import (
	"context"
	"encoding/json"
	"fmt"
	"io"

	"golang.org/x/sync/errgroup"

	"openclaw-sandbox/internal/objstore"
)

// located is a live entry and the segment that holds its content.
type located struct {
	entry   entry
	segment int // in the head's list
}

// readLive reads every segment's metadata and returns what is live: for each
// path the newest mention.
func (r *Run) readLive(ctx context.Context) (map[pathname]located, error) {
	live, _, err := r.readSegments(ctx)
	return live, err
}

func (r *Run) readSegments(ctx context.Context) (map[pathname]located, []segmentMeta, error) {
	metas := make([]segmentMeta, len(r.head.Segments))
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(max(1, r.opts.Parallel))
	for i, ref := range r.head.Segments {
		g.Go(func() error {
			if err := r.readMeta(ctx, ref, &metas[i]); err != nil {
				return fmt.Errorf("segment %s: %w", ref.Name, err)
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return nil, nil, err
	}
	live := map[pathname]located{}
	seen := map[pathname]bool{}
	for i := len(metas) - 1; i >= 0; i-- {
		for _, e := range metas[i].Entries {
			if !seen[e.Path] {
				seen[e.Path] = true
				live[e.Path] = located{e, i}
			}
		}
		for _, p := range metas[i].Deleted {
			seen[p] = true
		}
		if int64(len(live)) > r.opts.MaxFiles {
			return nil, nil, fmt.Errorf("%w: more than %d paths", ErrTooLarge, r.opts.MaxFiles)
		}
	}
	return live, metas, r.checkLive(live)
}

func (r *Run) readMeta(ctx context.Context, ref segmentRef, into *segmentMeta) error {
	stored, err := r.fetch(ctx, ref.Name, ref.MetaOff, ref.Size-ref.MetaOff)
	if err != nil {
		return err
	}
	raw, err := unpack(metaDecoder, stored, ref.MetaSum, ref.MetaRaw)
	if err != nil {
		return fmt.Errorf("metadata: %w", err)
	}
	if err := json.Unmarshal(raw, into); err != nil {
		return fmt.Errorf("metadata: %w: %w", ErrCorrupt, err)
	}
	if err := into.check(ref); err != nil {
		return fmt.Errorf("metadata: %w: %w", ErrCorrupt, err)
	}
	return nil
}

// fetch reads exactly n bytes of a segment. A segment that the head names and
// the store does not have is a corruption.
func (r *Run) fetch(ctx context.Context, segment string, off, n int64) ([]byte, error) {
	body, err := r.store.GetRange(ctx, segmentKey(r.head.User, segment), off, n)
	if err != nil {
		if isNotFound(err) {
			return nil, fmt.Errorf("%w: it is gone", ErrCorrupt)
		}
		return nil, err
	}
	defer body.Close()
	buf := make([]byte, n)
	switch m, err := io.ReadFull(body, buf); {
	case err == io.EOF || err == io.ErrUnexpectedEOF:
		return nil, fmt.Errorf("%w: it ends after %d bytes of %d", ErrCorrupt, m, n)
	case err != nil:
		return nil, fmt.Errorf("%w: %w", objstore.ErrUnreachable, err)
	}
	return buf, nil
}

// checkLive refuses a state that could not have been saved: a path below
// something that is no directory, or more than the limits allow.
func (r *Run) checkLive(live map[pathname]located) error {
	var total int64
	for p, l := range live {
		if parent := p.parent(); parent != "." && live[parent].entry.Kind != kindDir {
			return fmt.Errorf("%w: %.80q lies below something that is no directory", ErrCorrupt, p)
		}
		if l.entry.Size > r.opts.MaxFile || total > r.opts.MaxBytes-l.entry.Size {
			return fmt.Errorf("%w: %d bytes and %.80q with %d more", ErrTooLarge, total, p, l.entry.Size)
		}
		total += l.entry.Size
	}
	return nil
}
