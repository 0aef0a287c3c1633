package spool

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"openclaw-sandbox/internal/objstore"
	"openclaw-sandbox/internal/snapshot"
)

// fill writes into the state until the disk is full, and returns how much went in.
func (n *node) fill() int64 {
	n.t.Helper()
	f, err := os.Create(filepath.Join(n.state(), "fill"))
	if err != nil {
		n.t.Fatal(err)
	}
	defer f.Close()
	var size int64
	for page := make([]byte, 4096); ; {
		m, err := f.Write(page)
		size += int64(m)
		if errors.Is(err, unix.ENOSPC) {
			return size
		}
		if err != nil {
			n.t.Fatal(err)
		}
	}
}

// A sandbox fills the node's disk. What was committed stays as it was, the last
// save needs no room, and if the store is away too, the state waits all the same.
func TestDiskFull(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("mounting a small disk needs root")
	}
	for name, storeAway := range map[string]bool{"at the last save": false, "and the store is away": true} {
		t.Run(name, func(t *testing.T) {
			disk := t.TempDir()
			if err := unix.Mount("tmpfs", disk, "tmpfs", 0, "size=2m"); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { unix.Unmount(disk, unix.MNT_DETACH) })
			st := store(t)
			n := startIn(t, st, disk)
			if err := n.spool.Reserve(n.run.Memento(), writer); err != nil {
				t.Fatal(err)
			}
			n.write("committed")
			if err := n.save(); err != nil {
				t.Fatal(err)
			}
			n.write("last words")
			size := n.fill()
			if err := n.save(); !errors.Is(err, unix.ENOSPC) {
				t.Fatalf("a save while the sandbox runs: %v, want that the disk is full", err)
			}
			h, _, err := snapshot.ReadHead(t.Context(), st, user)
			if err != nil || stored(t, st, h) != "committed" {
				t.Fatalf("what was committed: %v", err)
			}
			st.now.Store(storeAway)
			err = n.saveStill()
			if storeAway {
				if !errors.Is(err, objstore.ErrUnreachable) {
					t.Fatalf("the last save: %v, want ErrUnreachable", err)
				}
				e := n.add()
				st.now.Store(false)
				if branch, err := e.Upload(t.Context(), st, n.opts); err != nil || branch != "" {
					t.Fatalf("upload: %q, %v", branch, err)
				}
			} else if err != nil {
				t.Fatalf("the last save: %v", err)
			}
			if h, _, err = snapshot.ReadHead(t.Context(), st, user); err != nil || stored(t, st, h) != "last words" || h.Bytes != size+int64(len("last words")) {
				t.Errorf("after the end: %+v, %v; want %d bytes and the last words", h, err, size)
			}
		})
	}
}

// Release removes a reserved place, but never one with a state in it.
func TestRelease(t *testing.T) {
	n := start(t, store(t))
	if err := errors.Join(n.spool.Reserve(n.run.Memento(), writer), n.spool.Release(n.run.Memento(), writer)); err != nil {
		t.Fatal(err)
	}
	if left, err := os.ReadDir(n.spool.dir); err != nil || len(left) != 0 {
		t.Errorf("left: %v, %v", left, err)
	}
	n.write("x")
	half := filepath.Join(n.spool.dir, unready+user+"-"+writer.Alloc)
	if err := os.Rename(n.add().dir, half); err != nil {
		t.Fatal(err)
	}
	if err := n.spool.Release(n.run.Memento(), writer); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(half, stateName, "f")); err != nil {
		t.Errorf("the state is lost: %v", err)
	}
}
