package snapshot

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"openclaw-sandbox/internal/objstore"
	"openclaw-sandbox/internal/sandbox"
)

// life is a user with three kept snapshots: a file says 1, 2, 3.
func life(t *testing.T) (*machine, objstore.Store) {
	t.Helper()
	st := dirStore(t)
	m := start(t, st)
	m.run.opts.Retention.Every = 0
	for i := 1; i <= 3; i++ {
		m.write("n", fmt.Sprint(i))
		m.write(fmt.Sprintf("only-%d", i), "x")
		if i > 1 {
			os.Remove(filepath.Join(m.path, fmt.Sprintf("only-%d", i-1)))
		}
		m.mustSave(i == 3)
	}
	return m, st
}

func content(t *testing.T, st objstore.Store, u sandbox.User, seq uint64, path string) string {
	t.Helper()
	h, err := ReadVersion(t.Context(), st, u, seq)
	if err != nil {
		t.Fatal(err)
	}
	tree, err := OpenTree(t.Context(), st, h, DefaultOptions())
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := tree.Copy(t.Context(), &b, path); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func seqs(t *testing.T, st objstore.Store) (out []uint64) {
	t.Helper()
	versions, err := Versions(t.Context(), st, user)
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range versions {
		out = append(out, v.Seq)
	}
	return out
}

func TestHistoryAndRewind(t *testing.T) {
	m, st := life(t)
	if got := seqs(t, st); !slices.Equal(got, []uint64{3, 2, 1}) {
		t.Fatalf("versions %v, want 3, 2, 1", got)
	}
	for seq, want := range map[uint64]string{1: "1", 2: "2", 3: "3", 0: "3"} {
		if got := content(t, st, user, seq, "n"); got != want {
			t.Errorf("snapshot %d says %s", seq, got)
		}
	}
	if _, err := ReadVersion(t.Context(), st, user, 9); !errors.Is(err, ErrNoVersion) {
		t.Errorf("snapshot 9: %v, want ErrNoVersion", err)
	}
	version := func(seq uint64) *Head {
		h, err := ReadVersion(t.Context(), st, user, seq)
		if err != nil {
			t.Fatal(err)
		}
		return h
	}
	h, err := Rewind(t.Context(), st, user, version(1), false)
	if err != nil || h.Seq != 4 {
		t.Fatalf("rewind: seq %v, %v", h, err)
	}
	if _, err := m.save(true); !errors.Is(err, ErrFenced) {
		t.Errorf("the run from before saves: %v, want ErrFenced", err)
	}
	next := start(t, st)
	if b, err := os.ReadFile(filepath.Join(next.path, "n")); err != nil || string(b) != "1" {
		t.Errorf("after the rewind: %q, %v", b, err)
	}
	if _, err := os.Stat(filepath.Join(next.path, "only-3")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("what came later is there: %v", err)
	}
	if _, err := Rewind(t.Context(), st, user, version(3), false); !errors.Is(err, ErrInUse) {
		t.Errorf("rewind under a run: %v, want ErrInUse", err)
	}
	if h, err = Rewind(t.Context(), st, user, version(3), true); err != nil || content(t, st, user, h.Seq, "n") != "3" {
		t.Errorf("forced: %v", err)
	}
}

func TestPinForkImport(t *testing.T) {
	_, st := life(t)
	if err := Pin(t.Context(), st, user, 2, "before the trip"); err != nil {
		t.Fatal(err)
	}
	none := TidyOptions{Retention: Retention{Last: 1}}
	for range 2 {
		if _, err := Tidy(t.Context(), st, user, none); err != nil {
			t.Fatal(err)
		}
	}
	if got := seqs(t, st); !slices.Equal(got, []uint64{3, 2}) {
		t.Errorf("versions %v, want the newest and the pinned", got)
	}
	if got := content(t, st, user, 2, "n"); got != "2" {
		t.Errorf("the pinned one says %s", got)
	}
	for to, want := range map[sandbox.User]error{"carol": nil, user: ErrExists} {
		if _, err := Fork(t.Context(), st, user, 2, to, nil, nil); !errors.Is(err, want) {
			t.Errorf("fork to %s: %v, want %v", to, err, want)
		}
	}
	if got := content(t, st, "carol", 0, "n"); got != "2" {
		t.Errorf("the fork says %s", got)
	}
	if err := Unpin(t.Context(), st, user, 2); err != nil {
		t.Error(err)
	}
	if err := Unpin(t.Context(), st, user, 2); !errors.Is(err, ErrNoVersion) {
		t.Errorf("unpin twice: %v, want ErrNoVersion", err)
	}

	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "from-afar"), []byte("hello"), 0o600); err != nil {
		t.Fatal(err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	for range 2 {
		_, err = Import(t.Context(), st, "dave", root, DefaultOptions())
	}
	if !errors.Is(err, ErrExists) || content(t, st, "dave", 0, "from-afar") != "hello" {
		t.Errorf("the second import: %v, want ErrExists", err)
	}
	users, err := Users(t.Context(), st)
	slices.Sort(users)
	if err != nil || !slices.Equal(users, []sandbox.User{user, "carol", "dave"}) {
		t.Errorf("users %v, %v", users, err)
	}
}

func openTree(t *testing.T, st objstore.Store, seq uint64) *Tree {
	t.Helper()
	h, err := ReadVersion(t.Context(), st, user, seq)
	if err != nil {
		t.Fatal(err)
	}
	tree, err := OpenTree(t.Context(), st, h, DefaultOptions())
	if err != nil {
		t.Fatal(err)
	}
	return tree
}

func TestDiffAndVerify(t *testing.T) {
	_, st := life(t)
	open := func(seq uint64) *Tree { return openTree(t, st, seq) }
	want := []Change{{"n", "changed", 1, 1}, {"only-1", "removed", 1, 0}, {"only-3", "added", 0, 1}}
	if got := open(1).Diff(open(3)); !slices.Equal(got, want) {
		t.Errorf("diff %v, want %v", got, want)
	}
	v, err := open(3).Verify(t.Context(), nil)
	if err != nil || v.Files != 2 || v.Bytes != 2 {
		t.Errorf("verify: %+v, %v", v, err)
	}
	for key, b := range objects(t, st) {
		if strings.Contains(key, "/seg/00000001-00000003-") {
			b[0] ^= 1
			put(t, st, key, b)
		}
	}
	if _, err := open(3).Verify(t.Context(), nil); !errors.Is(err, ErrCorrupt) {
		t.Errorf("verify of a flipped byte: %v, want ErrCorrupt", err)
	}
}

// A merge moves a large file's content, and that is no change of the file.
func TestDiffAfterMerge(t *testing.T) {
	st := dirStore(t)
	m := start(t, st)
	m.run.opts.MaxSegments, m.run.opts.Retention.Every = 3, 0
	m.write("large", strings.Repeat("0123456789abcdef", 40<<10))
	m.write("passing", strings.Repeat("fedcba9876543210", 160<<10))
	first := m.mustSave(false).Seq
	if err := os.Remove(filepath.Join(m.path, "passing")); err != nil {
		t.Fatal(err)
	}
	for i := range 5 {
		m.write("small", fmt.Sprint(i))
		m.mustSave(false)
	}
	open := func(seq uint64) *Tree { return openTree(t, st, seq) }
	old, now := open(first), open(0)
	if a, b := old.state.live["large"].Record.At[0].Seg, now.state.live["large"].Record.At[0].Seg; a == b {
		t.Fatalf("no merge moved the file: it lies in %s", a)
	}
	if got, want := old.Diff(now), []Change{{"passing", "removed", 16 * 160 << 10, 0}, {"small", "added", 0, 1}}; !slices.Equal(got, want) {
		t.Errorf("diff %v, want %v", got, want)
	}
}

// A segment goes only when a grace period has passed since it was found without a
// name; one that a save just sent does not, nor one of an epoch that came after.
func TestTidy(t *testing.T) {
	_, st := life(t)
	body := func(s string) *strings.Reader { return strings.NewReader(s) }
	for _, name := range []string{"00000001-00000009-INFLIGHT", "00000099-00000001-LATER"} {
		if _, err := st.Put(t.Context(), segmentKey(user, name), body("bytes"), objstore.IfAbsent()); err != nil {
			t.Fatal(err)
		}
	}
	o := TidyOptions{Retention: DefaultRetention(), Grace: time.Hour}
	for range 2 {
		got, err := Tidy(t.Context(), st, user, o)
		if err != nil || got != (Tidied{Condemned: 1}) {
			t.Fatalf("within the grace: %+v, %v", got, err)
		}
	}
	o.Grace, o.DryRun = 0, true
	if got, err := Tidy(t.Context(), st, user, o); err != nil || got.Segments != 1 || got.Bytes != 5 {
		t.Errorf("a dry run: %+v, %v", got, err)
	}
	if use, err := Use(t.Context(), st, user); err != nil || use.Unnamed != 10 {
		t.Errorf("usage: %+v, %v", use, err)
	}
	o.DryRun = false
	if got, err := Tidy(t.Context(), st, user, o); err != nil || got.Segments != 1 {
		t.Errorf("after the grace: %+v, %v", got, err)
	}
	if _, _, err := st.Get(t.Context(), segmentKey(user, "00000099-00000001-LATER")); err != nil {
		t.Errorf("a segment of a later epoch: %v", err)
	}
	o.Every = time.Hour
	if got, err := Tidy(t.Context(), st, user, o); err != nil || got != (Tidied{}) {
		t.Errorf("too soon: %+v, %v", got, err)
	}
	// A kept snapshot that can not be read could name anything.
	put(t, st, historyPrefix(user)+"000000000002-20260101T000000Z", []byte("{"))
	o.Every = 0
	if _, err := Tidy(t.Context(), st, user, o); !errors.Is(err, ErrCorrupt) {
		t.Errorf("with an unreadable snapshot: %v, want ErrCorrupt", err)
	}
}

func TestRetention(t *testing.T) {
	at := func(s string) time.Time {
		v, err := time.Parse("02T15:04", s)
		if err != nil {
			t.Fatal(err)
		}
		return v.AddDate(2026, 0, 0)
	}
	var all []Version
	for i, s := range []string{"01T08:00", "01T09:00", "02T10:00", "02T10:10", "02T10:20", "02T11:00", "02T11:10"} {
		all = append(all, Version{Seq: uint64(i + 1), Saved: at(s)})
	}
	for name, c := range map[string]struct {
		rule Retention
		want string // those that go
	}{
		"all":    {Retention{Last: 9}, ""},
		"last":   {Retention{Last: 2}, "5 4 3 2 1"},
		"hourly": {Retention{Hourly: 3}, "6 4 3 1"},
		"daily":  {Retention{Daily: 2}, "6 5 4 3 1"},
		"both":   {Retention{Last: 1, Hourly: 2, Daily: 2}, "6 4 3 1"},
		"none":   {Retention{}, "7 6 5 4 3 2 1"},
	} {
		var got []string
		for _, v := range c.rule.expired(all) {
			got = append(got, fmt.Sprint(v.Seq))
		}
		if strings.Join(got, " ") != c.want {
			t.Errorf("%s: %v go, want %s", name, got, c.want)
		}
	}
}

// What a fenced run left stays beside the line, whole, whatever is tidied.
func TestBranch(t *testing.T) {
	old, st := life(t)
	old = start(t, st)
	newer := start(t, st)
	newer.write("n", "newer")
	newer.mustSave(false)
	old.write("n", "zombie")
	var name string
	for range 2 {
		var err error
		if name, err = Branch(t.Context(), st, old.run.Memento(), Writer{Alloc: "lost"}, old.root, old.opts); err != nil {
			t.Fatal(err)
		}
	}
	newer.mustSave(true)
	for range 3 {
		if _, err := Tidy(t.Context(), st, user, TidyOptions{Retention: Retention{}}); err != nil {
			t.Fatal(err)
		}
	}
	names, err := Branches(t.Context(), st, user)
	if err != nil || !slices.Equal(names, []string{name}) {
		t.Fatalf("branches %v, %v; want %s", names, err, name)
	}
	h, err := ReadBranch(t.Context(), st, user, name)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ReadBranch(t.Context(), st, user, "other"); !errors.Is(err, ErrNoVersion) {
		t.Errorf("another branch: %v, want ErrNoVersion", err)
	}
	same(t, start(t, st).path, newer.path)
	if _, err := Rewind(t.Context(), st, user, h, true); err != nil {
		t.Fatal(err)
	}
	same(t, start(t, st).path, old.path)
}
