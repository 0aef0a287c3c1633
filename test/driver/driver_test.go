package driver

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hashicorp/nomad/api"

	"openclaw-sandbox/internal/sandbox"
	"openclaw-sandbox/internal/snapshot"
)

// One life of a sandbox, in each runtime: state saved at an interval, at a stop
// and at a crash, restored at the next start; the agent's restart in between.
func TestLife(t *testing.T) {
	for _, runtime := range []string{"image", "raw_exec"} {
		t.Run(runtime, func(t *testing.T) {
			s := up(t, runtime, nil)
			id := s.run(t, "alice", nil)
			a := s.alloc(t, id, "running sandbox", running)
			if _, ok := progress(a, sandbox.PhaseReady); !ok {
				t.Errorf("no event says that it is ready:\n%s", events(a))
			}
			s.ask(t, a, "/write?name=note&text=first")
			seq := s.head(t, "alice").Seq
			wait(t, "snapshot at the interval", func() bool { return s.head(t, "alice").Seq > seq }, func() string { return "" })
			if st := s.head(t, "alice"); st.State != snapshot.StateRunning || st.Writer.Alloc != a.ID {
				t.Errorf("head = %+v, want running, written by %s", st, a.ID)
			}

			// The agent restarts: same process, same epoch, and saves go on.
			pid := s.ask(t, a, "/pid")
			if err := s.nomad.Restart(t.Context()); err != nil {
				t.Fatal(err)
			}
			s.ask(t, a, "/write?name=note&text=second")
			before := s.head(t, "alice")
			wait(t, "snapshot after the agent's restart", func() bool { return s.head(t, "alice").Seq > before.Seq }, func() string { return "" })
			if now := s.ask(t, a, "/pid"); now != pid {
				t.Errorf("the process was %s, is %s", pid, now)
			}
			if e := s.head(t, "alice").Epoch; e != before.Epoch {
				t.Errorf("the epoch went from %d to %d", before.Epoch, e)
			}

			// A stop saves what no interval saw.
			s.ask(t, a, "/write?name=last&text=words")
			s.stop(t, id)
			if h := s.head(t, "alice"); h.State != snapshot.StateClean {
				t.Errorf("after the stop the head says %s, want clean", h.State)
			}
			if left, _ := filepath.Glob(filepath.Join(s.dir, "sandboxes", "run", "*", "*")); runtime == "image" && len(left) > 0 {
				wait(t, "clean node", func() bool {
					left, _ = filepath.Glob(filepath.Join(s.dir, "sandboxes", "run", "*", "*"))
					return len(left) == 0
				}, func() string { return strings.Join(left, "\n") })
			}

			id = s.run(t, "alice", nil)
			a = s.alloc(t, id, "second start", running)
			state := func() string {
				return strings.TrimPrefix(line(s.ask(t, a, "/env"), "SANDBOX_STATE="), "SANDBOX_STATE=")
			}
			for name, want := range map[string]string{"note": "second", "last": "words"} {
				if got := s.ask(t, a, "/read?path="+state()+"/"+name); got != want {
					t.Errorf("restored %s = %q, want %q", name, got, want)
				}
			}

			// A crash takes the same last step.
			s.ask(t, a, "/write?name=crash&text=unsaved")
			if resp, err := httpGet("http://" + s.addr(t, a) + "/exit"); err == nil {
				resp.Body.Close()
			}
			a = s.alloc(t, id, "end after the crash", ended)
			if code := exitCode(a); code != 7 {
				t.Errorf("exit code %d, want 7\n%s", code, events(a))
			}
			id = s.run(t, "alice", nil)
			a = s.alloc(t, id, "third start", running)
			if got := s.ask(t, a, "/read?path="+state()+"/crash"); got != "unsaved" {
				t.Errorf("after the crash, crash = %q, want unsaved", got)
			}
		})
	}
}

func line(text, prefix string) string {
	for l := range strings.Lines(text) {
		if strings.HasPrefix(l, prefix) {
			return strings.TrimSpace(l)
		}
	}
	return ""
}

func exitCode(a *api.Allocation) int {
	for _, e := range a.TaskStates["gateway"].Events {
		if e.Type == api.TaskTerminated {
			return e.ExitCode
		}
	}
	return -1
}

// What a sandbox is not to see or reach.
func TestIsolation(t *testing.T) {
	s := up(t, "image", nil)
	var allocs []*api.Allocation
	for _, u := range []string{"alice", "bob"} {
		allocs = append(allocs, s.alloc(t, s.run(t, u, nil), "running "+u, running))
	}
	env := s.ask(t, allocs[0], "/env")
	if strings.Contains(env, s.server.SecretKey) || strings.Contains(env, s.server.AccessKey) {
		t.Error("the store's credentials are in the sandbox's environment")
	}
	for _, kv := range []string{"SANDBOX_USER=alice", "SANDBOX_STATE=/state", "NOMAD_TASK_DIR=/local"} {
		if !strings.Contains(env, kv) {
			t.Errorf("the environment lacks %s", kv)
		}
	}
	if status := s.ask(t, allocs[0], "/read?path=/proc/self/status"); line(status, "CapEff:") != "CapEff:\t0000000000000000" || line(status, "CapAmb:") != "CapAmb:\t0000000000000000" {
		t.Errorf("the sandbox has capabilities: %s %s", line(status, "CapEff:"), line(status, "CapAmb:"))
	}
	for _, p := range []string{"/proc/1/root/etc/shadow", "/etc/shadow", filepath.Join(s.dir, "nomad", "nomad.hcl")} {
		if resp, err := httpGet("http://" + s.addr(t, allocs[0]) + "/read?path=" + p); err != nil || resp.StatusCode == 200 {
			t.Errorf("%s can be read from inside: %v %v", p, resp, err)
		}
	}
	if pid := s.ask(t, allocs[0], "/pid"); pid != "1 65534" && !strings.HasSuffix(pid, " 65534") {
		t.Errorf("pid and uid are %s, want a pid of its own namespace and nobody", pid)
	}
	for what, to := range map[string]string{
		"the other sandbox": s.addr(t, allocs[1]),
		"Nomad":             bridgeIP + ":" + strings.Split(s.nomad.Addr, ":")[1],
		"cloud metadata":    "169.254.169.254:80",
	} {
		if got := s.ask(t, allocs[0], "/connect?to="+to); got != "closed" {
			t.Errorf("%s (%s) is %s from inside, want closed", what, to, got)
		}
	}
	if got := s.ask(t, allocs[0], "/connect?to="+s.addr(t, allocs[0])); got != "open" {
		t.Errorf("the probe itself does not work: its own port is %s", got)
	}
	// The state of others lies on the node, closed to the sandbox's user.
	other := filepath.Join(s.dir, "sandboxes", "run", "gateway", allocs[1].ID, ".state")
	if resp, err := httpGet("http://" + s.addr(t, allocs[0]) + "/read?path=" + other); err != nil || resp.StatusCode == 200 {
		t.Errorf("another user's state can be read from inside: %v %v", resp, err)
	}
}

// A second start of the same user makes the first a zombie: it is stopped and
// can not save.
func TestFence(t *testing.T) {
	s := up(t, "image", nil)
	old := s.run(t, "alice", nil)
	a := s.alloc(t, old, "first sandbox", running)
	b := s.alloc(t, s.run(t, "alice", nil), "second sandbox", running)
	s.ask(t, b, "/write?name=who&text=second")
	if resp, err := httpGet("http://" + s.addr(t, a) + "/write?name=who&text=zombie"); err == nil {
		resp.Body.Close()
	}
	a = s.alloc(t, old, "end of the first", ended)
	if p, ok := progress(a, sandbox.PhaseFailed); !ok || p.Reason != sandbox.ReasonFenced {
		t.Errorf("no event says that it was fenced:\n%s", events(a))
	}
	if h := s.head(t, "alice"); h.Writer.Alloc != b.ID {
		t.Errorf("the head was written by %s, want %s", h.Writer.Alloc, b.ID)
	}
}

// Each failure of a start: an event that says which and what to do, and nothing
// stored is changed.
func TestFailures(t *testing.T) {
	s := up(t, "image", nil)
	seed := func(t *testing.T, user string) *snapshot.Head {
		id := s.run(t, user, nil)
		s.ask(t, s.alloc(t, id, "sandbox", running), "/write?name=a&text=precious")
		s.stop(t, id)
		return s.head(t, user)
	}
	expect := func(t *testing.T, id string, reason sandbox.Reason, mention string) {
		t.Helper()
		a := s.alloc(t, id, "failed start", ended)
		p, ok := progress(a, sandbox.PhaseFailed)
		if !ok || p.Reason != reason || !strings.Contains(p.Message, mention) {
			t.Errorf("failure = %+v, want %s that mentions %q\n%s", p, reason, mention, events(a))
		}
		if a.ClientStatus != api.AllocClientStatusFailed {
			t.Errorf("the allocation is %s, want failed", a.ClientStatus)
		}
	}
	unchanged := func(t *testing.T, before *snapshot.Head) {
		t.Helper()
		now := s.head(t, string(before.User))
		if now.Seq != before.Seq || now.State != before.State || len(now.Segments) != len(before.Segments) {
			t.Errorf("the stored state changed from %+v to %+v", before, now)
		}
	}
	t.Run("bad user", func(t *testing.T) {
		expect(t, s.run(t, "../etc", nil), sandbox.ReasonConfig, "user")
	})
	t.Run("bad duration", func(t *testing.T) {
		expect(t, s.run(t, "x", func(k *api.Task) { k.Config["ready"] = []map[string]any{{"timeout": "soon"}} }), sandbox.ReasonConfig, "ready.timeout")
	})
	t.Run("unknown image", func(t *testing.T) {
		expect(t, s.run(t, "x", func(k *api.Task) { k.Config["image"] = "registry/claw:1" }), sandbox.ReasonConfig, "image")
	})
	t.Run("exits", func(t *testing.T) {
		before := seed(t, "exits")
		expect(t, s.run(t, "exits", func(k *api.Task) { k.Env = map[string]string{"TEST_EXIT": "3"} }), sandbox.ReasonExited, "code 3")
		unchanged(t, before)
	})
	t.Run("never ready", func(t *testing.T) {
		before := seed(t, "never")
		expect(t, s.run(t, "never", func(k *api.Task) {
			k.Env = map[string]string{"TEST_NEVER_READY": "1"}
			k.Config["ready"] = []map[string]any{{"timeout": "1s"}}
		}), sandbox.ReasonNotReady, "503")
		unchanged(t, before)
	})
	t.Run("corrupt segment", func(t *testing.T) {
		before := seed(t, "corrupt")
		segs, err := filepath.Glob(filepath.Join(s.server.Dir, "users", "corrupt", "seg", "*"))
		if err != nil || len(segs) == 0 {
			t.Fatalf("no segments: %v", err)
		}
		for _, seg := range segs {
			flip(t, seg)
		}
		expect(t, s.run(t, "corrupt", nil), sandbox.ReasonStateCorrupt, "damaged")
		unchanged(t, before)
	})
	t.Run("store away", func(t *testing.T) {
		before := seed(t, "away")
		if err := s.server.Stop(t.Context()); err != nil {
			t.Fatal(err)
		}
		id := s.run(t, "away", nil)
		expect(t, id, sandbox.ReasonStoreUnreachable, "does not answer")
		if err := s.server.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		unchanged(t, before)
		s.alloc(t, s.run(t, "away", nil), "start after it is back", running)
	})
	t.Run("nothing is left", func(t *testing.T) {
		s.stopAll(t)
		wait(t, "empty run folder", func() bool {
			left, _ := filepath.Glob(filepath.Join(s.dir, "sandboxes", "run", "*", "*"))
			return len(left) == 0
		}, func() string {
			out, _ := exec.Command("find", filepath.Join(s.dir, "sandboxes"), "-maxdepth", "3").Output()
			return string(out)
		})
	})
}

func TestWrongCredentials(t *testing.T) {
	s := up(t, "image", func(c string) string { return strings.Replace(c, "test-secret-value", "wrong-secret", 1) })
	a := s.alloc(t, s.run(t, "alice", nil), "failed start", ended)
	if p, ok := progress(a, sandbox.PhaseFailed); !ok || p.Reason != sandbox.ReasonStoreDenied || !strings.Contains(p.Message, "credentials") {
		t.Errorf("failure = %+v\n%s", p, events(a))
	}
	if strings.Contains(events(a), "wrong-secret") {
		t.Error("an event shows the secret")
	}
}

func flip(t *testing.T, file string) {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	b[len(b)/2] ^= 1
	if err := os.WriteFile(file, b, 0o600); err != nil {
		t.Fatal(err)
	}
}
