package catalog

import (
	"encoding/json"
	"testing"
	"testing/synctest"
	"time"

	consul "github.com/hashicorp/consul/api"

	"openclaw-sandbox/internal/sandbox"
)

// Whoever sleeps is no route, and can be found to be woken, until it is let go on or
// is gone.
func TestSleep(t *testing.T) {
	type step func(c *Catalog)
	shows := func(index uint64, list ...*consul.ServiceEntry) step {
		return func(c *Catalog) {
			b, err := json.Marshal(list)
			if err != nil {
				t.Fatal(err)
			}
			var entries []entry
			if err := json.Unmarshal(b, &entries); err != nil {
				t.Fatal(err)
			}
			c.shards[0].publish(entries, index, false)
		}
	}
	passing := registered("alice", "g1", 80, 5)
	critical := registered("alice", "g1", 80, 5)
	critical.Checks = consul.HealthChecks{{ServiceID: critical.Service.ID, Status: consul.HealthCritical}}
	anew := registered("alice", "g1", 80, 9)
	sleeps := func(c *Catalog) { c.Sleep("alice", "g1") }
	rouses := func(c *Catalog) { c.Rouse("alice", "g1") }
	evicts := func(c *Catalog) { c.Evict("alice", "g1") }
	learns := func(c *Catalog) {
		if i, _, ok := c.Dormant("alice"); ok {
			c.Learn(i)
		}
	}
	after := func(d time.Duration) step { return func(*Catalog) { time.Sleep(d) } }
	const awake, asleep, failing, nowhere = "awake", "asleep", "critical", "nowhere"
	for name, c := range map[string]struct {
		steps []step
		want  string
	}{
		"nobody":                          {[]step{shows(7)}, nowhere},
		"before the first view":           {[]step{sleeps}, nowhere},
		"unknown":                         {[]step{shows(7), sleeps}, nowhere},
		"another generation":              {[]step{shows(7, passing), func(c *Catalog) { c.Sleep("alice", "g0") }}, awake},
		"frozen":                          {[]step{shows(7, passing), sleeps}, asleep},
		"for long":                        {[]step{shows(7, passing), sleeps, after(time.Hour), shows(9, passing)}, asleep},
		"until its check fails, and then": {[]step{shows(7, passing), sleeps, shows(9, critical), after(time.Hour), shows(11, critical)}, asleep},
		"frozen when it failed already":   {[]step{shows(7, critical), sleeps}, asleep},
		"that it does not answer":         {[]step{shows(7, passing), sleeps, evicts, after(goneFor + 1)}, asleep},
		"frozen after it was evicted":     {[]step{shows(7, passing), evicts, sleeps, after(goneFor + 1)}, asleep},
		"roused":                          {[]step{shows(7, passing), sleeps, rouses}, awake},
		"roused twice":                    {[]step{shows(7, passing), sleeps, rouses, rouses}, awake},
		"roused without a sleep":          {[]step{shows(7, critical), rouses}, failing},
		"let go on while its check fails": {[]step{shows(7, passing), sleeps, shows(9, critical), learns}, awake},
		"and the next view":               {[]step{shows(7, passing), sleeps, shows(9, critical), learns, shows(10, critical)}, awake},
		"until the check has run":         {[]step{shows(7, passing), sleeps, shows(9, critical), learns, after(backFor - 1), shows(10, passing), after(time.Hour)}, awake},
		"which still fails":               {[]step{shows(7, passing), sleeps, shows(9, critical), learns, after(backFor + 1), shows(10, critical)}, failing},
		"roused while its check fails":    {[]step{shows(7, passing), sleeps, shows(9, critical), rouses, shows(10, critical)}, awake},
		"started anew in its place":       {[]step{shows(7, passing), sleeps, shows(9, anew)}, awake},
		"gone":                            {[]step{shows(7, passing), sleeps, shows(9)}, nowhere},
		"gone and back":                   {[]step{shows(7, passing), sleeps, shows(9), shows(10, passing)}, awake},
		"critical":                        {[]step{shows(7, critical)}, failing},
		"critical, and a newer one":       {[]step{shows(7, critical, registered("alice", "g2", 81, 6))}, awake},
		"early and frozen":                {[]step{shows(7), func(c *Catalog) { c.Learn(Instance{User: "alice", Generation: "g1", Addr: "10.0.0.9:99"}) }, sleeps}, asleep},
		"and not shown yet":               {[]step{shows(7), func(c *Catalog) { c.Learn(Instance{User: "alice", Generation: "g1", Addr: "10.0.0.9:99"}) }, sleeps, shows(9)}, asleep},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				cat := alone(t)
				for _, s := range c.steps {
					s(cat)
				}
				got := nowhere
				_, up := cat.Lookup("alice")
				i, state, dormant := cat.Dormant("alice")
				switch {
				case up:
					got = awake
				case dormant:
					got = map[State]string{Asleep: asleep, Critical: failing}[state]
				}
				if got != c.want {
					t.Errorf("%s (%+v), want %s", got, i, c.want)
				}
				if up && dormant && state == Asleep {
					t.Error("it is a route, and asleep")
				}
				states := map[sandbox.User]State{}
				for i, s := range cat.Running {
					states[i.User] = s
				}
				want := map[string]State{awake: Serving, asleep: Asleep, failing: Critical}
				if s, ok := states["alice"]; ok != (c.want != nowhere) || ok && s != want[c.want] {
					t.Errorf("Running: %v, %v; want %s", s, ok, c.want)
				}
			})
		})
	}
}
