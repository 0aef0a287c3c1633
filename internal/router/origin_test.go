package router

import (
	"net/http"
	"testing"
	"time"
)

// At the domain, where the login's session is, no sandbox's content has an origin: code of
// one would reach all others with its visitor's rights. A person is redirected to the sandbox's
// own host, and a program with a token is served.
func TestOneOrigin(t *testing.T) {
	a := newArena(t)
	const who = "alice"
	cookie := a.cookie(who, a.keys, time.Hour)("claw.test")[0]
	from := "Test-From: 203.0.113.7:9"
	for _, c := range []struct {
		method, path string
		header       []string
		want         int
		to           string
	}{
		{"GET", "/u/alice/page?x=1%2F2", []string{"Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: document"}, http.StatusTemporaryRedirect, "//alice.claw.test/page?x=1%2F2"},
		{"GET", "/u/alice/", []string{"Accept: text/html"}, http.StatusTemporaryRedirect, "//alice.claw.test/"},
		{"GET", "/u/alice//evil.test/", []string{"Accept: text/html"}, http.StatusTemporaryRedirect, "//alice.claw.test//evil.test/"},
		{"GET", "/u/alice/page", []string{"Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: iframe"}, http.StatusForbidden, ""},
		{"GET", "/u/alice/x.js", []string{"Sec-Fetch-Mode: no-cors", "Sec-Fetch-Site: same-origin"}, http.StatusForbidden, ""},
		{"POST", "/u/alice/v1/chat/completions", []string{"Sec-Fetch-Mode: cors", "Sec-Fetch-Site: same-origin"}, http.StatusForbidden, ""},
		{"POST", "/u/alice/form", []string{"Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: document", "Sec-Fetch-Site: same-origin"}, http.StatusForbidden, ""},
		{"POST", "/u/alice/api/chat", nil, http.StatusForbidden, ""},
		{"POST", "/api/chat", nil, http.StatusForbidden, ""},
		{"GET", "/x", nil, http.StatusForbidden, ""},
		{"GET", "/u/alice/x", []string{"Authorization: Bearer of-nobody"}, http.StatusForbidden, ""},
		{"GET", "/u/alice/api/status", nil, http.StatusOK, ""},
		{"GET", "/u/alice/x", []string{"Authorization: Bearer t-alice"}, http.StatusOK, ""},
	} {
		resp, body := a.ask(c.method, "claw.test", c.path, "", append([]string{cookie, from}, c.header...)...)
		if resp.StatusCode != c.want || resp.Header.Get("Location") != c.to {
			t.Errorf("%s: %s %s %q: %s to %q, want %d to %q\n%.200s", who, c.method, c.path, c.header, resp.Status, resp.Header.Get("Location"), c.want, c.to, body)
		}
		if c.to != "" && resp.Header.Get("Cache-Control") != "no-store" {
			t.Errorf("%s: the redirect may be cached", c.path)
		}
	}
	if got := a.dial("claw.test", "/u/alice", cookie, from, "Origin: http://claw.test"); got != http.StatusForbidden {
		t.Errorf("%s: WebSocket by path: %d, want 403", who, got)
	}
}
