package keyfile

import (
	"bytes"
	"encoding/base64"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestRead(t *testing.T) {
	one, two := bytes.Repeat([]byte{1}, 32), bytes.Repeat([]byte{2}, 32)
	text := func(b []byte) string { return base64.StdEncoding.EncodeToString(b) }
	for name, c := range map[string]struct {
		texts []string // of the files; "-" for one that is not there
		want  [][]byte
		err   string
	}{
		"one":         {texts: []string{text(one)}, want: [][]byte{one}},
		"in order":    {texts: []string{text(two) + "\n", " " + text(one)}, want: [][]byte{two, one}},
		"none":        {},
		"too short":   {texts: []string{text(one), text(one[1:])}, err: "want 32 bytes in base64"},
		"too long":    {texts: []string{text(append(one, 0))}, err: "want 32 bytes in base64"},
		"not base64":  {texts: []string{"secret"}, err: "want 32 bytes in base64"},
		"not a file":  {texts: []string{"-"}, err: "no such file"},
		"empty":       {texts: []string{""}, err: "want 32 bytes in base64"},
		"two in one":  {texts: []string{text(one) + "\n" + text(two)}, err: "want 32 bytes in base64"},
		"url's own64": {texts: []string{base64.RawURLEncoding.EncodeToString(bytes.Repeat([]byte{0xff}, 32))}, err: "want 32 bytes in base64"},
	} {
		t.Run(name, func(t *testing.T) {
			var files []string
			for i, s := range c.texts {
				files = append(files, filepath.Join(t.TempDir(), string(rune('a'+i))))
				if s == "-" {
					continue
				}
				if err := os.WriteFile(files[i], []byte(s), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			got, err := Read("session key", 32, files...)
			if c.err != "" {
				if err == nil || !strings.HasPrefix(err.Error(), "session key") || !strings.Contains(err.Error(), c.err) || strings.Contains(err.Error(), "secret") {
					t.Errorf("%v, want an error with %q and without the text", err, c.err)
				}
				return
			}
			if err != nil || len(got) != len(c.want) {
				t.Fatalf("%d keys, %v", len(got), err)
			}
			for i := range got {
				if !bytes.Equal(got[i], c.want[i]) {
					t.Errorf("key %d: %x", i, got[i])
				}
			}
		})
	}
}
