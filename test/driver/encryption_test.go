package driver

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hashicorp/nomad/api"
)

// With a master key nothing readable leaves the node, and the state comes back;
// with another key the start fails and says which one it wants.
func TestEncryptedState(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"first", "other"} {
		key := make([]byte, 32)
		rand.Read(key)
		if err := os.WriteFile(filepath.Join(dir, name), []byte(base64.StdEncoding.EncodeToString(key)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	encrypt := func(name string) func(string) string {
		return func(config string) string {
			return config + fmt.Sprintf("encryption {\n  keys {\n    %s = %q\n  }\n}\n", name, filepath.Join(dir, name))
		}
	}
	s := up(t, "image", encrypt("first"))
	id := s.run(t, "alice", nil)
	s.ask(t, s.alloc(t, id, "sandbox", running), "/write?name=note&text=recognizable")
	s.stop(t, id)
	err := filepath.WalkDir(s.server.Dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		if b, err := os.ReadFile(path); err != nil || bytes.Contains(b, []byte("recognizable")) || bytes.Contains(b, []byte(`"note"`)) {
			t.Errorf("%s shows what it holds (%v)", path, err)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	id = s.run(t, "alice", nil)
	if got := s.ask(t, s.alloc(t, id, "sandbox again", running), "/read?path=/state/note"); got != "recognizable" {
		t.Errorf("the note: %q", got)
	}
	s.stop(t, id)

	file := filepath.Join(s.dir, "nomad", "nomad.hcl")
	config, err := os.ReadFile(file)
	if err == nil {
		err = os.WriteFile(file, bytes.ReplaceAll(config, []byte("first"), []byte("other")), 0o600)
	}
	if err == nil {
		err = s.nomad.Restart(t.Context())
	}
	if err != nil {
		t.Fatal(err)
	}
	s.alloc(t, s.run(t, "alice", nil), "refusal", func(a *api.Allocation) bool {
		return strings.Contains(events(a), `encrypted with master key "first"`)
	})
}
