package spool

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"openclaw-sandbox/internal/objstore"
	"openclaw-sandbox/internal/snapshot"
)

// away is a store that can be out of reach.
type away struct {
	objstore.Store
	now atomic.Bool
}

func (a *away) Put(ctx context.Context, key string, body io.ReadSeeker, c objstore.Condition) (string, error) {
	if a.now.Load() {
		return "", objstore.ErrUnreachable
	}
	return a.Store.Put(ctx, key, body, c)
}

func (a *away) Upload(ctx context.Context, key string, body io.Reader) error {
	if a.now.Load() {
		return objstore.ErrUnreachable
	}
	return a.Store.Upload(ctx, key, body)
}

// node is a run whose state is in a folder of ours.
type node struct {
	t     *testing.T
	st    *away
	run   *snapshot.Run
	spool *Spool
	dir   string
	opts  snapshot.Options
}

const user = "alice"

var writer = snapshot.Writer{Alloc: "alloc", Node: "node"}

func start(t *testing.T, st *away) *node { return startIn(t, st, t.TempDir()) }

func startIn(t *testing.T, st *away, dir string) *node {
	t.Helper()
	n := &node{t: t, st: st, dir: dir, opts: snapshot.DefaultOptions()}
	var err error
	if n.spool, err = Open(filepath.Join(n.dir, "spool")); err != nil {
		t.Fatal(err)
	}
	n.opts.IndexFile = filepath.Join(n.dir, "index")
	if n.run, err = snapshot.Claim(t.Context(), st, user, writer, n.opts); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(n.state(), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := n.run.Restore(t.Context(), n.root(), nil); err != nil {
		t.Fatal(err)
	}
	return n
}

func (n *node) state() string { return filepath.Join(n.dir, "state") }

func (n *node) root() *os.Root {
	r, err := os.OpenRoot(n.state())
	if err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(func() { r.Close() })
	return r
}

func (n *node) write(text string) {
	if err := os.WriteFile(filepath.Join(n.state(), "f"), []byte(text), 0o600); err != nil {
		n.t.Fatal(err)
	}
}

func (n *node) save() error {
	c, err := n.run.Capture(n.t.Context(), n.root(), filepath.Join(n.dir, "staging"))
	if err != nil {
		return err
	}
	_, err = n.run.Commit(n.t.Context(), c, true)
	return err
}

func (n *node) saveStill() error {
	c, err := n.run.Still(n.t.Context(), n.root())
	if err != nil {
		return err
	}
	_, err = n.run.Commit(n.t.Context(), c, true)
	return err
}

func (n *node) add() Entry {
	n.t.Helper()
	e, err := n.spool.Add(n.run.Memento(), writer, n.state(), n.opts.IndexFile)
	if err != nil {
		n.t.Fatal(err)
	}
	return e
}

func store(t *testing.T) *away {
	st, err := objstore.OpenDir(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return &away{Store: st}
}

func stored(t *testing.T, st objstore.Store, h *snapshot.Head) string {
	t.Helper()
	tree, err := snapshot.OpenTree(t.Context(), st, h, snapshot.DefaultOptions())
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	if err := tree.Copy(t.Context(), &b, "f"); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// A state whose last save failed is saved later, also by another process.
func TestUploadedLater(t *testing.T) {
	st := store(t)
	n := start(t, st)
	n.write("before")
	if err := n.save(); err != nil {
		t.Fatal(err)
	}
	n.write("last words")
	st.now.Store(true)
	if err := n.save(); !errors.Is(err, objstore.ErrUnreachable) {
		t.Fatalf("save: %v", err)
	}
	e := n.add()
	if _, err := os.Stat(n.state()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the state is still in the run's folder: %v", err)
	}
	if _, err := e.Upload(t.Context(), st, n.opts); !errors.Is(err, objstore.ErrUnreachable) {
		t.Errorf("upload while the store is away: %v", err)
	}
	st.now.Store(false)
	again, err := Open(n.spool.dir)
	if err != nil {
		t.Fatal(err)
	}
	entries, err := again.Of(user)
	if err != nil || len(entries) != 1 {
		t.Fatalf("entries: %v, %v", entries, err)
	}
	if other, err := again.Of("bob"); err != nil || len(other) != 0 {
		t.Errorf("of another user: %v, %v", other, err)
	}
	if branch, err := entries[0].Upload(t.Context(), st, n.opts); err != nil || branch != "" {
		t.Fatalf("upload: %q, %v", branch, err)
	}
	h, _, err := snapshot.ReadHead(t.Context(), st, user)
	if err != nil || h.State != snapshot.StateClean || stored(t, st, h) != "last words" {
		t.Errorf("head: %+v, %v", h, err)
	}
	if left, err := again.List(); err != nil || len(left) != 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}

// A state that comes after a newer run took over becomes a branch.
func TestTooLateIsABranch(t *testing.T) {
	st := store(t)
	n := start(t, st)
	n.write("late")
	e := n.add()
	newer := start(t, st)
	newer.write("newer")
	if err := newer.save(); err != nil {
		t.Fatal(err)
	}
	branch, err := e.Upload(t.Context(), st, n.opts)
	if err != nil || branch == "" {
		t.Fatalf("upload: %q, %v", branch, err)
	}
	h, err := snapshot.ReadBranch(t.Context(), st, user, branch)
	if err != nil || stored(t, st, h) != "late" {
		t.Errorf("branch: %v", err)
	}
	if h, _, err = snapshot.ReadHead(t.Context(), st, user); err != nil || stored(t, st, h) != "newer" {
		t.Errorf("head: %v", err)
	}
}

// Whatever step of Add a crash cuts off, the state is in one place, whole.
func TestCrashInAdd(t *testing.T) {
	for name, c := range map[string]struct {
		cut  func(n *node, half string)
		want int
	}{
		"before the state moved": {func(n *node, half string) {
			if err := os.Rename(filepath.Join(half, stateName), n.state()); err != nil {
				n.t.Fatal(err)
			}
		}, 0},
		"after": {func(*node, string) {}, 1},
	} {
		t.Run(name, func(t *testing.T) {
			n := start(t, store(t))
			n.write("x")
			e := n.add()
			half := filepath.Join(n.spool.dir, unready+filepath.Base(e.dir))
			if err := os.Rename(e.dir, half); err != nil {
				t.Fatal(err)
			}
			c.cut(n, half)
			if list, err := n.spool.List(); err != nil || len(list) != 0 {
				t.Errorf("a half entry is listed: %v, %v", list, err)
			}
			again, err := Open(n.spool.dir)
			if err != nil {
				t.Fatal(err)
			}
			list, err := again.List()
			if err != nil || len(list) != c.want {
				t.Errorf("entries: %v, %v; want %d", list, err, c.want)
			}
		})
	}
}

func TestUnreadableEntryIsAnError(t *testing.T) {
	n := start(t, store(t))
	n.write("x")
	n.add()
	if err := os.Mkdir(filepath.Join(n.spool.dir, "odd"), 0o700); err != nil {
		t.Fatal(err)
	}
	list, err := n.spool.List()
	if err == nil || len(list) != 1 {
		t.Errorf("list: %v, %v; want the good one and an error", list, err)
	}
}
