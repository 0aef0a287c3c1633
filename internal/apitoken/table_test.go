package apitoken

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	consul "github.com/hashicorp/consul/api"

	"openclaw-sandbox/internal/identity"
	"openclaw-sandbox/internal/sandbox"
)

// pair is what Consul has of a token.
func pair(t testing.TB, token string, i Info) *consul.KVPair {
	t.Helper()
	sum := sha256.Sum256([]byte(token))
	value, err := json.Marshal(record{Info: i, SHA256: hex.EncodeToString(sum[:])})
	if err != nil {
		t.Fatal(err)
	}
	return &consul.KVPair{Key: DefaultPrefix + idOf(sum), Value: value}
}

func table(t testing.TB, log *bytes.Buffer, pairs ...*consul.KVPair) *Table {
	t.Helper()
	client, err := consul.NewClient(&consul.Config{Address: "127.0.0.1:1"})
	if err != nil {
		t.Fatal(err)
	}
	tab := New(DefaultConfig(), client, slog.New(slog.NewTextHandler(log, nil)))
	tab.publish(pairs)
	return tab
}

func ask(m identity.Method, from, authorization string) (identity.Caller, *http.Request, error) {
	r := httptest.NewRequest("GET", "/", nil)
	r.RemoteAddr = from + ":1234"
	r.Header.Set("Authorization", authorization)
	c, err := identity.Any{m}.Identify(r)
	return c, r, err
}

func TestIdentify(t *testing.T) {
	now := time.Now()
	alice, ops, short, other := newToken(), newToken(), newToken(), newToken()
	var log bytes.Buffer
	foreign := pair(t, other, Info{User: "alice", Role: identity.RoleAdmin})
	foreign.Key = DefaultPrefix + "0123456789ab" // not the key of its sum
	tab := table(t, &log, pair(t, alice, Info{User: "alice", Role: identity.RoleUser}), pair(t, ops, Info{User: "ops", Role: identity.RoleAdmin}),
		pair(t, short, Info{User: "alice", Role: identity.RoleUser, Expires: now.Add(time.Hour)}), foreign,
		&consul.KVPair{Key: DefaultPrefix + "x", Value: []byte("{")}, pair(t, newToken(), Info{User: "Alice", Role: identity.RoleUser}), pair(t, newToken(), Info{User: "alice", Role: "god"}))
	if n := strings.Count(log.String(), "is ignored"); n != 4 || !strings.Contains(log.String(), "count=3") || strings.Contains(log.String(), mark) {
		t.Errorf("%d records were complained about, want 4:\n%s", n, log.String())
	}
	sum := sha256.Sum256([]byte(alice))
	cases := map[string]struct {
		header string
		after  time.Duration
		user   sandbox.User
		bob    bool // may use bob's sandbox
	}{
		"right":           {"Bearer " + alice, 0, "alice", false},
		"lower case":      {"bearer " + alice, 0, "alice", false},
		"admin":           {"Bearer " + ops, 0, "ops", true},
		"not yet expired": {"Bearer " + short, 0, "alice", false},
		"expired":         {"Bearer " + short, time.Hour, "", false},
		"unknown":         {"Bearer " + newToken(), 0, "", false},
		"its sum":         {"Bearer " + hex.EncodeToString(sum[:]), 0, "", false},
		"its id":          {"Bearer " + mark + idOf(sum), 0, "", false},
		"cut":             {"Bearer " + alice[:len(alice)-1], 0, "", false},
		"longer":          {"Bearer " + alice + "a", 0, "", false},
		"two":             {"Bearer " + alice + " " + ops, 0, "", false},
		"other scheme":    {"Basic " + alice, 0, "", false},
		"of a wrong key":  {"Bearer " + other, 0, "", false},
		"none":            {"", 0, "", false},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			tab.now = func() time.Time { return now.Add(c.after) }
			got, r, err := ask(tab, "203.0.113.9", c.header)
			if got.User != c.user || (err == nil) != (c.user != "") || err == nil && got.May("bob") != c.bob {
				t.Errorf("Identify = %+v, %v; want %q", got, err, c.user)
			}
			if strings.HasPrefix(c.header, "Bearer "+mark) && r.Header.Get("Authorization") != "" {
				t.Error("the token travels on")
			}
		})
	}
	if _, r, _ := ask(tab, "203.0.113.9", "Bearer of-the-gateway"); r.Header.Get("Authorization") == "" {
		t.Error("what is no token of ours was taken away")
	}
}

func TestBruteForce(t *testing.T) {
	used, fresh := newToken(), newToken()
	tab := table(t, &bytes.Buffer{}, pair(t, used, Info{User: "alice", Role: identity.RoleUser}), pair(t, fresh, Info{User: "bob", Role: identity.RoleUser}))
	now := time.Now()
	tab.now = func() time.Time { return now }
	if _, _, err := ask(tab, "203.0.113.10", "Bearer "+used); err != nil {
		t.Fatal(err)
	}
	for range failuresPerMinute {
		ask(tab, "203.0.113.9", "Bearer "+newToken())
	}
	for _, c := range []struct {
		name, from, token string
		ok                bool
	}{
		{"a guess that is right", "203.0.113.9", fresh, false},
		{"one in use, behind the same load balancer", "203.0.113.9", used, true},
		{"another address", "203.0.113.10", fresh, true},
		{"and then it is in use", "203.0.113.9", fresh, true},
	} {
		if _, _, err := ask(tab, c.from, "Bearer "+c.token); (err == nil) != c.ok {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	// A change of another token does not make it forgotten.
	tab.publish(consul.KVPairs{pair(t, used, Info{User: "alice", Role: identity.RoleUser}), pair(t, newToken(), Info{User: "carol", Role: identity.RoleUser})})
	if _, _, err := ask(tab, "203.0.113.9", "Bearer "+used); err != nil {
		t.Errorf("after a change of another: %v", err)
	}
	if _, _, err := ask(tab, "203.0.113.10", "Bearer "+fresh); err == nil {
		t.Error("a token that is gone got in")
	}
	now = now.Add(2 * inUse)
	for range failuresPerMinute {
		ask(tab, "203.0.113.9", "Bearer "+newToken())
	}
	if _, _, err := ask(tab, "203.0.113.9", "Bearer "+used); err == nil {
		t.Error("a token that was not used for long got in from an address that guesses")
	}
}

// TestFollow plays Consul: a view, an index that goes back, an outage, and no view
// before the first answer. The last view stands meanwhile.
func TestFollow(t *testing.T) {
	token := newToken()
	one := pair(t, token, Info{User: "alice", Role: identity.RoleUser})
	var mu sync.Mutex
	var asked []string
	first, revoke := make(chan struct{}), make(chan struct{})
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		n := len(asked)
		asked = append(asked, r.FormValue("index"))
		mu.Unlock()
		answer := func(index int, pairs ...*consul.KVPair) {
			w.Header().Set("X-Consul-Index", strconv.Itoa(index))
			if len(pairs) == 0 {
				w.WriteHeader(http.StatusNotFound) // as Consul says that there is nothing
				return
			}
			json.NewEncoder(w).Encode(pairs)
		}
		wait := func(c chan struct{}) {
			select {
			case <-c:
			case <-r.Context().Done():
			}
		}
		switch n {
		case 0:
			wait(first)
			answer(50, one)
		case 1:
			answer(3, one) // back: a restored Consul
		case 2, 3:
			http.Error(w, "No cluster leader", 500)
		case 4:
			answer(6, one)
		case 5:
			wait(revoke)
			answer(7)
		default:
			<-r.Context().Done()
		}
	}))
	t.Cleanup(func() { srv.CloseClientConnections(); srv.Close() })
	client, err := consul.NewClient(&consul.Config{Address: strings.TrimPrefix(srv.URL, "http://")})
	if err != nil {
		t.Fatal(err)
	}
	c := DefaultConfig()
	c.MinBackoff, c.MaxBackoff = time.Millisecond, 2*time.Millisecond
	tab := New(c, client, slog.New(slog.DiscardHandler))
	if tab.Ready() || identity.Ready(identity.Any{identity.Dev{}, tab}) {
		t.Error("ready before the first view")
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- tab.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("Run returned %v", err)
		}
	})
	until := func(what string, ok func() bool) {
		t.Helper()
		for end := time.Now().Add(20 * time.Second); !ok(); time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("never: %s", what)
			}
		}
	}
	in := func() bool { _, _, err := ask(tab, "203.0.113.9", "Bearer "+token); return err == nil }
	close(first)
	until("the first view", tab.Ready)
	until("the query after the outage", func() bool {
		if !in() {
			t.Fatal("the last view does not stand")
		}
		mu.Lock()
		defer mu.Unlock()
		return len(asked) > 5
	})
	close(revoke)
	until("revoked", func() bool { return !in() })
	if want := ",50,,,,6"; strings.Join(asked[:6], ",") != want {
		t.Errorf("asked with indexes %q, want %q", asked, want)
	}
}

func TestCheck(t *testing.T) {
	now := time.Now()
	good := Info{User: "alice", Role: identity.RoleUser, Comment: "CI of the docs"}
	for name, change := range map[string]func(*Info){
		"user": func(i *Info) { i.User = "Alice" }, "role": func(i *Info) { i.Role = "god" }, "expired": func(i *Info) { i.Expires = now },
		"a comment's escape": func(i *Info) { i.Comment = "\x1b[2J" }, "long comment": func(i *Info) { i.Comment = strings.Repeat("x", maxComment+1) },
	} {
		i := good
		if err := i.check(now); err != nil {
			t.Fatal(err)
		}
		if change(&i); i.check(now) == nil {
			t.Errorf("%s: %+v was accepted", name, i)
		}
	}
	if a, b := newToken(), newToken(); a == b || len(a) != tokenSize || !strings.HasPrefix(a, mark) {
		t.Errorf("tokens %q, %q", a, b)
	}
}

func BenchmarkIdentify(b *testing.B) {
	token := newToken()
	pairs := consul.KVPairs{pair(b, token, Info{User: "alice", Role: identity.RoleUser, Expires: time.Now().Add(time.Hour)})}
	for range 10_000 {
		pairs = append(pairs, pair(b, newToken(), Info{User: "bob", Role: identity.RoleUser}))
	}
	tab := table(b, &bytes.Buffer{}, pairs...)
	r := httptest.NewRequest("GET", "/", nil)
	r.Header.Set("Authorization", "Bearer "+token)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := tab.Identify(r); err != nil {
			b.Fatal(err)
		}
	}
}
