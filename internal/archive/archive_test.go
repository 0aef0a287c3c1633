package archive_test

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"openclaw-sandbox/internal/archive"
	"openclaw-sandbox/internal/objstore"
	"openclaw-sandbox/internal/snapshot"
)

func root(t *testing.T) (*os.Root, string) {
	t.Helper()
	dir := t.TempDir()
	r, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	return r, dir
}

// What goes out of the store comes in again the same.
func TestRoundTrip(t *testing.T) {
	st, err := objstore.OpenDir(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	src, dir := root(t)
	big := strings.Repeat("0123456789abcdef", 40<<10)
	stamp := time.Unix(1_700_000_000, 123_456_789)
	for _, err := range []error{
		os.MkdirAll(filepath.Join(dir, "a", "closed"), 0o755), os.WriteFile(filepath.Join(dir, "a", "big"), []byte(big), 0o640),
		os.WriteFile(filepath.Join(dir, "a", "name\nwith lines"), []byte("x"), 0o600), os.Symlink("/etc/passwd", filepath.Join(dir, "out")),
		os.Chtimes(filepath.Join(dir, "a", "big"), stamp, stamp),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	if _, err := snapshot.Import(t.Context(), st, "alice", src, snapshot.DefaultOptions()); err != nil {
		t.Fatal(err)
	}
	h, err := snapshot.ReadVersion(t.Context(), st, "alice", 0)
	if err != nil {
		t.Fatal(err)
	}
	tree, err := snapshot.OpenTree(t.Context(), st, h, snapshot.DefaultOptions())
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"x.tar", "x.tar.gz", "x.tgz", "x.tar.zst"} {
		var file bytes.Buffer
		w, err := archive.Compress(name, &file)
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(archive.Write(t.Context(), w, tree, nil), w.Close()); err != nil {
			t.Fatal(err)
		}
		r, err := archive.Decompress(name, &file)
		if err != nil {
			t.Fatal(err)
		}
		to, toDir := root(t)
		if err := archive.Extract(t.Context(), r, to, 1<<30, 100); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		got, err := os.ReadFile(filepath.Join(toDir, "a", "big"))
		info, serr := os.Stat(filepath.Join(toDir, "a", "big"))
		if err := errors.Join(err, serr); err != nil || string(got) != big || info.Mode().Perm() != 0o640 || !info.ModTime().Equal(stamp) {
			t.Errorf("%s: %d bytes, %v, %v", name, len(got), info, err)
		}
		if to, err := os.Readlink(filepath.Join(toDir, "out")); err != nil || to != "/etc/passwd" {
			t.Errorf("%s: the link: %q, %v", name, to, err)
		}
		if _, err := os.Stat(filepath.Join(toDir, "a", "name\nwith lines")); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestHostile(t *testing.T) {
	type member struct {
		name, link string
		kind       byte
		size       int64
	}
	for name, c := range map[string]struct {
		members []member
		want    error // nil: any error, but for what is fine
		fine    bool
	}{
		"above":         {[]member{{"../evil", "", tar.TypeReg, 0}}, archive.ErrHostile, false},
		"above, later":  {[]member{{"a/../../evil", "", tar.TypeReg, 0}}, archive.ErrHostile, false},
		"absolute":      {[]member{{"/evil", "", tar.TypeReg, 0}}, archive.ErrHostile, false},
		"through link":  {[]member{{"d", "..", tar.TypeSymlink, 0}, {"d/evil", "", tar.TypeReg, 0}}, nil, false},
		"twice":         {[]member{{"a", "", tar.TypeReg, 0}, {"a", "", tar.TypeReg, 0}}, nil, false},
		"many":          {[]member{{"1", "", tar.TypeReg, 0}, {"2", "", tar.TypeReg, 0}, {"3", "", tar.TypeReg, 0}, {"4", "", tar.TypeReg, 0}}, snapshot.ErrTooLarge, false},
		"large":         {[]member{{"1", "", tar.TypeReg, 999}, {"2", "", tar.TypeReg, 999}}, snapshot.ErrTooLarge, false},
		"not a tar":     {nil, nil, false},
		"below a file":  {[]member{{"f", "", tar.TypeReg, 0}, {"f/g", "", tar.TypeReg, 0}}, nil, false},
		"device: fine":  {[]member{{"dev", "", tar.TypeChar, 0}}, nil, true},
		"hard link out": {[]member{{"h", "/etc/passwd", tar.TypeLink, 0}}, nil, true},
	} {
		t.Run(name, func(t *testing.T) {
			var file bytes.Buffer
			w := tar.NewWriter(&file)
			for _, m := range c.members {
				if err := w.WriteHeader(&tar.Header{Name: m.name, Linkname: m.link, Typeflag: m.kind, Size: m.size, Mode: 0o644}); err != nil {
					t.Fatal(err)
				}
				if _, err := w.Write(make([]byte, m.size)); err != nil {
					t.Fatal(err)
				}
			}
			if err := w.Close(); err != nil {
				t.Fatal(err)
			}
			if c.members == nil {
				file.Reset()
				file.WriteString(strings.Repeat("no tar at all ", 100))
			}
			to, dir := root(t)
			err := archive.Extract(t.Context(), &file, to, 1000, 3)
			switch {
			case c.fine != (err == nil), c.want != nil && !errors.Is(err, c.want):
				t.Errorf("err = %v, want %v", err, c.want)
			}
			if _, err := os.Lstat(filepath.Join(filepath.Dir(dir), "evil")); err == nil {
				t.Error("something was written outside")
			}
		})
	}
}

func TestDecompressRefuses(t *testing.T) {
	if _, err := archive.Decompress("x.gz", strings.NewReader("no gzip")); err == nil {
		t.Error("no gzip: no error")
	}
	r, err := archive.Decompress("x.zst", strings.NewReader("no zstd"))
	if err == nil {
		_, err = io.ReadAll(r)
	}
	if err == nil {
		t.Error("no zstd: no error")
	}
}
