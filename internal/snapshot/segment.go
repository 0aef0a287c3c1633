package snapshot

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io/fs"
	"path"
	"strings"
	"unicode/utf8"

	"github.com/cespare/xxhash/v2"
	jsonv2 "github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/klauspost/compress/zstd"
)

const (
	blockSize = 1 << 20            // of content, at most, in one block
	maxStored = blockSize + 64<<10 // of a block as stored: zstd adds little to what does not compress
	maxMeta   = 256 << 20          // of one segment's metadata, decompressed
	// roomy is the space in which a block of content is decompressed fastest: where one of
	// zstd's own blocks (128 KiB, RFC 8878, section 3.1.1.2) still fits with some bytes to
	// spare, the decoder copies 16 bytes at a time without looking.
	roomy = blockSize + 128<<10 + 16
)

// kind of an entry.
type kind string

const (
	kindFile kind = "f"
	kindDir  kind = "d"
	kindLink kind = "l"
)

// entry is one path of the state.
type entry struct {
	Path    pathname `json:"p"`
	Kind    kind     `json:"k"`
	Mode    uint32   `json:"m,omitempty"` // permission bits
	MTime   int64    `json:"t,omitempty"` // Unix nanoseconds
	Size    int64    `json:"s,omitempty"`
	Sum     []byte   `json:"h,omitempty"` // SHA-256 of a small file's content
	Target  pathname `json:"l,omitempty"` // of a link
	Extents []extent `json:"x,omitempty"` // where a file's content is, in order
}

// extent is a run of bytes in a block.
type extent struct {
	Seg   int   `json:"s,omitempty"` // 0 is this segment; others are From[Seg-1]
	Block int   `json:"b"`
	Off   int64 `json:"o,omitempty"`
	Len   int64 `json:"n"`
}

// block is a compressed piece of content in a segment.
type block struct {
	Off int64  `json:"o"` // in the object
	Len int64  `json:"n"` // stored
	Raw int64  `json:"r"` // decompressed
	Sum []byte `json:"h"` // of the stored bytes, see intact
}

// checksum finds a block that is not as it was stored: XXH64 (https://xxhash.com),
// big-endian. A faulty disk or line gets past it once in 2⁶⁴ times. Who may write to the
// store gets past any digest, as they can write that too; encryption stops them. SHA-256
// took an eighth of a restore's time.
func checksum(stored []byte) []byte { return binary.BigEndian.AppendUint64(nil, xxhash.Sum64(stored)) }

// intact says whether stored is what sum was made of: a checksum, or SHA-256, which
// metadata have, and blocks had in versions 1 and 2.
func intact(stored, sum []byte) bool {
	if len(sum) == sha256.Size {
		got := sha256.Sum256(stored)
		return bytes.Equal(got[:], sum)
	}
	return bytes.Equal(checksum(stored), sum)
}

// segmentMeta is the metadata of a segment.
type segmentMeta struct {
	Blocks  []block    `json:"blocks"`
	Entries []entry    `json:"entries"`
	Deleted []pathname `json:"deleted,omitempty"`
	// From names the other segments that extents point into: a large file of which
	// a part changed has the rest where it was.
	From []string `json:"from,omitempty"`
}

// pathname is a name as the file system has it: any bytes. JSON strings must be
// UTF-8, so a name that is not goes as {"b": base64}.
type pathname string

func (p pathname) MarshalJSON() ([]byte, error) {
	if utf8.ValidString(string(p)) {
		return json.Marshal(string(p))
	}
	return json.Marshal(map[string][]byte{"b": []byte(p)})
}

// UnmarshalJSONFrom implements json.UnmarshalerFrom.
func (p *pathname) UnmarshalJSONFrom(in *jsontext.Decoder) error {
	raw, err := in.ReadValue()
	if err != nil {
		return err
	}
	if raw.Kind() == '{' {
		var b struct {
			B []byte `json:"b"`
		}
		err := jsonv2.Unmarshal(raw, &b)
		*p = pathname(b.B)
		return err
	}
	// Most names mean what they say, and there are many.
	if n := len(raw); raw[0] == '"' && bytes.IndexByte(raw, '\\') < 0 {
		*p = pathname(raw[1 : n-1])
		return nil
	}
	var s string
	err = jsonv2.Unmarshal(raw, &s)
	*p = pathname(s)
	return err
}

// check refuses a name that could mean anything but one place below the root.
func (p pathname) check() error {
	s := string(p)
	if s == "" || len(s) > 4096 || strings.ContainsRune(s, 0) {
		return fmt.Errorf("path %.80q is not valid", s)
	}
	for part := range strings.SplitSeq(s, "/") {
		if part == "" || part == "." || part == ".." || len(part) > 255 {
			return fmt.Errorf("path %.80q is not valid", s)
		}
	}
	return nil
}

// parent is the directory that holds p, "." for the root itself.
func (p pathname) parent() pathname { return pathname(path.Dir(string(p))) }

// check holds the metadata against the object's size, so that what follows can
// rely on it.
func (m *segmentMeta) check(ref segmentRef) error {
	for i, b := range m.Blocks {
		if b.Off < 0 || b.Len <= 0 || b.Len > maxStored || b.Off > ref.MetaOff-b.Len || b.Raw <= 0 || b.Raw > blockSize {
			return fmt.Errorf("block %d lies outside the segment", i)
		}
	}
	for _, e := range m.Entries {
		if err := e.Path.check(); err != nil {
			return err
		}
		var n int64
		for _, x := range e.Extents {
			if x.Seg < 0 || x.Seg > len(m.From) || x.Block < 0 || x.Off < 0 || x.Len <= 0 || x.Len > blockSize || x.Off > blockSize-x.Len {
				return fmt.Errorf("file %.80q has an impossible extent", e.Path)
			}
			if x.Seg == 0 && !within(x, m.Blocks) {
				return fmt.Errorf("file %.80q has an extent outside its block", e.Path)
			}
			n += x.Len // at most blockSize for each extent that was read
		}
		switch {
		case e.Kind != kindFile && e.Kind != kindDir && e.Kind != kindLink:
			return fmt.Errorf("path %.80q has unknown kind %.10q", e.Path, e.Kind)
		case n != e.Size || (e.Kind != kindFile && n != 0):
			return fmt.Errorf("path %.80q has %d bytes of content, its size is %d", e.Path, n, e.Size)
		case e.Kind == kindLink && (e.Target == "" || len(e.Target) > 4096 || strings.ContainsRune(string(e.Target), 0)):
			return fmt.Errorf("link %.80q has an impossible target", e.Path)
		case e.Mode&^uint32(fs.ModePerm) != 0:
			return fmt.Errorf("path %.80q has mode bits beyond the permissions", e.Path)
		}
	}
	for _, p := range m.Deleted {
		if err := p.check(); err != nil {
			return err
		}
	}
	return nil
}

// within says whether an extent lies in one of its segment's blocks.
func within(x extent, blocks []block) bool {
	return x.Block < len(blocks) && x.Off <= blocks[x.Block].Raw-x.Len
}

// The coders are safe for concurrent EncodeAll and DecodeAll; one of each
// serves the process.
var (
	encoder = must(zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedDefault), zstd.WithEncoderCRC(false), zstd.WithWindowSize(blockSize)))
	// The limits stop a bomb: nothing decompresses to more than it may be.
	blockDecoder = must(zstd.NewReader(nil, zstd.WithDecoderConcurrency(0), zstd.WithDecoderMaxMemory(2*blockSize)))
	metaDecoder  = must(zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(maxMeta)))
)

func must[T any](v T, err error) T {
	if err != nil {
		panic(err) // only options that contradict each other
	}
	return v
}

// unpack decompresses to exactly raw bytes, into the space of buf if that suffices.
func unpack(dec *zstd.Decoder, packed []byte, raw int64, buf []byte) ([]byte, error) {
	if int64(cap(buf)) < raw {
		buf = make([]byte, 0, raw)
	}
	out, err := dec.DecodeAll(packed, buf[:0])
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	if int64(len(out)) != raw {
		return nil, fmt.Errorf("%w: it decompresses to %d bytes instead of %d", ErrCorrupt, len(out), raw)
	}
	return out, nil
}
