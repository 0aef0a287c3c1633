package e2e

import (
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// (d) What was said before a stop is there after the wake, and comes from S3;
// what was snapshotted is there after a kill -9.
func TestStateSurvives(t *testing.T) {
	s := needStack(t)
	first := dial(t, s.dev, "erin")
	first.chat("remember the word aubergine")
	before := s.waitPassing(t, "erin").Service.Meta["generation"]

	s.stop(t, "erin")
	// Nothing of the run is left on the node: the next start can only come from S3.
	if left := s.localState(t, before); len(left) != 0 {
		t.Fatalf("the stopped run left %v on the node", left)
	}

	second := dial(t, s.dev, "erin") // wakes
	after := s.waitPassing(t, "erin").Service.Meta["generation"]
	if after == before {
		t.Fatalf("the wake reached generation %s, which was stopped", before)
	}
	if h := second.history(); !strings.Contains(h, "aubergine") {
		t.Fatalf("the history after the wake lacks the first chat: %.400s", h)
	}

	second.chat("and remember the word bergamot")
	s.waitSaved(t, "erin", time.Now())
	// Every process of the gateway, at once and without warning.
	for _, pid := range s.gatewayProcesses(t, after) {
		kill9(t, pid)
	}
	// What is asked now is held until Nomad has started it again, in the same place.
	resp := s.get(t, s.dev, "erin", "/v1/models", nil)
	if body := readAll(t, resp); resp.StatusCode != http.StatusOK {
		t.Errorf("a call right after kill -9: %s %.300s", resp.Status, body)
	}
	if now := s.waitPassing(t, "erin").Service.Meta["generation"]; now != after {
		t.Errorf("generation %s after kill -9, want %s again", now, after)
	}
	third := dial(t, s.dev, "erin")
	for _, word := range []string{"aubergine", "bergamot"} {
		if h := third.history(); !strings.Contains(h, word) {
			t.Errorf("the history after kill -9 lacks %q: %.400s", word, h)
		}
	}
}

// (h) The Nomad agent restarts in the middle of a turn: the same process goes
// on, the turn ends, and the next snapshot is accepted.
func TestAgentRestart(t *testing.T) {
	s := needStack(t)
	c := dial(t, s.dev, "frank")
	c.chat("before the restart")
	inst := s.waitPassing(t, "frank")
	generation := inst.Service.Meta["generation"]
	pids := s.gatewayProcesses(t, generation)

	run := c.send("SLOW:100:100") // ten seconds
	s.restartNomad(t)
	if reply := c.final(run, 60*time.Second); !strings.Contains(reply, "w99") {
		t.Errorf("the turn across the restart ended as %q", reply)
	}
	if now := s.gatewayProcesses(t, generation); len(now) == 0 || now[0] != pids[0] {
		t.Fatalf("gateway processes were %v, are %v after the agent's restart", pids, now)
	}
	c.chat("after the restart")
	s.waitSaved(t, "frank", time.Now())

	s.stop(t, "frank")
	if h := dial(t, s.dev, "frank").history(); !strings.Contains(h, "after the restart") {
		t.Errorf("the history lacks what was said after the agent's restart: %.400s", h)
	}
}

// A sandbox never holds the store's credentials: not in its environment, not
// in a file of its own.
func TestNoCredentialInside(t *testing.T) {
	s := needStack(t)
	dial(t, s.dev, "grace")
	generation := s.waitPassing(t, "grace").Service.Meta["generation"]
	for _, pid := range s.gatewayProcesses(t, generation) {
		env, err := os.ReadFile(filepath.Join("/proc", pid, "environ"))
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(env), s.secretKey) || strings.Contains(string(env), s.accessKey) {
			t.Errorf("process %s of the sandbox has the store's credentials in its environment", pid)
		}
	}
	// What is mounted into it: its state, and its folders of the allocation.
	for _, dir := range []string{
		filepath.Join(s.Dir(), "sandboxes", "run", "gateway", generation, ".state"),
		filepath.Join(s.Dir(), "nomad", "data", "alloc", generation),
	} {
		files := 0
		err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if err != nil || !d.Type().IsRegular() {
				return nil // it may come and go while we look
			}
			files++
			if b, err := os.ReadFile(path); err == nil && strings.Contains(string(b), s.secretKey) {
				t.Errorf("%s holds the store's secret key", path)
			}
			return nil
		})
		if err != nil || files == 0 {
			t.Errorf("looked at %d files of %s: %v", files, dir, err)
		}
	}
}
