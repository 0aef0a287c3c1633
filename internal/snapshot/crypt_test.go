package snapshot

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"openclaw-sandbox/internal/objstore"
)

func keys(active string, names ...string) *Keys {
	k := &Keys{Active: active, All: map[string][]byte{}}
	for _, n := range names {
		k.All[n] = bytes.Repeat([]byte(n)[:1], keySize)
	}
	return k
}

// with claims and restores with these keys.
func with(t *testing.T, st objstore.Store, k *Keys) (*machine, error) {
	t.Helper()
	m := &machine{t: t, st: st, opts: DefaultOptions(), path: t.TempDir()}
	m.opts.Keys = k
	var err error
	if m.root, err = os.OpenRoot(m.path); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.root.Close() })
	if m.run, err = Claim(t.Context(), st, user, Writer{}, m.opts); err != nil {
		return nil, err
	}
	return m, m.run.Restore(t.Context(), m.root, nil)
}

func must2(t *testing.T, m *machine, err error) *machine {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestEncryption(t *testing.T) {
	st := dirStore(t)
	const secret = "a very recognizable secret, a very recognizable secret"
	m, err := with(t, st, keys("a", "a"))
	must2(t, m, err)
	m.write("secret-name", secret)
	m.write("large", strings.Repeat(secret, 10_000))
	m.mustSave(false)
	m.write("later", secret)
	m.mustSave(true)
	for key, b := range objects(t, st) {
		if bytes.Contains(b, []byte("recognizable")) || bytes.Contains(b, []byte("secret-name")) {
			t.Errorf("%s shows what it holds", key)
		}
	}
	before := objects(t, st)
	for name, k := range map[string]*Keys{"without a key": nil, "another key": keys("b", "b"), "the wrong key of that name": {Active: "a", All: map[string][]byte{"a": bytes.Repeat([]byte("x"), keySize)}}} {
		if _, err := with(t, st, k); !errors.Is(err, ErrKey) {
			t.Errorf("%s: %v, want ErrKey", name, err)
		}
	}
	for key, b := range objects(t, st) {
		if !bytes.Equal(b, before[key]) {
			t.Errorf("a start that failed changed %s", key)
		}
	}

	// A new master key takes over with the next claim; the old one is not needed then.
	n, err := with(t, st, keys("b", "a", "b"))
	same(t, must2(t, n, err).path, m.path)
	n.mustSave(true)
	n, err = with(t, st, keys("b", "b"))
	same(t, must2(t, n, err).path, m.path)

	// What lies beside the line has the same key.
	n.write("zombie", "x")
	newer, err := with(t, st, keys("b", "b"))
	must2(t, newer, err)
	name, err := Branch(t.Context(), st, n.run.Memento(), Writer{Alloc: "z"}, n.root, n.opts)
	if err != nil {
		t.Fatal(err)
	}
	h, err := ReadBranch(t.Context(), st, user, name)
	if err != nil {
		t.Fatal(err)
	}
	o := DefaultOptions()
	if _, err := OpenTree(t.Context(), st, h, o); !errors.Is(err, ErrKey) {
		t.Errorf("a branch without a key: %v", err)
	}
	o.Keys = keys("b", "b")
	tree, err := OpenTree(t.Context(), st, h, o)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tree.Verify(t.Context(), nil); err != nil {
		t.Error(err)
	}
	if _, err := Fork(t.Context(), st, user, 0, "carol", o.Keys, nil); err != nil {
		t.Fatal(err)
	}
	h, _, err = ReadHead(t.Context(), st, "carol")
	if err == nil {
		_, err = OpenTree(t.Context(), st, h, o)
	}
	if err != nil {
		t.Errorf("the fork: %v", err)
	}
	// Nobody's key is another's.
	h.User = "dave"
	if _, err := OpenTree(t.Context(), st, h, o); !errors.Is(err, ErrKey) {
		t.Errorf("a head under another name: %v, want ErrKey", err)
	}
}

// A state that was plain is encrypted from the first save with keys on; what was
// saved before stays readable, also after a resume.
func TestEncryptionBegins(t *testing.T) {
	st := dirStore(t)
	m := start(t, st)
	m.write("plain", "1")
	m.mustSave(true)
	n, err := with(t, st, keys("a", "a"))
	must2(t, n, err)
	n.write("sealed", "2")
	n.mustSave(false)
	run, err := Resume(t.Context(), st, n.run.Memento(), n.opts)
	if err != nil {
		t.Fatal(err)
	}
	n.run = run
	n.write("sealed too", "3")
	n.mustSave(true)
	o, err := with(t, st, keys("a", "a"))
	same(t, must2(t, o, err).path, n.path)
	sealed := 0
	for _, s := range o.run.Head().Segments {
		if s.Sealed {
			sealed++
		}
	}
	if sealed != 2 || len(o.run.Head().Segments) != 3 {
		t.Errorf("%d of %d segments are encrypted, want 2 of 3", sealed, len(o.run.Head().Segments))
	}
}

// A part of one place does not pass for another's.
func TestPartsAreBound(t *testing.T) {
	s := &sealer{bytes.Repeat([]byte("k"), keySize)}
	packed, err := s.encrypt("one", 0, []byte("content"))
	if err != nil {
		t.Fatal(err)
	}
	if out, err := s.decrypt("one", 0, packed); err != nil || string(out) != "content" {
		t.Errorf("its own place: %q, %v", out, err)
	}
	for _, c := range []struct {
		segment string
		part    uint32
	}{{"one", 1}, {"two", 0}, {"one", metaPart}} {
		if _, err := s.decrypt(c.segment, c.part, packed); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%s %d: %v, want ErrCorrupt", c.segment, c.part, err)
		}
	}
}

func TestReadKeys(t *testing.T) {
	dir := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	good, short := file("good", "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=\n"), file("short", "MDEyMw==")
	for name, c := range map[string]struct {
		files  map[string]string
		active string
		want   string // of the error; "" for none
	}{
		"none":            {nil, "", ""},
		"one":             {map[string]string{"k": good}, "", ""},
		"two, one active": {map[string]string{"k": good, "l": good}, "l", ""},
		"two":             {map[string]string{"k": good, "l": good}, "", "which master key is active"},
		"active of none":  {nil, "k", "there is no key"},
		"another active":  {map[string]string{"k": good}, "l", "none of them"},
		"short":           {map[string]string{"k": short}, "", "32 bytes"},
		"missing":         {map[string]string{"k": filepath.Join(dir, "no")}, "", "no such file"},
	} {
		k, err := ReadKeys(c.files, c.active)
		if c.want == "" && (err != nil || (k != nil) != (c.files != nil)) || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: %v, %v; want %q", name, k, err, c.want)
		}
	}
}
