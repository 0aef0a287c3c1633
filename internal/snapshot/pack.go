package snapshot

import (
	"bytes"
	"context"
	"crypto/sha256"
	"io"
	"os"
	"runtime"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"
)

// builder packs changed files into a segment. Blocks are compressed in parallel and
// written in order.
type builder struct {
	ctx    context.Context
	sealer *sealer
	g      *errgroup.Group
	slots  chan struct{}    // bounds the blocks that are under way, which are in memory
	order  chan chan []byte // to the writer
	name   string           // of the segment
	buf    []byte           // the block that is being filled
	raws   []int64          // sizes of the blocks before it
	from   map[string]int   // segments that extents point into, as numbered in meta.From
	meta   segmentMeta
	raw    int64 // content packed
	size   int64 // of the blocks so far
	out    outlet
}

// newBuilder begins a segment of that name, which upload sends to its place in the
// store. The caller closes it.
func newBuilder(ctx context.Context, name string, upload func(io.Reader) error, parallel int, key *sealer) *builder {
	g, ctx := errgroup.WithContext(ctx)
	// One block is compressed by each processor, and another waits for it, packed or sent.
	n := max(1, min(parallel, 2*runtime.GOMAXPROCS(0)))
	return &builder{ctx: ctx, name: name, out: outlet{upload: upload}, sealer: key, g: g, slots: make(chan struct{}, n), order: make(chan chan []byte, n), from: map[string]int{}}
}

// add packs what differs from the index, in path order, and returns each captured
// path as it now stands, also those that are not written again.
func (b *builder) add(c *Capture, x *index) ([]*known, error) {
	slices.SortFunc(c.changed, func(a, b captured) int { return strings.Compare(string(a.entry.Path), string(b.entry.Path)) })
	var saved []*known
	b.g.Go(b.write)
	b.g.Go(func() error {
		defer close(b.order)
		for _, ch := range c.changed {
			k, err := b.addPath(ch, c, x.Paths[ch.entry.Path])
			if err != nil {
				return err
			}
			saved = append(saved, k)
		}
		return b.flush()
	})
	if err := b.g.Wait(); err != nil {
		return nil, err
	}
	for i := range b.meta.Blocks {
		b.meta.Blocks[i].Raw = b.raws[i]
	}
	return saved, nil
}

// addPath packs one path, unless it is as it was and where it may stay.
func (b *builder) addPath(ch captured, c *Capture, was *known) (*known, error) {
	k := &known{Record: record{Entry: ch.entry, Home: b.name}, Stamp: ch.stamp}
	if ch.entry.Kind == kindFile {
		if err := b.addFile(c, ch, k, was); err != nil {
			return nil, err
		}
	}
	if was != nil && !c.gone[was.Record.Home] && unchanged(&was.Record, &k.Record) {
		k.Record.Home, k.Record.At = was.Record.Home, was.Record.At // touched, not changed
		return k, nil
	}
	e := k.Record.Entry
	for _, s := range k.Record.At {
		e.Extents = append(e.Extents, extent{Seg: b.number(s.Seg), Block: s.Block, Off: s.Off, Len: s.Len})
	}
	b.meta.Entries = append(b.meta.Entries, e)
	return k, nil
}

// unchanged compares what a save keeps. A time stamp alone is no reason to save:
// whoever touched the file wrote the same.
func unchanged(a, b *record) bool {
	return a.Entry.Kind == b.Entry.Kind && a.Entry.Mode == b.Entry.Mode && a.Entry.Target == b.Entry.Target && (a.Entry.Kind != kindFile || sameContent(a, b))
}

func (b *builder) number(seg string) int {
	if seg == b.name {
		return 0
	}
	n, ok := b.from[seg]
	if !ok {
		b.meta.From = append(b.meta.From, seg)
		n = len(b.meta.From)
		b.from[seg] = n
	}
	return n
}

// addFile packs what of one file is new.
func (b *builder) addFile(c *Capture, ch captured, k, was *known) error {
	f, err := c.open(ch)
	if err != nil {
		return err
	}
	defer f.Close()
	if k.Record.Entry.Size >= chunkedFrom {
		k.Chunks, err = b.addLarge(f, &k.Record, was, c.gone)
	} else {
		err = b.addSmall(f, k, was, c.gone)
	}
	if moved := c.held(ch, f); moved != nil {
		return moved // whatever was read
	}
	return err
}

func (b *builder) addSmall(f *os.File, k, was *known, gone map[string]bool) error {
	e := &k.Record.Entry
	content := make([]byte, e.Size)
	if _, err := io.ReadFull(f, content); err != nil {
		return err
	}
	sum := sha256.Sum256(content)
	e.Sum = sum[:]
	if was != nil && bytes.Equal(was.Record.Entry.Sum, e.Sum) && was.Record.Entry.Size == e.Size && !anyIn(was.Record.At, gone) {
		k.Record.At = was.Record.At
		return nil
	}
	if e.Size > 0 {
		at, err := b.pack(content)
		if err != nil {
			return err
		}
		k.Record.At = []span{at}
	}
	return nil
}

// pack puts content, which is at most a block, into one block.
func (b *builder) pack(content []byte) (span, error) {
	if len(b.buf)+len(content) > blockSize {
		if err := b.flush(); err != nil {
			return span{}, err
		}
	}
	if b.buf == nil {
		b.buf = make([]byte, 0, max(len(content), 64<<10))
	}
	at := span{Seg: b.name, Block: len(b.raws), Off: int64(len(b.buf)), Len: int64(len(content))}
	b.buf = append(b.buf, content...)
	b.raw += at.Len
	return at, nil
}

// flush ends the block and has it compressed.
func (b *builder) flush() error {
	if len(b.buf) == 0 {
		return nil
	}
	out, content := make(chan []byte, 1), b.buf
	b.buf = nil
	select {
	case b.slots <- struct{}{}:
	case <-b.ctx.Done():
		return b.ctx.Err()
	}
	b.raws = append(b.raws, int64(len(content)))
	part := uint32(len(b.raws) - 1)
	b.g.Go(func() error {
		packed, err := b.sealer.encrypt(b.name, part, encoder.EncodeAll(content, nil))
		out <- packed
		return err
	})
	select {
	case b.order <- out:
		return nil
	case <-b.ctx.Done():
		return b.ctx.Err()
	}
}

// write takes the compressed blocks in order.
func (b *builder) write() error {
	for ch := range b.order {
		select {
		case packed := <-ch:
			if err := b.append(packed); err != nil {
				return err
			}
			<-b.slots
		case <-b.ctx.Done():
			return b.ctx.Err()
		}
	}
	return nil
}

func (b *builder) append(packed []byte) error {
	b.meta.Blocks = append(b.meta.Blocks, block{Off: b.size, Len: int64(len(packed)), Sum: checksum(packed)})
	b.size += int64(len(packed))
	_, err := b.out.Write(packed)
	return err
}

// bury notes what is deleted: since the last save, and before, where the segment
// that said so is to go.
func (b *builder) bury(c *Capture, x *index) {
	b.meta.Deleted = slices.Clone(c.deleted)
	for p, seg := range x.Tombs {
		if c.gone[seg] {
			b.meta.Deleted = append(b.meta.Deleted, p) // an entry of the same segment counts more
		}
	}
	slices.Sort(b.meta.Deleted)
	b.meta.Deleted = slices.Compact(b.meta.Deleted)
}

// close gives the segment up, unless it was sent.
func (b *builder) close() { b.out.close() }
