package main

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	consul "github.com/hashicorp/consul/api"

	"openclaw-sandbox/internal/apitoken"
	"openclaw-sandbox/internal/devcluster"
)

// A token's life on a real Consul, as an operator makes it and a router sees it.
func TestTokens(t *testing.T) {
	ctx, c := ownConsul(t)
	must := func(args ...string) string {
		t.Helper()
		out, err := ctl(t, "", append([]string{"token"}, args...)...)
		if err != nil {
			t.Fatalf("%q: %s", args, explain(err))
		}
		return out
	}

	table := apitoken.New(apitoken.DefaultConfig(), c.Client(), slog.New(slog.DiscardHandler))
	following, end := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() { done <- table.Run(following) }()
	t.Cleanup(func() { end(); <-done })
	// sees waits until the router knows whose the token is; "" for nobody's.
	sees := func(token, want string) time.Duration {
		t.Helper()
		begun, got := time.Now(), ""
		for time.Since(begun) < 20*time.Second {
			r := httptest.NewRequest("GET", "/", nil)
			r.Header.Set("Authorization", "Bearer "+token)
			who, _ := table.Identify(r)
			if got = string(who.User); got == want {
				return time.Since(begun)
			}
			time.Sleep(time.Millisecond)
		}
		t.Fatalf("the router takes the token for %q's, want %q", got, want)
		return 0
	}

	alice := strings.TrimSpace(must("create", "alice", "-m", "CI of the docs"))
	sees(alice, "alice")
	var ops struct{ ID, User, Role, Token, Expires string }
	if err := json.Unmarshal([]byte(must("create", "ops", "--role", "admin", "--expires", "never", "--json")), &ops); err != nil || ops.User != "ops" || ops.Role != "admin" || ops.Expires != "" {
		t.Errorf("created as JSON: %+v, %v", ops, err)
	}
	sees(ops.Token, "ops")

	list := must("list")
	for _, want := range []string{"alice", "ops", "admin", "CI of the docs", "never", ops.ID} {
		if !strings.Contains(list, want) {
			t.Errorf("the list lacks %q:\n%s", want, list)
		}
	}
	var mine []apitoken.Listed
	asJSON := must("list", "alice", "--json")
	if err := json.Unmarshal([]byte(asJSON), &mine); err != nil || len(mine) != 1 || mine[0].Error != "" || mine[0].User != "alice" || time.Until(mine[0].Expires).Round(24*time.Hour) != 90*24*time.Hour {
		t.Errorf("alice's: %+v, %v", mine, err)
	}
	pairs, _, err := c.Client().KV().List(apitoken.DefaultPrefix, nil)
	if err != nil || len(pairs) != 2 {
		t.Fatalf("Consul has %d, %v", len(pairs), err)
	}
	for _, p := range pairs {
		asJSON += string(p.Value)
	}
	for _, token := range []string{alice, ops.Token} {
		if strings.Contains(list+asJSON, strings.TrimPrefix(token, "ocs_")) {
			t.Error("the token is kept, or shown again")
		}
	}

	must("revoke", mine[0].ID)
	t.Logf("the router refused the revoked token after %s", sees(alice, ""))
	sees(ops.Token, "ops")
	if _, err := c.Client().KV().Put(&consul.KVPair{Key: apitoken.DefaultPrefix + "not-a-token", Value: []byte("{}")}, nil); err != nil {
		t.Fatal(err)
	}
	if out := must("list"); !strings.Contains(out, "64 hex digits") || !strings.Contains(out, ops.ID) {
		t.Errorf("a bad record:\n%s", out)
	}
	for args, want := range map[string]string{
		"revoke " + mine[0].ID:        "lists them",
		"revoke ../../x":              "lists them",
		"create Alice":                "user \"Alice\"",
		"create alice --role god":     "role: want",
		"create alice --expires soon": "--expires",
		"create alice --expires 1s":   "a minute at least",
		"list --prefix x":             "slash",
	} {
		if _, err := ctl(t, "", append([]string{"token"}, strings.Fields(args)...)...); err == nil || !strings.Contains(explain(err), want) {
			t.Errorf("%s: %v, want it to say %q", args, err, want)
		}
	}

	// Consul goes away and comes back: the last view stands, and is followed again.
	if err := c.Stop(ctx); err != nil {
		t.Fatal(err)
	}
	sees(ops.Token, "ops")
	if _, err := ctl(t, "", "token", "list"); !errors.Is(err, apitoken.ErrConsul) || !strings.Contains(explain(err), "CONSUL_HTTP_ADDR") {
		t.Errorf("without Consul: %v", err)
	}
	if err := c.Start(ctx); err != nil {
		t.Fatal(err)
	}
	must("revoke", ops.ID)
	sees(ops.Token, "")
}

func TestLifetime(t *testing.T) {
	for text, want := range map[string]time.Duration{"never": 0, "90d": 90 * 24 * time.Hour, "12h": 12 * time.Hour, "0d": -1, "d": -1, "-1d": -1, "999999d": -1, "1.5d": -1, "": -1, "forever": -1} {
		if got, err := lifetime(text); (err == nil) != (want >= 0) || err == nil && got != want {
			t.Errorf("lifetime(%q) = %s, %v", text, got, err)
		}
	}
}

// ownConsul is a Consul for the test, which its commands find.
func ownConsul(t *testing.T) (context.Context, *devcluster.Consul) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	t.Cleanup(cancel)
	c, err := devcluster.StartConsul(ctx, filepath.Join(t.TempDir(), "consul"), 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Stop(ctx) })
	t.Setenv("CONSUL_HTTP_ADDR", c.Addr)
	return ctx, c
}
