package snapshot

import (
	"context"
	"fmt"
	"io"
	"maps"
	"slices"

	jsonv2 "github.com/go-json-experiment/json"
	"github.com/klauspost/compress/zstd"
	"golang.org/x/sync/errgroup"

	"openclaw-sandbox/internal/objstore"
	"openclaw-sandbox/internal/sandbox"
)

// span is a run of a file's content: an extent, with its segment's name.
type span struct {
	Seg   string
	Block int
	Off   int64
	Len   int64
}

// record is a live path: its newest mention.
type record struct {
	Entry entry // its Extents are in At
	Home  string
	At    []span
}

// state is what a head's segments say, taken together.
type state struct {
	live   map[pathname]*known
	tombs  map[pathname]string // deleted paths, by the segment that says so
	blocks map[string][]block
}

// reader reads a user's segments.
type reader struct {
	store    objstore.Store
	user     sandbox.User
	opts     Options
	segments []segmentRef
	sealer   *sealer
}

// unpack verifies a part of a segment, decrypts it if it is encrypted, and
// decompresses it to exactly raw bytes, into the space of buf if that suffices.
func (r *reader) unpack(dec *zstd.Decoder, segment string, part uint32, stored, sum []byte, raw int64, buf []byte) ([]byte, error) {
	if !intact(stored, sum) {
		return nil, fmt.Errorf("%w: its digest differs", ErrCorrupt)
	}
	if slices.ContainsFunc(r.segments, func(s segmentRef) bool { return s.Name == segment && s.Sealed }) {
		var err error
		if stored, err = r.sealer.decrypt(segment, part, stored); err != nil {
			return nil, err
		}
	}
	return unpack(dec, stored, raw, buf)
}

// state reads every segment's metadata: for each path the newest mention counts.
func (r *reader) state(ctx context.Context) (*state, error) {
	metas := make([]segmentMeta, len(r.segments))
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(max(1, r.opts.Parallel))
	for i, ref := range r.segments {
		g.Go(func() error {
			if err := r.readMeta(gctx, ref, &metas[i]); err != nil {
				return fmt.Errorf("segment %s: %w", ref.Name, err)
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	most := 0
	for _, m := range metas {
		most = max(most, len(m.Entries))
	}
	s := &state{live: make(map[pathname]*known, most), tombs: map[pathname]string{}, blocks: map[string][]block{}}
	for i, m := range metas {
		s.blocks[r.segments[i].Name] = m.Blocks
		s.apply(r.segments[i].Name, &m)
		if int64(len(s.live)) > r.opts.MaxFiles {
			return nil, fmt.Errorf("%w: more than %d paths", ErrTooLarge, r.opts.MaxFiles)
		}
	}
	return s, s.check(r.opts)
}

// apply lets a newer segment have its say.
func (s *state) apply(name string, m *segmentMeta) {
	for _, p := range m.Deleted {
		delete(s.live, p)
		s.tombs[p] = name
	}
	for _, e := range m.Entries {
		k := &known{Record: record{Entry: e, Home: name}}
		for _, x := range e.Extents {
			seg := name
			if x.Seg > 0 {
				seg = m.From[x.Seg-1] // which may be gone, if this is not the newest mention
			}
			k.Record.At = append(k.Record.At, span{Seg: seg, Block: x.Block, Off: x.Off, Len: x.Len})
		}
		k.Record.Entry.Extents = nil
		s.live[e.Path] = k
		delete(s.tombs, e.Path)
	}
}

// check refuses a state that could not have been saved: a path below something
// that is no directory, content where there is none, or more than the limits allow.
func (s *state) check(o Options) error {
	var total int64
	for p, k := range s.live {
		rec := &k.Record
		if parent := p.parent(); parent != "." && !s.isDir(parent) {
			return fmt.Errorf("%w: %.80q lies below something that is no directory", ErrCorrupt, p)
		}
		for _, x := range rec.At {
			if blocks := s.blocks[x.Seg]; !within(extent{Block: x.Block, Off: x.Off, Len: x.Len}, blocks) {
				return fmt.Errorf("%w: file %.80q has content in block %d of segment %.80q, where there is none", ErrCorrupt, p, x.Block, x.Seg)
			}
		}
		if rec.Entry.Size > o.MaxFile || total > o.MaxBytes-rec.Entry.Size {
			return fmt.Errorf("%w: %d bytes and %.80q with %d more", ErrTooLarge, total, p, rec.Entry.Size)
		}
		total += rec.Entry.Size
	}
	return nil
}

func (s *state) isDir(p pathname) bool {
	k := s.live[p]
	return k != nil && k.Record.Entry.Kind == kindDir
}

func (r *reader) readMeta(ctx context.Context, ref segmentRef, into *segmentMeta) error {
	stored, err := r.fetch(ctx, ref.Name, ref.MetaOff, ref.Size-ref.MetaOff)
	if err != nil {
		return err
	}
	raw, err := r.unpack(metaDecoder, ref.Name, metaPart, stored, ref.MetaSum, ref.MetaRaw, nil)
	if err != nil {
		return fmt.Errorf("metadata: %w", err)
	}
	if err := jsonv2.Unmarshal(raw, into); err != nil {
		return fmt.Errorf("metadata: %w: %w", ErrCorrupt, err)
	}
	if err := into.check(ref); err != nil {
		return fmt.Errorf("metadata: %w: %w", ErrCorrupt, err)
	}
	return nil
}

// fetch reads exactly n bytes of a segment.
func (r *reader) fetch(ctx context.Context, segment string, off, n int64) ([]byte, error) {
	body, err := r.open(ctx, segment, off, n)
	if err != nil {
		return nil, err
	}
	defer body.Close()
	buf := make([]byte, n)
	return buf, readFull(body, buf)
}

// open opens n bytes of a segment. A segment that the head names and the store
// does not have is a corruption.
func (r *reader) open(ctx context.Context, segment string, off, n int64) (io.ReadCloser, error) {
	body, err := r.store.GetRange(ctx, segmentKey(r.user, segment), off, n)
	if isNotFound(err) {
		return nil, fmt.Errorf("%w: it is gone", ErrCorrupt)
	}
	return body, err
}

// readFull fills buf from a segment. One that ends before is corrupt.
func readFull(body io.Reader, buf []byte) error {
	switch m, err := io.ReadFull(body, buf); {
	case err == io.EOF || err == io.ErrUnexpectedEOF:
		return fmt.Errorf("%w: it ends after %d bytes of %d", ErrCorrupt, m, len(buf))
	case err != nil:
		return fmt.Errorf("%w: %w", objstore.ErrUnreachable, err)
	}
	return nil
}

// use adds up how much content of each segment is still wanted.
func use(spans []span, into map[string]int64) {
	for _, s := range spans {
		into[s.Seg] += s.Len
	}
}

// worn chooses the segments that the next save writes anew, with what is still
// live in them: when a head names many, or when much of what they hold is dead.
// Large segments that are mostly live stay, so that a save's cost follows what
// changed since, not the whole state's size.
func worn(segments []segmentRef, live map[string]int64, o Options) map[string]bool {
	var raw, total int64
	for _, s := range segments {
		raw += s.Raw
	}
	for n := range maps.Values(live) {
		total += n
	}
	if len(segments) < o.MaxSegments && raw-total <= max(o.MaxDead, total) {
		return nil
	}
	out := map[string]bool{}
	for _, s := range segments {
		if n := live[s.Name]; n == 0 || n*2 < s.Raw || n < total/4 {
			out[s.Name] = true
		}
	}
	return out
}
