package archive_test

import (
	"archive/tar"
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"openclaw-sandbox/internal/archive"
	"openclaw-sandbox/internal/objstore"
)

// tarball is a state of one file, compressed as its name says.
func tarball(t *testing.T, name, text string) []byte {
	t.Helper()
	var file bytes.Buffer
	z, err := archive.Compress(name, &file)
	if err != nil {
		t.Fatal(err)
	}
	w := tar.NewWriter(z)
	if err := w.WriteHeader(&tar.Header{Name: "openclaw/f", Typeflag: tar.TypeReg, Size: int64(len(text)), Mode: 0o600}); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write([]byte(text)); err != nil {
		t.Fatal(err)
	}
	for _, c := range []interface{ Close() error }{w, z} {
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
	}
	return file.Bytes()
}

func TestFound(t *testing.T) {
	for name, c := range map[string]struct {
		objects map[string]string
		want    string // content of openclaw/f; "" if nothing is to be found
	}{
		"nothing":             {nil, ""},
		"another user's":      {map[string]string{"users/alice2/openclaw/f": "no"}, ""},
		"what is ours":        {map[string]string{"users/alice/gc": "no", "users/alice/seg/1": "no"}, ""},
		"folders":             {map[string]string{"users/alice/openclaw/f": "yes", "users/alice/workspace/x": ""}, "yes"},
		"older name":          {map[string]string{"users/alice/clawdbot/f": "yes"}, "yes"},
		"tar":                 {map[string]string{"users/alice/state.tar": "yes"}, "yes"},
		"tar.gz":              {map[string]string{"users/alice/state.tar.gz": "yes"}, "yes"},
		"tar.zst and folders": {map[string]string{"users/alice/openclaw/f": "no", "users/alice/state.tar.zst": "yes"}, "yes"},
		"no state.tar":        {map[string]string{"users/alice/state.tar.old": "no", "users/alice/my/state.tar": "no"}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			st, err := objstore.OpenDir(t.TempDir())
			if err != nil {
				t.Fatal(err)
			}
			for key, text := range c.objects {
				content := []byte(text)
				if base := filepath.Base(key); len(base) > 5 && base[:5] == "state" {
					content = tarball(t, key, text)
				}
				if _, err := st.Put(t.Context(), key, bytes.NewReader(content), objstore.Condition{}); err != nil {
					t.Fatal(err)
				}
			}
			found, size, err := archive.Found(t.Context(), st, "users/alice")
			if err != nil || (found != "") != (c.want != "") {
				t.Fatalf("found %q, %v", found, err)
			}
			if found == "" {
				return
			}
			to, dir := root(t)
			read := int64(0)
			if err := archive.FromStore(t.Context(), st, found, to, 1<<20, 100, func(n int64) { read += n }); err != nil {
				t.Fatal(err)
			}
			// Of a prefix, what another folder has already is not read.
			if read == 0 || read > size || strings.HasSuffix(found, ".tar") && read != size {
				t.Errorf("told of %d bytes that were read, of %d", read, size)
			}
			if got, err := os.ReadFile(filepath.Join(dir, "openclaw", "f")); err != nil || string(got) != c.want {
				t.Errorf("got %q, %v; want %q", got, err, c.want)
			}
		})
	}
}
