package snapshot

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// A folder that is restored into belongs to nobody else. Even so, what somebody put
// there is neither followed nor written over.
func TestAFileIsPlacedThroughNoLink(t *testing.T) {
	for name, c := range map[string]struct {
		plant func(dir, outside string) error
		path  pathname
		size  int64 // of the file, of which one byte is written
	}{
		"a whole file where a link is":      {func(dir, out string) error { return os.Symlink(out+"/f", dir+"/f") }, "f", 1},
		"a part of a file where a link is":  {func(dir, out string) error { return os.Symlink(out+"/f", dir+"/f") }, "f", 2},
		"a whole file where one is":         {func(dir, _ string) error { return os.WriteFile(dir+"/f", nil, 0o600) }, "f", 1},
		"a file below a link to a folder":   {func(dir, out string) error { return os.Symlink(out, dir+"/d") }, "d/f", 1},
		"a file two below a link":           {func(dir, out string) error { return os.Symlink(out, dir+"/d") }, "d/e/f", 1},
		"a part of a file below such a one": {func(dir, out string) error { return os.Symlink(out, dir+"/d") }, "d/f", 2},
	} {
		t.Run(name, func(t *testing.T) {
			dir, outside := t.TempDir(), t.TempDir()
			for _, f := range []string{"f", "e/f"} {
				if err := os.MkdirAll(filepath.Dir(filepath.Join(outside, f)), 0o700); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(filepath.Join(outside, f), []byte("old"), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			if err := c.plant(dir, outside); err != nil {
				t.Fatal(err)
			}
			root, err := os.OpenRoot(dir)
			if err != nil {
				t.Fatal(err)
			}
			defer root.Close()
			tgt := &target{dir: root, reader: &reader{opts: DefaultOptions()}}
			in := &folder{top: root}
			defer in.close()
			k := &known{Record: record{Entry: entry{Path: c.path, Kind: kindFile, Mode: 0o644, Size: c.size}}}
			if err := tgt.write(in, k, []byte("x"), 0); err == nil {
				t.Error("it was written")
			}
			for _, f := range []string{"f", "e/f"} {
				if got, err := os.ReadFile(filepath.Join(outside, f)); err != nil || string(got) != "old" {
					t.Errorf("outside, %s holds %q, %v", f, got, err)
				}
			}
		})
	}
}

func TestFilesArePlacedInTheirFolders(t *testing.T) {
	root, err := os.OpenRoot(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	if err := root.Mkdir("d", 0o700); err != nil {
		t.Fatal(err)
	}
	in := &folder{top: root}
	defer in.close()
	for _, p := range []pathname{"top", "d/a", "d/b", "again"} {
		if err := in.open(p, unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY, 0o600, func(_ int, _ string, fd int) error { return writeAll(fd, []byte(p), 0) }); err != nil {
			t.Fatal(err)
		}
		if got, err := root.ReadFile(string(p)); err != nil || string(got) != string(p) {
			t.Errorf("%s holds %q, %v", p, got, err)
		}
	}
}
