package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/nomad/client/state"

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
	spooled := func() int { return len(spooledIn(t, filepath.Join(s.Dir(), "sandboxes"))) }
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

// The driver is killed, then Nomad's agent. A sandbox that the agent has made a note
// of goes on as if nothing was. One that is too young for that (the agent does so once
// a minute) is ended when the agent is back, with a last snapshot, and who comes again
// is served: nothing that was said is lost.
func TestAgentKilled(t *testing.T) {
	s := needStack(t)
	const old, young = "rosa", "rupert"
	c := dial(t, s.dev, old)
	c.chat("before the driver was killed")
	killPlugin(t, s.Dir())
	c.chat("before the agent was killed")
	generation := s.waitPassing(t, old).Service.Meta["generation"]
	s.waitNoted(t, generation)

	dial(t, s.dev, young).chat("before the agent was killed")
	if err := s.Nomad.Crash(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.insist(t, old, "after the agent was killed")
	s.insist(t, young, "after the agent was killed")
	if now := s.waitPassing(t, old).Service.Meta["generation"]; now != generation {
		t.Errorf("the older sandbox was generation %s, and is %s after the agent was killed", generation, now)
	}
	for _, user := range []string{old, young} {
		s.stop(t, user)
		s.integrity(t, user)
		h := dial(t, s.dev, user).history()
		for _, want := range []string{"You said: before the agent", "You said: after the agent"} {
			if !strings.Contains(h, want) {
				t.Errorf("the history of %s lacks %q: %.400s", user, want, h)
			}
		}
		s.stop(t, user)
	}
}

// waitNoted waits until Nomad's agent has noted on its disk what it needs to take a
// run back after a crash: its network, of which no API tells. The agent's file is
// locked, so that a copy is read.
func (s *stack) waitNoted(t *testing.T, generation string) {
	t.Helper()
	eventually(t, 2*time.Minute, "note of the run's network", func() bool {
		file, err := os.ReadFile(filepath.Join(s.Dir(), "nomad", "data", "client", "state.db"))
		if err != nil {
			t.Fatal(err)
		}
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "state.db"), file, 0o600); err != nil {
			t.Fatal(err)
		}
		db, err := state.NewBoltStateDB(hclog.NewNullLogger(), dir)
		if err != nil {
			return false // copied while it was written
		}
		defer db.Close()
		network, err := db.GetNetworkStatus(generation)
		return err == nil && network != nil
	})
}

// A second sandbox of the same user is forced while the first lives: the first finds
// out at its next snapshot, leaves what it could not commit as a branch, and ends.
func TestSecondRun(t *testing.T) {
	s := needStack(t)
	const user = "trudy"
	c := dial(t, s.dev, user)
	c.chat("said before there were two")
	s.waitSaved(t, user, time.Now())
	epoch := func() uint64 {
		h, _, err := snapshot.ReadHead(t.Context(), s.store, sandbox.User(user))
		if err != nil {
			t.Fatal(err)
		}
		return h.Epoch
	}
	of := epoch()
	second := s.dispatch(t, user)
	eventually(t, time.Minute, "claim of the second run", func() bool { return epoch() > of })
	c.begin("chat.send", map[string]any{"sessionKey": sessionKey, "message": "said to the first", "idempotencyKey": "fenced"})
	eventually(t, time.Minute, "end of the first sandbox", func() bool { return slices.Equal(s.liveChildren(t, user), []string{second}) })
	if b, err := snapshot.Branches(t.Context(), s.store, user); err != nil || len(b) != 1 {
		t.Errorf("branches of what the first did in the end: %v, %v; want one", b, err)
	}
	eventually(t, startLimit, "second gateway", func() bool { e := s.passing(user); return e != nil && e.Service.Meta["job"] == second })
	s.insist(t, user, "said to the second")
	s.stop(t, user)
	s.integrity(t, user)
	h := dial(t, s.dev, user).history()
	for _, want := range []string{"You said: said before", "You said: said to the second"} {
		if !strings.Contains(h, want) {
			t.Errorf("the history lacks %q: %.400s", want, h)
		}
	}
}

// insist sends a message until it is answered, as a patient person would.
func (s *stack) insist(t *testing.T, user, message string) {
	t.Helper()
	body, err := json.Marshal(map[string]string{"message": message})
	if err != nil {
		t.Fatal(err)
	}
	last := ""
	for end := time.Now().Add(startLimit); ; time.Sleep(pollPause) {
		resp := s.post(t, s.dev, user, "/api/chat", string(body), "application/json")
		text := string(readAll(t, resp))
		if resp.StatusCode == http.StatusOK && strings.Contains(text, message) {
			return
		}
		if now := resp.Status + " " + text; now != last {
			t.Logf("%.300s", now)
			last = now
		}
		if time.Now().After(end) {
			t.Fatalf("no answer within %s", startLimit)
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
