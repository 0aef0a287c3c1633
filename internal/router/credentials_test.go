package router

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
	consul "github.com/hashicorp/consul/api"

	"openclaw-sandbox/internal/apitoken"
	"openclaw-sandbox/internal/audit"
	"openclaw-sandbox/internal/identity"
	"openclaw-sandbox/internal/login"
	"openclaw-sandbox/internal/session"
)

const (
	accessHeader = "Cf-Access-Jwt-Assertion"
	proxyHeader  = "X-Auth-Request-Email"
	issuer       = "https://team.cloudflareaccess.com"
)

// credentials are one of each kind, and what knows them.
type credentials struct {
	t                            *testing.T
	alice, bob, expired, revoked string // API tokens
	keys, others                 session.Keys
	key, stranger                *ecdsa.PrivateKey // of JWTs

	table    *apitoken.Table
	verifier *identity.JWT
	header   identity.Header
	login    *login.Login

	mu      sync.Mutex               // guards what follows
	stored  map[string]consul.KVPair // by token
	index   int
	changed chan struct{}
}

func newCredentials(t *testing.T) *credentials {
	t.Helper()
	c := &credentials{t: t, stored: map[string]consul.KVPair{}, index: 1, changed: make(chan struct{})}
	c.alice, c.bob = c.store("a", "alice", ""), c.store("b", "bob", "")
	c.expired, c.revoked = c.store("e", "alice", `,"expires":"2020-01-01T00:00:00Z"`), c.store("r", "alice", "")
	c.table = c.follow()

	var err error
	for _, into := range []**ecdsa.PrivateKey{&c.key, &c.stranger} {
		if *into, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
			t.Fatal(err)
		}
	}
	jwks := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		json.NewEncoder(w).Encode(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: c.key.Public(), KeyID: "k1", Algorithm: "ES256", Use: "sig"}}})
	}))
	t.Cleanup(jwks.Close)
	mapping := identity.Mapping{Claim: "email", EmailDomain: "example.com"}
	c.verifier = identity.NewJWT(t.Context(), identity.JWTConfig{Issuer: issuer, JWKS: jwks.URL, Audience: "app", Header: accessHeader, Mapping: mapping, Timeout: 5 * time.Second})
	mapping.Claim = identity.HeaderClaim
	c.header = identity.Header{Name: proxyHeader, Networks: []netip.Prefix{netip.MustParsePrefix("10.0.0.2/32")}, Mapping: mapping}

	for fillWith, into := range map[byte]*session.Keys{1: &c.keys, 2: &c.others} {
		if *into, err = session.NewKeys(fill(fillWith)); err != nil {
			t.Fatal(err)
		}
	}
	log := slog.New(slog.DiscardHandler)
	c.login = login.New(login.Config{Domain: "claw.test", Scheme: "http", Issuer: "http://127.0.0.1:1", Keys: c.keys, Lifetime: time.Hour, Timeout: time.Second, StartsPerMinute: 100}, log, audit.New(log))
	return c
}

// store puts an API token into the fake Consul, as sandboxctl would.
func (c *credentials) store(letter, user, more string) string {
	token := "ocs_" + strings.Repeat(letter, 52)
	sum := sha256.Sum256([]byte(token))
	text := hex.EncodeToString(sum[:])
	c.stored[token] = consul.KVPair{Key: apitoken.DefaultPrefix + text[:12], Value: fmt.Appendf(nil, `{"user":%q,"role":"user","sha256":%q%s}`, user, text, more)}
	return token
}

// revoke takes one out, as sandboxctl would.
func (c *credentials) revoke(token string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.stored, token)
	c.index++
	close(c.changed)
	c.changed = make(chan struct{})
}

// follow is a router's table on a fake Consul that answers blocking queries.
func (c *credentials) follow() *apitoken.Table {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c.mu.Lock()
		defer c.mu.Unlock()
		for r.FormValue("index") == strconv.Itoa(c.index) {
			changed := c.changed
			c.mu.Unlock()
			select {
			case <-changed:
			case <-r.Context().Done():
			}
			c.mu.Lock()
			if r.Context().Err() != nil {
				return
			}
		}
		pairs := []consul.KVPair{}
		for _, p := range c.stored {
			pairs = append(pairs, p)
		}
		w.Header().Set("X-Consul-Index", strconv.Itoa(c.index))
		json.NewEncoder(w).Encode(pairs)
	}))
	client, err := consul.NewClient(&consul.Config{Address: strings.TrimPrefix(srv.URL, "http://")})
	if err != nil {
		c.t.Fatal(err)
	}
	table := apitoken.New(apitoken.DefaultConfig(), client, slog.New(slog.DiscardHandler))
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- table.Run(ctx) }()
	c.t.Cleanup(func() { cancel(); <-done; srv.Close() })
	return table
}

func (c *credentials) jwt(over map[string]any) string { return c.jwtBy(c.key, over) }

func (c *credentials) jwtBy(key *ecdsa.PrivateKey, over map[string]any) string {
	c.t.Helper()
	claims := map[string]any{"iss": issuer, "aud": "app", "sub": "1", "email": "alice@example.com", "iat": time.Now().Unix(), "exp": time.Now().Add(time.Hour).Unix()}
	for k, v := range over {
		claims[k] = v
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: jose.JSONWebKey{Key: key, KeyID: "k1"}}, nil)
	if err != nil {
		c.t.Fatal(err)
	}
	text, err := jwt.Signed(signer).Claims(claims).Serialize()
	if err != nil {
		c.t.Fatal(err)
	}
	return text
}

// seal is what a router with these keys seals for a user, for any purpose.
func (c *credentials) seal(keys session.Keys, purpose, host, user string, life time.Duration) string {
	c.t.Helper()
	text, err := keys.Seal(map[string]string{"u": user, "r": "user"}, purpose, host, time.Now().Add(life))
	if err != nil {
		c.t.Fatal(err)
	}
	return text
}

// cookie is a session's line, for the host that it is asked for.
func (c *credentials) cookie(user string, keys session.Keys, life time.Duration) func(host string) []string {
	return func(host string) []string {
		return []string{"Cookie: sandbox-session=" + c.seal(keys, "sandbox-session", host, user, life)}
	}
}
