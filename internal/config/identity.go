package config

import (
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/hashicorp/hcl/v2"

	"openclaw-sandbox/internal/apitoken"
	"openclaw-sandbox/internal/identity"
	"openclaw-sandbox/internal/login"
	"openclaw-sandbox/internal/sandbox"
	"openclaw-sandbox/internal/session"
)

type identityBlock struct {
	Kind   string       `hcl:"kind,label"`
	User   *string      `hcl:"user"`
	Tokens []tokenBlock `hcl:"token,block"`

	Issuer           string   `hcl:"issuer,optional"`
	ClientID         string   `hcl:"client_id,optional"`
	ClientSecretFile string   `hcl:"client_secret_file,optional"`
	Scopes           []string `hcl:"scopes,optional"`
	JWKS             string   `hcl:"jwks_url,optional"`
	Audience         string   `hcl:"audience,optional"`
	Header           string   `hcl:"header,optional"`
	Networks         []string `hcl:"networks,optional"`
	Prefix           *string  `hcl:"prefix"`

	Claim         *string           `hcl:"claim"`
	Users         map[string]string `hcl:"users,optional"`
	EmailDomain   string            `hcl:"email_domain,optional"`
	Admins        []string          `hcl:"admins,optional"`
	GroupsClaim   string            `hcl:"groups_claim,optional"`
	AdminGroup    string            `hcl:"admin_group,optional"`
	RequiredGroup string            `hcl:"required_group,optional"`

	Body hcl.Body `hcl:",body"`
}

type tokenBlock struct {
	User   string   `hcl:"user,label"`
	SHA256 string   `hcl:"sha256"`
	Role   *string  `hcl:"role"`
	Body   hcl.Body `hcl:",body"`
}

type sessionBlock struct {
	KeyFiles        []string `hcl:"key_files"`
	Lifetime        *string  `hcl:"lifetime"`
	ProviderTimeout *string  `hcl:"provider_timeout"`
	LoginsPerMinute *int     `hcl:"logins_per_minute"`
}

func (f *file) applyIdentity(c *Config, bad *problems) {
	for _, b := range f.Identity {
		if err := b.apply(c); err != nil {
			bad.in(b.Body, fmt.Sprintf("identity %q: %v", b.Kind, err))
		}
		for _, t := range b.Tokens {
			role := string(identity.RoleUser)
			set(&role, t.Role)
			tok, err := identity.ParseToken(t.SHA256, t.User, role)
			if err != nil {
				bad.in(t.Body, fmt.Sprintf("token %q: %v", t.User, err))
			}
			c.Tokens = append(c.Tokens, tok)
		}
	}
	if c.Login != nil {
		f.applySession(c, bad)
	}
	if c.DevUser == "" && len(c.Tokens) == 0 && len(c.JWT) == 0 && len(c.Headers) == 0 && c.Login == nil && c.APITokens == "" {
		bad.at("", "nobody could enter: add an identity block, for example identity \"token\" { token \"alice\" { sha256 = \"…\" } }")
	}
}

func (f *file) applySession(c *Config, bad *problems) {
	l := c.Login
	l.Lifetime, l.Timeout, l.StartsPerMinute = 12*time.Hour, 10*time.Second, 20
	b := f.Session
	if b == nil {
		bad.at("", "identity \"oidc\" needs session { key_files = [\"FILE\"] }, with a key of `openssl rand -base64 32`")
		return
	}
	bad.duration("session.lifetime", &l.Lifetime, b.Lifetime, 1)
	bad.duration("session.provider_timeout", &l.Timeout, b.ProviderTimeout, 1)
	set(&l.StartsPerMinute, b.LoginsPerMinute)
	if l.StartsPerMinute < 1 {
		bad.at("session.logins_per_minute", "want 1 or more, got %d", l.StartsPerMinute)
	}
	keys, err := session.ReadKeys(b.KeyFiles...)
	if err != nil {
		bad.at("session.key_files", "%v", err)
	}
	l.Keys = keys
}

func (b *identityBlock) apply(c *Config) (err error) {
	switch b.Kind {
	case "dev":
		name := "me"
		set(&name, b.User)
		c.DevUser, err = sandbox.ParseUser(name)
		return err
	case "token":
		return nil
	case "api":
		return b.api(c)
	case "oidc":
		return b.oidc(c)
	case "jwt":
		return b.jwt(c)
	case "header":
		return b.header(c)
	}
	return errors.New("is not one of dev, token, api, oidc, jwt, header")
}

func (b *identityBlock) api(c *Config) error {
	if c.APITokens != "" {
		return errors.New("there is one already")
	}
	c.APITokens = apitoken.DefaultPrefix
	set(&c.APITokens, b.Prefix)
	if p := c.APITokens; len(p) < 2 || !strings.HasSuffix(p, "/") || strings.HasPrefix(p, "/") {
		return fmt.Errorf("prefix: want a part of Consul's keys with a slash at its end, like %q, got %q", apitoken.DefaultPrefix, p)
	}
	return nil
}

func (b *identityBlock) oidc(c *Config) error {
	if c.Login != nil {
		return errors.New("there is one already; a router has one login provider")
	}
	if err := address("issuer", b.Issuer); err != nil {
		return err
	}
	if b.ClientID == "" {
		return errors.New("client_id: want what the provider knows this router as")
	}
	l := login.Config{Issuer: b.Issuer, ClientID: b.ClientID, Scopes: b.Scopes}
	if b.ClientSecretFile != "" {
		secret, err := os.ReadFile(b.ClientSecretFile)
		if err != nil {
			return fmt.Errorf("client_secret_file: %w", err)
		}
		l.ClientSecret = strings.TrimSpace(string(secret))
	}
	var err error
	l.Mapping, err = b.mapping()
	l.Mapping.NeedVerified = true
	c.Login = &l
	return err
}

func (b *identityBlock) jwt(c *Config) error {
	if err := errors.Join(address("issuer", b.Issuer), address("jwks_url", b.JWKS)); err != nil {
		return err
	}
	if b.Audience == "" {
		return errors.New("audience: want the audience of the tokens; any other application's would be accepted without")
	}
	m, err := b.mapping()
	c.JWT = append(c.JWT, identity.JWTConfig{Issuer: b.Issuer, JWKS: b.JWKS, Audience: b.Audience, Header: b.Header, Mapping: m, Timeout: 10 * time.Second})
	return err
}

func (b *identityBlock) header(c *Config) error {
	if b.Header == "" || http.CanonicalHeaderKey(b.Header) == "Authorization" {
		return errors.New("header: want the header that the proxy sets, like \"X-Auth-Request-Email\"")
	}
	if len(b.Networks) == 0 {
		return errors.New("networks: want the addresses of the proxy; anybody could set the header without")
	}
	h := identity.Header{Name: b.Header}
	for _, text := range b.Networks {
		p, err := netip.ParsePrefix(text)
		if err != nil || p.Bits() == 0 {
			return fmt.Errorf("networks: want networks like \"10.0.0.2/32\", and not the whole world, got %q", text)
		}
		h.Networks = append(h.Networks, p.Masked())
	}
	var err error
	h.Mapping, err = b.mapping()
	// The header is the only claim there is, whatever it is called.
	h.Mapping.Claim = identity.HeaderClaim
	c.Headers = append(c.Headers, h)
	return err
}

func (b *identityBlock) mapping() (identity.Mapping, error) {
	m := identity.Mapping{Claim: "sub", EmailDomain: b.EmailDomain, Admins: b.Admins, GroupsClaim: b.GroupsClaim, AdminGroup: b.AdminGroup,
		RequiredGroup: b.RequiredGroup, Users: map[string]sandbox.User{}}
	if b.EmailDomain != "" {
		m.Claim = "email"
	}
	set(&m.Claim, b.Claim)
	for value, u := range b.Users {
		m.Users[value] = sandbox.User(u)
	}
	return m, m.Check()
}

// address checks a URL that keys are fetched from: https, or this machine.
func address(setting, text string) error {
	u, err := url.Parse(text)
	local := err == nil && (u.Hostname() == "localhost" || u.Hostname() == "127.0.0.1" || u.Hostname() == "::1")
	if err != nil || u.Host == "" || u.Scheme != "https" && !(u.Scheme == "http" && local) {
		return fmt.Errorf("%s: want an https address, got %q", setting, text)
	}
	return nil
}
