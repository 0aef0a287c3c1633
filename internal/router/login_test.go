package router

import (
	"bytes"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"time"

	"openclaw-sandbox/internal/audit"
	"openclaw-sandbox/internal/identity"
	"openclaw-sandbox/internal/login"
	"openclaw-sandbox/internal/session"
)

// Only a person's navigation goes to the login; a program, a page's own request
// and an upgrade are told 401, and nobody is let in by an invented session.
func TestLoginIsForPages(t *testing.T) {
	keys, err := session.NewKeys(bytes.Repeat([]byte{1}, session.KeySize))
	if err != nil {
		t.Fatal(err)
	}
	l := login.New(login.Config{Domain: "claw.test", Scheme: "http", Keys: keys, Lifetime: time.Hour, Timeout: time.Second, StartsPerMinute: 5}, slog.New(slog.DiscardHandler), audit.New(slog.New(slog.DiscardHandler)))
	s := startWith(t, identity.Any{l}, time.Second, func(rt *Router) { rt.UseLogin(l) })
	page := "Accept: text/html"
	for name, c := range map[string]struct {
		path   string
		header []string
		status int
	}{
		"page":             {"/chat?a=b", []string{page}, http.StatusSeeOther},
		"invented session": {"/", []string{page, "Cookie: sandbox-session=AAAA"}, http.StatusSeeOther},
		"token in the URL": {"/?token=alice-token", nil, http.StatusUnauthorized},
		"program":          {"/v1/models", nil, http.StatusUnauthorized},
		"page's request":   {"/api/status", []string{"Sec-Fetch-Mode: cors"}, http.StatusUnauthorized},
		"own endpoint":     {"/_sandbox/status", []string{page}, http.StatusUnauthorized},
		"upgrade":          {"/", []string{"Connection: Upgrade", "Upgrade: websocket", "Origin: http://alice.claw.test"}, http.StatusUnauthorized},
		"sister's logout":  {"/_sandbox/logout", []string{"Sec-Fetch-Site: same-site"}, http.StatusForbidden},
	} {
		t.Run(name, func(t *testing.T) {
			method := http.MethodGet
			if c.status == http.StatusForbidden {
				method = http.MethodPost
			}
			resp, _ := s.ask(method, "alice.claw.test", c.path, "", c.header...)
			to := resp.Header.Get("Location")
			if resp.StatusCode != c.status || (c.status == http.StatusSeeOther) != strings.HasPrefix(to, "http://claw.test/_sandbox/login?") || strings.Contains(to, "chat") {
				t.Errorf("%d to %q, want %d", resp.StatusCode, to, c.status)
			}
		})
	}
}
