package driver

import (
	"strings"
	"testing"

	"github.com/hashicorp/nomad/api"
)

// A new user begins with the template's state; who has state does not get it, and
// without the template nobody new starts.
func TestTemplate(t *testing.T) {
	s := up(t, "image", func(config string) string {
		return strings.Replace(config, "snapshot {\n", "snapshot {\n  template = \"starter\"\n", 1)
	})
	s.alloc(t, s.run(t, "early", nil), "refusal", func(a *api.Allocation) bool { return strings.Contains(events(a), "template starter") })
	id := s.run(t, "starter", nil)
	s.ask(t, s.alloc(t, id, "template", running), "/write?name=hello&text=welcome")
	s.stop(t, id)
	id = s.run(t, "alice", nil)
	a := s.alloc(t, id, "sandbox", running)
	if got := s.ask(t, a, "/read?path=/state/hello"); got != "welcome" {
		t.Errorf("alice begins with %q", got)
	}
	s.ask(t, a, "/write?name=hello&text=mine")
	s.stop(t, id)
	a = s.alloc(t, s.run(t, "alice", nil), "sandbox again", running)
	if got := s.ask(t, a, "/read?path=/state/hello"); got != "mine" {
		t.Errorf("alice has %q at the second start", got)
	}
}
