package identity

import (
	"net/http"
	"net/netip"
	"time"

	"openclaw-sandbox/internal/forwarded"
	"openclaw-sandbox/internal/limit"
)

// Limit bounds how often one address may do something. An IPv6 address stands for
// its /64, which is what one customer has.
type Limit struct{ rates *limit.Rates[netip.Addr] }

// NewLimit allows burst at once and then perMinute.
func NewLimit(perMinute float64, burst int) *Limit {
	return &Limit{limit.NewRates[netip.Addr](perMinute, burst)}
}

// Allow counts one act of r's sender, and reports whether it is within the limit.
func (l *Limit) Allow(r *http.Request, now time.Time) bool {
	return l.rates.Allow(sender(r), now) == 0
}

// Spent reports, without counting, that r's sender is beyond the limit.
func (l *Limit) Spent(r *http.Request, now time.Time) bool { return l.rates.Spent(sender(r), now) }

// sender is whose request it is: the connection's other end, or whom a trusted proxy
// there names.
func sender(r *http.Request) netip.Addr { return limit.Network(forwarded.Addr(r.RemoteAddr)) }
