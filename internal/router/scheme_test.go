package router

import (
	"crypto/tls"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"testing"

	"openclaw-sandbox/internal/forwarded"
)

// The scheme is part of an origin (RFC 6454), as far as it is known what the client used.
func TestOriginHasAScheme(t *testing.T) {
	proxies := forwarded.Trust{netip.MustParsePrefix("10.0.0.0/8")}
	for name, c := range map[string]struct {
		origin, proto string
		tls           bool
		want          bool // cross-origin
	}{
		"no origin":                  {"", "", true, false},
		"https to TLS":               {"https://alice.claw.test", "", true, false},
		"http to TLS":                {"http://alice.claw.test", "", true, true},
		"another host":               {"https://bob.claw.test", "", true, true},
		"opaque":                     {"null", "", true, true},
		"https by a proxy":           {"https://alice.claw.test", "https", false, false},
		"http to https by a proxy":   {"http://alice.claw.test", "https", false, true},
		"unknown, https":             {"https://alice.claw.test", "", false, false},
		"unknown, http":              {"http://alice.claw.test", "", false, false},
		"http by a proxy, TLS to us": {"http://alice.claw.test", "http", true, false},
	} {
		t.Run(name, func(t *testing.T) {
			r := httptest.NewRequest("GET", "http://alice.claw.test/", nil)
			r.Header.Set("Upgrade", "websocket")
			if c.origin != "" {
				r.Header.Set("Origin", c.origin)
			}
			if c.tls {
				r.TLS = &tls.ConnectionState{}
			}
			r.RemoteAddr = "203.0.113.1:9"
			if c.proto != "" {
				r.RemoteAddr = "10.0.0.2:9"
				r.Header.Set("X-Forwarded-For", "203.0.113.1")
				r.Header.Set("X-Forwarded-Proto", c.proto)
			}
			proxies.Handler(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
				if got := crossOrigin(r); got != c.want {
					t.Errorf("cross-origin: %v, want %v", got, c.want)
				}
			})).ServeHTTP(httptest.NewRecorder(), r)
		})
	}
}
