package login

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"testing"
	"time"

	"openclaw-sandbox/internal/identity"
	"openclaw-sandbox/internal/sandbox"
)

// hand goes the way of a browser that has a session at <domain> to a sandbox's host.
// It returns the session there, nil with a refusal's status.
func hand(t *testing.T, l *Login, as ticket, host string) (*http.Request, int) {
	t.Helper()
	step := func(method func(http.ResponseWriter, *http.Request), address string, cookies ...*http.Cookie) *http.Response {
		r, w := httptest.NewRequest("GET", address, nil), httptest.NewRecorder()
		for _, c := range cookies {
			r.AddCookie(c)
		}
		method(w, r)
		return w.Result()
	}
	serve := func(w http.ResponseWriter, r *http.Request) { l.Serve(w, r, refuse) }
	begun := step(func(w http.ResponseWriter, r *http.Request) { l.Begin(w, r, "/chat", refuse) }, "https://"+host+"/chat")
	home := step(func(w http.ResponseWriter, r *http.Request) { l.set(w, r, cookieSession, as, time.Hour) }, "https://claw.test/")
	handed := step(serve, begun.Header.Get("Location"), home.Cookies()...)
	if handed.StatusCode != http.StatusSeeOther {
		return nil, handed.StatusCode
	}
	entered := step(serve, handed.Header.Get("Location"), begun.Cookies()...)
	r := httptest.NewRequest("GET", "https://"+host+"/", nil)
	for _, c := range entered.Cookies() {
		if c.MaxAge >= 0 {
			r.AddCookie(c)
		}
	}
	if u, err := url.Parse(entered.Header.Get("Location")); err != nil || entered.StatusCode != http.StatusSeeOther || u.Path != "/chat" {
		t.Errorf("entered with %s to %q", entered.Status, entered.Header.Get("Location"))
	}
	return r, entered.StatusCode
}

func TestSharedHandOver(t *testing.T) {
	shares := identity.Shares{"team-x": {Users: []sandbox.User{"alice"}, Groups: []string{"x"}}}
	l := newLogin(t)
	l.config.Shares = shares
	for name, c := range map[string]struct {
		as     ticket
		ok     bool
		person sandbox.User
		after  bool // may stay when the share is taken out of the config
	}{
		"member":         {ticket{User: "alice", Role: identity.RoleUser}, true, "alice", false},
		"by group":       {ticket{User: "carol", Role: identity.RoleUser, Groups: []string{"x"}}, true, "carol", false},
		"its own user":   {ticket{User: "team-x", Role: identity.RoleUser}, true, "team-x", true},
		"admin":          {ticket{User: "ops", Role: identity.RoleAdmin}, true, "ops", true},
		"member, admin":  {ticket{User: "alice", Role: identity.RoleAdmin}, true, "alice", false},
		"another":        {ticket{User: "bob", Role: identity.RoleUser}, false, "", false},
		"another group":  {ticket{User: "bob", Role: identity.RoleUser, Groups: []string{"y"}}, false, "", false},
		"a likely name":  {ticket{User: "x", Role: identity.RoleUser}, false, "", false},
		"no role at all": {ticket{User: "bob"}, false, "", false},
	} {
		t.Run(name, func(t *testing.T) {
			r, status := hand(t, l, c.as, "team-x.claw.test")
			if !c.ok {
				if status != http.StatusForbidden {
					t.Errorf("status %d, want 403", status)
				}
				return
			}
			got, err := identity.Sharing{Method: l, Shares: shares}.Identify(r)
			if err != nil || !got.May("team-x") || got.Role != identity.RoleUser || got.Person() != c.person {
				t.Errorf("in team-x: %+v, %v", got, err)
			}
			if got.May("bob") {
				t.Error("and in bob's, too")
			}
			if got, err = (identity.Sharing{Method: l}).Identify(r); err != nil || got.May("team-x") != c.after {
				t.Errorf("without the share: %+v, %v; want %v", got, err, c.after)
			}
			for _, host := range []string{"alice.claw.test", "claw.test"} {
				at := r.Clone(t.Context())
				if at.Host = host; c.person == "alice" {
					if got, err := l.Identify(at); err == nil {
						t.Errorf("the session of team-x's host opens %s: %+v", host, got)
					}
				}
			}
		})
	}
}
