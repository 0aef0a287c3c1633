package main

import (
	"context"
	"log/slog"
	"net/http"
	"sync/atomic"

	"openclaw-sandbox/internal/apitoken"
	"openclaw-sandbox/internal/audit"
	"openclaw-sandbox/internal/config"
	"openclaw-sandbox/internal/drain"
	"openclaw-sandbox/internal/idle"
	"openclaw-sandbox/internal/launch"
	"openclaw-sandbox/internal/proxy"
	"openclaw-sandbox/internal/router"
	"openclaw-sandbox/internal/sandbox"
	"openclaw-sandbox/internal/webhook"
)

// parts are what lives as long as the process, whatever the config says meanwhile.
type parts struct {
	life     context.Context
	catalog  router.Catalog
	launcher *launch.Launcher
	clients  router.Clients
	books    router.Accounts
	reaper   *idle.Reaper
	tokens   *apitoken.Table // nil: identity "api" is off
	trail    *audit.Log
	proxy    *proxy.Proxy
	draining *drain.Drain
	metrics  *metrics
	log      *slog.Logger
}

// handler is all that happens to a request, as c wants it.
func (p *parts) handler(c config.Config) http.Handler {
	who, people := methods(p.life, c, p.tokens, p.log, p.trail)
	rt := router.New(router.Config{Domain: c.Domain, Paths: c.DevUser != "", HoldTimeout: c.HoldTimeout, Audit: p.trail, Limits: router.Limits{MaxBody: c.Limits.MaxBody,
		UserPerMinute: c.Limits.UserPerMinute, AddressPerMinute: c.Limits.AddressPerMinute, Burst: c.Limits.Burst,
		WebSockets: c.Limits.WebSockets, Refused: p.metrics.limit}}, who, p.catalog, starter{p.launcher}, p.clients, p.proxy, p.draining.Begun(), p.log)
	rt.UseAccounts(p.books)
	if people != nil {
		rt.UseLogin(people)
	}
	if len(c.Webhooks) > 0 {
		rt.UseWebhooks(webhook.New(c.Webhooks), p.metrics.webhook)
	}
	seen := []func(answered){p.metrics.count}
	if c.AccessLog {
		seen = append(seen, accessLog(p.log))
	}
	var h http.Handler = rt
	if c.TLS != nil {
		h = strictTransport(h)
	}
	return c.TrustedProxies.Handler(observe(h, seen...))
}

// strictTransport tells browsers to use https only, for a year (RFC 6797). Subdomains say
// so themselves.
func strictTransport(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Strict-Transport-Security", "max-age=31536000")
		next.ServeHTTP(w, r)
	})
}

// starter is the launcher as the router wants it.
type starter struct{ *launch.Launcher }

func (s starter) Wake(u sandbox.User, retry bool) router.Flight { return s.Launcher.Wake(u, retry) }

func (s starter) Flight(u sandbox.User) (router.Flight, bool) {
	f, ok := s.Launcher.Flight(u)
	if !ok {
		return nil, false
	}
	return f, true
}

// latest serves with the handler that was set last; a request keeps the one that it
// began with.
type latest struct{ now atomic.Pointer[http.Handler] }

func (l *latest) set(h http.Handler) { l.now.Store(&h) }

func (l *latest) ServeHTTP(w http.ResponseWriter, r *http.Request) { (*l.now.Load()).ServeHTTP(w, r) }
