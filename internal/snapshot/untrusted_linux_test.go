package snapshot

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// What docs/snapshot-format.md says of a file is what becomes of it: the content and
// the permission bits are kept, all else that a sandbox may have put on it is not.
func TestWhatIsNotKept(t *testing.T) {
	sparse := append(make([]byte, 3<<20), "end"...)
	for name, c := range map[string]struct {
		make func(path string) error
		root bool // only root can make it
	}{
		"set-id bits": {make: func(p string) error {
			return errors.Join(os.Chmod(filepath.Join(p, "f"), 0o751|os.ModeSetuid|os.ModeSetgid), os.Chmod(filepath.Join(p, "d"), 0o751|os.ModeSetgid|os.ModeSticky))
		}},
		"extended attributes": {make: func(p string) error {
			return errors.Join(unix.Setxattr(filepath.Join(p, "f"), "user.note", []byte("x"), 0), unix.Setxattr(filepath.Join(p, "d"), "user.note", []byte("x"), 0))
		}},
		"file capabilities": {root: true, make: func(p string) error {
			// Version 2, effective, CAP_NET_RAW; see capabilities(7).
			return unix.Setxattr(filepath.Join(p, "f"), "security.capability", []byte{1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}, 0)
		}},
		"an access control list": {make: func(p string) error {
			// Version 2 and five entries of tag, permissions and id: user::7, user:1:7, group::5, mask::7, other::1.
			return unix.Setxattr(filepath.Join(p, "f"), "system.posix_acl_access", []byte{2, 0, 0, 0,
				1, 0, 7, 0, 255, 255, 255, 255, 2, 0, 7, 0, 1, 0, 0, 0, 4, 0, 5, 0, 255, 255, 255, 255, 16, 0, 7, 0, 255, 255, 255, 255, 32, 0, 1, 0, 255, 255, 255, 255}, 0)
		}},
		"an owner": {root: true, make: func(p string) error { return os.Chown(filepath.Join(p, "f"), 12345, 12345) }},
		"holes": {make: func(p string) error {
			f, err := os.Create(filepath.Join(p, "f"))
			if err != nil {
				return err
			}
			defer f.Close()
			_, err = f.WriteAt([]byte("end"), 3<<20)
			return err
		}},
	} {
		t.Run(name, func(t *testing.T) {
			if c.root && os.Geteuid() != 0 {
				t.Skip("needs root")
			}
			st := dirStore(t)
			m := start(t, st)
			m.write("f", "content")
			m.write("d/inside", "content")
			if err := c.make(m.path); errors.Is(err, unix.EOPNOTSUPP) {
				t.Skip("the file system of the test has no such thing")
			} else if err != nil {
				t.Fatal(err)
			}
			was, err := os.Stat(filepath.Join(m.path, "f"))
			if err != nil {
				t.Fatal(err)
			}
			m.mustSave(true)
			got := start(t, st).path
			for _, p := range []string{"f", "d"} {
				info, err := os.Stat(filepath.Join(got, p))
				if err != nil {
					t.Fatal(err)
				}
				if odd := info.Mode() & (os.ModeSetuid | os.ModeSetgid | os.ModeSticky); odd != 0 {
					t.Errorf("%s came back with %s", p, odd)
				}
				var s unix.Stat_t
				if err := unix.Stat(filepath.Join(got, p), &s); err != nil || int(s.Uid) != os.Geteuid() {
					t.Errorf("%s came back as the file of user %d, %v", p, s.Uid, err)
				}
				for _, x := range []string{"user.note", "security.capability", "system.posix_acl_access"} {
					if n, err := unix.Getxattr(filepath.Join(got, p), x, nil); err == nil {
						t.Errorf("%s came back with %s, of %d bytes", p, x, n)
					}
				}
				if p == "f" && info.Mode().Perm() != was.Mode().Perm() {
					t.Errorf("f came back with %s, was %s", info.Mode().Perm(), was.Mode().Perm())
				}
			}
			want := []byte("content")
			if name == "holes" {
				want = sparse
			}
			if b, err := os.ReadFile(filepath.Join(got, "f")); err != nil || !bytes.Equal(b, want) {
				t.Errorf("f came back with %d bytes, %v; want %d", len(b), err, len(want))
			}
		})
	}
}

// A hard link becomes a file of its own: the two are no longer one.
func TestHardLinkIsCopied(t *testing.T) {
	st := dirStore(t)
	m := start(t, st)
	m.write("one", "content")
	if err := os.Link(filepath.Join(m.path, "one"), filepath.Join(m.path, "two")); err != nil {
		t.Fatal(err)
	}
	m.mustSave(true)
	b := start(t, st)
	same(t, b.path, m.path)
	b.write("one", "changed")
	if text, err := os.ReadFile(filepath.Join(b.path, "two")); err != nil || string(text) != "content" {
		t.Errorf("a change of one is %q, %v, in two", text, err)
	}
}

// A device is passed over, and never read: this one would have no end.
func TestDevice(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("making a device needs root")
	}
	st := dirStore(t)
	m := start(t, st)
	m.write("kept", "1")
	const devZero = 1<<8 | 5
	for name, kind := range map[string]uint32{"character": unix.S_IFCHR, "block": unix.S_IFBLK} {
		if err := unix.Mknod(filepath.Join(m.path, name), kind|0o666, devZero); err != nil {
			t.Skipf("no devices can be made here: %v", err)
		}
	}
	if s := m.mustSave(true); s.Skipped != 2 {
		t.Errorf("skipped %d, want the two devices", s.Skipped)
	}
	if got := tree(t, start(t, st).path); len(got) != 1 || got["kept"] == "" {
		t.Errorf("restored %v, want only the file", got)
	}
}

// A path of up to 4096 bytes is kept. What lies deeper is passed over, and keeps
// nothing else from being saved.
func TestDeepPaths(t *testing.T) {
	st := dirStore(t)
	m := start(t, st)
	m.write("kept", "1")
	// Fifteen folders of 255 bytes, one of 254 and their slashes are 4095 bytes: a name
	// of one byte below makes a path that just fits.
	at := m.root
	var path []string
	into := func(name string) {
		t.Helper()
		if err := at.Mkdir(name, 0o755); err != nil {
			t.Fatal(err)
		}
		next, err := at.OpenRoot(name)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { next.Close() })
		at, path = next, append(path, name)
	}
	write := func(name string) {
		t.Helper()
		if err := at.WriteFile(name, []byte(name), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for range 15 {
		into(strings.Repeat("d", 255))
	}
	into(strings.Repeat("e", 254))
	write("f")
	write("gg")
	into("h") // is still kept: its path is as long as f's
	write("i")
	if n := len(strings.Join(path, "/")); n != 4096 {
		t.Fatalf("the test's last folder has a path of %d bytes, want 4096", n)
	}
	m.mustSave(true)

	b := start(t, st)
	if text, err := b.root.ReadFile("kept"); err != nil || string(text) != "1" {
		t.Errorf("the file beside: %q, %v", text, err)
	}
	deepest, err := b.root.OpenRoot(strings.Join(path[:16], "/"))
	if err != nil {
		t.Fatal(err)
	}
	defer deepest.Close()
	if text, err := deepest.ReadFile("f"); err != nil || string(text) != "f" {
		t.Errorf("the path of 4096 bytes: %q, %v", text, err)
	}
	for _, name := range []string{"gg", "h/i"} {
		if _, err := deepest.Lstat(name); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s, whose path is longer: %v, want that it was passed over", name, err)
		}
	}
}
