package identity

import (
	"context"
	"crypto/sha256"
	"net/http"
	"strings"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	lru "github.com/hashicorp/golang-lru/v2"
)

// JWTConfig are the settings of one issuer of tokens.
type JWTConfig struct {
	Issuer   string // the "iss" claim
	JWKS     string // the address of the issuer's keys (RFC 7517)
	Audience string // must be in the "aud" claim
	Header   string // of the token; empty: Authorization: Bearer. Cloudflare Access: Cf-Access-Jwt-Assertion
	Mapping  Mapping
	Timeout  time.Duration // of fetching the keys
}

// Tokens that were verified are known for a while, so that a signature is not
// checked at each request. A key that the issuer withdraws counts so much longer.
const (
	knownTokens = 10_000
	knownFor    = time.Minute
	maxToken    = 16 << 10 // bytes
)

// JWT accepts signed tokens (RFC 7519) of one issuer.
type JWT struct {
	config   JWTConfig
	verifier *oidc.IDTokenVerifier
	failures *Limit
	known    *lru.Cache[[sha256.Size]byte, known]
	now      func() time.Time
}

type known struct {
	caller Caller
	until  time.Time
}

// failuresPerMinute is how many wrong tokens one address may send: a token that
// names an unknown key makes the router ask the issuer for its keys.
const failuresPerMinute = 30

// NewJWT returns the method. Keys are fetched when the first token comes; ctx
// bounds that, and must last as long as the method.
func NewJWT(ctx context.Context, c JWTConfig) *JWT {
	cache, err := lru.New[[sha256.Size]byte, known](knownTokens)
	if err != nil {
		panic(err) // only for a size below 1
	}
	j := &JWT{config: c, failures: NewLimit(failuresPerMinute, failuresPerMinute), known: cache, now: time.Now}
	keys := oidc.NewRemoteKeySet(oidc.ClientContext(ctx, &http.Client{Timeout: c.Timeout}), c.JWKS)
	j.verifier = oidc.NewVerifier(c.Issuer, keys, &oidc.Config{ClientID: c.Audience, Now: func() time.Time { return j.now() },
		SupportedSigningAlgs: []string{oidc.RS256, oidc.RS384, oidc.RS512, oidc.ES256, oidc.ES384, oidc.ES512, oidc.PS256, oidc.PS384, oidc.PS512, oidc.EdDSA}})
	return j
}

// Identify verifies issuer, audience, expiry and signature.
func (j *JWT) Identify(r *http.Request) (Caller, error) {
	raw := j.token(r)
	if len(raw) > maxToken || strings.Count(raw, ".") != 2 {
		return Caller{}, ErrUnauthenticated
	}
	now, sum := j.now(), sha256.Sum256([]byte(raw))
	if k, ok := j.known.Get(sum); ok && now.Before(k.until) {
		j.used(r)
		return k.caller, nil
	}
	if j.failures.Spent(r, now) {
		return Caller{}, ErrUnauthenticated
	}
	token, err := j.verifier.Verify(r.Context(), raw)
	if err != nil {
		j.failures.Allow(r, now)
		return Caller{}, ErrUnauthenticated
	}
	var claims map[string]any
	if err := token.Claims(&claims); err != nil {
		return Caller{}, ErrUnauthenticated
	}
	c, err := j.config.Mapping.Caller(claims)
	if err != nil {
		return Caller{}, err
	}
	c.Bearer = j.config.Header == ""
	until := now.Add(knownFor)
	if token.Expiry.Before(until) {
		until = token.Expiry
	}
	j.known.Add(sum, known{caller: c, until: until})
	j.used(r)
	return c, nil
}

// Strip removes the issuer's own header. Authorization stays, if it was not used:
// it may be for the gateway.
func (j *JWT) Strip(r *http.Request) {
	if j.config.Header != "" {
		r.Header.Del(j.config.Header)
	}
}

func (j *JWT) used(r *http.Request) {
	if j.config.Header == "" {
		r.Header.Del("Authorization")
	}
}

func (j *JWT) token(r *http.Request) string {
	if j.config.Header != "" {
		if values := r.Header.Values(j.config.Header); len(values) == 1 {
			return values[0]
		}
		return ""
	}
	scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if !strings.EqualFold(scheme, "bearer") {
		return ""
	}
	return strings.TrimSpace(token)
}
