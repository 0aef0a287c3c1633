package driver

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/nomad/api"

	"openclaw-sandbox/internal/snapshot"
)

func (s *stack) power(t *testing.T, up bool) {
	t.Helper()
	do := s.server.Stop
	if up {
		do = s.server.Start
	}
	if err := do(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func (s *stack) spooled(t *testing.T) []string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(s.dir, "sandboxes", "spool", "[^.]*")) // not what is reserved
	if err != nil {
		t.Fatal(err)
	}
	return names
}

// metrics is where the driver writes its figures.
func (s *stack) metrics() string { return filepath.Join(s.dir, "sandbox.prom") }

// metric tells whether a line of the figures is like that.
func (s *stack) metric(t *testing.T, line string) bool {
	t.Helper()
	text, err := os.ReadFile(s.metrics())
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	return regexp.MustCompile("(?m)^" + line + "$").Match(text)
}

// The store is away at the final snapshot: the state waits on the node and is
// saved when the store is back, across a restart of the agent, with nobody's help.
func TestStoreAwayAtTheEnd(t *testing.T) {
	s := up(t, "image", nil)
	id := s.run(t, "alice", nil)
	a := s.alloc(t, id, "sandbox", running)
	s.ask(t, a, "/write?name=note&text=first")
	wait(t, "snapshot", func() bool { return s.head(t, "alice").Seq > 0 }, func() string { return "" })
	s.power(t, false)
	s.ask(t, a, "/write?name=note&text=last-words")
	a = s.stop(t, id)
	wait(t, "event", func() bool {
		now, _, err := s.nomad.Client().Allocations().Info(a.ID, nil)
		return err == nil && strings.Contains(events(now), "will be saved as soon as that is possible")
	}, func() string { return events(a) })
	if n := s.spooled(t); len(n) != 1 {
		t.Fatalf("the spool holds %v, want one state", n)
	}
	wait(t, "metric of the spooled state", func() bool {
		return s.metric(t, "openclaw_sandbox_spooled_states 1") && s.metric(t, `openclaw_sandbox_saves_total{result="failed"} [1-9][0-9]*`)
	}, func() string { return "" })
	// A start meanwhile must not begin from what is older.
	other := s.run(t, "alice", nil)
	s.alloc(t, other, "failed start", func(a *api.Allocation) bool { return strings.Contains(events(a), "object store does not answer") })
	s.stop(t, other)
	if err := s.nomad.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.power(t, true)
	wait(t, "empty spool", func() bool { return len(s.spooled(t)) == 0 }, func() string { return strings.Join(s.spooled(t), " ") })
	if h := s.head(t, "alice"); h.State != snapshot.StateClean {
		t.Errorf("the head says %q", h.State)
	}
	b := s.alloc(t, s.run(t, "alice", nil), "sandbox again", running)
	if _, out := s.exec(t, b, "cat", "/state/note"); out != "last-words" {
		t.Errorf("the note: %q", out)
	}
}

// The driver is killed while the store is away. The new one can not go on with the
// run at first, and saves as soon as the store is back, however long that took.
func TestDriverReplacedWhileStoreIsAway(t *testing.T) {
	s := up(t, "image", nil)
	a := s.alloc(t, s.run(t, "alice", nil), "sandbox", running)
	s.ask(t, a, "/write?name=note&text=first")
	wait(t, "snapshot", func() bool { return s.head(t, "alice").Seq > 0 }, func() string { return "" })
	s.power(t, false)
	s.ask(t, a, "/write?name=note&text=second")
	s.killPlugin(t)
	wait(t, "event", func() bool {
		now, _, err := s.nomad.Client().Allocations().Info(a.ID, nil)
		return err == nil && strings.Contains(events(now), "Snapshot failed")
	}, func() string { return events(a) })
	s.power(t, true)
	wait(t, "snapshot", func() bool { return s.head(t, "alice").Seq > 1 }, func() string { return "" })
}

// killPlugin kills the driver; Nomad starts it anew.
func (s *stack) killPlugin(t *testing.T) {
	t.Helper()
	plugin := filepath.Join(s.dir, "plugins", "sandbox")
	out, err := exec.Command("pgrep", "-fx", plugin).Output()
	if err != nil {
		t.Fatalf("the driver's process is not there: %v", err)
	}
	if err := exec.Command("kill", "-9", strings.TrimSpace(string(out))).Run(); err != nil {
		t.Fatal(err)
	}
}

// A run that another took over from leaves its last state as a branch.
func TestFencedRunLeavesABranch(t *testing.T) {
	s := up(t, "image", nil)
	id := s.run(t, "alice", nil)
	a := s.alloc(t, id, "sandbox", running)
	s.ask(t, a, "/write?name=note&text=zombie")
	if _, err := snapshot.Claim(t.Context(), s.store, "alice", snapshot.Writer{Alloc: "newer", Node: "elsewhere"}, snapshot.DefaultOptions()); err != nil {
		t.Fatal(err)
	}
	s.alloc(t, id, "end of the fenced run", ended)
	branches, err := snapshot.Branches(t.Context(), s.store, "alice")
	if err != nil || len(branches) != 1 || !strings.Contains(branches[0], a.ID) {
		t.Fatalf("branches %v, %v; want one of allocation %s", branches, err, a.ID)
	}
	h, err := snapshot.ReadBranch(t.Context(), s.store, "alice", branches[0])
	if err != nil {
		t.Fatal(err)
	}
	if _, err := snapshot.Rewind(t.Context(), s.store, "alice", h, true); err != nil {
		t.Fatal(err)
	}
	b := s.alloc(t, s.run(t, "alice", nil), "sandbox from the branch", running)
	if _, out := s.exec(t, b, "cat", "/state/note"); out != "zombie" {
		t.Errorf("the note: %q", out)
	}
}

// A start waits for the last save of a run on another node, and then goes on from
// the one before, or refuses, as the operator wants.
func TestUnfinishedRunElsewhere(t *testing.T) {
	for _, allowed := range []bool{true, false} {
		t.Run(map[bool]string{true: "starts", false: "refuses"}[allowed], func(t *testing.T) {
			s := up(t, "image", func(config string) string {
				more := "snapshot {\n  unfinished_wait = \"2s\"\n"
				if !allowed {
					more += "  unfinished_start = false\n"
				}
				return strings.Replace(config, "snapshot {\n", more, 1)
			})
			if _, err := snapshot.Claim(t.Context(), s.store, "alice", snapshot.Writer{Alloc: "gone", Node: "elsewhere"}, snapshot.DefaultOptions()); err != nil {
				t.Fatal(err)
			}
			begin := time.Now()
			id := s.run(t, "alice", nil)
			if !allowed {
				s.alloc(t, id, "refusal", func(a *api.Allocation) bool { return strings.Contains(events(a), "unfinished_start") })
				return
			}
			a := s.alloc(t, id, "sandbox", running)
			if took := time.Since(begin); took < 2*time.Second || !strings.Contains(events(a), "waiting up to 2s") {
				t.Errorf("it started after %s:\n%s", took, events(a))
			}
		})
	}
}

// Nothing of a sandbox that was not restored is kept as if it were state.
func TestNoSpoolWithoutRestore(t *testing.T) {
	s := up(t, "image", nil)
	s.power(t, false)
	s.alloc(t, s.run(t, "alice", nil), "failed start", ended)
	if n := s.spooled(t); len(n) != 0 {
		t.Errorf("the spool holds %v", n)
	}
	if _, err := os.Stat(filepath.Join(s.dir, "sandboxes", "unsaved")); err == nil {
		t.Error("something was kept as unsaved")
	}
}
