package e2e

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	nomad "github.com/hashicorp/nomad/api"
)

// A gateway is frozen by Nomad's signal for long enough that Consul sees it, the
// agent is started anew meanwhile, and the WebSocket that was open goes on.
func TestFrozenGateway(t *testing.T) {
	s := needStack(t)
	const user = "frida"
	c := dial(t, s.dev, user)
	c.chat("before the freeze")
	e := s.waitPassing(t, user)
	generation := e.Service.Meta["generation"]
	signal := func(name string) {
		t.Helper()
		if err := s.Nomad.Client().Allocations().Signal(&nomad.Allocation{ID: generation}, nil, "gateway", name); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
	}
	signal("SIGSTOP")
	eventually(t, time.Minute, "failing check of the frozen gateway", func() bool { return s.passing(user) == nil })
	s.restartNomad(t)
	alive := http.Client{Timeout: 2 * time.Second}
	if resp, err := alive.Get(fmt.Sprintf("http://%s:%d/healthz", e.Service.Address, e.Service.Port)); err == nil {
		resp.Body.Close()
		t.Error("the restart of Nomad's agent let the frozen gateway go on")
	}
	signal("SIGCONT")
	c.chat("after the freeze")
	if now := s.waitPassing(t, user).Service.Meta["generation"]; now != generation {
		t.Errorf("the sandbox was generation %s, and is %s after the freeze", generation, now)
	}
	if h := c.history(); !strings.Contains(h, "You said: before the freeze") || !strings.Contains(h, "You said: after the freeze") {
		t.Errorf("the history lacks a turn: %.400s", h)
	}
	signal("SIGSTOP")
	s.stop(t, user)
	s.integrity(t, user)
}
