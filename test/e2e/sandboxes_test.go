package e2e

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	nomad "github.com/hashicorp/nomad/api"

	"openclaw-sandbox/internal/devcluster"
	"openclaw-sandbox/internal/sandbox"
	"openclaw-sandbox/internal/snapshot"
)

// children are the user's dispatched jobs.
func (s *stack) children(t *testing.T, user string, want func(*nomad.JobListStub) bool) (ids []string) {
	t.Helper()
	jobs, _, err := s.Nomad.Client().Jobs().ListOptions(&nomad.JobListOptions{Fields: &nomad.JobListFields{Meta: true}}, &nomad.QueryOptions{Prefix: "openclaw/dispatch-"})
	if err != nil {
		t.Fatal(err)
	}
	for _, j := range jobs {
		if j.Meta["user"] == user && want(j) {
			ids = append(ids, j.ID)
		}
	}
	return ids
}

func (s *stack) allChildren(t *testing.T, user string) []string {
	t.Helper()
	return s.children(t, user, func(*nomad.JobListStub) bool { return true })
}

func (s *stack) liveChildren(t *testing.T, user string) []string {
	t.Helper()
	return s.children(t, user, func(j *nomad.JobListStub) bool { return !j.Stop && j.Status != "dead" })
}

// stop ends a user's sandbox and waits until it has saved and is gone.
func (s *stack) stop(t *testing.T, user string) {
	t.Helper()
	for _, id := range s.liveChildren(t, user) {
		if _, _, err := s.Nomad.Client().Jobs().Deregister(id, false, nil); err != nil {
			t.Fatal(err)
		}
		eventually(t, time.Minute, "end of "+id, func() bool {
			allocs, _, err := s.Nomad.Client().Jobs().Allocations(id, true, nil)
			return err == nil && len(allocs) > 0 && (allocs[0].ClientStatus == nomad.AllocClientStatusComplete || allocs[0].ClientStatus == nomad.AllocClientStatusFailed)
		})
	}
	eventually(t, time.Minute, "clean head of "+user, func() bool {
		h, _, err := snapshot.ReadHead(t.Context(), s.store, sandbox.User(user))
		return err == nil && h.State == snapshot.StateClean
	})
	eventually(t, time.Minute, "deregistration of "+user, func() bool { return s.passing(user) == nil })
}

// waitSaved waits until what was there at that moment is committed: a snapshot came
// so much later that it was begun later too, or, if nothing changed any more, the
// driver had the time that it promises.
func (s *stack) waitSaved(t *testing.T, user string, after time.Time) {
	t.Helper()
	eventually(t, time.Minute, "snapshot of "+user, func() bool {
		h, _, err := snapshot.ReadHead(t.Context(), s.store, sandbox.User(user))
		return err == nil && (h.Saved.After(after.Add(time.Second)) || h.Saved.After(after.Add(-snapshotInterval)) && time.Since(after) > 3*snapshotInterval)
	})
}

// endAfter stops a user's sandbox when the test ends, so that a small machine has
// room for the next.
//
// A subtest leaves it to the test around it.
func (s *stack) endAfter(t *testing.T, user string) {
	t.Helper()
	if strings.Contains(t.Name(), "/") {
		return
	}
	t.Cleanup(func() {
		for _, id := range s.liveChildren(t, user) {
			if _, _, err := s.Nomad.Client().Jobs().Deregister(id, false, nil); err != nil {
				t.Errorf("stop %s: %v", id, err)
			}
		}
	})
}

// localState are the folders of a run that are still on the node.
func (s *stack) localState(t *testing.T, generation string) []string {
	t.Helper()
	var left []string
	eventually(t, time.Minute, "clean node", func() bool {
		left, _ = filepath.Glob(filepath.Join(s.Dir(), "sandboxes", "run", "*", generation, "*"))
		s.Nomad.Client().System().GarbageCollect()
		return len(left) == 0
	})
	return left
}

// gatewayProcesses are the host's pids of a run, the gateway's own first.
func (s *stack) gatewayProcesses(t *testing.T, generation string) (pids []string) {
	t.Helper()
	entries, err := os.ReadDir("/proc")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		env, err := os.ReadFile(filepath.Join("/proc", e.Name(), "environ"))
		if err != nil || !strings.Contains(string(env), "NOMAD_ALLOC_ID="+generation) {
			continue
		}
		pids = append(pids, e.Name())
	}
	if len(pids) == 0 {
		t.Fatalf("generation %s has no process", generation)
	}
	return pids
}

func kill9(t *testing.T, pid string) {
	t.Helper()
	var n int
	fmt.Sscan(pid, &n)
	if err := syscall.Kill(n, syscall.SIGKILL); err != nil && err != syscall.ESRCH {
		t.Fatal(err)
	}
}

func namespace(t *testing.T, pid, kind string) string {
	t.Helper()
	to, err := os.Readlink(filepath.Join("/proc", pid, "ns", kind))
	if err != nil {
		t.Fatal(err)
	}
	return to
}

func (s *stack) keys(t *testing.T, user string) (keys []string) {
	t.Helper()
	for info, err := range s.store.List(t.Context(), "users/"+user) {
		if err != nil {
			t.Fatal(err)
		}
		keys = append(keys, info.Key)
	}
	return keys
}

// execInside runs a command in a user's sandbox and returns its output.
func (s *stack) execInside(t *testing.T, user string, cmd ...string) string {
	t.Helper()
	a, _, err := s.Nomad.Client().Allocations().Info(s.waitPassing(t, user).Service.Meta["generation"], nil)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	var out strings.Builder
	if _, err := s.Nomad.Client().Allocations().Exec(ctx, a, "gateway", false, cmd, strings.NewReader(""), &out, &out, nil, nil); err != nil {
		t.Fatalf("exec in %s's sandbox: %v", user, err)
	}
	return out.String()
}

// connectInside tries a TCP connection from inside a user's sandbox.
func (s *stack) connectInside(t *testing.T, user, to string) string {
	t.Helper()
	host, port, _ := net.SplitHostPort(to)
	node, err := devcluster.Tool("node")
	if err != nil {
		t.Fatal(err)
	}
	script := fmt.Sprintf(`const c=require("net").connect(%s,%q);c.setTimeout(2000);c.on("connect",()=>{console.log("open");process.exit()});for(const e of ["error","timeout"])c.on(e,()=>{console.log("closed");process.exit()})`, port, host)
	return strings.TrimSpace(s.execInside(t, user, node, "-e", script))
}

func (s *stack) restartNomad(t *testing.T) {
	t.Helper()
	if err := s.Nomad.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
}
