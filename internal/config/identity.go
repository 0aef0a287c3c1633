package config

import (
	"net/http"
	"net/url"
	"os"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"

	"openclaw-sandbox/internal/apitoken"
	"openclaw-sandbox/internal/identity"
	"openclaw-sandbox/internal/login"
	"openclaw-sandbox/internal/sandbox"
	"openclaw-sandbox/internal/session"
)

type identityBlock struct {
	Kind   string       `hcl:"kind,label" doc:"dev: everybody is anybody, without login, with listen on loopback only. token: tokens that are named here. api: tokens that sandboxctl token makes and revokes. oidc: login at an OpenID Connect provider. jwt: a token of a proxy in front, as of Cloudflare Access. header: of an authenticating proxy" want:"dev, token, api, oidc, jwt or header"`
	Tokens []tokenBlock `hcl:"token,block" kinds:"token" doc:"A token, for programs and scripts."`

	User             *string  `hcl:"user" kinds:"dev" default:"me" doc:"whose sandbox is meant where a URL names none" want:"a user id"`
	Prefix           *string  `hcl:"prefix" kinds:"api" default:"openclaw/token/" doc:"where the tokens are, in Consul's key-value store" want:"ends with a slash"`
	Issuer           string   `hcl:"issuer,optional" kinds:"oidc jwt" doc:"who logs people in, or signs the tokens" want:"an https address"`
	ClientID         string   `hcl:"client_id,optional" kinds:"oidc" doc:"what the provider knows the router as; the redirect address is https://<domain>/_sandbox/callback"`
	ClientSecretFile string   `hcl:"client_secret_file,optional" kinds:"oidc" default:"" doc:"a file with the client's secret; empty for a public client"`
	Scopes           []string `hcl:"scopes,optional" kinds:"oidc" default:"[]" doc:"to ask for beside openid"`
	JWKS             string   `hcl:"jwks_url,optional" kinds:"jwt" doc:"where the issuer's keys are" want:"an https address"`
	Audience         string   `hcl:"audience,optional" kinds:"jwt" doc:"of the tokens; those of other applications are refused"`
	Header           string   `hcl:"header,optional" kinds:"jwt header" default:"(Authorization: Bearer with jwt, else required)" doc:"where the proxy puts the token, or who somebody is"`
	Networks         []string `hcl:"networks,optional" kinds:"header" doc:"the addresses of the proxy only; never the sandboxes' bridge" want:"networks like \"10.0.0.2/32\", not the whole world"`

	Claim         *string           `hcl:"claim" kinds:"oidc jwt" default:"(sub; email with email_domain)" doc:"the claim that names somebody"`
	EmailDomain   string            `hcl:"email_domain,optional" kinds:"oidc jwt header" default:"" doc:"NAME@DOMAIN is the user NAME"`
	Users         map[string]string `hcl:"users,optional" kinds:"oidc jwt header" default:"{}" doc:"gives user ids by what the claim or the header says"`
	Admins        []string          `hcl:"admins,optional" kinds:"oidc jwt header" default:"[]" doc:"what the claim or the header says of those who may use every sandbox"`
	GroupsClaim   string            `hcl:"groups_claim,optional" kinds:"oidc jwt" default:"" doc:"the claim with the list of somebody's groups"`
	AdminGroup    string            `hcl:"admin_group,optional" kinds:"oidc jwt" default:"" doc:"whoever is in it may use every sandbox"`
	RequiredGroup string            `hcl:"required_group,optional" kinds:"oidc jwt" default:"" doc:"whoever is not in it may not enter"`

	Body hcl.Body `hcl:",body"`
}

type tokenBlock struct {
	User   string   `hcl:"user,label" doc:"whose token it is" want:"a user id"`
	SHA256 string   `hcl:"sha256,optional" doc:"printf %s \"$TOKEN\" | sha256sum" want:"64 hexadecimal digits"`
	Role   *string  `hcl:"role" default:"user" doc:"their own sandbox, or every sandbox" want:"\"user\" or \"admin\""`
	Body   hcl.Body `hcl:",body"`
}

type sessionBlock struct {
	KeyFiles        []string  `hcl:"key_files,optional" doc:"keys of openssl rand -base64 32, the current one first; the same for all routers"`
	Lifetime        *duration `hcl:"lifetime" default:"12h" doc:"of a session; then one logs in anew" want:"more than 0s"`
	ProviderTimeout *duration `hcl:"provider_timeout" default:"10s" doc:"of a call of the provider" want:"more than 0s"`
	LoginsPerMinute *int      `hcl:"logins_per_minute" default:"20" doc:"that one address may start" want:"1 or more"`
}

func (f *file) applyIdentity(c *Config, bad *problems) {
	for _, b := range f.Identity {
		here := bad.in(b.Body, "identity", b.Kind)
		b.apply(c, here)
		b.foreign(here)
		if b.Kind == "oidc" && f.Session == nil {
			here.at("", "needs session { key_files = [\"FILE\"] }, with a key of `openssl rand -base64 32`")
		}
		for _, t := range b.Tokens {
			role := string(identity.RoleUser)
			set(&role, t.Role)
			tok, err := identity.ParseToken(t.SHA256, t.User, role)
			bad.in(t.Body, "token", t.User).err(err)
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
		return // reported
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

func (b *identityBlock) apply(c *Config, bad scope) {
	switch b.Kind {
	case "dev":
		name := "me"
		set(&name, b.User)
		var err error
		if c.DevUser, err = sandbox.ParseUser(name); err != nil {
			bad.at("user", "%v", err)
		}
	case "token":
	case "api":
		b.api(c, bad)
	case "oidc":
		b.oidc(c, bad)
	case "jwt":
		b.jwt(c, bad)
	case "header":
		b.header(c, bad)
	default:
		bad.at("", "is not one of %s", strings.Join(kinds, ", "))
	}
}

var kinds = []string{"dev", "token", "api", "oidc", "jwt", "header"}

// foreign reports settings that belong to other kinds: who wrote them expects that they count.
func (b *identityBlock) foreign(bad scope) {
	body, ok := b.Body.(*hclsyntax.Body)
	if !ok || !slices.Contains(kinds, b.Kind) {
		return
	}
	for f := range reflect.TypeFor[identityBlock]().Fields() {
		name, _, _ := strings.Cut(f.Tag.Get("hcl"), ",")
		of := strings.Fields(f.Tag.Get("kinds"))
		if len(of) == 0 || slices.Contains(of, b.Kind) {
			continue
		}
		_, there := body.Attributes[name]
		if there || name == "token" && len(b.Tokens) > 0 {
			bad.at(name, "is a setting of identity %s only", strings.Join(of, ", "))
		}
	}
}

func (b *identityBlock) api(c *Config, bad scope) {
	if c.APITokens != "" {
		bad.at("", "there is one already")
	}
	c.APITokens = apitoken.DefaultPrefix
	set(&c.APITokens, b.Prefix)
	if p := c.APITokens; len(p) < 2 || !strings.HasSuffix(p, "/") || strings.HasPrefix(p, "/") {
		bad.at("prefix", "want a part of Consul's keys with a slash at its end, like %q, got %q", apitoken.DefaultPrefix, p)
	}
}

func (b *identityBlock) oidc(c *Config, bad scope) {
	if c.Login != nil {
		bad.at("", "there is one already; a router has one login provider")
	}
	bad.address("issuer", b.Issuer)
	if b.ClientID == "" {
		bad.at("client_id", "want what the provider knows this router as")
	}
	l := login.Config{Issuer: b.Issuer, ClientID: b.ClientID, Scopes: b.Scopes}
	if b.ClientSecretFile != "" {
		secret, err := os.ReadFile(b.ClientSecretFile)
		if err != nil {
			bad.at("client_secret_file", "%v", err)
		}
		l.ClientSecret = strings.TrimSpace(string(secret))
	}
	l.Mapping = b.mapping(bad)
	l.Mapping.NeedVerified = true
	c.Login = &l
}

func (b *identityBlock) jwt(c *Config, bad scope) {
	bad.address("issuer", b.Issuer)
	bad.address("jwks_url", b.JWKS)
	if b.Audience == "" {
		bad.at("audience", "want the audience of the tokens; any other application's would be accepted without")
	}
	c.JWT = append(c.JWT, identity.JWTConfig{Issuer: b.Issuer, JWKS: b.JWKS, Audience: b.Audience, Header: b.Header, Mapping: b.mapping(bad), Timeout: 10 * time.Second})
}

func (b *identityBlock) header(c *Config, bad scope) {
	if b.Header == "" || http.CanonicalHeaderKey(b.Header) == "Authorization" {
		bad.at("header", "want the header that the proxy sets, like \"X-Auth-Request-Email\"")
	}
	if len(b.Networks) == 0 {
		bad.at("networks", "want the addresses of the proxy; anybody could set the header without")
	}
	h := identity.Header{Name: b.Header, Networks: networks(b.Networks, func(text string) {
		bad.at("networks", "want networks like \"10.0.0.2/32\", and not the whole world, got %q", text)
	})}
	h.Mapping = b.mapping(bad)
	// The header is the only claim there is, whatever it is called.
	h.Mapping.Claim = identity.HeaderClaim
	c.Headers = append(c.Headers, h)
}

func (b *identityBlock) mapping(bad scope) identity.Mapping {
	m := identity.Mapping{Claim: "sub", EmailDomain: b.EmailDomain, Admins: b.Admins, GroupsClaim: b.GroupsClaim, AdminGroup: b.AdminGroup,
		RequiredGroup: b.RequiredGroup, Users: map[string]sandbox.User{}}
	if b.EmailDomain != "" {
		m.Claim = "email"
	}
	set(&m.Claim, b.Claim)
	for value, u := range b.Users {
		m.Users[value] = sandbox.User(u)
	}
	bad.err(m.Check())
	return m
}

// address wants a URL that keys are fetched from: https, or this machine.
func (s scope) address(setting, text string) {
	u, err := url.Parse(text)
	local := err == nil && (u.Hostname() == "localhost" || u.Hostname() == "127.0.0.1" || u.Hostname() == "::1")
	if err != nil || u.Host == "" || u.Scheme != "https" && !(u.Scheme == "http" && local) {
		s.at(setting, "want an https address, got %q", text)
	}
}
