package snapshot

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"openclaw-sandbox/internal/objstore"
)

// Tree is one snapshot's paths and their content, without restoring them.
type Tree struct {
	reader *reader
	state  *state
}

// Node is one path of a Tree.
type Node struct {
	Path   string      `json:"path"`
	Mode   fs.FileMode `json:"mode"` // type and permissions
	Size   int64       `json:"size"`
	Time   time.Time   `json:"time"`
	Target string      `json:"target,omitempty"` // of a link
}

// OpenTree reads a snapshot's metadata. It returns ErrCorrupt, ErrTooLarge or the
// store's error.
func OpenTree(ctx context.Context, st objstore.Store, h *Head, o Options) (*Tree, error) {
	key, err := unwrap(o.Keys, h)
	if err != nil {
		return nil, fmt.Errorf("open snapshot %d of %s: %w", h.Seq, h.User, err)
	}
	r := &reader{store: st, user: h.User, opts: o, segments: h.Segments, sealer: key}
	s, err := r.state(ctx)
	if err != nil {
		return nil, fmt.Errorf("open snapshot %d of %s: %w", h.Seq, h.User, err)
	}
	return &Tree{r, s}, nil
}

// Nodes are all paths, parents before children.
func (t *Tree) Nodes() []Node {
	var out []Node
	for _, p := range slices.Sorted(maps.Keys(t.state.live)) {
		out = append(out, t.node(p))
	}
	return out
}

func (t *Tree) node(p pathname) Node {
	e := &t.state.live[p].Record.Entry
	n := Node{Path: string(p), Mode: fs.FileMode(e.Mode), Size: e.Size, Time: time.Unix(0, e.MTime), Target: string(e.Target)}
	switch e.Kind {
	case kindDir:
		n.Mode |= fs.ModeDir
	case kindLink:
		n.Mode |= fs.ModeSymlink | 0o777
	}
	return n
}

// Copy writes a file's content to w, verified.
func (t *Tree) Copy(ctx context.Context, w io.Writer, path string) error {
	k := t.state.live[pathname(path)]
	if k == nil || k.Record.Entry.Kind != kindFile {
		return fmt.Errorf("%.200q: %w", path, fs.ErrNotExist)
	}
	var last span
	var raw []byte
	for _, s := range k.Record.At {
		if raw == nil || s.Seg != last.Seg || s.Block != last.Block {
			var err error
			if raw, err = t.block(ctx, s.Seg, s.Block); err != nil {
				return err
			}
		}
		last = s
		if _, err := w.Write(raw[s.Off : s.Off+s.Len]); err != nil {
			return err
		}
	}
	return nil
}

func (t *Tree) block(ctx context.Context, seg string, i int) ([]byte, error) {
	b := t.state.blocks[seg][i]
	stored, err := t.reader.fetch(ctx, seg, b.Off, b.Len)
	if err == nil {
		stored, err = t.reader.unpack(blockDecoder, seg, uint32(i), stored, b.Sum, b.Raw, nil)
	}
	if err != nil {
		return nil, fmt.Errorf("segment %s: block %d: %w", seg, i, err)
	}
	return stored, nil
}

// Write writes the whole tree into dir, which must be empty, as a restore does.
func (t *Tree) Write(ctx context.Context, dir *os.Root, progress func(done, total int64)) error {
	return (&target{reader: t.reader, state: t.state, index: newIndex(), dir: dir, progress: progress}).make(ctx)
}

// Verified says what a Verify read.
type Verified struct {
	Segments int   `json:"segments"`
	Blocks   int   `json:"blocks"`
	Stored   int64 `json:"stored"` // bytes as stored
	Files    int   `json:"files"`
	Bytes    int64 `json:"bytes"` // of content that is live
}

// Verify reads every block that the snapshot needs and holds it against its
// digest. It returns ErrCorrupt for the first that differs.
func (t *Tree) Verify(ctx context.Context, progress func(done, total int64)) (Verified, error) {
	var v Verified
	needed := map[string]map[int]bool{}
	for _, k := range t.state.live {
		v.Files++
		v.Bytes += k.Record.Entry.Size
		for _, s := range k.Record.At {
			if needed[s.Seg] == nil {
				needed[s.Seg] = map[int]bool{}
			}
			needed[s.Seg][s.Block] = true
		}
	}
	v.Segments = len(t.reader.segments)
	var total int64
	for seg, blocks := range needed {
		for i := range blocks {
			total += t.state.blocks[seg][i].Len
		}
	}
	for _, seg := range slices.Sorted(maps.Keys(needed)) {
		for _, i := range slices.Sorted(maps.Keys(needed[seg])) {
			if _, err := t.block(ctx, seg, i); err != nil {
				return v, err
			}
			v.Blocks++
			v.Stored += t.state.blocks[seg][i].Len
			if progress != nil {
				progress(v.Stored, total)
			}
		}
	}
	return v, nil
}

// Change is one path that differs between two snapshots.
type Change struct {
	Path string `json:"path"`
	What string `json:"what"` // added, removed, changed
	Old  int64  `json:"old"`  // sizes
	New  int64  `json:"new"`
}

// moved says that a file is the same, wherever its content lies.
func moved(a, b *entry) bool {
	if a.Kind != kindFile || b.Kind != kindFile || a.Mode != b.Mode || a.Size != b.Size {
		return false
	}
	if a.Sum == nil && b.Sum == nil {
		return a.MTime == b.MTime
	}
	return bytes.Equal(a.Sum, b.Sum)
}

// Diff lists what differs from t to newer, two snapshots of one user. Content is
// compared by digest or place, so nothing is read; a large file that lies elsewhere,
// as a merge of segments may do, by size and time.
func (t *Tree) Diff(newer *Tree) []Change {
	var out []Change
	for p, a := range t.state.live {
		b := newer.state.live[p]
		switch {
		case b == nil:
			out = append(out, Change{string(p), "removed", a.Record.Entry.Size, 0})
		case moved(&a.Record.Entry, &b.Record.Entry):
		case !unchanged(&a.Record, &b.Record):
			out = append(out, Change{string(p), "changed", a.Record.Entry.Size, b.Record.Entry.Size})
		}
	}
	for p, b := range newer.state.live {
		if _, ok := t.state.live[p]; !ok {
			out = append(out, Change{string(p), "added", 0, b.Record.Entry.Size})
		}
	}
	slices.SortFunc(out, func(a, b Change) int { return strings.Compare(a.Path, b.Path) })
	return out
}
