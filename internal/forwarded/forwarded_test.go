package forwarded

import (
	"net/http"
	"net/http/httptest"
	"net/netip"
	"testing"
)

func TestHandler(t *testing.T) {
	trust := Trust{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("fd00::/8")}
	for name, c := range map[string]struct {
		trust  Trust
		peer   string
		header http.Header
		client string // as RemoteAddr
		scheme string
	}{
		"direct":                {trust, "203.0.113.9:5", http.Header{"X-Forwarded-For": {"198.51.100.1"}, "X-Forwarded-Proto": {"https"}}, "203.0.113.9:5", ""},
		"nobody is trusted":     {nil, "10.0.0.1:5", http.Header{"X-Forwarded-For": {"198.51.100.1"}}, "10.0.0.1:5", ""},
		"one proxy":             {trust, "10.0.0.1:5", http.Header{"X-Forwarded-For": {"198.51.100.1"}, "X-Forwarded-Proto": {"https"}}, "198.51.100.1:0", "https"},
		"no header":             {trust, "10.0.0.1:5", nil, "10.0.0.1:5", ""},
		"empty header":          {trust, "10.0.0.1:5", http.Header{"X-Forwarded-For": {""}}, "10.0.0.1:5", ""},
		"a lie before":          {trust, "10.0.0.1:5", http.Header{"X-Forwarded-For": {"1.2.3.4, 198.51.100.1"}}, "198.51.100.1:0", ""},
		"two proxies":           {trust, "10.0.0.1:5", http.Header{"X-Forwarded-For": {"1.2.3.4,198.51.100.1 ,\t10.0.0.2"}}, "198.51.100.1:0", ""},
		"several lines":         {trust, "10.0.0.1:5", http.Header{"X-Forwarded-For": {"1.2.3.4, 198.51.100.1", "10.0.0.2"}}, "198.51.100.1:0", ""},
		"all trusted":           {trust, "10.0.0.1:5", http.Header{"X-Forwarded-For": {"10.0.0.3, 10.0.0.2"}}, "10.0.0.3:0", ""},
		"no address":            {trust, "10.0.0.1:5", http.Header{"X-Forwarded-For": {"198.51.100.1, unknown, 10.0.0.2"}}, "10.0.0.2:0", ""},
		"with port":             {trust, "10.0.0.1:5", http.Header{"X-Forwarded-For": {"198.51.100.1:4711"}}, "198.51.100.1:0", ""},
		"version 6":             {trust, "[fd00::1]:5", http.Header{"X-Forwarded-For": {"2001:db8::1"}}, "[2001:db8::1]:0", ""},
		"version 6 in brackets": {trust, "[fd00::1]:5", http.Header{"X-Forwarded-For": {"[2001:db8::1]"}}, "[2001:db8::1]:0", ""},
		"a mapped peer":         {trust, "[::ffff:10.0.0.1]:5", http.Header{"X-Forwarded-For": {"198.51.100.1"}}, "198.51.100.1:0", ""},
		"two schemes":           {trust, "10.0.0.1:5", http.Header{"X-Forwarded-Proto": {"https", "http"}}, "10.0.0.1:5", ""},
		"a strange scheme":      {trust, "10.0.0.1:5", http.Header{"X-Forwarded-Proto": {"gopher"}}, "10.0.0.1:5", ""},
	} {
		t.Run(name, func(t *testing.T) {
			var got *http.Request
			h := c.trust.Handler(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { got = r }))
			r := httptest.NewRequest("GET", "/", nil)
			r.RemoteAddr = c.peer
			for k, v := range c.header {
				r.Header[k] = v
			}
			h.ServeHTTP(httptest.NewRecorder(), r)
			if got.RemoteAddr != c.client || Peer(got) != c.peer || Scheme(got) != c.scheme {
				t.Errorf("client %s, peer %s, scheme %q; want %s, %s, %q", got.RemoteAddr, Peer(got), Scheme(got), c.client, c.peer, c.scheme)
			}
		})
	}
}
