// Package login lets people in by an OpenID Connect provider (Core 1.0: code flow
// with PKCE, state and nonce) and keeps them in by a sealed cookie.
//
// The provider sends people back to <domain> only. A session there is handed over
// to <user>.<domain> by a sealed code, which is good for half a minute, at that
// host, in the browser that asked for it. No cookie has a Domain: no sandbox's
// origin ever gets a session of another.
package login

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"

	"openclaw-sandbox/internal/audit"
	"openclaw-sandbox/internal/hostname"
	"openclaw-sandbox/internal/identity"
	"openclaw-sandbox/internal/sandbox"
	"openclaw-sandbox/internal/session"
)

// Paths of the login, at <domain> and at each sandbox's host.
const (
	pathLogin    = "/_sandbox/login"
	pathCallback = "/_sandbox/callback"
	pathEnter    = "/_sandbox/enter"
	pathLogout   = "/_sandbox/logout"
)

// Config are the settings of the provider and of sessions.
type Config struct {
	Domain, Scheme string // as the router's

	Issuer       string // discovery is at <issuer>/.well-known/openid-configuration
	ClientID     string
	ClientSecret string   // empty for a public client
	Scopes       []string // beside "openid"
	Mapping      identity.Mapping
	Shares       identity.Shares // which sandboxes' hosts members may enter

	Keys     session.Keys
	Lifetime time.Duration // of a session; it is not prolonged
	Timeout  time.Duration // of one exchange with the provider

	StartsPerMinute int // logins that one address may start
}

// How long the steps of a login are good for.
const (
	loginTime = 10 * time.Minute // a person finds the password, and the second factor
	enterTime = 30 * time.Second // one redirect
	maxReturn = 2000             // bytes of a deep link, which lives in a cookie
)

// Refuse writes an error, as a page or as problem details.
type Refuse func(w http.ResponseWriter, r *http.Request, status int, title, detail string)

// Login is the handler of the login's paths, and the identity of who has passed it.
type Login struct {
	config Config
	log    *slog.Logger
	audit  *audit.Log
	client *http.Client
	starts *identity.Limit
	now    func() time.Time

	mu       sync.Mutex
	provider *oidc.Provider // nil until it was reached once
}

// New returns the login. It does not speak to the provider yet: the router starts
// also while that is away.
func New(c Config, log *slog.Logger, trail *audit.Log) *Login {
	return &Login{config: c, log: log, audit: trail, client: &http.Client{Timeout: c.Timeout},
		starts: identity.NewLimit(float64(c.StartsPerMinute), c.StartsPerMinute), now: time.Now}
}

// ticket is what a session cookie says.
type ticket struct {
	User   sandbox.User  `json:"u"`
	Role   identity.Role `json:"r"`
	By     sandbox.User  `json:"b,omitempty"` // the admin who entered User's sandbox
	Groups []string      `json:"g,omitempty"`
}

func (t ticket) caller() identity.Caller {
	return identity.Caller{User: t.User, Role: t.Role, By: t.By, Groups: t.Groups}
}

// attempt is a login under way at <domain>.
type attempt struct {
	State, Nonce, Verifier string
	Return                 string // a path at <domain>
	For, Bind              string // or the host that wants a hand-over, and of which browser
}

// wish is a login under way as a sandbox's host knows it.
type wish struct{ Secret, Return string }

// code is a hand-over.
type code struct {
	Ticket ticket
	Bind   string
}

// Identify finds the session of the request's host.
func (l *Login) Identify(r *http.Request) (identity.Caller, error) {
	var t ticket
	if !l.read(r, cookieSession, &t) {
		return identity.Caller{}, identity.ErrUnauthenticated
	}
	return t.caller(), nil
}

// Begin sends a person whose request bears no identity to the login; to is where
// they wanted to go, a path at this host.
func (l *Login) Begin(w http.ResponseWriter, r *http.Request, to string, refuse Refuse) {
	if l.atDomain(r) {
		l.toProvider(w, r, attempt{Return: local(to)}, refuse)
		return
	}
	secret := rand.Text()
	if !l.set(w, r, cookieLogin, wish{Secret: secret, Return: local(to)}, loginTime) {
		refuse(w, r, http.StatusInternalServerError, "Login failed", "The login could not begin.")
		return
	}
	query := url.Values{"for": {r.Host}, "bind": {digest(secret)}}
	l.redirect(w, r, l.config.Scheme+"://"+l.domainHost(r)+pathLogin+"?"+query.Encode())
}

// Serve answers the login's own paths. It reports false for any other.
func (l *Login) Serve(w http.ResponseWriter, r *http.Request, refuse Refuse) bool {
	at := l.atDomain(r)
	switch {
	case r.URL.Path == pathLogout:
		l.logout(w, r, refuse)
	case r.Method != http.MethodGet:
		return false
	case r.URL.Path == pathLogin && at:
		l.login(w, r, refuse)
	case r.URL.Path == pathCallback && at:
		l.callback(w, r, refuse)
	case r.URL.Path == pathEnter && !at:
		l.enter(w, r, refuse)
	default:
		return false
	}
	return true
}

// login begins at <domain>: for itself, or for the sandbox's host that sent the browser here.
func (l *Login) login(w http.ResponseWriter, r *http.Request, refuse Refuse) {
	a := attempt{Return: "/", For: r.FormValue("for"), Bind: r.FormValue("bind")}
	if a.For != "" {
		if _, err := l.userOf(r, a.For); err != nil {
			refuse(w, r, http.StatusBadRequest, "Login failed", "The login was asked for by a host that is none of ours.")
			return
		}
	}
	var t ticket
	if l.read(r, cookieSession, &t) {
		l.arrive(w, r, t, a, refuse)
		return
	}
	l.toProvider(w, r, a, refuse)
}

func (l *Login) toProvider(w http.ResponseWriter, r *http.Request, a attempt, refuse Refuse) {
	if !l.starts.Allow(r, l.now()) {
		l.audit.Refused("login limited", r)
		w.Header().Set("Retry-After", "60")
		refuse(w, r, http.StatusTooManyRequests, "Too many logins", "Too many logins were started from your address; try again in a minute.")
		return
	}
	p, err := l.discover(r.Context())
	if err != nil {
		l.log.Error("login provider", "error", err)
		refuse(w, r, http.StatusBadGateway, "Login is not possible now", "The login provider does not answer; try again in a moment.")
		return
	}
	a.State, a.Nonce, a.Verifier = rand.Text(), rand.Text(), oauth2.GenerateVerifier()
	if !l.set(w, r, cookieLogin, a, loginTime) {
		refuse(w, r, http.StatusInternalServerError, "Login failed", "The login could not begin.")
		return
	}
	l.redirect(w, r, l.oauth(r, p).AuthCodeURL(a.State, oidc.Nonce(a.Nonce), oauth2.S256ChallengeOption(a.Verifier)))
}

// callback is where the provider sends the browser back to.
func (l *Login) callback(w http.ResponseWriter, r *http.Request, refuse Refuse) {
	var a attempt
	ok := l.read(r, cookieLogin, &a) && a.State != "" && same(a.State, r.FormValue("state"))
	l.clear(w, cookieLogin)
	if !ok {
		l.audit.Refused("login refused", r, "reason", "state")
		refuse(w, r, http.StatusBadRequest, "Login failed", "This login was not begun in this browser, or has expired; go back to the page that you wanted.")
		return
	}
	if r.FormValue("error") != "" || r.FormValue("code") == "" {
		l.audit.Refused("login refused", r, "reason", "provider")
		refuse(w, r, http.StatusForbidden, "Login failed", "The login provider did not let you in.")
		return
	}
	claims, err := l.exchange(r, a)
	if err != nil {
		l.audit.Refused("login refused", r, "reason", "exchange", "error", hideBody(err))
		refuse(w, r, http.StatusForbidden, "Login failed", "The login provider's answer was not valid.")
		return
	}
	c, err := l.config.Mapping.Caller(claims)
	if err != nil {
		l.audit.Refused("login refused", r, "reason", "unknown subject")
		refuse(w, r, http.StatusForbidden, "No sandbox here", "The login provider knows you, but no sandbox is yours here; ask whoever runs this.")
		return
	}
	t := ticket{User: c.User, Role: c.Role, Groups: c.Groups}
	if !l.set(w, r, cookieSession, t, l.config.Lifetime) {
		refuse(w, r, http.StatusInternalServerError, "Login failed", "The session could not be kept.")
		return
	}
	l.audit.Note("login", r, "user", c.User, "role", c.Role)
	l.arrive(w, r, t, a, refuse)
}

// exchange returns the claims of the ID token that the provider gives for the code.
func (l *Login) exchange(r *http.Request, a attempt) (map[string]any, error) {
	p, err := l.discover(r.Context())
	if err != nil {
		return nil, err
	}
	ctx := oidc.ClientContext(r.Context(), l.client)
	tokens, err := l.oauth(r, p).Exchange(ctx, r.FormValue("code"), oauth2.VerifierOption(a.Verifier))
	if err != nil {
		return nil, fmt.Errorf("exchange the code: %w", err)
	}
	raw, _ := tokens.Extra("id_token").(string)
	id, err := p.Verifier(&oidc.Config{ClientID: l.config.ClientID, Now: l.now}).Verify(ctx, raw)
	if err != nil {
		return nil, fmt.Errorf("verify the ID token: %w", err)
	}
	if !same(id.Nonce, a.Nonce) {
		return nil, errors.New("verify the ID token: it was issued for another login")
	}
	var claims map[string]any
	if err := id.Claims(&claims); err != nil {
		return nil, fmt.Errorf("read the ID token: %w", err)
	}
	return claims, nil
}

// arrive sends somebody who is logged in at <domain> to where they wanted to go.
func (l *Login) arrive(w http.ResponseWriter, r *http.Request, t ticket, a attempt, refuse Refuse) {
	if a.For == "" {
		l.redirect(w, r, local(a.Return))
		return
	}
	owner, err := l.userOf(r, a.For)
	if err != nil || !l.config.Shares.For(t.caller()).May(owner) {
		l.audit.Refused("denied", r, "caller", t.User, "user", owner)
		refuse(w, r, http.StatusForbidden, "Not yours", "Your identity does not open this sandbox.")
		return
	}
	// At a sandbox's own host even an admin is no more than its user: what runs there
	// is the sandbox's code. A member stays who they are, so that the config decides
	// about each request; the session is good at this host only.
	own := ticket{User: t.User, Role: identity.RoleUser, Groups: t.Groups}
	if !l.config.Shares.For(own.caller()).May(owner) {
		own = ticket{User: owner, Role: identity.RoleUser, By: t.User}
	}
	text, err := l.config.Keys.Seal(code{Ticket: own, Bind: a.Bind}, purposeEnter, hostname.Of(a.For), l.now().Add(enterTime))
	if err != nil {
		refuse(w, r, http.StatusInternalServerError, "Login failed", "The session could not be handed over.")
		return
	}
	l.redirect(w, r, l.config.Scheme+"://"+a.For+pathEnter+"?"+url.Values{"code": {text}}.Encode())
}

// enter takes a hand-over at a sandbox's host. The code opens nothing without the
// secret in the cookie of the browser that asked, and that cookie is used up by it.
func (l *Login) enter(w http.ResponseWriter, r *http.Request, refuse Refuse) {
	var c code
	var wanted wish
	ok := l.read(r, cookieLogin, &wanted) && l.config.Keys.Open(r.FormValue("code"), purposeEnter, hostname.Of(r.Host), l.now(), &c) == nil &&
		same(c.Bind, digest(wanted.Secret))
	l.clear(w, cookieLogin)
	if !ok || !l.set(w, r, cookieSession, c.Ticket, l.config.Lifetime) {
		l.audit.Refused("login refused", r, "reason", "hand-over")
		refuse(w, r, http.StatusBadRequest, "Login failed", "This login was not begun in this browser, or has expired; go back to the page that you wanted.")
		return
	}
	owner, _ := l.userOf(r, r.Host)
	l.audit.Note("enter", r, "user", owner, "by", c.Ticket.caller().Person())
	l.redirect(w, r, local(wanted.Return))
}

// logout ends the session here, and by a sealed word of this host that at <domain>.
func (l *Login) logout(w http.ResponseWriter, r *http.Request, refuse Refuse) {
	var t ticket
	known := l.read(r, cookieSession, &t)
	if r.Method != http.MethodPost {
		var word string
		if !l.atDomain(r) || l.config.Keys.Open(r.FormValue("word"), purposeLogout, hostname.Of(r.Host), l.now(), &word) != nil {
			refuse(w, r, http.StatusMethodNotAllowed, "Not like this", "Log out by POST.")
			return
		}
	}
	l.clear(w, cookieSession)
	if known {
		l.audit.Note("logout", r, "user", t.User)
	}
	if !l.atDomain(r) {
		domain := l.domainHost(r)
		word, err := l.config.Keys.Seal("out", purposeLogout, hostname.Of(domain), l.now().Add(enterTime))
		if err == nil {
			l.redirect(w, r, l.config.Scheme+"://"+domain+pathLogout+"?"+url.Values{"word": {word}}.Encode())
			return
		}
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	_, _ = w.Write([]byte("You are logged out.\n"))
}

// discover reads the provider's metadata, once.
func (l *Login) discover(ctx context.Context) (*oidc.Provider, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.provider != nil {
		return l.provider, nil
	}
	// The provider keeps this context for fetching keys: it must outlive the request.
	// The client's timeout bounds each fetch.
	p, err := oidc.NewProvider(oidc.ClientContext(context.WithoutCancel(ctx), l.client), l.config.Issuer)
	if err != nil {
		return nil, fmt.Errorf("reach the login provider: %w", err)
	}
	l.provider = p
	return p, nil
}

func (l *Login) oauth(r *http.Request, p *oidc.Provider) *oauth2.Config {
	return &oauth2.Config{ClientID: l.config.ClientID, ClientSecret: l.config.ClientSecret, Endpoint: p.Endpoint(),
		RedirectURL: l.config.Scheme + "://" + l.domainHost(r) + pathCallback, Scopes: append([]string{oidc.ScopeOpenID}, l.config.Scopes...)}
}

// hideBody drops what the provider answered, which may repeat the code.
func hideBody(err error) string {
	var answer *oauth2.RetrieveError
	if errors.As(err, &answer) {
		return "the provider refused the code: " + answer.ErrorCode
	}
	return err.Error()
}

func (l *Login) redirect(w http.ResponseWriter, r *http.Request, to string) {
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("Referrer-Policy", "no-referrer") // a code in the address is nobody else's business
	http.Redirect(w, r, to, http.StatusSeeOther)
}
