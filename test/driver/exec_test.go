package driver

import (
	"context"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/nomad/api"

	"openclaw-sandbox/internal/snapshot"
)

func (s *stack) exec(t *testing.T, a *api.Allocation, cmd ...string) (int, string) {
	t.Helper()
	code, out, err := s.tryExec(t, a, cmd...)
	if err != nil {
		t.Errorf("exec %q: %v", cmd, err)
	}
	return code, out
}

// tryExec is exec whose failure is the caller's to judge.
func (s *stack) tryExec(t *testing.T, a *api.Allocation, cmd ...string) (int, string, error) {
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	var out strings.Builder
	code, err := s.nomad.Client().Allocations().Exec(ctx, a, "gateway", false, cmd, strings.NewReader(""), &out, &out, nil, nil)
	return code, out.String(), err
}

func TestExecSignalAndStats(t *testing.T) {
	s := up(t, "image", nil)
	a := s.alloc(t, s.run(t, "alice", nil), "sandbox", running)
	for _, c := range []struct {
		cmd  []string
		code int
		out  string
	}{
		{[]string{"/bin/sh", "-c", "id -u; ls /state"}, 0, "65534"},
		{[]string{"id", "-u"}, 0, "65534"},
		{[]string{"echo", "$HOME two  words"}, 0, "$HOME two  words"},
		// libcontainer's own look-up would hang on these, and a stop after them.
		{[]string{"no-such-program"}, 127, "not found"},
		{[]string{"/state"}, 126, "/state"},
		{[]string{"false"}, 1, ""},
	} {
		if code, out := s.exec(t, a, c.cmd...); code != c.code || !strings.Contains(out, c.out) {
			t.Errorf("exec %q: code %d, %q; want %d, %q", c.cmd, code, out, c.code, c.out)
		}
	}
	if err := s.nomad.Client().Allocations().Signal(a, nil, "gateway", "SIGUSR1"); err != nil {
		t.Errorf("signal: %v", err)
	}
	s.alloc(t, a.JobID, "end by the signal", ended)
	b := s.alloc(t, s.run(t, "bob", nil), "sandbox", running)
	wait(t, "memory in the stats", func() bool {
		st, err := s.nomad.Client().Allocations().Stats(b, nil)
		return err == nil && st.Tasks["gateway"] != nil && st.Tasks["gateway"].ResourceUsage.MemoryStats.RSS > 0
	}, func() string { return "" })
}

// A stop is bounded even when Nomad's executor answers nothing any more, and
// what the user did is saved.
func TestStopWithAHungExecutor(t *testing.T) {
	for _, runtime := range []string{"image", "raw_exec"} {
		t.Run(runtime, func(t *testing.T) {
			s := up(t, runtime, nil)
			id := s.run(t, "alice", func(task *api.Task) { task.KillTimeout = ptr(time.Second) })
			a := s.alloc(t, id, "sandbox", running)
			s.ask(t, a, "/write?name=note&text=kept")
			executor := executorOf(t, a.ID)
			if err := syscall.Kill(executor, syscall.SIGSTOP); err != nil {
				t.Fatal(err)
			}
			s.stop(t, id)
			wait(t, "end of the executor", func() bool { return syscall.Kill(executor, 0) != nil }, func() string { return "" })
			if h := s.head(t, "alice"); h.State != snapshot.StateClean {
				t.Errorf("the head says %q", h.State)
			}
			b := s.alloc(t, s.run(t, "alice", nil), "sandbox again", running)
			if code, out := s.exec(t, b, "/bin/sh", "-c", "cat $SANDBOX_STATE/note"); code != 0 || out != "kept" {
				t.Errorf("the note: code %d, %q", code, out)
			}
		})
	}
}

// executorOf finds Nomad's subprocess for an allocation's task.
func executorOf(t *testing.T, alloc string) int {
	t.Helper()
	procs, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range procs {
		line, err := os.ReadFile(p)
		if err != nil {
			continue // ended meanwhile
		}
		args := strings.Split(string(line), "\x00")
		if len(args) > 2 && strings.HasSuffix(args[0], "/sandbox") && args[1] == "executor" && strings.Contains(args[2], alloc) {
			pid, err := strconv.Atoi(filepath.Base(filepath.Dir(p)))
			if err != nil {
				t.Fatal(err)
			}
			return pid
		}
	}
	t.Fatalf("no executor of allocation %s", alloc)
	return 0
}
