package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	consul "github.com/hashicorp/consul/api"
	nomad "github.com/hashicorp/nomad/api"

	"openclaw-sandbox/internal/idle"
	"openclaw-sandbox/internal/sandbox"
)

// policy gives a user a policy of their own until the test ends.
func (s *stack) policy(t *testing.T, user, policy string) {
	t.Helper()
	o, err := idle.ParseOverride([]byte(policy))
	if err != nil {
		t.Fatal(err)
	}
	p := idle.NewPolicies(s.Consul.Client(), "openclaw")
	if err := p.Set(t.Context(), sandbox.User(user), o); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Unset(context.Background(), sandbox.User(user)) })
}

// status is what the router says of a user's sandbox.
type status struct {
	Status     string       `json:"status"`
	Generation string       `json:"generation"`
	Idle       idle.Account `json:"idle"`
}

func (s *stack) status(t *testing.T, user string) (out status) {
	t.Helper()
	resp := s.get(t, s.dev, user, "/api/status", nil)
	defer resp.Body.Close()
	if err := json.NewDecoder(resp.Body).Decode(&out); err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("status of %s: %s, %v", user, resp.Status, err)
	}
	return out
}

func (s *stack) waitStatus(t *testing.T, user, want string, limit time.Duration) (is status) {
	t.Helper()
	eventually(t, limit, fmt.Sprintf("status %q of %s (it is %+v)", want, user, is), func() bool { is = s.status(t, user); return is.Status == want })
	return is
}

// background asks for a page's own data, as an open tab does by itself.
func (s *stack) background(t *testing.T, user string) *http.Response {
	t.Helper()
	resp := s.get(t, s.dev, user, "/control-ui-config.json", http.Header{"Sec-Fetch-Mode": {"cors"}, "Sec-Fetch-Site": {"same-origin"}})
	io.Copy(io.Discard, resp.Body)
	resp.Body.Close()
	return resp
}

// A sandbox that nobody uses is frozen, goes on at the next request as the same
// process, is frozen again, then stopped, and started by the next request.
func TestIdleSandboxSleeps(t *testing.T) {
	t.Parallel() // it mostly waits
	s := needStack(t)
	const user = "iris"
	s.policy(t, user, `{"freeze_after": "4s", "stop_after": "45s"}`)
	c := dial(t, s.dev, user)
	c.chat("remember the tulips")
	generation := s.waitPassing(t, user).Service.Meta["generation"]

	// Whoever is connected keeps it awake, and the status says so.
	eventually(t, 20*time.Second, "that the status counts the client", func() bool { return s.status(t, user).Idle.Clients == 1 })
	if why := s.status(t, user).Idle.Why; !strings.Contains(why, "connected") {
		t.Errorf("it is up because %q, want the client that is connected", why)
	}
	c.conn.Close()
	is := s.waitStatus(t, user, "frozen", time.Minute)
	if is.Generation != generation || is.Idle.Did == nil || is.Idle.Did.Act != idle.Freeze || !strings.Contains(is.Idle.Did.Why, "nobody connected") {
		t.Errorf("frozen: %+v, want generation %s and the reason", is, generation)
	}
	alive := http.Client{Timeout: time.Second}
	e := s.registered(t, user)
	gateway := fmt.Sprintf("http://%s:%d/healthz", e.Address, e.Port)
	if resp, err := alive.Get(gateway); err == nil {
		resp.Body.Close()
		t.Error("the gateway answers though it is frozen")
	}
	// Long enough that Consul calls it critical: then nothing but Nomad knows why.
	eventually(t, time.Minute, "failing check", func() bool { return s.passing(user) == nil })

	begin := time.Now()
	resp := s.get(t, s.dev, user, "/v1/models", nil)
	resp.Body.Close()
	t.Logf("thawed and answered after %s", time.Since(begin).Round(time.Millisecond))
	if resp.StatusCode != http.StatusOK {
		t.Errorf("a call to a frozen sandbox: %s", resp.Status)
	}
	if now := s.status(t, user); now.Status != "running" || now.Generation != generation {
		t.Errorf("after the call: %+v, want it running as %s", now, generation)
	}

	// Frozen and thawed by a page's background request, too: it wakes nobody.
	s.waitStatus(t, user, "frozen", time.Minute)
	if resp := s.background(t, user); resp.StatusCode != http.StatusOK {
		t.Errorf("a tab's request to a frozen sandbox: %s", resp.Status)
	}

	// And stopped, without anybody's help.
	is = s.waitStatus(t, user, "stopped", 2*time.Minute)
	if is.Idle.Did == nil || is.Idle.Did.Act != idle.Stop || !strings.Contains(is.Idle.Did.Why, "no activity") {
		t.Errorf("stopped: %+v, want the reason", is)
	}
	if n := len(s.allChildren(t, user)); n != 1 {
		t.Errorf("%d starts, want 1", n)
	}
	if resp := s.background(t, user); resp.StatusCode != http.StatusOK && resp.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("a tab's request to a stopped sandbox: %s", resp.Status)
	}
	again := dial(t, s.dev, user)
	if h := again.history(); !strings.Contains(h, "You said: remember the tulips") {
		t.Errorf("the history lacks what was said: %.400s", h)
	}
}

// registered is a user's gateway in Consul, whether its check passes or not.
func (s *stack) registered(t *testing.T, user string) *consul.AgentService {
	t.Helper()
	entries, _, err := s.Consul.Client().Health().Service("openclaw-gateway", "", false, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if e.Service.Meta["user"] == user {
			if e.Service.Address == "" {
				e.Service.Address = e.Node.Address
			}
			return e.Service
		}
	}
	t.Fatalf("no gateway of %s is registered", user)
	return nil
}

// A turn that takes longer than every idle time is not cut off, though its client
// says nothing meanwhile; and not even if it has gone.
func TestBusyAgentIsLeftAlone(t *testing.T) {
	t.Parallel() // it mostly waits
	s := needStack(t)
	const user = "boris"
	s.policy(t, user, `{"freeze_after": "3s", "stop_after": "5s"}`)
	c := dial(t, s.dev, user)
	run := c.send("SLOW:30:1000")
	if reply := c.final(run, 2*time.Minute); !strings.Contains(reply, "w29") {
		t.Errorf("the turn was cut: %q", reply)
	}
	run = c.send("SLOW:25:1000 and I am gone")
	c.event("chat", time.Minute, func(raw json.RawMessage) bool {
		return strings.Contains(string(raw), run) && strings.Contains(string(raw), `"delta"`)
	})
	c.conn.Close()
	var why string
	eventually(t, 30*time.Second, "word that it is busy", func() bool {
		is := s.status(t, user)
		if is.Idle.Did != nil {
			why = is.Idle.Did.Why
		}
		return is.Status == "running" && strings.HasPrefix(why, "busy: ")
	})
	t.Logf("left running: %s", why)
	s.waitStatus(t, user, "stopped", 2*time.Minute)
	s.policy(t, user, `{"freeze_after": "0s", "stop_after": "0s"}`)
	if h := dial(t, s.dev, user).history(); !strings.Contains(h, "w24") {
		t.Errorf("the turn of the one who had gone was cut: %.600s", h)
	}
	if n := len(s.allChildren(t, user)); n != 2 {
		t.Errorf("%d starts, want 2", n)
	}
}

// The WebSocket that was open when its sandbox fell asleep goes on with the next message.
func TestMessageWakesFrozenSandbox(t *testing.T) {
	t.Parallel() // it mostly waits
	s := needStack(t)
	const user = "mona"
	s.policy(t, user, `{"freeze_after": "0s"}`)
	c := dial(t, s.dev, user)
	c.chat("before")
	generation := s.waitPassing(t, user).Service.Meta["generation"]
	if err := s.Nomad.Client().Allocations().Signal(&nomad.Allocation{ID: generation}, nil, "gateway", "SIGSTOP"); err != nil {
		t.Fatal(err)
	}
	s.waitStatus(t, user, "frozen", 20*time.Second)
	c.chat("after")
	if now := s.waitStatus(t, user, "running", 20*time.Second); now.Generation != generation {
		t.Errorf("generation %s, want %s still", now.Generation, generation)
	}
}

// A job that a user has scheduled runs on time though the sandbox is stopped.
func TestScheduledJobWakesSandbox(t *testing.T) {
	t.Parallel() // it mostly waits
	s := needStack(t)
	const user = "cora"
	s.policy(t, user, `{"freeze_after": "0s", "stop_after": "4s"}`)
	c := dial(t, s.dev, user)
	due := time.Now().Add(2*wakeAhead + 80*time.Second).Truncate(time.Second)
	c.call("cron.add", map[string]any{"name": "wake me", "schedule": map[string]any{"kind": "at", "at": due.UTC().Format(time.RFC3339)}, "deleteAfterRun": false,
		"sessionTarget": "isolated", "wakeMode": "now", "delivery": map[string]any{"mode": "none"}, "payload": map[string]any{"kind": "agentTurn", "message": "time to get up"}})
	c.conn.Close()
	is := s.waitStatus(t, user, "stopped", time.Minute)
	if is.Idle.Did == nil || !is.Idle.Did.Due.Equal(due) {
		t.Fatalf("written down: %+v, want it due at %s", is.Idle.Did, due)
	}
	if time.Now().After(due.Add(-wakeAhead)) {
		t.Fatalf("it was stopped too late to be woken again: %s before its job", time.Until(due))
	}
	s.policy(t, user, `{"freeze_after": "0s", "stop_after": "0s"}`)
	s.waitStatus(t, user, "running", time.Until(due)+time.Minute)
	if n := len(s.allChildren(t, user)); n != 2 {
		t.Errorf("%d starts, want 2: the first and the one for the job", n)
	}
	again := dial(t, s.dev, user)
	var jobs struct {
		Jobs []struct {
			Name  string
			State struct {
				LastRunAtMs   int64
				LastRunStatus string
			}
		}
	}
	var list json.RawMessage
	defer func() {
		if t.Failed() {
			t.Logf("its jobs: %s", list) // told apart by it: not restored, not due, not run
		}
	}()
	eventually(t, time.Minute, "run of the job", func() bool {
		list = again.call("cron.list", map[string]any{"includeDisabled": true})
		if err := json.Unmarshal(list, &jobs); err != nil {
			t.Fatal(err)
		}
		for _, j := range jobs.Jobs {
			if j.Name == "wake me" && j.State.LastRunAtMs > 0 {
				late := time.UnixMilli(j.State.LastRunAtMs).Sub(due)
				t.Logf("the job began %s after it was due (%s)", late.Round(time.Millisecond), j.State.LastRunStatus)
				if late > 15*time.Second || late < 0 {
					t.Errorf("the job ran %s after it was due", late)
				}
				return true
			}
		}
		return false
	})
	eventually(t, 20*time.Second, "that the job is crossed off", func() bool { is := s.status(t, user); return is.Idle.Did == nil || is.Idle.Did.Due.IsZero() })
}

// A forgotten tab of a real browser neither keeps its sandbox up nor wakes it; a
// reload does.
func TestForgottenTab(t *testing.T) {
	t.Parallel() // it mostly waits
	s := needStack(t)
	const user = "tabea"
	b := newBrowser(t)
	s.endAfter(t, user)
	b.open(s.dev.url(user) + "/chat")
	b.waitComposer(startLimit)
	s.policy(t, user, `{"freeze_after": "5s", "stop_after": "70s"}`)
	s.waitStatus(t, user, "stopped", 4*time.Minute)
	// The tab tries to come back, with growing pauses, and must not wake it.
	for end := time.Now().Add(75 * time.Second); time.Now().Before(end); time.Sleep(time.Second) {
		if is := s.status(t, user); is.Status != "stopped" {
			t.Fatalf("the forgotten tab woke the sandbox: %+v", is)
		}
	}
	b.shot("forgotten-tab")
	s.policy(t, user, `{"freeze_after": "0s", "stop_after": "0s"}`)
	b.open(s.dev.url(user) + "/chat")
	b.waitComposer(startLimit)
	if n := len(s.allChildren(t, user)); n != 2 {
		t.Errorf("%d starts, want 2", n)
	}
}
