package e2e

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
)

// (e) Two users at once: own process, own namespace, own prefix, own history.
func TestTwoUsers(t *testing.T) {
	s := needStack(t)
	users := []string{"heidi", "ivan"}
	var wg sync.WaitGroup
	for _, u := range users {
		wg.Go(func() {
			s.post(t, s.dev, u, "/api/chat", fmt.Sprintf(`{"message":"the secret of %s"}`, u), "application/json").Body.Close()
		})
	}
	wg.Wait()

	inst := map[string]string{}   // user → generation
	addr := map[string]string{}   // user → host:port
	spaces := map[string]string{} // network namespace → user
	for _, u := range users {
		i := s.waitPassing(t, u)
		inst[u], addr[u] = i.Service.Meta["generation"], fmt.Sprintf("%s:%d", i.Service.Address, i.Service.Port)
		pids := s.gatewayProcesses(t, inst[u])
		if len(pids) == 0 {
			t.Fatalf("no process of %s's gateway", u)
		}
		ns := namespace(t, pids[0], "net")
		if other, taken := spaces[ns]; taken || ns == namespace(t, "self", "net") {
			t.Errorf("%s's gateway shares its network namespace with %q", u, other)
		}
		spaces[ns] = u
	}
	if addr["heidi"] == addr["ivan"] {
		t.Fatalf("both users have the address %s", addr["heidi"])
	}

	for i, u := range users {
		other := users[1-i]
		if h := dial(t, s.dev, u).history(); !strings.Contains(h, "the secret of "+u) || strings.Contains(h, "the secret of "+other) {
			t.Errorf("%s's history is not their own: %.300s", u, h)
		}
		if keys := s.keys(t, u); len(keys) == 0 || slices.ContainsFunc(keys, func(k string) bool { return !strings.HasPrefix(k, "users/"+u+"/") }) {
			t.Errorf("%s's objects are %v, want some, all under users/%s/", u, keys, u)
		}

		// From inside: not the other's gateway, not the node, not cloud metadata.
		closed := map[string]string{
			"the other's gateway": addr[other],
			"Nomad on the bridge": s.bridgeIP + ":" + s.nomadPort,
			"cloud metadata":      "169.254.169.254:80",
		}
		for what, to := range closed {
			if out := s.connectInside(t, u, to); out != "closed" {
				t.Errorf("from inside %s's sandbox, %s (%s) is %q, want closed", u, what, to, out)
			}
		}
		// The control: the same probe reaches what is allowed.
		if out := s.connectInside(t, u, s.modelAddr); out != "open" {
			t.Errorf("from inside %s's sandbox, the model (%s) is %q, want open", u, s.modelAddr, out)
		}
	}

	t.Run("through the router with the other's token", func(t *testing.T) {
		for _, u := range users {
			for _, v := range users {
				resp := s.get(t, s.tokens[u], v, "/startupz", nil)
				body := readAll(t, resp)
				if want := map[bool]int{true: http.StatusOK, false: http.StatusForbidden}[u == v]; resp.StatusCode != want {
					t.Errorf("%s's token at %s's sandbox: %s %.200s, want %d", u, v, resp.Status, body, want)
				}
			}
		}
		resp := s.get(t, router{addr: s.tokens["heidi"].addr, domain: s.tokens["heidi"].domain}, "heidi", "/", nil)
		if readAll(t, resp); resp.StatusCode != http.StatusUnauthorized {
			t.Errorf("no token: %s, want 401", resp.Status)
		}
	})

	t.Run("a forged identity is dropped", func(t *testing.T) {
		resp := s.get(t, s.tokens["heidi"], "heidi", "/v1/models", http.Header{"X-Forwarded-User": {"ivan"}, "X-Openclaw-Scopes": {"operator.admin"}, "Forwarded": {"for=1.2.3.4"}})
		if body := readAll(t, resp); resp.StatusCode != http.StatusOK {
			t.Errorf("with forged headers: %s %.200s, want the router's own identity to be used", resp.Status, body)
		}
	})
}

// (f) Fifty first requests at once, through two routers: one job.
func TestOneStartForFiftyRequests(t *testing.T) {
	s := needStack(t)
	routers := []router{s.dev, s.tokens["judy"]}
	var wg sync.WaitGroup
	codes := make([]int, 50)
	for i := range codes {
		wg.Go(func() {
			resp := s.get(t, routers[i%2], "judy", "/startupz", nil)
			resp.Body.Close()
			codes[i] = resp.StatusCode
		})
	}
	wg.Wait()
	for i, c := range codes {
		if c != http.StatusOK {
			t.Errorf("request %d got %d, want 200", i, c)
		}
	}
	if all := s.allChildren(t, "judy"); len(all) != 1 {
		t.Errorf("%d jobs were dispatched: %v, want 1", len(all), all)
	}
}
