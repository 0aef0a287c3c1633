package snapshot

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/cespare/xxhash/v2"

	"openclaw-sandbox/internal/objstore"
)

// Whatever a bucket holds, a restore ends with an error or with a tree below its
// folder: no panic, no allocation out of proportion, nothing outside.
func FuzzHostileBucket(f *testing.F) {
	packed := encoder.EncodeAll([]byte("content"), nil)
	sum := sha256.Sum256(packed)
	good, err := json.Marshal(segmentMeta{
		Blocks:  []block{{Len: int64(len(packed)), Raw: 7, Sum: sum[:]}},
		Entries: []entry{{Path: "d", Kind: kindDir, Mode: 0o700}, {Path: "d/f", Kind: kindFile, Mode: 0o600, Size: 7, Extents: []extent{{Len: 7}}}, {Path: "l", Kind: kindLink, Target: "../../x"}},
		Deleted: []pathname{"gone"}, From: []string{"x"},
	})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good, packed, int64(len(good)), false)
	f.Add([]byte(`{"entries":[{"p":"../x","k":"f"}]}`), []byte{}, int64(40), false)
	f.Add([]byte(`{"entries":[{"p":"a","k":"l","l":".."},{"p":"a/evil","k":"f"}]}`), []byte{}, int64(70), false)
	f.Add([]byte(`{"blocks":[{"o":0,"n":1,"r":1048576}],"entries":[{"p":"a","k":"f","s":1,"x":[{"s":1,"n":1}]}]}`), []byte{0}, int64(99), true)
	f.Fuzz(func(t *testing.T, meta, content []byte, raw int64, sealed bool) {
		st, err := objstore.OpenDir(t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		metaPacked := encoder.EncodeAll(meta, nil)
		sum := sha256.Sum256(metaPacked)
		h := Head{Version: formatVersion, User: user, Epoch: 1, State: StateClean, Segments: []segmentRef{{Name: "x", Size: int64(len(content) + len(metaPacked)),
			MetaOff: int64(len(content)), MetaRaw: raw, MetaSum: sum[:], Sealed: sealed}}}
		head, err := json.Marshal(h)
		if err != nil {
			t.Fatal(err)
		}
		for key, b := range map[string][]byte{headKey(user): head, segmentKey(user, "x"): append(bytes.Clone(content), metaPacked...)} {
			if _, err := st.Put(t.Context(), key, bytes.NewReader(b), objstore.Condition{}); err != nil {
				t.Fatal(err)
			}
		}
		if err := hostileRestore(t, st); err != nil && !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrTooLarge) && !errors.Is(err, ErrKey) {
			t.Errorf("an error of no class: %v", err)
		}
	})
}

// Any head that can be read is one that check has seen; none makes it panic.
func FuzzHead(f *testing.F) {
	good, err := json.Marshal(Head{Version: formatVersion, User: user, State: StateClean, Segments: []segmentRef{{Name: "A-1", Size: 9, MetaOff: 1, MetaRaw: 1}}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add([]byte(`{"version":2,"user":"alice","state":"clean","segments":[{"name":"../x"}]}`))
	f.Add([]byte(`{"version":2,"user":"alice","state":"clean","key":{"sealed":"AA=="}}`))
	f.Add([]byte(`{"version":4,"user":"alice","state":"clean"}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		st, err := objstore.OpenDir(t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := st.Put(t.Context(), headKey(user), bytes.NewReader(raw), objstore.Condition{}); err != nil {
			t.Fatal(err)
		}
		h, _, err := ReadHead(t.Context(), st, user)
		if err != nil {
			if !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrNewer) {
				t.Errorf("an error of no class: %v", err)
			}
			return
		}
		if _, err := OpenTree(t.Context(), st, h, Options{MaxFiles: 10, MaxFile: 1 << 20, MaxBytes: 1 << 20, Keys: keys("a", "a")}); err != nil && !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrTooLarge) && !errors.Is(err, ErrKey) {
			t.Errorf("an error of no class: %v", err)
		}
	})
}

// Any tree comes back as it was, after any changes and saves: the input is a
// program of steps, each an operation, a size, and a name that ends with a NUL.
func FuzzRoundTrip(f *testing.F) {
	f.Add([]byte("w\x05a/b\x00w\xffbig\x00s\x00\x00c\x07big\x00l\x00to\x00r\x00a/b\x00s\x00\x00n\x00\x00m\x10big\x00"))
	f.Add([]byte("w\xf0x\x00s\x00\x00t\x03x\x00s\x00\x00w\x01\xff\xfe\x00d\x00d/e/f\x00m\x00d\x00n\x00\x00r\x00d\x00w\x01d\x00"))
	f.Fuzz(func(t *testing.T, program []byte) {
		if len(program) > 2000 {
			t.Skip("longer programs teach nothing new")
		}
		st := dirStore(t)
		m := start(t, st)
		for len(program) > 2 {
			op, size := program[0], int(program[1])
			name, rest, _ := bytes.Cut(program[2:], []byte{0})
			program = rest
			step(m, op, size, string(name))
			if op == 's' || op == 'n' {
				stampByContent(m)
			}
			switch op {
			case 's':
				m.mustSave(false)
			case 'n':
				m.mustSave(true)
				next := start(t, st)
				same(t, next.path, m.path)
				m = next
			}
		}
		stampByContent(m)
		m.mustSave(true)
		same(t, start(t, st).path, m.path)
	})
}

// stampByContent gives files of the same content the same time: a new time alone is
// nothing that a save keeps.
func stampByContent(m *machine) {
	fs.WalkDir(m.root.FS(), ".", func(p string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return nil
		}
		if content, err := m.root.ReadFile(p); err == nil {
			at := time.Unix(int64(xxhash.Sum64(content)%1e9), 0)
			m.root.Chtimes(p, at, at)
		}
		return nil
	})
}

// step changes the tree, if that can be done: what the file system refuses is no
// concern of a snapshot.
func step(m *machine, op byte, size int, name string) {
	switch op {
	case 'w', 'c', 't':
		if i := strings.LastIndexByte(name, '/'); i > 0 {
			m.root.MkdirAll(name[:i], 0o755)
		}
		flags := os.O_CREATE | os.O_WRONLY
		if op == 'w' {
			flags |= os.O_TRUNC
		}
		file, err := m.root.OpenFile(name, flags, 0o644)
		if err != nil {
			return
		}
		defer file.Close()
		switch op {
		case 'w': // up to 512 KiB, so that large files are among them
			file.Write(bytes.Repeat([]byte{byte(size), 'x', '\n'}, size*size*8/3))
		case 'c': // a few bytes somewhere
			file.WriteAt([]byte("changed"), int64(size)*1999)
		case 't':
			file.Truncate(int64(size) * 1500)
		}
	case 'd':
		m.root.MkdirAll(name, 0o755)
	case 'l':
		m.root.Symlink("../"+name, name)
	case 'r':
		m.root.RemoveAll(name)
	case 'm':
		m.root.Chmod(name, fs.FileMode(0o400|size&0o377))
	}
}
