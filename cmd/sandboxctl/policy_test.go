package main

import (
	"strings"
	"testing"
	"time"

	consul "github.com/hashicorp/consul/api"

	"openclaw-sandbox/internal/idle"
	"openclaw-sandbox/internal/sandbox"
)

// A policy's life on a real Consul, as an operator makes it and a router reads it.
func TestPolicies(t *testing.T) {
	ctx, c := ownConsul(t)
	base := idle.Policy{FreezeAfter: time.Minute, StopAfter: time.Hour}
	counts := func(u sandbox.User, want idle.Policy) {
		t.Helper()
		o, err := idle.NewPolicies(c.Client(), "openclaw").Of(ctx, u)
		if err != nil || base.With(o) != want {
			t.Errorf("%s: %+v, %v; want %+v", u, base.With(o), err, want)
		}
	}
	for _, step := range []struct{ args, says string }{
		{"set alice --always-on -m channels", "always on"},
		{"set bob --freeze-after 0s --stop-after 12h", "never frozen, stopped after 12h0m0s"},
		{"set carol --stop-after 2h", "frozen as configured"},
		{"list", "channels"},
		{"set carol --freeze-after 5m", "stopped as configured"},
		{"unset bob", "config counts"},
		{"list --json", `"freeze_after": "5m0s"`},
	} {
		out, err := ctl(t, "", append([]string{"policy"}, strings.Fields(step.args)...)...)
		if err != nil || !strings.Contains(out, step.says) {
			t.Errorf("policy %s: %v\n%s\nwant %q", step.args, err, out, step.says)
		}
	}
	counts("alice", idle.Policy{FreezeAfter: time.Minute, StopAfter: time.Hour, AlwaysOn: true})
	counts("bob", base)
	counts("carol", idle.Policy{FreezeAfter: 5 * time.Minute, StopAfter: time.Hour})
	for _, args := range []string{"set alice", "set Alice --always-on", "set alice --stop-after -1s", "set alice --stop-after soon", "unset ../x"} {
		if out, err := ctl(t, "", append([]string{"policy"}, strings.Fields(args)...)...); err == nil {
			t.Errorf("policy %s was taken: %s", args, out)
		}
	}
	if _, err := c.Client().KV().Put(&consul.KVPair{Key: idle.PolicyPrefix("openclaw") + "dora", Value: []byte("{")}, nil); err != nil {
		t.Fatal(err)
	}
	if out, err := ctl(t, "", "policy", "list"); err != nil || !strings.Contains(out, "dora") || !strings.Contains(out, "always on") {
		t.Errorf("with one that nobody can read: %v\n%s", err, out)
	}
}
