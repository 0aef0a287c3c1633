package login_test

import (
	"net/http"
	"net/url"
	"testing"
)

// TestFixation: what was put into a browser before its user logged in is worth
// nothing afterwards, to nobody.
func TestFixation(t *testing.T) {
	s := start(t)
	hosts := []string{"claw.test", "alice.claw.test"}
	plant := func(b *http.Client, cookies ...*http.Cookie) {
		for _, host := range hosts {
			u, _ := url.Parse(s.url(host, "/"))
			b.Jar.SetCookies(u, cookies)
		}
	}
	mallory := s.browser()
	if _, text := s.visit(mallory, s.url("mallory.claw.test", "/"), "mallory"); text != "in: mallory user / " {
		t.Fatalf("mallory: %q", text)
	}
	own, _ := url.Parse(s.url("mallory.claw.test", "/"))
	domain, _ := url.Parse(s.url("claw.test", "/"))
	invented := []*http.Cookie{{Name: "sandbox-session", Value: "planted", Path: "/"}, {Name: "sandbox-login", Value: "planted", Path: "/"}}
	for name, planted := range map[string][]*http.Cookie{"invented": invented, "of mallory's host": mallory.Jar.Cookies(own)} {
		t.Run(name, func(t *testing.T) {
			alice := s.browser()
			plant(alice, planted...)
			if resp, text := s.visit(alice, s.url("alice.claw.test", "/x"), "alice"); text != "in: alice user /x " {
				t.Fatalf("alice: %d %q", resp.StatusCode, text)
			}
			for _, host := range hosts {
				u, _ := url.Parse(s.url(host, "/"))
				for _, c := range alice.Jar.Cookies(u) {
					for _, p := range planted {
						if c.Name == p.Name && c.Value == p.Value {
							t.Errorf("%s goes on with the planted %s", host, c.Name)
						}
					}
				}
			}
			thief := s.browser()
			thief.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
			plant(thief, planted...)
			for _, host := range hosts {
				if resp, text := s.read(thief.Get(s.url(host, "/"))); resp.StatusCode != http.StatusSeeOther {
					t.Errorf("the planted cookies open %s: %d %q", host, resp.StatusCode, text)
				}
			}
		})
	}
	// Mallory's own session, where plain HTTP lets it be planted: it stays Mallory's.
	alice := s.browser()
	plant(alice, mallory.Jar.Cookies(domain)...)
	if resp, text := s.read(alice.Get(s.url("alice.claw.test", "/"))); resp.StatusCode != http.StatusForbidden {
		t.Errorf("with Mallory's session: %d %q", resp.StatusCode, text)
	}
}
