package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	nomad "github.com/hashicorp/nomad/api"

	"openclaw-sandbox/internal/sandbox"
	"openclaw-sandbox/internal/snapshot"
)

// problem is what a program gets.
type problem struct {
	Status int            `json:"status"`
	Detail string         `json:"detail"`
	Reason sandbox.Reason `json:"reason"`
}

// expect asks for a user's sandbox as a program and as a page, and wants both to
// tell the same.
func (s *stack) expect(t *testing.T, r router, user string, status int, reason sandbox.Reason, mention string) {
	t.Helper()
	resp := s.get(t, r, user, "/v1/models", nil)
	body := readAll(t, resp)
	var p problem
	if err := json.Unmarshal(body, &p); err != nil || resp.StatusCode != status || p.Reason != reason || !strings.Contains(p.Detail, mention) {
		t.Errorf("a program gets %s %s; want %d, %s, %q", resp.Status, body, status, reason, mention)
	}
	if ct := resp.Header.Get("Content-Type"); ct != "application/problem+json" {
		t.Errorf("content type %q", ct)
	}
	b := newBrowser(t)
	b.open(r.url(user))
	b.waitText(startLimit, mention, "Try again")
	b.shot("failure-" + string(reason))
}

// (g) A user id outside the rule is refused before anything is touched.
func TestBadUser(t *testing.T) {
	s := needStack(t)
	for host, path := range map[string]string{"Bad_Name.localhost": "/", "-x.localhost": "/", "localhost": "/u/..%2f..%2fetc/", "a.b.localhost": "/"} {
		req, err := http.NewRequest(http.MethodGet, "http://"+s.dev.addr+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Host = host
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		if readAll(t, resp); resp.StatusCode != http.StatusBadRequest {
			t.Errorf("%s%s: %s, want 400", host, path, resp.Status)
		}
	}
	req, err := http.NewRequest(http.MethodGet, "http://"+s.dev.addr+"/", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Host = "evil.example.com"
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	if readAll(t, resp); resp.StatusCode != http.StatusMisdirectedRequest {
		t.Errorf("another host: %s, want 421", resp.Status)
	}
}

// (g) A gateway that exits, and one for which no node has room.
func TestStartFails(t *testing.T) {
	s := needStack(t)
	t.Run("exits", func(t *testing.T) {
		if err := s.RegisterSandboxes(t.Context(), "openclaw-broken", func(v map[string]any) {
			v["env"] = map[string]string{"SANDBOX_OPENCLAW": "/nowhere"}
			v["restart_attempts"] = 0
		}); err != nil {
			t.Fatal(err)
		}
		s.expect(t, s.broken, "kate", http.StatusServiceUnavailable, sandbox.ReasonExited, "no OpenClaw at")
	})
	t.Run("no capacity", func(t *testing.T) {
		if err := s.RegisterSandboxes(t.Context(), "openclaw-broken", func(v map[string]any) { v["memory"] = 10_000_000 }); err != nil {
			t.Fatal(err)
		}
		s.expect(t, s.broken, "liam", http.StatusServiceUnavailable, sandbox.ReasonNoCapacity, "memory")
		// What found no room is withdrawn, so that it does not start later by surprise.
		eventually(t, time.Minute, "withdrawal of every start", func() bool {
			jobs, _, err := s.Nomad.Client().Jobs().ListOptions(nil, &nomad.QueryOptions{Prefix: "openclaw-broken/dispatch-"})
			return err == nil && !slices.ContainsFunc(jobs, func(j *nomad.JobListStub) bool { return j.Status != "dead" })
		})
	})
}

// (g) The store is away, and a stored object is damaged: nothing stored changes.
func TestStoreFails(t *testing.T) {
	s := needStack(t)
	head := func() *snapshot.Head {
		h, _, err := snapshot.ReadHead(t.Context(), s.store, "mallory")
		if err != nil {
			t.Fatal(err)
		}
		return h
	}
	dial(t, s.dev, "mallory").chat("keep the word chamomile")
	s.stop(t, "mallory")
	before := head()

	if err := s.S3.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.expect(t, s.dev, "mallory", http.StatusServiceUnavailable, sandbox.ReasonStoreUnreachable, "does not answer")
	if err := s.S3.Start(t.Context()); err != nil {
		t.Fatal(err)
	}

	segments, err := filepath.Glob(filepath.Join(s.S3.Dir, "users", "mallory", "seg", "*"))
	if err != nil || len(segments) == 0 {
		t.Fatalf("no segments: %v", err)
	}
	flip := func() {
		for _, f := range segments {
			b, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			b[len(b)/2] ^= 1
			if err := os.WriteFile(f, b, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	flip()
	// The failure before is still remembered; a person asks again.
	readAll(t, s.do(t, s.dev, http.MethodPost, "mallory", "/_sandbox/start", "", nil))
	s.expect(t, s.dev, "mallory", http.StatusInternalServerError, sandbox.ReasonStateCorrupt, "damaged")
	flip() // mended
	after := head()
	if after.Seq != before.Seq || fmt.Sprint(after.Segments) != fmt.Sprint(before.Segments) {
		t.Errorf("the stored snapshot went from %d to %d", before.Seq, after.Seq)
	}
	// A person who asks again gets in, with everything there.
	resp := s.do(t, s.dev, http.MethodPost, "mallory", "/_sandbox/start", "", nil)
	if readAll(t, resp); resp.StatusCode != http.StatusOK {
		t.Fatalf("retry: %s", resp.Status)
	}
	if h := dial(t, s.dev, "mallory").history(); !strings.Contains(h, "chamomile") {
		t.Errorf("the history lacks what was said before: %.300s", h)
	}
}

// Consul and Nomad down: running sandboxes stay reachable.
func TestControlPlaneDown(t *testing.T) {
	s := needStack(t)
	c := dial(t, s.dev, "niaj")
	c.chat("before")
	if err := s.Consul.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	for range 20 {
		resp := s.get(t, s.dev, "niaj", "/startupz", nil)
		if body := readAll(t, resp); resp.StatusCode != http.StatusOK {
			t.Fatalf("with Consul down: %s %s", resp.Status, body)
		}
	}
	if reply := c.chat("while Consul is away"); !strings.Contains(reply, "while Consul is away") {
		t.Errorf("reply = %q", reply)
	}
	if err := s.Consul.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.waitPassing(t, "niaj")
	eventually(t, time.Minute, "ready router", func() bool {
		resp := s.get(t, s.dev, "niaj", "/_sandbox/readyz", nil)
		readAll(t, resp)
		return resp.StatusCode == http.StatusOK
	})
}
