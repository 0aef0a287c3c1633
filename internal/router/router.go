// Package router decides what happens to a request: whose sandbox it is for, who
// is asking, and whether it is proxied, woken for, answered here or refused.
package router

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"golang.org/x/time/rate"

	"openclaw-sandbox/internal/activity"
	"openclaw-sandbox/internal/audit"
	"openclaw-sandbox/internal/catalog"
	"openclaw-sandbox/internal/identity"
	"openclaw-sandbox/internal/idle"
	"openclaw-sandbox/internal/login"
	"openclaw-sandbox/internal/proxy"
	"openclaw-sandbox/internal/sandbox"
	"openclaw-sandbox/internal/web"
	"openclaw-sandbox/internal/webhook"
)

// Catalog knows who is where.
type Catalog interface {
	Lookup(u sandbox.User) (catalog.Instance, bool)
	// Evict takes away a gateway that does not answer, until it does or for a while.
	Evict(u sandbox.User, generation string)
	// Dormant is the user's gateway if it is frozen, or its check fails.
	Dormant(u sandbox.User) (catalog.Instance, catalog.State, bool)
	// Ready reports whether there was a first full view; Age is how old the last is.
	Ready() bool
	Age() time.Duration
}

// Launcher starts sandboxes.
type Launcher interface {
	// Wake joins or begins the user's start; retry also after a failure that lasts.
	Wake(u sandbox.User, retry bool) Flight
	// Flight is the start under way, or one that has just failed for good.
	Flight(u sandbox.User) (Flight, bool)
}

// Flight is one start, which any number of requests follow.
type Flight interface {
	// Progress is how far it is, and a channel that is closed at the next change.
	Progress() (sandbox.Progress, <-chan struct{})
	// Done is closed at its end, either way.
	Done() <-chan struct{}
	// Wait blocks until its end. It returns a *sandbox.Failure if the start failed,
	// or ctx's error.
	Wait(ctx context.Context) (catalog.Instance, error)
}

// Clients is told of requests while they are answered.
type Clients interface {
	Enter(u sandbox.User, k activity.Kind)
	Leave(u sandbox.User, k activity.Kind)
	// Mark is what this router knows of the user's clients.
	Mark(u sandbox.User) activity.Mark
}

// Accounts tell why a sandbox is up, or is not.
type Accounts interface {
	Account(ctx context.Context, u sandbox.User, running, asleep bool) (idle.Account, error)
}

// Config are the router's own settings.
type Config struct {
	Domain      string
	HoldTimeout time.Duration
	Audit       *audit.Log // nil: one that writes to the router's log
	Limits      Limits
	// Paths lets browsers use sandboxes by path (<domain>/u/<user>/, and <domain>/ for
	// the caller's own), where all sandboxes share one origin with the login: code of one
	// could use the others with its visitor's rights. It is for development.
	Paths bool
}

// Router is the HTTP handler.
type Router struct {
	config   Config
	identity identity.Method
	catalog  Catalog
	launcher Launcher
	clients  Clients
	accounts Accounts // nil: nobody can tell
	proxy    *proxy.Proxy
	draining <-chan struct{}
	log      *slog.Logger
	csrf     *http.CrossOriginProtection
	login    Login        // nil: nobody can log in
	webhooks *webhook.Set // nil: there are none
	counted  func(webhook.Result)
	refusals rate.Sometimes // bounds the log lines of refused webhooks
	rates    rates
}

// Login lets people in who bring no identity.
type Login interface {
	// Begin sends a person to the login; to is where they wanted to go.
	Begin(w http.ResponseWriter, r *http.Request, to string, refuse login.Refuse)
	// Serve answers the login's own paths, and reports false for any other.
	Serve(w http.ResponseWriter, r *http.Request, refuse login.Refuse) bool
}

// UseLogin lets people log in.
func (rt *Router) UseLogin(l Login) { rt.login = l }

// UseAccounts lets the status say why a sandbox is as it is.
func (rt *Router) UseAccounts(a Accounts) { rt.accounts = a }

// New returns the handler. draining is closed when the process is about to end.
func New(c Config, m identity.Method, cat Catalog, l Launcher, clients Clients, p *proxy.Proxy, draining <-chan struct{}, log *slog.Logger) *Router {
	if c.Audit == nil {
		c.Audit = audit.New(log)
	}
	return &Router{config: c, identity: m, catalog: cat, launcher: l, clients: clients, proxy: p, draining: draining, log: log, csrf: http.NewCrossOriginProtection(),
		refusals: rate.Sometimes{Interval: refusalPause}, rates: newRates(c.Limits)}
}

// anotherOrigin is why a request of a browser is denied whoever its user is.
const anotherOrigin = "a page of another origin"

// call is a request whose target and caller are known.
type call struct {
	user sandbox.User
	base string // the stripped part of the path
	who  identity.Caller
	kind kind
	hold time.Duration // how long it waits for a gateway
}

func (rt *Router) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	proxy.Guard(w, r)
	dropForeignUpgrade(r)
	if hasTooManyFields(r.Header) {
		if r.ProtoMajor == 1 {
			w.Header().Set("Connection", "close")
		}
		rt.refuse(w, r, tooManyFields)
		return
	}
	switch r.URL.Path {
	case "/health", "/_sandbox/healthz":
		abandonBody(w, r)
		answer(w, http.StatusOK, map[string]any{"ok": true, "status": "live"})
		return
	case "/_sandbox/readyz":
		abandonBody(w, r)
		rt.readyz(w)
		return
	}
	if !rt.admit(w, r) {
		return
	}
	t, err := resolve(r, rt.config.Domain)
	switch {
	case errors.Is(err, errNoSlash):
		abandonBody(w, r)
		to := *r.URL
		to.Path, to.RawPath = t.base+"/", ""
		http.Redirect(w, r, to.RequestURI(), http.StatusPermanentRedirect)
		return
	case errors.Is(err, errMisdirected):
		rt.refuse(w, r, problem{Status: http.StatusMisdirectedRequest, Title: "Unknown host", Detail: "This router serves " + rt.config.Domain + " and names below it."})
		return
	case err != nil:
		rt.refuse(w, r, problem{Status: http.StatusBadRequest, Title: "Not a user id", Detail: "The user in this address is not valid: " + sandbox.ErrBadUser.Error() + "."})
		return
	}
	if err := rt.csrf.Check(r); err != nil || crossOrigin(r) {
		rt.config.Audit.Refused("denied", r, "user", t.user, "reason", anotherOrigin)
		rt.refuse(w, r, problem{Status: http.StatusForbidden, Title: "Cross-origin request", Detail: "A page of another origin may not do this."})
		return
	}
	if rt.webhook(w, r, t) {
		return
	}
	refuse := func(w http.ResponseWriter, r *http.Request, status int, title, detail string) {
		rt.refuse(w, r, problem{Status: status, Title: title, Detail: detail})
	}
	if rt.login != nil && rt.login.Serve(w, r, refuse) {
		return
	}
	caller, err := rt.identity.Identify(r)
	if err != nil && rt.login != nil && classify(r) == kindPage && !strings.HasPrefix(r.URL.Path, "/_sandbox/") {
		rt.login.Begin(w, r, t.base+r.URL.RequestURI(), refuse)
		return
	}
	if err != nil {
		w.Header().Set("WWW-Authenticate", `Bearer realm="openclaw-sandbox"`)
		rt.refuse(w, r, problem{Status: http.StatusUnauthorized, Title: "Who are you?", Detail: "This request bears no valid identity; send your token as Authorization: Bearer."})
		return
	}
	c := call{user: t.user, base: t.base, who: caller, kind: classify(r), hold: rt.config.HoldTimeout}
	if c.user == "" {
		c.user = caller.User
	}
	if !caller.May(c.user) {
		rt.config.Audit.Refused("denied", r, "caller", caller.Person(), "user", c.user)
		rt.refuse(w, r, problem{Status: http.StatusForbidden, Title: "Not yours", Detail: "Your identity does not open this sandbox."})
		return
	}
	rt.config.Audit.Visit(r, caller, c.user)
	if !t.own && !rt.config.Paths && !caller.Bearer && reachesSandbox(r.URL.Path) {
		rt.sendHome(w, r, c)
		return
	}
	if rt.admitCaller(w, r, caller, c) {
		rt.serve(w, r, c)
	}
}

func (rt *Router) serve(w http.ResponseWriter, r *http.Request, c call) {
	switch r.URL.Path {
	case "/api/status", "/_sandbox/status":
		rt.status(w, r, c)
	case "/api/chat":
		defer rt.enter(c)()
		rt.chat(w, r, c)
	case "/_sandbox/events":
		rt.events(w, r, c)
	case "/_sandbox/start":
		rt.start(w, r, c)
	default:
		if strings.HasPrefix(r.URL.Path, "/_sandbox/") {
			rt.refuse(w, r, problem{Status: http.StatusNotFound, Title: "No such page", Detail: "The router has nothing at this address."})
			return
		}
		defer rt.enter(c)()
		rt.carry(w, r, c)
	}
}

// enter notes a request for a sandbox until it is answered.
func (rt *Router) enter(c call) (leave func()) {
	k := c.kind.activity()
	rt.clients.Enter(c.user, k)
	return func() { rt.clients.Leave(c.user, k) }
}

// carry proxies the request.
func (rt *Router) carry(w http.ResponseWriter, r *http.Request, c call) {
	err := rt.reach(w, r, c, func(i catalog.Instance) error {
		return rt.proxy.Forward(w, r, proxy.Target{User: string(c.user), Generation: i.Generation, Addr: i.Addr, Base: c.base, Kind: c.kind.active(),
			MaxSockets: rt.config.Limits.WebSockets})
	})
	if err != nil && !rt.refuseBeyond(w, r, err) {
		rt.log.Warn("a gateway does not answer", "user", c.user, "error", err)
		rt.refuse(w, r, unanswered)
	}
}

// progressPage shows a start. Its status is never 200, so that no cache, no
// crawler and no service worker takes it for the page that was asked for.
func (rt *Router) progressPage(w http.ResponseWriter, r *http.Request, c call, f Flight) {
	status, retry := http.StatusServiceUnavailable, retryStarting
	if over(f) {
		if failure := ended(r.Context(), f); failure != nil {
			of := ofFailure(failure)
			status, retry = of.Status, of.RetryAfter
		}
	}
	p, _ := f.Progress()
	setRetryAfter(w, retry)
	web.Write(w, status, web.Page{User: c.user, Base: c.base, To: c.base + r.URL.RequestURI(), Live: true, Progress: p})
}

// ended is how a flight that is over has failed; nil if it has not.
func ended(ctx context.Context, f Flight) *sandbox.Failure {
	var failure *sandbox.Failure
	_, err := f.Wait(ctx)
	errors.As(err, &failure)
	return failure
}
