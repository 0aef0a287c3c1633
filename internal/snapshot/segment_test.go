package snapshot

import (
	"crypto/sha256"
	"encoding/hex"
	"testing"

	"github.com/google/go-cmp/cmp"

	"openclaw-sandbox/internal/objstore"
)

func TestIntact(t *testing.T) {
	sum := func(text string) []byte {
		b, err := hex.DecodeString(text)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	abc := sha256.Sum256([]byte("abc"))
	for name, c := range map[string]struct {
		stored string
		sum    []byte
		want   bool
	}{
		"XXH64 of nothing":    {"", sum("ef46db3751d8e999"), true}, // from xxHash's own tests
		"XXH64":               {"abc", sum("44bc2cf5ad770999"), true},
		"XXH64 of other":      {"abd", sum("44bc2cf5ad770999"), false},
		"XXH64 cut off":       {"abc", sum("44bc2cf5"), false},
		"SHA-256":             {"abc", abc[:], true},
		"SHA-256 of other":    {"abd", abc[:], false},
		"no digest":           {"abc", nil, false},
		"no digest of no one": {"", nil, false},
	} {
		if got := intact([]byte(c.stored), c.sum); got != c.want {
			t.Errorf("%s: %t, want %t", name, got, c.want)
		}
	}
}

// A run that a driver of format version 2 began, whose blocks have SHA-256, goes on under
// this one: what is saved now has checksums, the head says so, and both are read.
func TestSecondVersion(t *testing.T) {
	st := dirStore(t)
	m := start(t, st)
	m.write("before", "said before")
	m.mustSave(false)
	second(t, st)
	run, err := Resume(t.Context(), st, m.run.Memento(), m.opts)
	if err != nil {
		t.Fatal(err)
	}
	m.run = run
	m.write("since", "said since")
	m.mustSave(true)
	h, _, err := ReadHead(t.Context(), st, user)
	if err != nil || h.Version != formatVersion || len(h.Segments) != 2 {
		t.Fatalf("%+v, %v; want version %d and two segments", h, err, formatVersion)
	}
	next := start(t, st)
	if diff := cmp.Diff(tree(t, m.path), tree(t, next.path)); diff != "" {
		t.Error(diff)
	}
}

// second makes the one segment of a state, and its head, as version 2 wrote them.
func second(t *testing.T, st objstore.Store) {
	t.Helper()
	h, _, err := ReadHead(t.Context(), st, user)
	if err != nil || len(h.Segments) != 1 {
		t.Fatalf("%+v, %v", h, err)
	}
	ref := h.Segments[0]
	rd := &reader{store: st, user: user, opts: DefaultOptions(), segments: h.Segments}
	var meta segmentMeta
	if err := rd.readMeta(t.Context(), ref, &meta); err != nil {
		t.Fatal(err)
	}
	content, err := rd.fetch(t.Context(), ref.Name, 0, ref.MetaOff)
	if err != nil {
		t.Fatal(err)
	}
	for i, b := range meta.Blocks {
		sum := sha256.Sum256(content[b.Off : b.Off+b.Len])
		meta.Blocks[i].Sum = sum[:]
	}
	forge(t, st, meta, content, func(forged *Head) {
		h.Version, h.Segments = 2, forged.Segments
		*forged = *h
	})
}
