package catalog

import (
	"encoding/json"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	consul "github.com/hashicorp/consul/api"
)

func emptyList() *strings.Reader { return strings.NewReader("[]") }

// What Nomad says is believed until Consul knows better.
func TestLearn(t *testing.T) {
	type step func(c *Catalog, s *shard)
	shows := func(index uint64, list ...*consul.ServiceEntry) step {
		return func(_ *Catalog, s *shard) {
			b, err := json.Marshal(list)
			if err != nil {
				t.Fatal(err)
			}
			var entries []entry
			if err := json.Unmarshal(b, &entries); err != nil {
				t.Fatal(err)
			}
			s.publish(entries, index, false)
		}
	}
	const g1, g0 = "g1", "g0"
	critical := func(generation string, created uint64) *consul.ServiceEntry {
		e := registered("alice", generation, 80, created)
		e.Checks = consul.HealthChecks{{CheckID: "serfHealth", Status: consul.HealthPassing}, {ServiceID: e.Service.ID, Status: consul.HealthCritical}}
		return e
	}
	learns := func(generation string) step {
		return func(c *Catalog, _ *shard) {
			c.Learn(Instance{User: "alice", Generation: generation, Addr: "10.0.0.9:99"})
		}
	}
	after := func(d time.Duration) step { return func(*Catalog, *shard) { time.Sleep(d) } }
	fails := func(now bool) step { return func(_ *Catalog, s *shard) { s.failing.Store(now) } }
	evicts := func(generation string) step {
		return func(c *Catalog, _ *shard) { c.Evict("alice", generation) }
	}
	for name, c := range map[string]struct {
		steps []step
		want  string // generation; empty for none
		users int
	}{
		"at once":                      {[]step{shows(7), learns("g1")}, "g1", 1},
		"before the first view":        {[]step{learns("g1")}, "", 0},
		"shown since":                  {[]step{shows(7), learns("g1"), shows(9, registered("alice", "g1", 80, 9))}, "g1", 1},
		"not shown yet":                {[]step{shows(7), learns("g1"), shows(9, registered("bob", "b1", 80, 9))}, "g1", 2},
		"replaced since":               {[]step{shows(7), learns("g1"), shows(9, registered("alice", "g2", 80, 9))}, "g2", 1},
		"an old one comes back":        {[]step{shows(7), learns("g1"), shows(9, registered("alice", "g0", 80, 3))}, "g1", 2},
		"something is shown":           {[]step{shows(7, registered("alice", "g2", 80, 5)), learns("g1")}, "g2", 1},
		"never shown":                  {[]step{shows(7), learns("g1"), after(earlyFor + 1)}, "", 1},
		"never shown, next view":       {[]step{shows(7), learns("g1"), after(earlyFor + 1), shows(9)}, "", 0},
		"while Consul is away":         {[]step{shows(7), learns("g1"), fails(true), after(time.Hour)}, "g1", 1},
		"once Consul is back":          {[]step{shows(7), learns("g1"), fails(true), after(time.Hour), fails(false), shows(9)}, "", 0},
		"critical":                     {[]step{shows(7, registered("alice", "g1", 80, 5)), shows(9, critical(g1, 5))}, "", 0},
		"critical after an outage":     {[]step{shows(7, registered("alice", "g1", 80, 5)), fails(true), shows(7, registered("alice", "g1", 80, 5)), after(backFor - 1), shows(9, critical(g1, 5)), shows(10, critical(g1, 5))}, "g1", 1},
		"critical at once":             {[]step{shows(7, registered("alice", "g1", 80, 5)), fails(true), shows(9, critical(g1, 5))}, "g1", 1},
		"critical for long":            {[]step{shows(7, registered("alice", "g1", 80, 5)), fails(true), shows(9, critical(g1, 5)), after(backFor + 1)}, "", 1},
		"critical long after it":       {[]step{shows(7, registered("alice", "g1", 80, 5)), fails(true), shows(8, registered("alice", "g1", 80, 5)), after(backFor), shows(9, critical(g1, 5))}, "", 0},
		"gone after an outage":         {[]step{shows(7, registered("alice", "g1", 80, 5)), fails(true), shows(8, registered("alice", "g1", 80, 5)), shows(9)}, "", 0},
		"gone after it was critical":   {[]step{shows(7, registered("alice", "g1", 80, 5)), fails(true), shows(8, critical(g1, 5)), after(backFor + 1), shows(9)}, "", 0},
		"evicted after an outage":      {[]step{shows(7, registered("alice", "g1", 80, 5)), fails(true), shows(9, critical(g1, 5)), evicts("g1"), shows(10, critical(g1, 5))}, "", 0},
		"shown, then evicted":          {[]step{shows(7, registered("alice", "g1", 80, 5)), evicts("g1")}, "", 1},
		"evicted and shown again":      {[]step{shows(7, registered("alice", "g1", 80, 5)), evicts("g1"), shows(8, registered("alice", "g1", 80, 5))}, "", 1},
		"evicted for a while":          {[]step{shows(7, registered("alice", "g1", 80, 5)), evicts("g1"), after(goneFor + 1)}, "g1", 1},
		"evicted and registered anew":  {[]step{shows(7, registered("alice", "g1", 80, 5)), evicts("g1"), shows(9, registered("alice", "g1", 80, 9))}, "g1", 1},
		"evicted, and it answers":      {[]step{shows(7, registered("alice", "g1", 80, 5)), evicts("g1"), learns("g1"), after(time.Hour)}, "g1", 1},
		"evicted, and it is critical":  {[]step{shows(7, registered("alice", "g1", 80, 5)), evicts("g1"), shows(9, critical(g1, 5))}, "", 0},
		"started anew meanwhile":       {[]step{shows(7, registered("alice", "g1", 80, 5)), fails(true), shows(9, critical(g1, 5)), shows(10, registered("alice", "g2", 80, 10))}, "g2", 1},
		"another one is critical":      {[]step{shows(7, registered("alice", "g1", 80, 5)), fails(true), shows(9, critical(g0, 4))}, "", 0},
		"learnt, then critical":        {[]step{shows(7), learns("g1"), shows(9, critical(g1, 9))}, "", 0},
		"evicted":                      {[]step{shows(7), learns("g1"), evicts("g1")}, "", 1},
		"evicted and learnt again":     {[]step{shows(7), learns("g1"), evicts("g1"), learns("g1")}, "g1", 1},
		"another evicted":              {[]step{shows(7), learns("g1"), evicts("g0")}, "g1", 1},
		"the old one evicted, then it": {[]step{shows(7, registered("alice", "g0", 80, 5)), evicts("g0"), learns("g1"), after(goneFor), shows(8, registered("alice", "g0", 80, 5))}, "g1", 2},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				cat := alone(t)
				for _, s := range c.steps {
					s(cat, cat.shards[0])
				}
				if i, ok := cat.Lookup("alice"); i.Generation != c.want || ok != (c.want != "") {
					t.Errorf("got %+v, %v; want generation %q", i, ok, c.want)
				}
				if cat.Len() != c.users {
					t.Errorf("%d users, want %d", cat.Len(), c.users)
				}
			})
		})
	}
}

// alone is a catalog whose Consul is away; tests show it what they want.
func alone(t *testing.T) *Catalog {
	t.Helper()
	client, err := consul.NewClient(&consul.Config{Address: "127.0.0.1:1"})
	if err != nil {
		t.Fatal(err)
	}
	cat, err := New(DefaultConfig(), client, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return cat
}
