package main

import (
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// ctl runs the tool on a store and returns what it prints.
func ctl(t *testing.T, store string, args ...string) (string, error) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	was := os.Stdout
	os.Stdout = w
	defer func() { os.Stdout = was }()
	out := make(chan string)
	go func() { b, _ := io.ReadAll(r); out <- string(b) }()
	cmd := command()
	cmd.SetArgs(append([]string{"--store", "file://" + store}, args...))
	cmd.SetOut(w)
	err = cmd.ExecuteContext(t.Context())
	w.Close()
	return <-out, err
}

// An operator's day: a state comes in, is looked at, copied, pinned, checked, and
// goes out again.
func TestDay(t *testing.T) {
	store, dir := t.TempDir(), t.TempDir()
	must := func(args ...string) string {
		t.Helper()
		out, err := ctl(t, store, args...)
		if err != nil {
			t.Fatalf("%q: %s", args, explain(err))
		}
		return out
	}
	tarball := filepath.Join(dir, "state.tar")
	if err := os.WriteFile(tarball, tarOf(t, map[string]string{"workspace/notes.md": "remember the milk"}), 0o600); err != nil {
		t.Fatal(err)
	}
	must("doctor")
	must("import", "alice", tarball)
	if out := must("cat", "alice", "workspace/notes.md"); out != "remember the milk" {
		t.Errorf("cat: %q", out)
	}
	must("pin", "alice", "1", "-m", "the first")
	must("fork", "alice", "bob")
	for _, c := range [][2]string{
		{"users", "bob"}, {"snapshots alice", "newest"}, {"ls bob", "workspace/notes.md"}, {"verify --all", "whole"}, {"du", "alice"},
		{"gc --all --dry-run", "bob"}, {"diff alice 1", "CHANGE"}, {"restore alice --at 1", "snapshot 2"}, {"snapshots alice", "pinned the first"},
	} {
		if out := must(strings.Fields(c[0])...); !strings.Contains(out, c[1]) {
			t.Errorf("%s: %q, want it to have %q", c[0], out, c[1])
		}
	}
	must("unpin", "alice", "1")
	var list struct{ Snapshots []struct{ Seq uint64 } }
	if err := json.Unmarshal([]byte(must("--json", "snapshots", "alice")), &list); err != nil || len(list.Snapshots) != 2 || list.Snapshots[0].Seq != 2 {
		t.Errorf("snapshots as JSON: %+v, %v", list, err)
	}
	out := filepath.Join(dir, "out.tar.zst")
	must("export", "alice", "-o", out)
	must("import", "carol", out)
	if out := must("cat", "carol", "workspace/notes.md"); out != "remember the milk" {
		t.Errorf("cat of the import: %q", out)
	}
}

// Every failure says what to do.
func TestFailures(t *testing.T) {
	store := t.TempDir()
	file := filepath.Join(t.TempDir(), "x.tar")
	if err := os.WriteFile(file, tarOf(t, map[string]string{"a": "1"}), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := ctl(t, store, "import", "alice", file); err != nil {
		t.Fatal(err)
	}
	for args, want := range map[string]string{
		"import alice " + file:          "choose a user without state",
		"import Alice " + file:          "user \"Alice\"",
		"snapshots nobody":              "sandboxctl users",
		"cat alice ../../etc/passwd":    "not exist",
		"restore alice --at 7":          "lists what is kept",
		"restore alice":                 "at least one of the flags",
		"pin alice first":               "want its number",
		"gc":                            "want a user, or --all",
		"gc alice --grace 1s":           "at least 1h",
		"verify alice --all":            "want a user, or --all",
		"export alice -o /nowhere/file": "no such file",
	} {
		_, err := ctl(t, store, strings.Fields(args)...)
		if err == nil || !strings.Contains(explain(err), want) {
			t.Errorf("%s: %v, want it to say %q", args, err, want)
		}
	}
	if _, err := ctl(t, "", "users"); err == nil {
		t.Error("without a store: no error")
	}
}

// A moltworker's bucket becomes a user's state, and stays as it is.
func TestImportPrefix(t *testing.T) {
	store := t.TempDir()
	for name, text := range map[string]string{
		"old/openclaw/openclaw.json": "new", "old/clawdbot/openclaw.json": "legacy", "old/clawdbot/only-legacy": "kept", "old/workspace/USER.md": "me", "old/skills/x/SKILL.md": "skill",
	} {
		file := filepath.Join(store, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o755), os.WriteFile(file, []byte(text), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	if out, err := ctl(t, store, "import", "alice", "--prefix", "old"); err != nil {
		t.Fatalf("%s: %v", out, err)
	}
	for name, want := range map[string]string{"openclaw/openclaw.json": "new", "openclaw/only-legacy": "kept", "workspace/USER.md": "me", "workspace/skills/x/SKILL.md": "skill"} {
		if got, err := ctl(t, store, "cat", "alice", name); err != nil || got != want {
			t.Errorf("%s: %q, %v; want %q", name, got, err, want)
		}
	}
	if _, err := os.Stat(filepath.Join(store, "old", "workspace", "USER.md")); err != nil {
		t.Errorf("the old bucket: %v", err)
	}
	for args, want := range map[string]string{"import bob --prefix nowhere": "has none of", "import bob": "want a file, or --prefix", "import bob x.tar --prefix y": "want a file, or --prefix"} {
		if _, err := ctl(t, store, strings.Fields(args)...); err == nil || !strings.Contains(explain(err), want) {
			t.Errorf("%s: %v, want it to say %q", args, err, want)
		}
	}
}
