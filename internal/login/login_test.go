package login

import (
	"bytes"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"openclaw-sandbox/internal/audit"
	"openclaw-sandbox/internal/identity"
	"openclaw-sandbox/internal/session"
)

func newLogin(t testing.TB) *Login {
	t.Helper()
	keys, err := session.NewKeys(bytes.Repeat([]byte{1}, session.KeySize))
	if err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.NewTextHandler(io.Discard, nil))
	return New(Config{Domain: "claw.test", Scheme: "https", Issuer: "https://127.0.0.1:1", Keys: keys, Lifetime: time.Hour, Timeout: time.Second, StartsPerMinute: 3},
		log, audit.New(log))
}

func refuse(w http.ResponseWriter, _ *http.Request, status int, title, _ string) {
	http.Error(w, title, status)
}

// in is a request of alice's browser at her host.
func in(t testing.TB, l *Login) *http.Request {
	t.Helper()
	r, w := httptest.NewRequest("GET", "https://alice.claw.test/", nil), httptest.NewRecorder()
	if !l.set(w, r, cookieSession, ticket{User: "alice", Role: identity.RoleUser}, time.Hour) {
		t.Fatal("no cookie")
	}
	c := w.Result().Cookies()[0]
	if c.Name != "__Host-sandbox-session" || !c.Secure || !c.HttpOnly || c.SameSite != http.SameSiteLaxMode || c.Domain != "" || c.Path != "/" {
		t.Errorf("cookie: %s", w.Header().Get("Set-Cookie"))
	}
	r.AddCookie(c)
	return r
}

func TestSession(t *testing.T) {
	l := newLogin(t)
	r := in(t, l)
	r.AddCookie(&http.Cookie{Name: "of-the-sandbox", Value: "1"})
	for name, c := range map[string]struct {
		host  string
		after time.Duration
		ok    bool
	}{
		"right":        {"alice.claw.test", 0, true},
		"expired":      {"alice.claw.test", time.Hour, false},
		"another host": {"bob.claw.test", 0, false},
		"the domain":   {"claw.test", 0, false},
	} {
		t.Run(name, func(t *testing.T) {
			l.now = func() time.Time { return time.Now().Add(c.after) }
			r := r.Clone(t.Context())
			r.Host = c.host
			got, err := identity.Any{l}.Identify(r)
			if (err == nil) != c.ok || c.ok != (got.User == "alice") || r.Header.Get("Cookie") != "of-the-sandbox=1" {
				t.Errorf("Identify = %+v, %v; cookies left: %q", got, err, r.Header.Get("Cookie"))
			}
		})
	}
}

func TestLocal(t *testing.T) {
	for path, want := range map[string]string{"/chat?a=b#c": "/chat?a=b#c", "//evil.test": "/", `/\evil.test`: "/", "https://evil.test": "/", "": "/",
		"/a\r\nSet-Cookie: x": "/", "/\t/evil.test": "/", "/" + strings.Repeat("a", maxReturn): "/"} {
		if got := local(path); got != want {
			t.Errorf("local(%q) = %q, want %q", path, got, want)
		}
	}
}

func TestForged(t *testing.T) {
	l := newLogin(t)
	for name, c := range map[string]struct {
		method, url string
		status      int
	}{
		"callback without a login": {"GET", "https://claw.test/_sandbox/callback?state=&code=x", http.StatusBadRequest},
		"hand-over without a code": {"GET", "https://alice.claw.test/_sandbox/enter", http.StatusBadRequest},
		"logout by a link":         {"GET", "https://alice.claw.test/_sandbox/logout", http.StatusMethodNotAllowed},
		"logout by a forged word":  {"GET", "https://claw.test/_sandbox/logout?word=x", http.StatusMethodNotAllowed},
		"login for another site":   {"GET", "https://claw.test/_sandbox/login?for=evil.test", http.StatusBadRequest},
	} {
		t.Run(name, func(t *testing.T) {
			w := httptest.NewRecorder()
			if !l.Serve(w, httptest.NewRequest(c.method, c.url, nil), refuse) || w.Code != c.status {
				t.Errorf("status %d, want %d", w.Code, c.status)
			}
		})
	}
}

func TestLoginStorm(t *testing.T) {
	l := newLogin(t)
	fixed := time.Now()
	l.now = func() time.Time { return fixed }
	var got []int
	for range 5 {
		w := httptest.NewRecorder()
		l.Begin(w, httptest.NewRequest("GET", "https://claw.test/", nil), "/", refuse)
		got = append(got, w.Code)
	}
	if got[2] != http.StatusBadGateway || got[3] != http.StatusTooManyRequests || got[4] != http.StatusTooManyRequests {
		t.Errorf("statuses %v; want three tries of a provider that is away, then 429", got)
	}
}

func BenchmarkSession(b *testing.B) {
	l := newLogin(b)
	r := in(b, l)
	r.AddCookie(&http.Cookie{Name: "of-the-sandbox", Value: "1"})
	line, all := r.Header["Cookie"], identity.Any{l}
	b.ReportAllocs()
	for b.Loop() {
		r.Header["Cookie"] = line
		if _, err := all.Identify(r); err != nil {
			b.Fatal(err)
		}
	}
}
