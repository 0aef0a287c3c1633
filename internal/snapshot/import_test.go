package snapshot

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"openclaw-sandbox/internal/objstore"
)

// An import happens as a whole: cut off at any write it leaves the user as new as
// before, and so does a start that was given up. A user with state keeps it.
func TestImportIsWhole(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "f"), []byte("from afar"), 0o600); err != nil {
		t.Fatal(err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	st := &countingStore{Store: dirStore(t)}
	lost := fmt.Errorf("lost: %w", objstore.ErrUnreachable)
	for _, at := range []string{"/seg/", headKey(user)} {
		st.fail = func(key string) (error, bool) {
			if strings.Contains(key, at) {
				return lost, false
			}
			return nil, false
		}
		if _, err := Import(t.Context(), st, user, root, DefaultOptions()); !errors.Is(err, objstore.ErrUnreachable) {
			t.Fatalf("cut off at %s: %v, want ErrUnreachable", at, err)
		}
		if _, _, err := ReadHead(t.Context(), st, user); !errors.Is(err, objstore.ErrNotFound) {
			t.Fatalf("cut off at %s: the head: %v, want none", at, err)
		}
	}
	st.fail = nil
	m := start(t, st)
	if _, err := Import(t.Context(), st, user, root, DefaultOptions()); !errors.Is(err, ErrExists) {
		t.Fatalf("while the user's first run is under way: %v, want ErrExists", err)
	}
	if err := m.run.Abandon(t.Context()); err != nil {
		t.Fatal(err)
	}
	h, err := Import(t.Context(), st, user, root, DefaultOptions())
	if err != nil || h.Epoch != 2 || content(t, st, user, 0, "f") != "from afar" {
		t.Fatalf("after a start that was given up: %+v, %v", h, err)
	}
	if _, err := Import(t.Context(), st, user, root, DefaultOptions()); !errors.Is(err, ErrExists) {
		t.Errorf("a second time: %v, want ErrExists", err)
	}
	next := start(t, st)
	if got, err := os.ReadFile(filepath.Join(next.path, "f")); err != nil || string(got) != "from afar" {
		t.Errorf("the next start has %q, %v", got, err)
	}
}
