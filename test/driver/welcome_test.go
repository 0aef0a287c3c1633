package driver

import (
	"archive/tar"
	"bytes"
	"strings"
	"testing"

	"github.com/hashicorp/nomad/api"

	"openclaw-sandbox/internal/objstore"
)

// A new user begins with what a moltworker, or an operator with a tar file, has left
// at the user's place in the store; from then on with what was saved.
func TestTakesOver(t *testing.T) {
	s := up(t, "image", nil)
	var file bytes.Buffer
	w := tar.NewWriter(&file)
	if err := w.WriteHeader(&tar.Header{Name: "hello", Typeflag: tar.TypeReg, Size: 8, Mode: 0o600}); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write([]byte("from tar")); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	for key, text := range map[string]string{
		"users/alice/openclaw/openclaw.json": "{}", "users/alice/workspace/notes": "from rclone", "users/bob/state.tar": file.String(), "users/carol/state.tar": "no tar at all",
	} {
		if _, err := s.store.Put(t.Context(), key, strings.NewReader(text), objstore.Condition{}); err != nil {
			t.Fatal(err)
		}
	}
	for user, want := range map[string]struct{ path, text string }{"alice": {"/state/workspace/notes", "from rclone"}, "bob": {"/state/hello", "from tar"}} {
		id := s.run(t, user, nil)
		if got := s.ask(t, s.alloc(t, id, "sandbox", running), "/read?path="+want.path); got != want.text {
			t.Errorf("%s begins with %q, want %q", user, got, want.text)
		}
		s.stop(t, id)
	}
	again := s.alloc(t, s.run(t, "bob", nil), "sandbox again", running)
	if got := s.ask(t, again, "/read?path=/state/hello"); got != "from tar" {
		t.Errorf("bob has %q at the second start", got)
	}
	if all := events(again); strings.Contains(all, "taking over") {
		t.Errorf("the second start took over too: %s", all)
	}
	s.alloc(t, s.run(t, "carol", nil), "refusal", func(a *api.Allocation) bool { return strings.Contains(events(a), "users/carol/state.tar") })
	if h, _, err := s.store.Get(t.Context(), "users/carol/head"); err == nil {
		h.Close()
		t.Error("carol has a head, although her tar file could not be read")
	}
}
