package router

import (
	"errors"
	"net/http"
	"time"

	"openclaw-sandbox/internal/catalog"
	"openclaw-sandbox/internal/identity"
	"openclaw-sandbox/internal/pause"
	"openclaw-sandbox/internal/proxy"
	"openclaw-sandbox/internal/webhook"
)

// refusalPause is how far apart log lines about refused webhooks are at least:
// anybody can cause them.
const refusalPause = time.Minute

// UseWebhooks lets webhooks in without a login. counted is told what became of each.
func (rt *Router) UseWebhooks(s *webhook.Set, counted func(webhook.Result)) {
	rt.webhooks, rt.counted = s, counted
}

// webhook answers a request that is one, and reports false for any other. It is
// nobody's browser and no caller of ours: what proves that it may come is its
// signature alone, and the gateway is not told a user.
func (rt *Router) webhook(w http.ResponseWriter, r *http.Request, t target) bool {
	if rt.webhooks == nil || t.user == "" {
		return false
	}
	h, ok := rt.webhooks.Match(r)
	if !ok {
		return false
	}
	until := time.Now().Add(h.Hold) // the sender's patience has begun
	err := rt.webhooks.Verify(w, r, h, t.user)
	var refusal *webhook.Refusal
	if errors.As(err, &refusal) {
		rt.counted(refusal.Result)
		rt.refusals.Do(func() {
			rt.log.Warn("webhooks are refused; said at most once a minute", "webhook", h.Name, "user", t.user, "result", refusal.Result, "error", refusal)
		})
		if refusal.Result == webhook.Refused {
			w.Header().Set("WWW-Authenticate", `Webhook realm="openclaw-sandbox"`) // RFC 9110 section 15.5.2 wants one
		}
		rt.refuse(w, r, ofRefusal(refusal))
		return true
	}
	rt.counted(webhook.Verified)
	identity.Strip(rt.identity, r)
	r.Header.Del("Cookie") // whoever sends webhooks has none
	c := call{user: t.user, kind: kindAPI, hold: time.Until(until)}
	defer rt.enter(c)()
	err = rt.reach(w, r, c, func(i catalog.Instance) error { return rt.deliver(w, r, c, h, until, i) })
	if err != nil {
		rt.log.Warn("a gateway does not answer a webhook", "user", c.user, "webhook", h.Name, "error", err)
		rt.refuse(w, r, unanswered)
	}
	return true
}

// deliver proxies a webhook. A port beside the gateway's own is opened by a channel
// when that is up, if it is configured at all: that it is closed says nothing about
// the gateway, whose route stays.
func (rt *Router) deliver(w http.ResponseWriter, r *http.Request, c call, h webhook.Hook, until time.Time, i catalog.Instance) error {
	t := proxy.Target{User: string(c.user), Generation: i.Generation, Addr: i.Addr, Kind: c.kind.active(), Anonymous: true}
	if h.Port == 0 {
		return rt.proxy.Forward(w, r, t)
	}
	t.Addr, t.Aside = i.At(h.Port), true
	if t.Addr == "" {
		rt.log.Error("a webhook's port is not open: the job's webhook_ports lack it", "webhook", h.Name, "port", h.Port)
		rt.refuse(w, r, deaf)
		return nil
	}
	for next := againMin; ; next = min(2*next, againMax) {
		err := rt.proxy.Forward(w, r, t)
		var lost *proxy.Unreached
		if !errors.As(err, &lost) {
			return err
		}
		if lost.Sent || time.Now().Add(next).After(until) {
			rt.log.Warn("a webhook's port can not be reached", "user", c.user, "webhook", h.Name, "error", err)
			rt.refuse(w, r, deaf)
			return nil
		}
		if !pause.For(r.Context(), next) {
			return nil
		}
	}
}

// deaf is what a webhook gets whose port in the sandbox is closed.
var deaf = problem{Status: http.StatusServiceUnavailable, Title: "Nobody listens", RetryAfter: retryStarting,
	Detail: "The sandbox runs, but nothing in it takes this webhook yet; its channel may be starting, or is not set up."}

func ofRefusal(e *webhook.Refusal) problem {
	p := problem{Status: http.StatusUnauthorized, Title: "Not a webhook of this user", Detail: "This address takes signed webhooks only: " + e.Error() + ".", RetryAfter: e.RetryAfter}
	switch e.Result {
	case webhook.Limited:
		p.Status, p.Title, p.Detail = http.StatusTooManyRequests, "Too many webhooks", "Send the next one later: "+e.Error()+"."
	case webhook.TooLarge:
		p.Status, p.Title, p.Detail = http.StatusRequestEntityTooLarge, "Too large", "This webhook is too large: "+e.Error()+"."
	case webhook.Broken:
		p.Status, p.Title, p.Detail = http.StatusBadRequest, "Cut off", "The body of this webhook did not come."
	case webhook.Failed:
		p.Status, p.Title, p.Detail = http.StatusServiceUnavailable, "Out of order", "The router can not read what webhooks are signed with; its operator must look."
		p.RetryAfter = retryOther
	}
	return p
}
