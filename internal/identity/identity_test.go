package identity

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"testing"
	"time"

	"openclaw-sandbox/internal/forwarded"
)

func sum(s string) string { h := sha256.Sum256([]byte(s)); return hex.EncodeToString(h[:]) }

func TestTokens(t *testing.T) {
	var ts Tokens
	for _, c := range [][3]string{{"alice-token", "alice", "user"}, {"root-token", "ops", "admin"}} {
		tok, err := ParseToken(sum(c[0]), c[1], c[2])
		if err != nil {
			t.Fatal(err)
		}
		ts = append(ts, tok)
	}
	cases := map[string]struct {
		header string
		user   string
		bob    bool // may use bob's sandbox
		err    error
	}{
		"right":        {"Bearer alice-token", "alice", false, nil},
		"lower case":   {"bearer alice-token", "alice", false, nil},
		"admin":        {"Bearer root-token", "ops", true, nil},
		"wrong":        {"Bearer alice-tokeN", "", false, ErrUnauthenticated},
		"the sum":      {"Bearer " + sum("alice-token"), "", false, ErrUnauthenticated},
		"empty":        {"", "", false, ErrUnauthenticated},
		"no token":     {"Bearer ", "", false, ErrUnauthenticated},
		"other scheme": {"Basic alice-token", "", false, ErrUnauthenticated},
		"two":          {"Bearer alice-token root-token", "", false, ErrUnauthenticated},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			r := httptest.NewRequest("GET", "/", nil)
			r.Header.Set("Authorization", c.header)
			got, err := Any{ts}.Identify(r)
			if !errors.Is(err, c.err) || string(got.User) != c.user || (err == nil && got.May("bob") != c.bob) {
				t.Errorf("Identify = %+v, %v; want %s, %v", got, err, c.user, c.err)
			}
			if err == nil && (r.Header.Get("Authorization") != "" || !got.May(got.User)) {
				t.Error("the token is still in the request, or the own sandbox is closed")
			}
		})
	}
}

func TestParseToken(t *testing.T) {
	for _, c := range [][3]string{{"abc", "alice", "user"}, {sum("x"), "Alice", "user"}, {sum("x"), "alice", "god"}, {"", "alice", "user"}} {
		if _, err := ParseToken(c[0], c[1], c[2]); err == nil {
			t.Errorf("%v was accepted", c)
		}
	}
}

func TestDev(t *testing.T) {
	c, err := Dev{Self: "me"}.Identify(httptest.NewRequest("GET", "/", nil))
	if err != nil || c.User != "me" || !c.May("anybody") {
		t.Errorf("Identify = %+v, %v", c, err)
	}
}

// Whom a trusted proxy forwards for is not who may say who somebody is.
func TestHeaderBelievesTheConnection(t *testing.T) {
	h := Header{Name: "X-User", Networks: []netip.Prefix{netip.MustParsePrefix("10.0.0.2/32")}, Mapping: Mapping{Claim: HeaderClaim}}
	trust := forwarded.Trust{netip.MustParsePrefix("10.0.0.0/8")}
	for _, c := range []struct {
		peer, from string
		ok         bool
	}{
		{"10.0.0.2:1", "203.0.113.9", true},
		{"10.0.0.2:1", "", true},
		{"10.0.0.3:1", "10.0.0.2", false},
		{"203.0.113.9:1", "10.0.0.2", false},
	} {
		r := httptest.NewRequest("GET", "/", nil)
		r.RemoteAddr = c.peer
		r.Header.Set("X-User", "alice")
		if c.from != "" {
			r.Header.Set("X-Forwarded-For", c.from)
		}
		trust.Handler(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			if got, err := h.Identify(r); (err == nil) != c.ok {
				t.Errorf("%+v: %+v, %v", c, got, err)
			}
		})).ServeHTTP(httptest.NewRecorder(), r)
	}
}

// Everybody behind one proxy has a limit of their own.
func TestLimitIsOfTheClient(t *testing.T) {
	l, now := NewLimit(1, 1), time.Now()
	trust := forwarded.Trust{netip.MustParsePrefix("10.0.0.0/8")}
	for _, c := range []struct {
		from string
		ok   bool
	}{{"203.0.113.9", true}, {"203.0.113.10", true}, {"203.0.113.9", false}, {"2001:db8::1", true}, {"2001:db8::2", false}} {
		r := httptest.NewRequest("GET", "/", nil)
		r.RemoteAddr = "10.0.0.2:1"
		r.Header.Set("X-Forwarded-For", c.from)
		trust.Handler(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			if got := l.Allow(r, now); got != c.ok {
				t.Errorf("%s: %t", c.from, got)
			}
		})).ServeHTTP(httptest.NewRecorder(), r)
	}
}
