package snapshot

import (
	"bytes"
	"io"

	"github.com/cespare/xxhash/v2"
)

const (
	// chunkSize is what a change in a large file costs: a page of SQLite's (4 KiB by
	// default, https://www.sqlite.org/pgszchng2016.html).
	chunkSize = 4 << 10
	// chunkedFrom is the size from which a file is saved by chunks.
	chunkedFrom = 256 << 10
	// maxSpans is how many pieces a file may lie in before it is written as a whole
	// again: each save of it names them all.
	maxSpans = 2048
)

// digest tells whether a chunk changed since the last save: XXH64. It never leaves the
// node and is compared with the same place's only.
type digest uint64

// digests are those of a run of chunks that begins at a chunk's boundary.
func digests(content []byte, into []digest) {
	for i := range into {
		into[i] = digest(xxhash.Sum64(content[i*chunkSize : min((i+1)*chunkSize, len(content))]))
	}
}

// chunks is how many a file of that size has.
func chunks(size int64) int64 { return (size + chunkSize - 1) / chunkSize }

// cursor walks along the spans of a file's last save.
type cursor struct {
	at   []span
	from int64 // of the first span that is left
}

// cut returns the n bytes from off, which may not go backwards.
func (c *cursor) cut(off, n int64) []span {
	var out []span
	for n > 0 && len(c.at) > 0 {
		s := c.at[0]
		if skip := off - c.from; skip < s.Len {
			take := min(n, s.Len-skip)
			out = append(out, span{s.Seg, s.Block, s.Off + skip, take})
			off, n = off+take, n-take
			if skip+take < s.Len {
				break
			}
		}
		c.from += s.Len
		c.at = c.at[1:]
	}
	return out
}

// join appends spans, uniting neighbours.
func join(at []span, more ...span) []span {
	for _, s := range more {
		if n := len(at); n > 0 && at[n-1].Seg == s.Seg && at[n-1].Block == s.Block && at[n-1].Off+at[n-1].Len == s.Off {
			at[n-1].Len += s.Len
			continue
		}
		at = append(at, s)
	}
	return at
}

// addLarge packs a large file: chunks that are as they were stay where they are,
// unless that is in a segment that is to go.
func (b *builder) addLarge(f io.Reader, rec *record, was *known, gone map[string]bool) ([]digest, error) {
	size := rec.Entry.Size
	reuse := was != nil && was.Record.Entry.Kind == kindFile && was.Chunks != nil && len(was.Record.At) <= maxSpans
	var old cursor
	if reuse {
		old.at = was.Record.At
	}
	sums := make([]digest, chunks(size))
	buf := make([]byte, 64*chunkSize)
	for off := int64(0); off < size; {
		part := buf[:min(int64(len(buf)), size-off)]
		if _, err := io.ReadFull(f, part); err != nil {
			return nil, err
		}
		digests(part, sums[off/chunkSize:off/chunkSize+chunks(int64(len(part)))])
		for len(part) > 0 {
			chunk := part[:min(chunkSize, len(part))]
			part = part[len(chunk):]
			i, n := off/chunkSize, int64(len(chunk))
			if reuse && i < int64(len(was.Chunks)) && was.Chunks[i] == sums[i] {
				if at := old.cut(off, n); length(at) == n && !anyIn(at, gone) {
					rec.At = join(rec.At, at...)
					off += n
					continue
				}
			}
			at, err := b.pack(chunk)
			if err != nil {
				return nil, err
			}
			rec.At = join(rec.At, at)
			off += n
		}
	}
	return sums, nil
}

func length(at []span) (n int64) {
	for _, s := range at {
		n += s.Len
	}
	return n
}

func anyIn(at []span, segments map[string]bool) bool {
	for _, s := range at {
		if segments[s.Seg] {
			return true
		}
	}
	return false
}

// sameContent says whether a file's content lies where it lay.
func sameContent(a, b *record) bool {
	if a.Entry.Size != b.Entry.Size || len(a.At) != len(b.At) || !bytes.Equal(a.Entry.Sum, b.Entry.Sum) {
		return false
	}
	for i := range a.At {
		if a.At[i] != b.At[i] {
			return false
		}
	}
	return true
}
