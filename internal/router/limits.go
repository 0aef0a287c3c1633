package router

import (
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"time"

	"github.com/dustin/go-humanize"

	"openclaw-sandbox/internal/forwarded"
	"openclaw-sandbox/internal/identity"
	"openclaw-sandbox/internal/limit"
	"openclaw-sandbox/internal/proxy"
	"openclaw-sandbox/internal/sandbox"
)

// Limits bound what may be asked of the router. 0 is no limit.
type Limits struct {
	MaxBody          int64 // bytes of one request's body
	UserPerMinute    int   // requests of one user
	AddressPerMinute int   // requests of one address, or one IPv6 /64
	Burst            int   // requests at once, of either
	WebSockets       int   // open ones of one user
	// Refused, if set, is told which limit a request was beyond: one of the words
	// below. It must return at once.
	Refused func(limit string)
}

// What a request can be beyond, by the names of the settings.
const (
	LimitBody       = "max_body"
	LimitUser       = "requests_per_minute_per_user"
	LimitAddress    = "requests_per_minute_per_address"
	LimitWebSockets = "websockets_per_user"
)

// rates count requests; nil where there is no limit.
type rates struct {
	users     *limit.Rates[sandbox.User]
	addresses *limit.Rates[netip.Addr]
}

func newRates(l Limits) (r rates) {
	if l.UserPerMinute > 0 {
		r.users = limit.NewRates[sandbox.User](float64(l.UserPerMinute), l.Burst)
	}
	if l.AddressPerMinute > 0 {
		r.addresses = limit.NewRates[netip.Addr](float64(l.AddressPerMinute), l.Burst)
	}
	return r
}

// admit bounds what is known before anybody asks whose request it is: its sender's
// rate, and its size. It reports false if the request has its answer.
func (rt *Router) admit(w http.ResponseWriter, r *http.Request) bool {
	if rt.rates.addresses != nil {
		if wait := rt.rates.addresses.Allow(limit.Network(forwarded.Addr(r.RemoteAddr)), time.Now()); wait > 0 {
			rt.beyond(w, r, LimitAddress, tooMany("your address", wait))
			return false
		}
	}
	most := rt.config.Limits.MaxBody
	switch {
	case most <= 0 || r.ContentLength == 0:
	case r.ContentLength > most:
		rt.tooLarge(w, r)
		return false
	case r.ContentLength < 0:
		r.Body = http.MaxBytesReader(w, r.Body, most)
	}
	return true
}

// admitCaller bounds the rate of a caller who is known; the caller `dev` is whoever's
// sandbox is meant.
func (rt *Router) admitCaller(w http.ResponseWriter, r *http.Request, who identity.Caller, c call) bool {
	if rt.rates.users == nil {
		return true
	}
	u := who.User
	if who.Anyone {
		u = c.user
	}
	if wait := rt.rates.users.Allow(u, time.Now()); wait > 0 {
		rt.beyond(w, r, LimitUser, tooMany("you", wait))
		return false
	}
	return true
}

// refuseBeyond answers if err is of a limit, and reports whether it is.
func (rt *Router) refuseBeyond(w http.ResponseWriter, r *http.Request, err error) bool {
	if errors.Is(err, proxy.ErrTooManySockets) {
		rt.beyond(w, r, LimitWebSockets, problem{Status: http.StatusTooManyRequests, Title: "Too many WebSockets", RetryAfter: retryOther,
			Detail: fmt.Sprintf("At most %d WebSockets may be open to one sandbox; close some.", rt.config.Limits.WebSockets)})
		return true
	}
	if _, large := errors.AsType[*http.MaxBytesError](err); large {
		rt.tooLarge(w, r)
		return true
	}
	return false
}

func (rt *Router) tooLarge(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Connection", "close") // what is left of the body is not read
	rt.beyond(w, r, LimitBody, problem{Status: http.StatusRequestEntityTooLarge, Title: "Too large",
		Detail: "A request may have at most " + humanize.IBytes(uint64(rt.config.Limits.MaxBody)) + "."})
}

func tooMany(of string, wait time.Duration) problem {
	return problem{Status: http.StatusTooManyRequests, Title: "Too many requests", RetryAfter: wait,
		Detail: "Too many requests came from " + of + "; slow down."}
}

func (rt *Router) beyond(w http.ResponseWriter, r *http.Request, limit string, p problem) {
	if rt.config.Limits.Refused != nil {
		rt.config.Limits.Refused(limit)
	}
	rt.refuse(w, r, p)
}
