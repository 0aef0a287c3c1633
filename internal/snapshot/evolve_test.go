package snapshot

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// A tree lives through many random changes, saves, resumes and restarts, with
// bounds so low that segments are worn out all the time; what is restored is what
// was saved. The seed is in the name of the test that fails.
func TestEvolvingTree(t *testing.T) {
	for seed := range uint64(12) {
		t.Run(fmt.Sprintf("seed %d", seed), func(t *testing.T) {
			t.Parallel()
			e := &evolution{t: t, rng: rand.New(rand.NewPCG(seed, 7)), st: &countingStore{Store: dirStore(t)}}
			if seed%3 == 0 {
				e.keys = keys("a", "a")
			}
			e.m = e.start()
			for range 60 {
				for range 1 + e.rng.IntN(6) {
					e.change()
				}
				e.m.mustSave(false)
				e.restart()
				e.tidy()
			}
		})
	}
}

type evolution struct {
	t   *testing.T
	rng *rand.Rand
	st  *countingStore
	// keys, if the state is encrypted
	keys *Keys
	m    *machine
}

func (e *evolution) start() *machine {
	m := &machine{t: e.t, st: e.st, opts: DefaultOptions(), path: e.t.TempDir()}
	m.opts.Keys = e.keys
	var err error
	if m.root, err = os.OpenRoot(m.path); err != nil {
		e.t.Fatal(err)
	}
	e.t.Cleanup(func() { m.root.Close() })
	if m.run, err = Claim(e.t.Context(), e.st, user, Writer{Alloc: "a", Node: "n"}, m.opts); err != nil {
		e.t.Fatal(err)
	}
	m.run.opts.MaxSegments, m.run.opts.MaxDead = 3+e.rng.IntN(5), int64(e.rng.IntN(2<<20))
	m.run.opts.Retention.Every = 0
	m.run.opts.IndexFile = filepath.Join(e.t.TempDir(), "index")
	m.opts = m.run.opts
	if err := m.run.Restore(e.t.Context(), m.root, nil); err != nil {
		e.t.Fatal(err)
	}
	return m
}

// restart does now and then what a node does to a run.
func (e *evolution) restart() {
	switch e.rng.IntN(8) {
	case 0: // the next start, elsewhere
		next := e.start()
		same(e.t, next.path, e.m.path)
		e.m = next
	case 1, 2: // the plugin is replaced, with its index or without
		if e.rng.IntN(2) == 0 {
			os.Remove(e.m.opts.IndexFile)
		}
		run, err := Resume(e.t.Context(), e.st, e.m.run.Memento(), e.m.opts)
		if err != nil {
			e.t.Fatal(err)
		}
		e.m.run = run
	}
}

// tidy removes what is not needed, without any grace; every kept snapshot must
// still be whole.
func (e *evolution) tidy() {
	if e.rng.IntN(5) > 0 {
		return
	}
	o := TidyOptions{Retention: Retention{Last: 3}}
	for range 2 {
		if _, err := Tidy(e.t.Context(), e.st, user, o); err != nil {
			e.t.Fatal(err)
		}
	}
	versions, err := Versions(e.t.Context(), e.st, user)
	if err != nil {
		e.t.Fatal(err)
	}
	for _, v := range versions {
		h, err := ReadVersion(e.t.Context(), e.st, user, v.Seq)
		if err != nil {
			e.t.Fatal(err)
		}
		tree, err := OpenTree(e.t.Context(), e.st, h, e.m.opts)
		if err == nil {
			_, err = tree.Verify(e.t.Context(), nil)
		}
		if err != nil {
			e.t.Fatalf("snapshot %d: %v", v.Seq, err)
		}
	}
}

// change does one thing to the tree.
func (e *evolution) change() {
	name := fmt.Sprintf("d%d/f%d", e.rng.IntN(3), e.rng.IntN(6))
	full := filepath.Join(e.m.path, name)
	check := func(err error) {
		if err != nil {
			e.t.Fatal(err)
		}
	}
	switch e.rng.IntN(9) {
	case 0:
		check(os.RemoveAll(full))
	case 1:
		check(os.RemoveAll(filepath.Dir(full)))
	case 2: // a link in a file's place
		check(os.MkdirAll(filepath.Dir(full), 0o755))
		check(os.RemoveAll(full))
		check(os.Symlink("somewhere", full))
	case 3: // a folder in its place
		check(os.RemoveAll(full))
		check(os.MkdirAll(filepath.Join(full, "deep"), 0o750))
	case 4, 5: // small content
		check(os.RemoveAll(full))
		e.m.write(name, fmt.Sprint(e.rng.Uint64()))
	default: // a large file, of which pages change, which grows and shrinks
		big := fmt.Sprintf("big%d", e.rng.IntN(2))
		f, err := os.OpenFile(filepath.Join(e.m.path, big), os.O_CREATE|os.O_RDWR, 0o600)
		check(err)
		info, err := f.Stat()
		check(err)
		if info.Size() == 0 || e.rng.IntN(6) == 0 {
			check(f.Truncate(int64(e.rng.IntN(1 << 20))))
		}
		page := make([]byte, 1+e.rng.IntN(9000))
		for i := range page {
			page[i] = byte(e.rng.Uint32())
		}
		_, err = f.WriteAt(page, int64(e.rng.IntN(1<<20)))
		check(err)
		check(f.Close())
	}
}

// A page that changes in a large database costs about a page.
func TestLargeFileCostsWhatChanged(t *testing.T) {
	for _, how := range []string{"same run", "after a restore", "after a resume"} {
		t.Run(how, func(t *testing.T) {
			st := dirStore(t)
			m := start(t, st)
			m.run.opts.IndexFile = filepath.Join(t.TempDir(), "index")
			content := make([]byte, 20<<20)
			rng := rand.NewChaCha8([32]byte{3})
			rng.Read(content)
			m.write("db", string(content))
			m.write("other", "x")
			m.mustSave(false)
			switch how {
			case "after a restore":
				m = start(t, st)
			case "after a resume":
				run, err := Resume(t.Context(), st, m.run.Memento(), m.run.opts)
				if err != nil {
					t.Fatal(err)
				}
				m.run = run
			}
			f, err := os.OpenFile(filepath.Join(m.path, "db"), os.O_RDWR, 0)
			if err != nil {
				t.Fatal(err)
			}
			r := rand.New(rand.NewPCG(1, 2))
			for range 50 {
				page := make([]byte, chunkSize)
				rng.Read(page)
				if _, err := f.WriteAt(page, int64(r.IntN(len(content)/chunkSize))*chunkSize); err != nil {
					t.Fatal(err)
				}
			}
			f.Close()
			s := m.mustSave(true)
			if s.Changed != 1 || s.Uploaded > 50*chunkSize*5/4 || s.Raw > 50*chunkSize {
				t.Errorf("50 pages of 20 MB: %+v", s)
			}
			same(t, start(t, st).path, m.path)
		})
	}
}

// A resume with its index does not read files again that did not change.
func TestResumeWithIndexCopiesNothing(t *testing.T) {
	m := start(t, dirStore(t))
	m.run.opts.IndexFile = filepath.Join(t.TempDir(), "index")
	m.write("a", "1")
	m.write("b", "2")
	time.Sleep(2 * racyWindow) // so that the files' time stamps prove something
	m.mustSave(false)
	run, err := Resume(t.Context(), m.st, m.run.Memento(), m.run.opts)
	if err != nil {
		t.Fatal(err)
	}
	c, err := run.Capture(t.Context(), m.root, filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	if c.copied != 0 || len(c.changed) != 0 {
		t.Errorf("copied %d bytes of %d paths, want nothing", c.copied, len(c.changed))
	}
}

// Worn segments go, large ones that are mostly live stay.
func TestWorn(t *testing.T) {
	seg := func(name string, raw int64) segmentRef { return segmentRef{Name: name, Raw: raw} }
	o := Options{MaxSegments: 4, MaxDead: 100}
	for name, c := range map[string]struct {
		segments []segmentRef
		live     map[string]int64
		want     string
	}{
		"few and live":     {[]segmentRef{seg("a", 100), seg("b", 10)}, map[string]int64{"a": 100, "b": 10}, "map[]"},
		"many":             {[]segmentRef{seg("a", 100), seg("b", 1), seg("c", 1), seg("d", 1)}, map[string]int64{"a": 100, "b": 1, "c": 1, "d": 1}, "map[b:true c:true d:true]"},
		"much is dead":     {[]segmentRef{seg("a", 300), seg("b", 90)}, map[string]int64{"a": 100, "b": 90}, "map[a:true]"},
		"dead within size": {[]segmentRef{seg("a", 300), seg("b", 90)}, map[string]int64{"a": 200, "b": 90}, "map[]"},
		"metadata only":    {[]segmentRef{seg("a", 0), seg("b", 0), seg("c", 0), seg("d", 0)}, nil, "map[a:true b:true c:true d:true]"},
	} {
		if got := fmt.Sprint(worn(c.segments, c.live, o)); got != c.want {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
	}
}
