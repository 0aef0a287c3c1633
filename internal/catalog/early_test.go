package catalog

import (
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
	shows := func(index uint64, entries ...*consul.ServiceEntry) step {
		return func(_ *Catalog, s *shard) { s.publish(entries, index, false) }
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
		"shown since":                  {[]step{shows(7), learns("g1"), shows(9, entry("alice", "g1", 80, 9))}, "g1", 1},
		"not shown yet":                {[]step{shows(7), learns("g1"), shows(9, entry("bob", "b1", 80, 9))}, "g1", 2},
		"replaced since":               {[]step{shows(7), learns("g1"), shows(9, entry("alice", "g2", 80, 9))}, "g2", 1},
		"an old one comes back":        {[]step{shows(7), learns("g1"), shows(9, entry("alice", "g0", 80, 3))}, "g1", 2},
		"something is shown":           {[]step{shows(7, entry("alice", "g2", 80, 5)), learns("g1")}, "g2", 1},
		"never shown":                  {[]step{shows(7), learns("g1"), after(earlyFor + 1)}, "", 1},
		"never shown, next view":       {[]step{shows(7), learns("g1"), after(earlyFor + 1), shows(9)}, "", 0},
		"while Consul is away":         {[]step{shows(7), learns("g1"), fails(true), after(time.Hour)}, "g1", 1},
		"once Consul is back":          {[]step{shows(7), learns("g1"), fails(true), after(time.Hour), fails(false), shows(9)}, "", 0},
		"critical after an outage":     {[]step{shows(7, entry("alice", "g1", 80, 5)), fails(true), shows(7, entry("alice", "g1", 80, 5)), after(backFor - 1), shows(9), shows(10)}, "g1", 1},
		"critical at once":             {[]step{shows(7, entry("alice", "g1", 80, 5)), fails(true), shows(9)}, "g1", 1},
		"gone long after an outage":    {[]step{shows(7, entry("alice", "g1", 80, 5)), fails(true), shows(8, entry("alice", "g1", 80, 5)), after(backFor), shows(9)}, "", 0},
		"evicted after an outage":      {[]step{shows(7, entry("alice", "g1", 80, 5)), fails(true), shows(9), evicts("g1"), shows(10)}, "", 0},
		"still so a while later":       {[]step{shows(7, entry("alice", "g1", 80, 5)), fails(true), shows(9), after(backFor + 1)}, "", 1},
		"passing again":                {[]step{shows(7, entry("alice", "g1", 80, 5)), fails(true), shows(9), shows(10, entry("alice", "g1", 80, 5)), after(backFor), shows(11)}, "", 0},
		"started anew meanwhile":       {[]step{shows(7, entry("alice", "g1", 80, 5)), fails(true), shows(9), shows(10, entry("alice", "g2", 80, 10))}, "g2", 1},
		"gone without an outage":       {[]step{shows(7, entry("alice", "g1", 80, 5)), shows(9)}, "", 0},
		"evicted":                      {[]step{shows(7), learns("g1"), evicts("g1")}, "", 0},
		"evicted and learnt again":     {[]step{shows(7), learns("g1"), evicts("g1"), learns("g1")}, "", 0},
		"another evicted":              {[]step{shows(7), learns("g1"), evicts("g0")}, "g1", 1},
		"the old one evicted, then it": {[]step{shows(7, entry("alice", "g0", 80, 5)), evicts("g0"), learns("g1"), after(goneFor), shows(8, entry("alice", "g0", 80, 5))}, "g1", 2},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				client, err := consul.NewClient(&consul.Config{Address: "127.0.0.1:1"})
				if err != nil {
					t.Fatal(err)
				}
				cat, err := New(DefaultConfig(), client, slog.New(slog.DiscardHandler))
				if err != nil {
					t.Fatal(err)
				}
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
