package router

import (
	"bytes"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"openclaw-sandbox/internal/chat/chattest"
	"openclaw-sandbox/internal/identity"
)

// attempt is one way to alice's sandbox. header returns the request's lines for a
// host, since a session is sealed for one.
type attempt struct {
	name   string
	header func(host string) []string
	query  string
	want   int // of an ordinary request
}

// ambient are the ways in that a browser takes by itself: they open a sandbox at its own
// host only, where nothing of another sandbox runs.
var ambient = []string{"JWT", "proxy's header", "session"}

func lines(of ...string) func(string) []string { return func(string) []string { return of } }

// TestWaysIn tries every way to identify, right and wrong, at alice's sandbox: by
// host and by path, as a program's request and as a WebSocket upgrade of alice's own page.
func TestWaysIn(t *testing.T) {
	a := newArena(t)
	bearer := func(token string) func(string) []string { return lines("Authorization: Bearer " + token) }
	access := func(tokens ...string) func(string) []string {
		for i := range tokens {
			tokens[i] = accessHeader + ": " + tokens[i]
		}
		return lines(tokens...)
	}
	const ok, who, no = http.StatusOK, http.StatusUnauthorized, http.StatusForbidden
	const proxy, fromProxy = "Test-From: 10.0.0.2:9", proxyHeader + ": alice@example.com"
	good := a.jwt(nil)
	attempts := []attempt{
		{"static token", bearer("t-alice"), "", ok},
		{"admin's token", bearer("t-ops"), "", ok},
		{"API token", bearer(a.alice), "", ok},
		{"JWT", access(good), "", ok},
		{"proxy's header", lines(proxy, fromProxy), "", ok},
		{"session", a.cookie("alice", a.keys, time.Hour), "", ok},

		{"nothing", lines(), "", who},
		{"wrong static token", bearer("t-alicf"), "", who},
		{"static token in the URL", lines(), "token=t-alice&access_token=t-alice", who},
		{"static token as Basic", lines("Authorization: Basic t-alice"), "", who},

		{"bob's API token", bearer(a.bob), "", no},
		{"expired API token", bearer(a.expired), "", who},
		{"revoked API token", bearer(a.revoked), "", who},
		{"unknown API token", bearer(a.alice[:len(a.alice)-1] + "2"), "", who},
		{"API token in the URL", lines(), "token=" + a.alice + "&authorization=Bearer%20" + a.alice + "&access_token=" + a.alice, who},
		{"API token as a session", lines("Cookie: sandbox-session=" + a.alice), "", who},
		{"API token as the proxy's header", lines(proxyHeader + ": " + a.alice), "", who},

		{"bob's JWT", access(a.jwt(map[string]any{"email": "bob@example.com"})), "", no},
		{"expired JWT", access(a.jwt(map[string]any{"exp": time.Now().Add(-time.Hour).Unix()})), "", who},
		{"JWT for another audience", access(a.jwt(map[string]any{"aud": "other"})), "", who},
		{"JWT of another issuer", access(a.jwt(map[string]any{"iss": "https://evil.test"})), "", who},
		{"JWT of another key", access(a.jwtBy(a.stranger, nil)), "", who},
		{"JWT without a signature", access("eyJhbGciOiJub25lIn0.eyJlbWFpbCI6ImFsaWNlQGV4YW1wbGUuY29tIn0."), "", who},
		{"JWT that was changed", access(good[:len(good)-6] + "AAAAAA"), "", who},
		{"JWT of another domain", access(a.jwt(map[string]any{"email": "alice@evil.test"})), "", who},
		{"JWT twice", access(good, good), "", who},
		{"JWT at the wrong place", bearer(good), "", who},
		{"JWT in the URL", lines(), "jwt=" + good + "&" + accessHeader + "=" + good, who},

		{"proxy's header from outside", lines(fromProxy), "", who},
		{"proxy's header from a sandbox", lines("Test-From: 172.26.64.5:9", fromProxy), "", who},
		{"proxy's header, for the proxy", lines(fromProxy, "X-Forwarded-For: 10.0.0.2", "X-Real-IP: 10.0.0.2", "Forwarded: for=10.0.0.2"), "", who},
		{"proxy's header twice", lines(proxy, proxyHeader+": bob@example.com", fromProxy), "", who},
		{"proxy's header, bob's", lines(proxy, proxyHeader+": bob@example.com"), "", no},
		{"what the gateway would believe", lines("X-Forwarded-User: alice", "X-Forwarded-Email: alice@example.com", "Tailscale-User-Login: alice", "X-Openclaw-Scopes: operator.admin"), "", who},
		{"the same from a sandbox", lines("Test-From: 172.26.64.5:9", "X-Forwarded-User: alice"), "", who},

		{"bob's session, of his host", func(string) []string { return a.cookie("bob", a.keys, time.Hour)("bob.claw.test") }, "", who},
		{"session of another host", func(string) []string { return a.cookie("alice", a.keys, time.Hour)("team.claw.test") }, "", who},
		{"expired session", a.cookie("alice", a.keys, -time.Second), "", who},
		{"session of another key", a.cookie("alice", a.others, time.Hour), "", who},
		{"invented session", lines("Cookie: sandbox-session=alice"), "", who},
		{"session that was changed", func(host string) []string {
			line := a.cookie("alice", a.keys, time.Hour)(host)[0]
			return []string{line[:len(line)-4] + "AAAA"}
		}, "", who},
		{"hand-over code as a session", func(host string) []string {
			return []string{"Cookie: sandbox-session=" + a.seal(a.keys, "enter", host, "alice", time.Hour)}
		}, "", who},
		{"login's cookie as a session", func(host string) []string {
			return []string{"Cookie: sandbox-session=" + a.seal(a.keys, "sandbox-login", host, "alice", time.Hour)}
		}, "", who},
		{"session in the URL", lines(), "sandbox-session=" + url.QueryEscape(a.seal(a.keys, "sandbox-session", "alice.claw.test", "alice", time.Hour)), who},
	}
	for n, c := range attempts {
		t.Run(c.name, func(t *testing.T) {
			for host, path := range map[string]string{"alice.claw.test": "/x", "claw.test": "/u/alice/x"} {
				// Each has an address of its own, or limits would refuse the later ones.
				mark := fmt.Sprint(n, " ", host)
				header := append(c.header(host), "Attempt: "+mark)
				if !strings.Contains(strings.Join(header, "\n"), "Test-From") {
					header = append(header, fmt.Sprintf("Test-From: 203.0.113.%d:9", n))
				}
				want := c.want
				if host == "claw.test" && slices.Contains(ambient, c.name) {
					want = no
				}
				resp, body := a.ask("GET", host, path+"?"+c.query, "", header...)
				if resp.StatusCode != want {
					t.Errorf("at %s: %s %s, want %d", host, resp.Status, body, want)
				}
				upgrade := want
				if want == ok {
					upgrade = http.StatusSwitchingProtocols
				}
				if got := a.dial(host, path+"?"+c.query, append(header, "Origin: http://"+host)...); got != upgrade {
					t.Errorf("WebSocket at %s: %d, want %d", host, got, upgrade)
				}
				if resp, _ := a.ask("POST", host, strings.TrimSuffix(path, "x")+"_sandbox/start", "", header...); resp.StatusCode != c.want {
					t.Errorf("start at %s: %s, want %d", host, resp.Status, c.want)
				}
				got := a.gateway.Header()
				if want != ok {
					if got.Get("Attempt") == mark {
						t.Error("the gateway heard of it")
					}
					continue
				}
				if got.Get("Attempt") != mark {
					t.Error("the gateway never heard of it")
				}
				for _, name := range []string{"Authorization", "Cookie", accessHeader, proxyHeader} {
					if v := got.Get(name); v != "" {
						t.Errorf("%s travelled on to the gateway", name)
					}
				}
				if got.Get("X-Forwarded-User") != "alice" {
					t.Errorf("the gateway serves %q", got.Get("X-Forwarded-User"))
				}
			}
		})
	}
	if a.wakes != 0 {
		t.Errorf("%d starts", a.wakes)
	}
}

// TestCrossSite: a page of another origin has the browser send alice's cookie, and
// gets nothing by it.
func TestCrossSite(t *testing.T) {
	a := newArena(t)
	for name, c := range map[string]struct {
		origin, site string
		upgrade      int
		post         int
	}{
		"her own page":        {"http://alice.claw.test", "same-origin", 101, 200},
		"another site":        {"http://evil.test", "cross-site", 403, 403},
		"bob's sandbox":       {"http://bob.claw.test", "same-site", 403, 403},
		"the login's host":    {"http://claw.test", "same-site", 403, 403},
		"a frame without one": {"null", "cross-site", 403, 403},
		"another port":        {"http://alice.claw.test:8443", "same-site", 403, 403},
		"a likely name":       {"http://alice.claw.test.evil.test", "cross-site", 403, 403},
		"nonsense":            {"alice.claw.test", "cross-site", 403, 403},
	} {
		t.Run(name, func(t *testing.T) {
			for _, who := range [][]string{a.cookie("alice", a.keys, time.Hour)("alice.claw.test"), {"Authorization: Bearer " + a.alice}} {
				header := append(who, "Origin: "+c.origin)
				if got := a.dial("alice.claw.test", "/", header...); got != c.upgrade {
					t.Errorf("WebSocket: %d, want %d", got, c.upgrade)
				}
				for _, header := range [][]string{header, append(header, "Sec-Fetch-Site: "+c.site)} {
					if resp, _ := a.ask("POST", "alice.claw.test", "/_sandbox/start", "", header...); resp.StatusCode != c.post {
						t.Errorf("POST: %s, want %d", resp.Status, c.post)
					}
				}
			}
		})
	}
}

// TestOpenRedirect: no address makes the router send a browser elsewhere.
func TestOpenRedirect(t *testing.T) {
	a := newArena(t)
	const form = "Content-Type: application/x-www-form-urlencoded"
	session := a.cookie("alice", a.keys, time.Hour)
	for _, c := range []struct{ method, host, path, body string }{
		{"GET", "alice.claw.test", "//evil.test/", ""},
		{"GET", "claw.test", "//evil.test/", ""},
		{"GET", "claw.test", "/%5Cevil.test/", ""},
		{"GET", "claw.test", "/u/alice?//evil.test", ""},
		{"GET", "claw.test", "/u/alice//evil.test", ""},
		{"GET", "claw.test", "/_sandbox/login?for=evil.test&bind=x", ""},
		{"GET", "claw.test", "/_sandbox/login?for=alice.claw.test@evil.test&bind=x", ""},
		{"GET", "claw.test", "/_sandbox/login?for=alice.claw.test:80@evil.test&bind=x", ""},
		{"GET", "claw.test", "/_sandbox/login?for=evil.test%2F.claw.test&bind=x", ""},
		{"GET", "claw.test", "/_sandbox/login?for=alice.claw.test&bind=x", ""},
		{"GET", "claw.test", "/_sandbox/logout?to=http://evil.test", ""},
		{"POST", "alice.claw.test", "/_sandbox/start", "to=%2F%2Fevil.test"},
		{"POST", "alice.claw.test", "/_sandbox/start", "to=%2F%5Cevil.test"},
		{"POST", "alice.claw.test", "/_sandbox/start", "to=http%3A%2F%2Fevil.test"},
		{"POST", "alice.claw.test", "/_sandbox/logout", "to=http%3A%2F%2Fevil.test"},
	} {
		for _, header := range [][]string{{page, form}, append(session(c.host), page, form)} {
			resp, _ := a.ask(c.method, c.host, c.path, c.body, header...)
			to := resp.Header.Get("Location")
			u, err := url.Parse(to)
			ours := err == nil && (u.Host == "claw.test" || strings.HasSuffix(u.Host, ".claw.test") && u.User == nil)
			if to != "" && !ours && !local(to) {
				t.Errorf("%s %s%s %s: sent to %q", c.method, c.host, c.path, c.body, to)
			}
		}
	}
}

// TestProxysOwnToken: a bearer that no method knows may be for the gateway, and
// passes on; a worthless token of ours does not, whoever let the request in.
func TestProxysOwnToken(t *testing.T) {
	a := newArena(t)
	session := a.cookie("alice", a.keys, time.Hour)("alice.claw.test")
	for token, want := range map[string]string{"of-the-gateway": "Bearer of-the-gateway", a.revoked: "", a.alice: ""} {
		a.ask("GET", "alice.claw.test", "/", "", append(session, "Authorization: Bearer "+token)...)
		if got := a.gateway.Header().Get("Authorization"); got != want {
			t.Errorf("%.8s: the gateway got %q, want %q", token, got, want)
		}
	}
}

// arena is a router with every way to identify, before alice's gateway.
type arena struct {
	*stack
	*credentials
	gateway *chattest.Gateway
}

func newArena(t *testing.T) *arena {
	t.Helper()
	c := newCredentials(t)
	ways := from{identity.Any{tokens(t), c.table, c.verifier, c.header, c.login}}
	s := startWith(t, ways, time.Second, func(rt *Router) { rt.UseLogin(c.login) })
	a := &arena{stack: s, credentials: c, gateway: chattest.New(t, "alice")}
	s.land("alice", a.gateway)
	for end := time.Now().Add(20 * time.Second); !identity.Ready(ways); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the router never knew the API tokens")
		}
	}
	if resp, _ := s.ask("GET", "alice.claw.test", "/", "", "Authorization: Bearer "+c.revoked); resp.StatusCode != http.StatusOK {
		t.Fatalf("the token is not good before it is revoked: %s", resp.Status)
	}
	c.revoke(c.revoked)
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
		resp, _ := s.ask("GET", "alice.claw.test", "/", "", "Authorization: Bearer "+c.revoked)
		if resp.StatusCode == http.StatusUnauthorized {
			return a
		}
		if time.Now().After(end) {
			t.Fatal("the revoked token stayed good")
		}
	}
}

// from lets a test say which address a connection is from.
type from struct{ identity.Method }

func (f from) Ready() bool { return identity.Ready(f.Method) }

func (f from) Identify(r *http.Request) (identity.Caller, error) {
	if addr := r.Header.Get("Test-From"); addr != "" {
		r.RemoteAddr = addr
		r.Header.Del("Test-From")
	}
	return f.Method.Identify(r)
}

func fill(b byte) []byte { return bytes.Repeat([]byte{b}, 32) }
