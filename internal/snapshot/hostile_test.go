package snapshot

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"openclaw-sandbox/internal/objstore"
)

func put(t *testing.T, st objstore.Store, key string, b []byte) {
	t.Helper()
	if _, err := st.Put(t.Context(), key, bytes.NewReader(b), objstore.Condition{}); err != nil {
		t.Fatal(err)
	}
}

func objects(t *testing.T, st objstore.Store) map[string][]byte {
	t.Helper()
	out := map[string][]byte{}
	for info, err := range st.List(t.Context(), "users/") {
		if err != nil {
			t.Fatal(err)
		}
		body, _, err := st.Get(t.Context(), info.Key)
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(body)
		body.Close()
		if err != nil {
			t.Fatal(err)
		}
		out[info.Key] = b
	}
	return out
}

// What is no file, folder or link is passed over, and never waited for.
func TestSpecialFiles(t *testing.T) {
	st := dirStore(t)
	m := start(t, st)
	m.write("kept", "1")
	m.write("hard", "linked")
	for _, err := range []error{
		syscall.Mkfifo(filepath.Join(m.path, "fifo"), 0o600),
		os.Link(filepath.Join(m.path, "hard"), filepath.Join(m.path, "hard2")),
		os.Chmod(filepath.Join(m.path, "kept"), 0o755|os.ModeSetuid),
		os.Truncate(filepath.Join(m.path, "kept"), 3<<20), // sparse
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	l, err := net.Listen("unix", filepath.Join(m.path, "s"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	s := m.mustSave(true)
	if s.Skipped != 2 {
		t.Errorf("skipped %d, want the FIFO and the socket", s.Skipped)
	}
	b := start(t, st)
	got := tree(t, b.path)
	if len(got) != 3 || got["fifo"] != "" || got["s"] != "" {
		t.Errorf("restored %v, want kept, hard and hard2", got)
	}
	if strings.Contains(got["kept"], "u") && strings.HasPrefix(got["kept"], "u") {
		t.Errorf("the set-id bit came back: %s", got["kept"])
	}
}

// A link that replaces a folder between saves does not lead the driver out.
func TestLinkOut(t *testing.T) {
	outside := t.TempDir()
	if err := os.WriteFile(filepath.Join(outside, "secret"), []byte("of the host"), 0o600); err != nil {
		t.Fatal(err)
	}
	st := dirStore(t)
	m := start(t, st)
	m.write("d/f", "inside")
	m.mustSave(false)
	os.RemoveAll(filepath.Join(m.path, "d"))
	if err := os.Symlink(outside, filepath.Join(m.path, "d")); err != nil {
		t.Fatal(err)
	}
	m.mustSave(true)
	for k, b := range objects(t, st) {
		if bytes.Contains(b, []byte("of the host")) {
			t.Errorf("%s holds a file from outside", k)
		}
	}
	b := start(t, st)
	same(t, b.path, m.path)
}

func TestExcludes(t *testing.T) {
	st := dirStore(t)
	m := start(t, st)
	for _, p := range []string{"openclaw/cache/x/y", "openclaw/tmp/a", "openclaw/state/openclaw.sqlite-shm", "home/.npm/_logs/1", "openclaw/agents/a/agent/x.reindex-lock.sqlite-wal"} {
		m.write(p, "no")
	}
	for _, p := range []string{"openclaw/state/openclaw.sqlite", "openclaw/state/openclaw.sqlite-wal", "workspace/cache/x", "workspace/tmp"} {
		m.write(p, "yes")
	}
	m.mustSave(true)
	for p, what := range tree(t, start(t, st).path) {
		if !strings.HasPrefix(what, "d") && (strings.Contains(p, "-shm") || strings.HasPrefix(p, "openclaw/cache") || strings.HasPrefix(p, "home") || strings.Contains(p, "reindex")) {
			t.Errorf("%s was saved", p)
		}
	}
	got := tree(t, start(t, st).path)
	for _, p := range []string{"openclaw/state/openclaw.sqlite", "openclaw/state/openclaw.sqlite-wal", "workspace/cache/x", "workspace/tmp"} {
		if got[p] == "" {
			t.Errorf("%s was not saved", p)
		}
	}
	if err := CheckExcludes([]string{"a/[", "ok"}); err == nil {
		t.Error("a broken pattern was accepted")
	}
}

func TestLimits(t *testing.T) {
	for name, set := range map[string]func(*Options){
		"bytes": func(o *Options) { o.MaxBytes = 10 },
		"file":  func(o *Options) { o.MaxFile = 10 },
		"files": func(o *Options) { o.MaxFiles = 2 },
	} {
		t.Run(name, func(t *testing.T) {
			st := dirStore(t)
			m := start(t, st)
			m.write("a/b", strings.Repeat("x", 100))
			m.write("a/c", "1")
			set(&m.run.opts)
			if _, err := m.save(true); !errors.Is(err, ErrTooLarge) {
				t.Errorf("save: %v, want ErrTooLarge", err)
			}
			set2 := DefaultOptions()
			m.run.opts = set2
			m.mustSave(true)
			limited := DefaultOptions()
			set(&limited)
			n, err := Claim(t.Context(), st, user, Writer{Alloc: "a", Node: "n"}, limited)
			if err != nil {
				t.Fatal(err)
			}
			empty, err := os.OpenRoot(t.TempDir())
			if err != nil {
				t.Fatal(err)
			}
			defer empty.Close()
			if err := n.Restore(t.Context(), empty, nil); !errors.Is(err, ErrTooLarge) {
				t.Errorf("restore: %v, want ErrTooLarge", err)
			}
		})
	}
}

// forge writes a segment with this metadata and a head that names it.
func forge(t *testing.T, st objstore.Store, meta segmentMeta, content []byte, edit func(*Head)) {
	t.Helper()
	raw, err := json.Marshal(meta)
	if err != nil {
		t.Fatal(err)
	}
	packed := encoder.EncodeAll(raw, nil)
	sum := sha256.Sum256(packed)
	h := Head{Version: 1, User: user, Epoch: 1, State: StateClean, Segments: []segmentRef{{Name: "x", Size: int64(len(content) + len(packed)),
		MetaOff: int64(len(content)), MetaRaw: int64(len(raw)), MetaSum: sum[:]}}}
	if edit != nil {
		edit(&h)
	}
	put(t, st, segmentKey(user, "x"), append(bytes.Clone(content), packed...))
	rawHead, err := json.Marshal(h)
	if err != nil {
		t.Fatal(err)
	}
	put(t, st, headKey(user), rawHead)
}

// hostileRestore claims and restores what is in st, into a folder that nothing may
// leave.
func hostileRestore(t *testing.T, st objstore.Store) error {
	t.Helper()
	around := t.TempDir()
	dir := filepath.Join(around, "state")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	run, err := Claim(t.Context(), st, user, Writer{}, DefaultOptions())
	if err == nil {
		err = run.Restore(t.Context(), root, nil)
	}
	if names, rerr := os.ReadDir(around); rerr != nil || len(names) != 1 {
		t.Errorf("something was written beside the state: %v, %v", names, rerr)
	}
	return err
}

// A malicious bucket gives an error: no panic, no large allocation, nothing
// written outside.
func TestHostileBucket(t *testing.T) {
	content := encoder.EncodeAll(bytes.Repeat([]byte("x"), 100), nil)
	sum := sha256.Sum256(content)
	good := block{Off: 0, Len: int64(len(content)), Raw: 100, Sum: sum[:]}
	bomb := encoder.EncodeAll(make([]byte, 64<<20), nil)
	bombSum := sha256.Sum256(bomb)
	file := func(p string) []entry {
		return []entry{{Path: pathname(p), Kind: kindFile, Size: 100, Extents: []extent{{Len: 100}}}}
	}
	cases := map[string]struct {
		meta    segmentMeta
		content []byte
		edit    func(*Head)
		want    error // ErrCorrupt if nil
	}{
		"dot dot":         {meta: segmentMeta{Blocks: []block{good}, Entries: file("../evil")}},
		"absolute":        {meta: segmentMeta{Blocks: []block{good}, Entries: file("/evil")}},
		"nul":             {meta: segmentMeta{Blocks: []block{good}, Entries: file("a\x00b")}},
		"no parent":       {meta: segmentMeta{Blocks: []block{good}, Entries: file("a/b")}},
		"through a link":  {meta: segmentMeta{Blocks: []block{good}, Entries: append(file("l/evil"), entry{Path: "l", Kind: kindLink, Target: "/tmp"})}},
		"extent outside":  {meta: segmentMeta{Blocks: []block{good}, Entries: []entry{{Path: "a", Kind: kindFile, Size: 100, Extents: []extent{{Off: 50, Len: 100}}}}}},
		"extent negative": {meta: segmentMeta{Blocks: []block{good}, Entries: []entry{{Path: "a", Kind: kindFile, Size: 100, Extents: []extent{{Off: -50, Len: 100}}}}}},
		"no such block":   {meta: segmentMeta{Blocks: []block{good}, Entries: []entry{{Path: "a", Kind: kindFile, Size: 1, Extents: []extent{{Block: 7, Len: 1}}}}}},
		"size lies":       {meta: segmentMeta{Blocks: []block{good}, Entries: []entry{{Path: "a", Kind: kindFile, Size: 1 << 50}}}},
		"block outside":   {meta: segmentMeta{Blocks: []block{{Off: 1 << 40, Len: 100, Raw: 100}}, Entries: file("a")}},
		"block huge":      {meta: segmentMeta{Blocks: []block{{Len: 1, Raw: 1 << 40}}, Entries: file("a")}},
		"bomb":            {meta: segmentMeta{Blocks: []block{{Len: int64(len(bomb)), Raw: 100, Sum: bombSum[:]}}, Entries: file("a")}, content: bomb},
		"set-id":          {meta: segmentMeta{Entries: []entry{{Path: "a", Kind: kindFile, Mode: 0o4755}}}},
		"unknown kind":    {meta: segmentMeta{Entries: []entry{{Path: "a", Kind: "z"}}}},
		"meta huge":       {edit: func(h *Head) { h.Segments[0].MetaRaw = 1 << 50 }},
		"meta lies":       {edit: func(h *Head) { h.Segments[0].MetaRaw++ }},
		"meta negative":   {edit: func(h *Head) { h.Segments[0].MetaOff = -1 }},
		"another's":       {edit: func(h *Head) { h.User = "bob" }},
		"future version":  {edit: func(h *Head) { h.Version = 99 }, want: ErrNewer},
		"no version":      {edit: func(h *Head) { h.Version = 0 }},
		"unknown state":   {edit: func(h *Head) { h.State = "odd" }},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			st := dirStore(t)
			if c.content == nil {
				c.content = content
			}
			forge(t, st, c.meta, c.content, c.edit)
			want := cmp.Or(c.want, ErrCorrupt)
			if err := hostileRestore(t, st); !errors.Is(err, want) && !errors.Is(err, ErrTooLarge) {
				t.Errorf("err = %v, want %v", err, want)
			}
		})
	}
	// The control: what forge makes is readable when nothing is wrong.
	st := dirStore(t)
	forge(t, st, segmentMeta{Blocks: []block{good}, Entries: file("a")}, content, nil)
	if got := tree(t, start(t, st).path); len(got) != 1 {
		t.Errorf("the control restored %v", got)
	}
}

// Hostile values that check lets through.
func TestHostileNamesAreCorruption(t *testing.T) {
	for name, c := range map[string]struct {
		meta segmentMeta
		edit func(*Head)
	}{
		"segment name": {edit: func(h *Head) { h.Segments[0].Name = "../../bob/seg/x" }},
		"empty target": {meta: segmentMeta{Entries: []entry{{Path: "l", Kind: kindLink}}}},
		"nul target":   {meta: segmentMeta{Entries: []entry{{Path: "l", Kind: kindLink, Target: "a\x00"}}}},
	} {
		t.Run(name, func(t *testing.T) {
			st := dirStore(t)
			forge(t, st, c.meta, nil, c.edit)
			err := hostileRestore(t, st)
			if !errors.Is(err, ErrCorrupt) {
				t.Errorf("%v, want ErrCorrupt", err)
			}
		})
	}
}

// A block that claims to be stored in 8 TiB. In a process of its own.
func TestHugeBlock(t *testing.T) {
	if os.Getenv("TEST_HUGE_BLOCK") == "" {
		cmd := exec.Command(os.Args[0], "-test.run=^TestHugeBlock$", "-test.v")
		cmd.Env = append(os.Environ(), "TEST_HUGE_BLOCK=1")
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Errorf("the process died: %v\n%.600s", err, out)
		}
		return
	}
	const huge = int64(8) << 40
	dir := filepath.Join(t.TempDir(), "b")
	st, err := objstore.OpenDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	forge(t, st, segmentMeta{Blocks: []block{{Len: huge, Raw: 100, Sum: make([]byte, 32)}},
		Entries: []entry{{Path: "a", Kind: kindFile, Size: 100, Extents: []extent{{Len: 100}}}}}, nil,
		func(h *Head) { h.Segments[0].MetaOff += huge; h.Segments[0].Size += huge })
	name := filepath.Join(dir, segmentKey(user, "x"))
	packed, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(name, os.O_RDWR|os.O_TRUNC, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt(packed, huge); err != nil {
		t.Fatalf("setup (sparse file): %v", err)
	}
	f.Close()
	m := claim(t, st)
	err = m.run.Restore(t.Context(), m.root, nil)
	t.Logf("%v", err)
	if !errors.Is(err, ErrCorrupt) {
		t.Errorf("%v, want ErrCorrupt", err)
	}
}
