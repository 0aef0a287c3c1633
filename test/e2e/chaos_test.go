package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"openclaw-sandbox/internal/devcluster"
	"openclaw-sandbox/internal/sandbox"
	"openclaw-sandbox/internal/snapshot"
)

// While somebody chats, the driver is killed, the store goes away and comes back,
// Nomad restarts, and at the end the store is away for the last snapshot: every
// turn that was answered is there after the next start, and every database is whole.
func TestNothingIsLost(t *testing.T) {
	s := needStack(t)
	const user = "quinn"
	c := dial(t, s.dev, user)
	turn := 0
	say := func() {
		t.Helper()
		turn++
		c.chat(fmt.Sprintf("turn-%03d", turn))
	}
	say()
	s.waitSaved(t, user, time.Now())
	killPlugin(t, s.Dir())
	say()
	s.power(t, false)
	say()
	say()
	s.power(t, true)
	say()
	s.waitSaved(t, user, time.Now())
	s.integrity(t, user)
	s.restartNomad(t)
	say()

	s.power(t, false)
	say()
	for _, id := range s.liveChildren(t, user) {
		if _, _, err := s.Nomad.Client().Jobs().Deregister(id, false, nil); err != nil {
			t.Fatal(err)
		}
	}
	spooled := func() int {
		names, err := filepath.Glob(filepath.Join(s.Dir(), "sandboxes", "spool", "[^.]*")) // not what is reserved
		if err != nil {
			t.Fatal(err)
		}
		return len(names)
	}
	eventually(t, time.Minute, "spooled state", func() bool { return spooled() == 1 })
	s.power(t, true)
	eventually(t, time.Minute, "empty spool", func() bool { return spooled() == 0 })
	eventually(t, time.Minute, "deregistration", func() bool { return s.passing(user) == nil })
	s.integrity(t, user)

	h := dial(t, s.dev, user).history()
	for i := range turn {
		if want := fmt.Sprintf("You said: turn-%03d", i+1); !strings.Contains(h, want) {
			t.Errorf("the history lacks %q", want)
		}
	}
}

// power starts or stops the S3 server.
func (s *stack) power(t *testing.T, on bool) {
	t.Helper()
	do := s.S3.Stop
	if on {
		do = s.S3.Start
	}
	if err := do(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// killPlugin kills the driver; Nomad starts it anew, and the gateways go on.
func killPlugin(t *testing.T, dir string) {
	t.Helper()
	plugin := filepath.Join(dir, "plugins", "sandbox")
	pid := func() string {
		out, err := exec.Command("pgrep", "-fx", plugin).Output()
		if err != nil {
			return ""
		}
		return strings.TrimSpace(string(out))
	}
	before := pid()
	if before == "" {
		t.Fatal("the driver's process is not there")
	}
	kill9(t, before)
	eventually(t, time.Minute, "new driver process", func() bool { now := pid(); return now != "" && now != before })
}

// integrity restores the newest snapshot aside and asks the gateway's own SQLite
// whether each database is whole.
func (s *stack) integrity(t *testing.T, user string) {
	t.Helper()
	h, err := snapshot.ReadVersion(t.Context(), s.store, sandbox.User(user), 0)
	if err != nil {
		t.Fatal(err)
	}
	tree, err := snapshot.OpenTree(t.Context(), s.store, h, snapshot.DefaultOptions())
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	if err := tree.Write(t.Context(), root, nil); err != nil {
		t.Fatal(err)
	}
	node, err := devcluster.Tool("node")
	if err != nil {
		t.Fatal(err)
	}
	databases := 0
	for _, n := range tree.Nodes() {
		if !strings.HasSuffix(n.Path, ".sqlite") {
			continue
		}
		databases++
		const ask = `const {DatabaseSync}=require("node:sqlite"); const d=new DatabaseSync(process.argv[1]); console.log(JSON.stringify(d.prepare("PRAGMA integrity_check").all()))`
		out, err := exec.CommandContext(t.Context(), node, "-e", ask, filepath.Join(dir, n.Path)).CombinedOutput()
		if err != nil || !strings.Contains(string(out), `[{"integrity_check":"ok"}]`) {
			t.Errorf("%s of snapshot %d: %v: %.500s", n.Path, h.Seq, err, out)
		}
	}
	if databases < 2 {
		t.Errorf("snapshot %d has %d databases, want the gateway's two at least", h.Seq, databases)
	}
}
