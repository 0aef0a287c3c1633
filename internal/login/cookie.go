package login

import (
	"net/http"
	"strings"
	"time"

	"openclaw-sandbox/internal/hostname"
)

// Cookies, and what is sealed for other purposes. A sealed value of one purpose
// is nothing for another.
const (
	cookieSession = "sandbox-session"
	cookieLogin   = "sandbox-login"
	purposeEnter  = "enter"
	purposeLogout = "logout"
)

// name has the prefix that makes browsers refuse the cookie from any other host,
// which they know for https only.
func (l *Login) name(cookie string) string {
	if l.config.Scheme == "https" {
		return "__Host-" + cookie
	}
	return cookie
}

// read opens the request's cookie. Of several of one name (a sandbox may set more,
// where names have no prefix) any that opens for this host counts.
func (l *Login) read(r *http.Request, cookie string, v any) bool {
	for _, c := range r.CookiesNamed(l.name(cookie)) {
		if l.config.Keys.Open(c.Value, cookie, hostname.Of(r.Host), l.now(), v) == nil {
			return true
		}
	}
	return false
}

func (l *Login) set(w http.ResponseWriter, r *http.Request, cookie string, v any, lifetime time.Duration) bool {
	expires := l.now().Add(lifetime)
	text, err := l.config.Keys.Seal(v, cookie, hostname.Of(r.Host), expires)
	if err != nil {
		l.log.Error("seal a cookie", "error", err)
		return false
	}
	l.put(w, &http.Cookie{Name: l.name(cookie), Value: text, Expires: expires})
	return true
}

func (l *Login) clear(w http.ResponseWriter, cookie string) {
	l.put(w, &http.Cookie{Name: l.name(cookie), MaxAge: -1})
}

func (l *Login) put(w http.ResponseWriter, c *http.Cookie) {
	c.Path, c.HttpOnly, c.SameSite, c.Secure = "/", true, http.SameSiteLaxMode, l.config.Scheme == "https"
	http.SetCookie(w, c)
}

// Strip takes the login's cookies out of a request, and leaves all others as they are.
func (l *Login) Strip(r *http.Request) {
	lines := r.Header.Values("Cookie")
	var kept []string
	for _, line := range lines {
		for pair := range strings.SplitSeq(line, ";") {
			name, _, _ := strings.Cut(strings.TrimSpace(pair), "=")
			if name = strings.TrimSpace(name); name != "" && name != l.name(cookieSession) && name != l.name(cookieLogin) {
				kept = append(kept, strings.TrimSpace(pair))
			}
		}
	}
	r.Header.Del("Cookie")
	if len(kept) > 0 {
		r.Header.Set("Cookie", strings.Join(kept, "; "))
	}
}
