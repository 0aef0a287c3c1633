package driver

import (
	"errors"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/nomad/api"

	"openclaw-sandbox/internal/sandbox"
	"openclaw-sandbox/internal/snapshot"
)

// SIGSTOP puts a sandbox to sleep with its state saved, whatever becomes of the
// driver meanwhile; SIGCONT and a stop end the sleep.
func TestFreeze(t *testing.T) {
	for _, runtime := range []string{"image", "raw_exec"} {
		t.Run(runtime, func(t *testing.T) {
			// Nothing but the freeze is a reason to save so soon.
			s := up(t, runtime, func(config string) string {
				return strings.Replace(config, `interval = "1s"`, `interval = "1h"
  debounce = "1h"`, 1) + "freeze { page_out_after = \"1s\" }\n"
			})
			a := s.alloc(t, s.run(t, "alice", func(task *api.Task) { task.Resources.MemoryMB = ptr(256) }), "sandbox", running)
			signal := func(name string) {
				t.Helper()
				for range 2 { // the second changes nothing
					if err := s.nomad.Client().Allocations().Signal(a, nil, "gateway", name); err != nil {
						t.Fatalf("%s: %v", name, err)
					}
				}
			}
			silent := func(when string) {
				t.Helper()
				c := http.Client{Timeout: time.Second}
				resp, err := c.Get("http://" + s.addr(t, a) + "/pid")
				if err == nil {
					resp.Body.Close()
				}
				var late net.Error
				if !errors.As(err, &late) || !late.Timeout() {
					t.Errorf("%s, a frozen gateway's answer: %v, want none in time", when, err)
				}
			}
			refused := func() bool {
				_, _, err := s.tryExec(t, a, "true")
				return err != nil && strings.Contains(err.Error(), "frozen")
			}
			pid := s.ask(t, a, "/pid")
			s.ask(t, a, "/write?name=note&text=first")
			s.ask(t, a, "/map?mb=48")
			seq := s.head(t, "alice").Seq

			signal("SIGSTOP")
			silent("after SIGSTOP")
			wait(t, "snapshot of the frozen sandbox", func() bool { return s.head(t, "alice").Seq > seq }, func() string { return "" })
			silent("after its snapshot")
			told := func(asleep bool, message string) func(*api.Allocation) bool {
				return func(a *api.Allocation) bool {
					return slices.ContainsFunc(a.TaskStates["gateway"].Events, func(e *api.TaskEvent) bool {
						u, got, ok := sandbox.AsleepFrom(e.Details)
						return ok && u == "alice" && got == asleep && strings.Contains(e.DisplayMessage, message)
					})
				}
			}
			s.alloc(t, a.JobID, "event of the memory that was pushed out", told(true, "MB pushed out of memory"))
			wait(t, "metric of the memory that was pushed out", func() bool {
				return s.metric(t, `openclaw_sandbox_paged_out_bytes_total [1-9.]+e\+07`)
			}, func() string { return "" })
			silent("pushed out")
			if !refused() {
				t.Error("a command in a frozen sandbox was not refused")
			}

			s.killPlugin(t)
			wait(t, "refusal by the next driver", refused, func() string { return "" })
			silent("under the next driver")

			signal("SIGCONT")
			if now := s.ask(t, a, "/pid"); now != pid {
				t.Errorf("thawed, the process is %s, was %s", now, pid)
			}
			s.alloc(t, a.JobID, "event of the thaw", told(false, "Thawed"))
			s.ask(t, a, "/write?name=note&text=second")

			signal("SIGSTOP")
			end := s.stop(t, a.JobID)
			if h := s.head(t, "alice"); h.State != snapshot.StateClean {
				t.Errorf("after the stop the head says %s, want clean\n%s", h.State, events(end))
			}
			a = s.alloc(t, s.run(t, "alice", nil), "second start", running)
			state := strings.TrimPrefix(line(s.ask(t, a, "/env"), "SANDBOX_STATE="), "SANDBOX_STATE=")
			if got := s.ask(t, a, "/read?path="+state+"/note"); got != "second" {
				t.Errorf("restored note = %q, want second", got)
			}

			// A drain of its node ends the sleep like a stop.
			signal("SIGSTOP")
			s.drain(t, a.NodeID)
			end = s.alloc(t, a.JobID, "end by the drain", ended)
			if h := s.head(t, "alice"); h.State != snapshot.StateClean {
				t.Errorf("after the drain the head says %s, want clean\n%s", h.State, events(end))
			}
		})
	}
}

// drain has a node let go what runs there, until the test ends.
func (s *stack) drain(t *testing.T, node string) {
	t.Helper()
	n := s.nomad.Client().Nodes()
	if _, err := n.UpdateDrain(node, &api.DrainSpec{Deadline: -1}, true, nil); err != nil { // at once: nobody takes a batch job over
		t.Fatal(err)
	}
	t.Cleanup(func() { n.UpdateDrain(node, nil, true, nil) })
}
