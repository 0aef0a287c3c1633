package catalog

import (
	"io"
	"net/http"
	"sync/atomic"
	"testing"

	consul "github.com/hashicorp/consul/api"
)

// An ended allocation loses its route at once, although Consul still shows it, and nothing
// brings the route back: its address may be another user's by now.
func TestEnd(t *testing.T) {
	var index atomic.Uint64
	index.Store(7)
	f := &fakeConsul{serve: func(w http.ResponseWriter, r *http.Request) {
		critical := registered("carol", "g3", 82, 5)
		critical.Checks = consul.HealthChecks{{ServiceID: critical.Service.ID, Status: consul.HealthCritical}}
		answer(w, index.Add(1), registered("alice", "g1", 80, 5), registered("bob", "g2", 81, 5), critical)
	}}
	cat := f.start(t, quick(), io.Discard)
	s := cat.shards[0]
	refresh := func() {
		t.Helper()
		if err := s.ask(within(t)); err != nil {
			t.Fatal(err)
		}
	}
	refresh()
	alice, ok := cat.Lookup("alice")
	if !ok {
		t.Fatal("alice has no route at the beginning")
	}
	carol, _, ok := cat.Dormant("carol")
	if !ok {
		t.Fatal("carol is not known as critical")
	}
	gone := func(when string) {
		t.Helper()
		if i, ok := cat.Lookup("alice"); ok {
			t.Errorf("%s: alice has the route %+v", when, i)
		}
		if i, ok := cat.registered("alice"); ok {
			t.Errorf("%s: who waits for alice gets %+v", when, i)
		}
		if i, _, ok := cat.Dormant("carol"); ok {
			t.Errorf("%s: carol is dormant: %+v", when, i)
		}
		if _, ok := cat.Lookup("bob"); !ok {
			t.Errorf("%s: bob lost his route", when)
		}
	}
	cat.End("g1")
	cat.End("g3")
	cat.End("of nobody")
	gone("after the end")
	refresh()
	gone("while Consul still shows it")
	cat.Learn(alice)
	cat.Learn(carol)
	cat.Sleep("alice", "g1")
	cat.Rouse("alice", "g1")
	gone("learnt late")
	again := alice
	again.Generation = "g4"
	cat.Learn(again)
	if i, ok := cat.Lookup("alice"); !ok || i.Generation != "g4" {
		t.Errorf("the next generation: %+v, %v", i, ok)
	}
	cat.End("g4")
	gone("a learnt one")
}

// What only the node's agent says does not take a gateway off the air; its own check does.
func TestNodeChecks(t *testing.T) {
	for name, c := range map[string]struct {
		own, node string
		want      bool
	}{
		"all pass":             {consul.HealthPassing, consul.HealthPassing, true},
		"the agent is away":    {consul.HealthPassing, consul.HealthCritical, true},
		"the gateway hangs":    {consul.HealthCritical, consul.HealthPassing, false},
		"nothing of it passes": {consul.HealthCritical, consul.HealthCritical, false},
	} {
		t.Run(name, func(t *testing.T) {
			f := &fakeConsul{serve: func(w http.ResponseWriter, r *http.Request) {
				e := registered("alice", "g1", 80, 5)
				e.Checks = consul.HealthChecks{{CheckID: "serfHealth", Status: c.node}, {CheckID: "ready", ServiceID: e.Service.ID, Status: c.own}}
				answer(w, 7, e)
			}}
			cat := f.start(t, quick(), io.Discard)
			if err := cat.Refresh(within(t), "alice"); err != nil {
				t.Fatal(err)
			}
			if _, ok := cat.Lookup("alice"); ok != c.want {
				t.Errorf("has a route: %v, want %v", ok, c.want)
			}
		})
	}
}

// A Consul that was restored from a backup, or is another one, has lower indexes. Its
// answers count, after an outage as well, and for a single question too.
func TestIndexBackAfterOutage(t *testing.T) {
	for name, ask := range map[string]func(*testing.T, *Catalog){
		"the followed view": func(t *testing.T, c *Catalog) { run(t, c) },
		"one question": func(t *testing.T, c *Catalog) {
			eventually(t, "an answer to the second question", func() bool {
				if err := c.shards[0].ask(within(t)); err != nil {
					t.Log(err)
				}
				_, ok := c.Lookup("bob")
				return ok
			})
		},
	} {
		t.Run(name, func(t *testing.T) {
			var asked atomic.Int64
			f := &fakeConsul{serve: func(w http.ResponseWriter, r *http.Request) {
				switch n := asked.Add(1); {
				case n == 1:
					answer(w, 1000, registered("alice", "g1", 80, 900))
				case n < 4:
					http.Error(w, "No cluster leader", http.StatusInternalServerError)
				case r.URL.Query().Get("index") == "50":
					<-r.Context().Done()
				default:
					answer(w, 50, registered("alice", "g2", 81, 40), registered("bob", "g3", 82, 41))
				}
			}}
			cat := f.start(t, quick(), io.Discard)
			ask(t, cat)
			if _, err := cat.Wait(within(t), "bob", nil); err != nil {
				t.Fatal(err)
			}
			if i, ok := cat.Lookup("alice"); !ok || i.Generation != "g2" {
				t.Errorf("alice's route is %+v, %v; want the new one", i, ok)
			}
		})
	}
}
