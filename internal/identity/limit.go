package identity

import (
	"net/http"
	"net/netip"
	"sync"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"golang.org/x/time/rate"
)

// maxAddresses bounds the memory of a Limit. An address that was forgotten begins anew.
const maxAddresses = 10_000

// Limit bounds how often one address may do something. An IPv6 address stands for
// its /64, which is what one customer has.
type Limit struct {
	every rate.Limit
	burst int
	mu    sync.Mutex
	seen  *lru.Cache[netip.Addr, *rate.Limiter]
}

// NewLimit allows burst at once and then perMinute.
func NewLimit(perMinute float64, burst int) *Limit {
	seen, err := lru.New[netip.Addr, *rate.Limiter](maxAddresses)
	if err != nil {
		panic(err) // only for a size below 1
	}
	return &Limit{every: rate.Limit(perMinute / 60), burst: burst, seen: seen}
}

// Allow counts one act of r's sender, and reports whether it is within the limit.
func (l *Limit) Allow(r *http.Request, now time.Time) bool {
	return l.of(r).AllowN(now, 1)
}

// Spent reports, without counting, that r's sender is beyond the limit.
func (l *Limit) Spent(r *http.Request, now time.Time) bool {
	return l.of(r).TokensAt(now) < 1
}

func (l *Limit) of(r *http.Request) *rate.Limiter {
	addr := sender(r)
	if addr.Is6() {
		if p, err := addr.Prefix(64); err == nil {
			addr = p.Addr()
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	lim, ok := l.seen.Get(addr)
	if !ok {
		lim = rate.NewLimiter(l.every, l.burst)
		l.seen.Add(addr, lim)
	}
	return lim
}

// sender is the other end of the connection; the zero address if it has none.
func sender(r *http.Request) netip.Addr {
	ap, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return netip.Addr{}
	}
	return ap.Addr().Unmap().WithZone("")
}
