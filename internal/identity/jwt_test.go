package identity

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
)

// issuer signs tokens and publishes its keys.
type issuer struct {
	key     *ecdsa.PrivateKey
	fetches atomic.Int32
	url     string
}

func newIssuer(t testing.TB) *issuer {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	i := &issuer{key: key}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		i.fetches.Add(1)
		_ = json.NewEncoder(w).Encode(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: key.Public(), KeyID: "k1", Algorithm: "ES256", Use: "sig"}}})
	}))
	t.Cleanup(srv.Close)
	i.url = srv.URL
	return i
}

func sign(t testing.TB, alg jose.SignatureAlgorithm, key any, kid string, claims map[string]any) string {
	t.Helper()
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: alg, Key: jose.JSONWebKey{Key: key, KeyID: kid}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	text, err := jwt.Signed(signer).Claims(claims).Serialize()
	if err != nil {
		t.Fatal(err)
	}
	return text
}

const accessHeader = "Cf-Access-Jwt-Assertion"

func (i *issuer) method(t testing.TB) *JWT {
	return NewJWT(t.Context(), JWTConfig{Issuer: "https://team.cloudflareaccess.com", JWKS: i.url, Audience: "app", Header: accessHeader,
		Mapping: Mapping{Claim: "email", EmailDomain: "example.com"}, Timeout: time.Second})
}

func claims(over map[string]any) map[string]any {
	c := map[string]any{"iss": "https://team.cloudflareaccess.com", "aud": []string{"app"}, "sub": "1", "email": "alice@example.com",
		"iat": time.Now().Unix(), "exp": time.Now().Add(time.Hour).Unix()}
	for k, v := range over {
		c[k] = v
	}
	return c
}

func ask(m Method, addr, header string, values ...string) (Caller, *http.Request, error) {
	r := httptest.NewRequest("GET", "/", nil)
	r.RemoteAddr = addr + ":1234"
	for _, v := range values {
		r.Header.Add(header, v)
	}
	c, err := Any{m}.Identify(r)
	return c, r, err
}

func TestJWT(t *testing.T) {
	i, j := newIssuer(t), (*JWT)(nil)
	j = i.method(t)
	stranger, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	good := sign(t, jose.ES256, i.key, "k1", claims(nil))
	cases := map[string]struct {
		tokens []string
		ok     bool
	}{
		"right":          {[]string{good}, true},
		"cached":         {[]string{good}, true},
		"two":            {[]string{good, good}, false},
		"expired":        {[]string{sign(t, jose.ES256, i.key, "k1", claims(map[string]any{"exp": 1000}))}, false},
		"no expiry":      {[]string{sign(t, jose.ES256, i.key, "k1", claims(map[string]any{"exp": nil}))}, false},
		"not yet":        {[]string{sign(t, jose.ES256, i.key, "k1", claims(map[string]any{"nbf": time.Now().Add(time.Hour).Unix()}))}, false},
		"wrong audience": {[]string{sign(t, jose.ES256, i.key, "k1", claims(map[string]any{"aud": "other"}))}, false},
		"wrong issuer":   {[]string{sign(t, jose.ES256, i.key, "k1", claims(map[string]any{"iss": "https://evil.test"}))}, false},
		"wrong key":      {[]string{sign(t, jose.ES256, stranger, "k1", claims(nil))}, false},
		"unknown key":    {[]string{sign(t, jose.ES256, stranger, "k2", claims(nil))}, false},
		"shared secret":  {[]string{sign(t, jose.HS256, []byte("0123456789abcdef0123456789abcdef"), "k1", claims(nil))}, false},
		"no algorithm":   {[]string{"eyJhbGciOiJub25lIn0.e30."}, false},
		"other domain":   {[]string{sign(t, jose.ES256, i.key, "k1", claims(map[string]any{"email": "alice@evil.test"}))}, false},
		"cut":            {[]string{good[:len(good)-4]}, false},
		"empty":          {nil, false},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			got, r, err := ask(j, "203.0.113.9", accessHeader, c.tokens...)
			if (err == nil) != c.ok || c.ok != (got.User == "alice") || r.Header.Get(accessHeader) != "" {
				t.Errorf("Identify = %+v, %v; header left: %q", got, err, r.Header.Get(accessHeader))
			}
		})
	}
	later := time.Now().Add(2 * time.Hour)
	j.now = func() time.Time { return later }
	if _, _, err := ask(j, "203.0.113.9", accessHeader, good); err == nil {
		t.Error("the cache kept a token beyond its expiry")
	}
}

func TestJWTBruteForce(t *testing.T) {
	i := newIssuer(t)
	j := i.method(t)
	fixed := time.Now()
	j.now = func() time.Time { return fixed }
	bad := sign(t, jose.ES256, i.key, "k2", claims(nil))
	for range 10 * failuresPerMinute {
		if _, _, err := ask(j, "203.0.113.9", accessHeader, bad); err == nil {
			t.Fatal("accepted")
		}
	}
	if n := i.fetches.Load(); n > failuresPerMinute {
		t.Errorf("one address made the router fetch keys %d times", n)
	}
	if _, _, err := ask(j, "203.0.113.10", accessHeader, sign(t, jose.ES256, i.key, "k1", claims(nil))); err != nil {
		t.Errorf("another address: %v", err)
	}
}

func TestHeader(t *testing.T) {
	h := Header{Name: "X-Auth-Request-Email", Networks: []netip.Prefix{netip.MustParsePrefix("10.0.0.2/32")},
		Mapping: Mapping{Claim: HeaderClaim, EmailDomain: "example.com"}}
	for name, c := range map[string]struct {
		addr   string
		values []string
		ok     bool
	}{
		"right":          {"10.0.0.2", []string{"alice@example.com"}, true},
		"mapped address": {"[::ffff:10.0.0.2]", []string{"alice@example.com"}, true},
		"from outside":   {"203.0.113.9", []string{"alice@example.com"}, false},
		"from a sandbox": {"172.26.64.5", []string{"alice@example.com"}, false},
		"two":            {"10.0.0.2", []string{"bob@example.com", "alice@example.com"}, false},
		"joined":         {"10.0.0.2", []string{"bob@example.com, alice@example.com"}, false},
		"empty":          {"10.0.0.2", []string{""}, false},
	} {
		t.Run(name, func(t *testing.T) {
			got, r, err := ask(h, c.addr, h.Name, c.values...)
			if (err == nil) != c.ok || c.ok != (got.User == "alice") || r.Header.Get(h.Name) != "" {
				t.Errorf("Identify = %+v, %v", got, err)
			}
		})
	}
}

func BenchmarkJWTCached(b *testing.B) {
	i := newIssuer(b)
	j := i.method(b)
	r := httptest.NewRequest("GET", "/", nil)
	r.Header.Set(accessHeader, sign(b, jose.ES256, i.key, "k1", claims(nil)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := j.Identify(r); err != nil {
			b.Fatal(err)
		}
	}
}
