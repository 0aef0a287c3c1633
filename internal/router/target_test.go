package router

import (
	"errors"
	"net/http/httptest"
	"strings"
	"testing"

	"openclaw-sandbox/internal/sandbox"
)

func TestResolve(t *testing.T) {
	long := strings.Repeat("a", 41)
	for _, c := range []struct {
		host, path string
		want       target
		rest       string
		err        error
	}{
		{"alice.claw.test", "/chat", target{user: "alice", own: true}, "/chat", nil},
		{"alice.claw.test:8080", "/", target{user: "alice", own: true}, "/", nil},
		{"ALICE.claw.test.", "/", target{user: "alice", own: true}, "/", nil},
		{"alice.claw.test", "/u/bob/x", target{user: "alice", own: true}, "/u/bob/x", nil}, // the host decides
		{"claw.test", "/", target{}, "/", nil},
		{"claw.test", "/u/alice/", target{user: "alice", base: "/u/alice"}, "/", nil},
		{"claw.test", "/u/alice/a%2Fb?q", target{user: "alice", base: "/u/alice"}, "/a%2Fb?q", nil},
		{"claw.test", "/u/alice", target{user: "alice", base: "/u/alice"}, "/", nil},
		{"claw.test", "/u/alice?x", target{user: "alice", base: "/u/alice"}, "/?x", nil},
		{"127.0.0.1:8080", "/u/alice/x", target{user: "alice", base: "/u/alice"}, "/x", nil},
		{"[::1]:8080", "/", target{}, "/", nil},
		{"evil.test", "/", target{}, "/", errMisdirected},
		{"claw.test.evil.test", "/", target{}, "/", errMisdirected},
		{"xclaw.test", "/", target{}, "/", errMisdirected},
		{"10.0.0.7", "/", target{}, "/", errMisdirected},
		{"", "/", target{}, "/", errMisdirected},
		{".claw.test", "/", target{}, "/", sandbox.ErrBadUser},
		{"a.b.claw.test", "/", target{}, "/", sandbox.ErrBadUser},
		{"-x.claw.test", "/", target{}, "/", sandbox.ErrBadUser},
		{long + ".claw.test", "/", target{}, "/", sandbox.ErrBadUser},
		{"claw.test", "/u/Alice/", target{}, "/u/Alice/", sandbox.ErrBadUser},
		{"claw.test", "/u/../etc/", target{}, "/u/../etc/", sandbox.ErrBadUser},
		{"claw.test", "/u//x", target{}, "/u//x", sandbox.ErrBadUser},
		{"claw.test", "/u/a%2F..%2Fb/", target{}, "/u/a%2F..%2Fb/", nil},
	} {
		r := httptest.NewRequest("GET", "http://x"+c.path, nil)
		r.Host = c.host
		got, err := resolve(r, "claw.test")
		if c.path == "/u/a%2F..%2Fb/" { // an escaped slash is a slash: user a, and never b
			if err != nil || got.user != "a" {
				t.Errorf("%s: %+v, %v", c.path, got, err)
			}
			continue
		}
		if !errors.Is(err, c.err) || got != c.want || r.URL.RequestURI() != c.rest {
			t.Errorf("%s %s = %+v, %v, then %s; want %+v, %v, then %s", c.host, c.path, got, err, r.URL.RequestURI(), c.want, c.err, c.rest)
		}
	}
}

func TestClassify(t *testing.T) {
	const html = "Accept: text/html,application/xhtml+xml,*/*;q=0.8"
	upgrade := []string{"Connection: Upgrade", "Upgrade: websocket"}
	for name, c := range map[string]struct {
		method string
		header []string
		want   kind
	}{
		"curl":                      {"GET", []string{"Accept: */*"}, kindAPI},
		"program posts":             {"POST", nil, kindAPI},
		"program's socket":          {"GET", upgrade, kindAPI},
		"navigation":                {"GET", []string{html, "Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: document"}, kindPage},
		"older browser":             {"GET", []string{html}, kindPage},
		"frame":                     {"GET", []string{html, "Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: iframe"}, kindBackground},
		"fetch":                     {"GET", []string{"Accept: */*", "Sec-Fetch-Mode: cors", "Sec-Fetch-Dest: empty"}, kindBackground},
		"fetch of HTML":             {"GET", []string{html, "Sec-Fetch-Mode: same-origin"}, kindBackground},
		"image":                     {"GET", []string{"Sec-Fetch-Mode: no-cors", "Sec-Fetch-Dest: image"}, kindBackground},
		"browser's socket":          {"GET", append([]string{"Sec-Fetch-Mode: websocket", "Origin: http://x"}, upgrade...), kindBackground},
		"older browser's socket":    {"GET", append([]string{"Origin: http://x"}, upgrade...), kindBackground},
		"older browser's XHR":       {"GET", []string{html, "X-Requested-With: XMLHttpRequest"}, kindBackground},
		"prerender":                 {"GET", []string{html, "Sec-Fetch-Mode: navigate", "Sec-Purpose: prefetch;prerender"}, kindBackground},
		"navigation by a form":      {"POST", []string{html, "Sec-Fetch-Mode: navigate"}, kindBackground},
		"program that accepts HTML": {"POST", []string{html}, kindAPI},
	} {
		r := httptest.NewRequest(c.method, "/", nil)
		for _, h := range c.header {
			name, value, _ := strings.Cut(h, ": ")
			r.Header.Set(name, value)
		}
		if got := classify(r); got != c.want {
			t.Errorf("%s: kind %d, want %d", name, got, c.want)
		}
	}
}

func TestLocal(t *testing.T) {
	for to, want := range map[string]bool{
		"/": true, "/u/alice/chat?x=1": true, "": false, "//evil.test": false, "/\\evil.test": false, "http://evil.test": false, "/a\r\nb": false, "chat": false,
	} {
		if local(to) != want {
			t.Errorf("local(%q) = %t", to, !want)
		}
	}
}
