package snapshot

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"testing"

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
			if !errors.Is(err, ErrCorrupt) {
				t.Errorf("an error of no class: %v", err)
			}
			return
		}
		if _, err := OpenTree(t.Context(), st, h, Options{MaxFiles: 10, MaxFile: 1 << 20, MaxBytes: 1 << 20, Keys: keys("a", "a")}); err != nil && !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrTooLarge) && !errors.Is(err, ErrKey) {
			t.Errorf("an error of no class: %v", err)
		}
	})
}
