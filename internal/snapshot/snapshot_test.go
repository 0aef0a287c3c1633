package snapshot

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"openclaw-sandbox/internal/objstore"
)

const user = "alice"

// machine is a node with a state folder of one run.
type machine struct {
	t    *testing.T
	st   objstore.Store
	opts Options
	run  *Run
	path string
	root *os.Root
}

func dirStore(t *testing.T) objstore.Store {
	t.Helper()
	st, err := objstore.OpenDir(filepath.Join(t.TempDir(), "bucket"))
	if err != nil {
		t.Fatal(err)
	}
	return st
}

// start claims and restores on a new machine.
func start(t *testing.T, st objstore.Store) *machine {
	t.Helper()
	m := claim(t, st)
	if err := m.run.Restore(t.Context(), m.root, nil); err != nil {
		t.Fatal(err)
	}
	return m
}

func claim(t *testing.T, st objstore.Store) *machine {
	t.Helper()
	m := &machine{t: t, st: st, opts: DefaultOptions(), path: t.TempDir()}
	var err error
	if m.root, err = os.OpenRoot(m.path); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.root.Close() })
	if m.run, err = Claim(t.Context(), st, user, Writer{Alloc: "a", Node: "n"}, m.opts); err != nil {
		t.Fatal(err)
	}
	return m
}

func (m *machine) save(final bool) (Stats, error) {
	m.t.Helper()
	c, err := m.run.Capture(m.t.Context(), m.root, filepath.Join(m.t.TempDir(), "staging"))
	if err != nil {
		return Stats{}, err
	}
	return m.run.Commit(m.t.Context(), c, final)
}

func (m *machine) mustSave(final bool) Stats {
	m.t.Helper()
	s, err := m.save(final)
	if err != nil {
		m.t.Fatal(err)
	}
	return s
}

func (m *machine) write(path, content string) {
	m.t.Helper()
	full := filepath.Join(m.path, path)
	if err := os.MkdirAll(filepath.Dir(full), 0o755); err != nil {
		m.t.Fatal(err)
	}
	if err := os.WriteFile(full, []byte(content), 0o640); err != nil {
		m.t.Fatal(err)
	}
}

// tree is what a folder holds, in a form that can be compared.
func tree(t *testing.T, dir string) map[string]string {
	t.Helper()
	out := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || path == dir {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(dir, path)
		switch {
		case d.IsDir():
			out[rel] = info.Mode().String()
		case d.Type() == fs.ModeSymlink:
			to, _ := os.Readlink(path)
			out[rel] = "-> " + to
		case d.Type().IsRegular():
			b, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			out[rel] = fmt.Sprintf("%s %s %d %x", info.Mode(), info.ModTime().UTC().Format(time.RFC3339Nano), len(b), sha256.Sum256(b))
		default:
			out[rel] = "special"
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func same(t *testing.T, got, want string) {
	t.Helper()
	if d := cmp.Diff(tree(t, want), tree(t, got)); d != "" {
		t.Errorf("the restored tree differs (-saved +restored):\n%s", d)
	}
}

func TestRoundTrip(t *testing.T) {
	st := dirStore(t)
	a := start(t, st)
	a.write("openclaw/openclaw.json", "{}")
	a.write("empty", "")
	a.write("name with\nnewline", "x")
	a.write("bytes-\xff\xfe", "not UTF-8")
	a.write(strings.Repeat("n", 255), "long name")
	a.write("mode", "rwx")
	for i := range 300 {
		a.write(fmt.Sprintf("many/%d/%d", i%7, i), strings.Repeat(fmt.Sprint(i), i*10))
	}
	big := make([]byte, 5<<20+123)
	rng := rand.NewChaCha8([32]byte{1})
	rng.Read(big)
	a.write("big", string(big))
	for _, err := range []error{
		os.Chmod(filepath.Join(a.path, "mode"), 0o751),
		os.Mkdir(filepath.Join(a.path, "closed"), 0o500),
		os.Symlink("../../etc/passwd", filepath.Join(a.path, "out")),
		os.Symlink("/etc", filepath.Join(a.path, "absolute")),
		os.Chtimes(filepath.Join(a.path, "mode"), time.Now(), time.Unix(1_000_000_000, 123_456_789)),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	s := a.mustSave(false)
	if s.Changed < 300 || s.Seq != 1 || s.Epoch != 1 {
		t.Errorf("stats = %+v", s)
	}
	b := start(t, st)
	same(t, b.path, a.path)

	// A change, a deletion, a file that becomes a folder, a folder that becomes a file.
	b.write("many/1/1", "changed")
	os.RemoveAll(filepath.Join(b.path, "many", "2"))
	os.Remove(filepath.Join(b.path, "empty"))
	b.write("empty/now", "a folder")
	os.RemoveAll(filepath.Join(b.path, "many", "3"))
	b.write("many/3", "a file")
	s = b.mustSave(true)
	if s.Uploaded > 64<<10 {
		t.Errorf("a small change sent %d bytes", s.Uploaded)
	}
	c := start(t, st)
	same(t, c.path, b.path)
	if h := c.run.Head(); h.Epoch != 3 || h.Seq != 2 {
		t.Errorf("head = epoch %d seq %d, want 3 and 2", h.Epoch, h.Seq)
	}
}

func TestProgressEndsAtTotal(t *testing.T) {
	st := dirStore(t)
	a := start(t, st)
	a.write("x", strings.Repeat("x", 3<<20))
	a.write("y", "y")
	a.mustSave(true)
	b := claim(t, st)
	var last, total int64
	err := b.run.Restore(t.Context(), b.root, func(d, n int64) {
		if d < last {
			t.Errorf("progress went back from %d to %d", last, d)
		}
		last, total = d, n
	})
	if err != nil || last != total || total != 3<<20+1 {
		t.Errorf("progress ended at %d of %d (%v), want %d", last, total, err, 3<<20+1)
	}
}

func TestNothingChangedSendsNothing(t *testing.T) {
	st := &countingStore{Store: dirStore(t)}
	m := start(t, st)
	m.write("a", "1")
	time.Sleep(2 * racyWindow) // so that the file's time stamp proves something
	st.puts = 0
	if m.mustSave(false); st.puts != 2 {
		t.Errorf("a save took %d puts, want 2", st.puts)
	}
	st.puts = 0
	for range 3 {
		m.mustSave(false)
	}
	if err := os.Chtimes(filepath.Join(m.path, "a"), time.Now(), time.Unix(1, 0)); err != nil {
		t.Fatal(err)
	}
	m.mustSave(false) // touched, not changed
	if st.puts != 0 {
		t.Errorf("%d puts without a change, want 0", st.puts)
	}
	// The head, and its copy in the history.
	if m.mustSave(true); st.puts != 2 || m.run.Head().State != StateClean {
		t.Errorf("final: %d puts, state %s; want 2 puts and clean", st.puts, m.run.Head().State)
	}
}

func TestFence(t *testing.T) {
	st := dirStore(t)
	old := start(t, st)
	old.write("a", "old")
	old.mustSave(false)
	newer := start(t, st)
	newer.write("a", "new")
	newer.mustSave(false)

	old.write("a", "zombie")
	for range 2 {
		if _, err := old.save(true); !errors.Is(err, ErrFenced) {
			t.Fatalf("the old run's save: %v, want ErrFenced", err)
		}
	}
	if err := old.run.Abandon(t.Context()); !errors.Is(err, ErrFenced) {
		t.Errorf("the old run's abandon: %v, want ErrFenced", err)
	}
	if _, err := Resume(t.Context(), st, old.run.Memento(), DefaultOptions()); !errors.Is(err, ErrFenced) {
		t.Errorf("the old run's resume: %v, want ErrFenced", err)
	}
	same(t, start(t, st).path, newer.path)
}

// Two claims at once: exactly one of them may save in the end.
func TestClaimRace(t *testing.T) {
	st := dirStore(t)
	type result struct {
		run *Run
		err error
	}
	results := make(chan result, 8)
	for range cap(results) {
		go func() {
			r, err := Claim(t.Context(), st, user, Writer{}, DefaultOptions())
			results <- result{r, err}
		}()
	}
	able := 0
	var runs []*Run
	for range cap(results) {
		switch res := <-results; {
		case res.err == nil:
			runs = append(runs, res.run)
		case !errors.Is(res.err, ErrFenced):
			t.Errorf("a loser got %v, want ErrFenced", res.err)
		}
	}
	for _, r := range runs {
		if err := r.Abandon(t.Context()); err == nil {
			able++
		}
	}
	if able != 1 {
		t.Errorf("%d of %d claims could still write, want 1", able, len(runs))
	}
}

func TestResume(t *testing.T) {
	st := dirStore(t)
	m := start(t, st)
	m.write("a", "1")
	m.write("gone", "1")
	m.mustSave(false)
	memento := m.run.Memento()
	m.write("b", "2")
	os.Remove(filepath.Join(m.path, "gone"))

	var err error
	if m.run, err = Resume(t.Context(), st, memento, m.opts); err != nil {
		t.Fatal(err)
	}
	s := m.mustSave(false)
	if s.Changed != 1 || s.Deleted != 1 || s.Epoch != 1 {
		t.Errorf("stats = %+v, want one changed, one deleted, epoch 1", s)
	}
	same(t, start(t, st).path, m.path)
}

func TestNotRestoredMayNotSave(t *testing.T) {
	st := dirStore(t)
	a := start(t, st)
	a.write("a", strings.Repeat("precious ", 1000))
	a.mustSave(true)
	before := objects(t, st)

	// One stored byte is wrong.
	var seg string
	for k := range before {
		if strings.Contains(k, "/seg/") {
			seg = k
		}
	}
	for at := range 3 {
		bad := bytes.Clone(before[seg])
		bad[[]int{0, len(bad) / 2, len(bad) - 1}[at]] ^= 0x40
		put(t, st, seg, bad)
		b := claim(t, st)
		if err := b.run.Restore(t.Context(), b.root, nil); !errors.Is(err, ErrCorrupt) {
			t.Fatalf("restore of a flipped byte: %v, want ErrCorrupt", err)
		}
		if _, err := b.save(true); !errors.Is(err, ErrNotRestored) {
			t.Fatalf("save after a failed restore: %v, want ErrNotRestored", err)
		}
		resumed, err := Resume(t.Context(), st, b.run.Memento(), b.opts)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := resumed.Capture(t.Context(), b.root, filepath.Join(t.TempDir(), "s")); !errors.Is(err, ErrNotRestored) {
			t.Fatalf("capture after resuming it: %v, want ErrNotRestored", err)
		}
		if err := b.run.Abandon(t.Context()); err != nil {
			t.Fatal(err)
		}
		if h, _, err := ReadHead(t.Context(), st, user); err != nil || h.State != StateClean || h.Seq != 1 {
			t.Errorf("head after abandon = %+v, %v; want clean, seq 1", h, err)
		}
	}
	// Mended, everything is as it was.
	put(t, st, seg, before[seg])
	same(t, start(t, st).path, a.path)

	if err := st.Delete(t.Context(), seg); err != nil {
		t.Fatal(err)
	}
	c := claim(t, st)
	if err := c.run.Restore(t.Context(), c.root, nil); !errors.Is(err, ErrCorrupt) {
		t.Errorf("restore without the segment: %v, want ErrCorrupt", err)
	}
}

func TestManySavesBecomeOne(t *testing.T) {
	st := dirStore(t)
	m := start(t, st)
	for i := range DefaultOptions().MaxSegments + 5 {
		m.write("counter", fmt.Sprint(i))
		m.write(fmt.Sprintf("f%d", i%10), fmt.Sprint(i))
		m.mustSave(false)
	}
	if n := len(m.run.Head().Segments); n > DefaultOptions().MaxSegments || n < 1 {
		t.Errorf("%d segments, want at most %d", n, DefaultOptions().MaxSegments)
	}
	same(t, start(t, st).path, m.path)
}
