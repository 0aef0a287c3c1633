package router

import (
	"context"
	"errors"
	"net/http"
	"time"

	"openclaw-sandbox/internal/catalog"
	"openclaw-sandbox/internal/pause"
	"openclaw-sandbox/internal/proxy"
	"openclaw-sandbox/internal/sandbox"
)

// How long a request waits before it tries a gateway again that was not reached
// though a start has just ended well: at first, and at most.
const (
	againMin = 50 * time.Millisecond
	againMax = 2 * time.Second
)

const (
	// thawHold is how long a page waits for a frozen sandbox before it sees the
	// progress instead: mostly, it is over within a blink.
	thawHold = 2 * time.Second
	// justNow is for how long after a client did something a page's background requests
	// may wake its sandbox: that tab is not forgotten.
	justNow = time.Minute
)

// reach lets a request try its user's gateway, after a wake if need be and allowed.
// If try returns a *proxy.Unreached, the gateway died, or is about to. Then its route is dropped, and the request waits as for a wake: the gateway may
// be started again in its place, or have ended, and the launcher finds out which. It
// tries again for as long as it is held; what was sent already, once only: it may be
// the reason why the gateway died.
//
// A page that would wait gets the progress page, and a page's background request
// does not wait, unless the sandbox is only frozen. Other errors of try are returned: the request has no answer yet.
func (rt *Router) reach(w http.ResponseWriter, r *http.Request, c call, try func(catalog.Instance) error) error {
	var lost *proxy.Unreached
	if i, ok := rt.catalog.Lookup(c.user); ok {
		err := try(i)
		if !errors.As(err, &lost) || lost.Sent && c.kind != kindAPI {
			return err // a page looks again by itself
		}
		rt.log.Warn("a gateway can not be reached", "user", c.user, "generation", i.Generation, "error", err)
		if c.kind == kindBackground {
			rt.refuse(w, r, away)
			return nil
		}
		rt.catalog.Evict(c.user, i.Generation)
	}
	k := c.kind
	switch asleep := rt.asleep(c.user); {
	case k == kindBackground && (asleep || time.Since(rt.clients.Mark(c.user).Last) < justNow):
		k = kindAPI
	case k == kindPage && asleep:
		if i, ok := rt.thawed(r.Context(), c); ok {
			if err := try(i); !errors.As(err, &lost) {
				return err
			}
		}
	}
	switch k {
	case kindPage:
		rt.progressPage(w, r, c, rt.launcher.Wake(c.user, false))
		return nil
	case kindBackground:
		if f, ok := rt.launcher.Flight(c.user); ok && !over(f) {
			rt.refuse(w, r, starting)
			return nil
		}
		rt.refuse(w, r, stopped)
		return nil
	}
	ctx, cancel := context.WithTimeout(r.Context(), c.hold)
	defer cancel()
	sent := lost != nil && lost.Sent
	for next := againMin; ; next = min(2*next, againMax) {
		i, err := rt.launcher.Wake(c.user, false).Wait(ctx)
		var failure *sandbox.Failure
		switch {
		case errors.As(err, &failure):
			rt.refuse(w, r, ofFailure(failure))
			return nil
		case err != nil && lost != nil:
			return lost
		case err != nil:
			rt.refuse(w, r, starting)
			return nil
		}
		if err := try(i); !errors.As(err, &lost) {
			return err
		}
		if lost.Sent && sent {
			return lost
		}
		sent = sent || lost.Sent
		rt.catalog.Evict(c.user, i.Generation)
		if !pause.For(ctx, next) {
			return lost
		}
	}
}

// asleep reports that the user's sandbox is frozen.
func (rt *Router) asleep(u sandbox.User) bool {
	_, state, ok := rt.catalog.Dormant(u)
	return ok && state == catalog.Asleep
}

// thawed lets a frozen sandbox go on, and waits for it for as long as a page may.
func (rt *Router) thawed(ctx context.Context, c call) (catalog.Instance, bool) {
	ctx, cancel := context.WithTimeout(ctx, thawHold)
	defer cancel()
	i, err := rt.launcher.Wake(c.user, false).Wait(ctx)
	return i, err == nil
}
