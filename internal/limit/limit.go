// Package limit bounds how often something may be done, by whom it is done, in
// bounded memory.
package limit

import (
	"net/netip"
	"sync"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"
	"golang.org/x/time/rate"
)

// maxKeys bounds the memory of a Rates. A key that was forgotten begins anew.
const maxKeys = 10_000

// Rates are token buckets, one for each key. It is safe for concurrent use.
type Rates[K comparable] struct {
	every rate.Limit
	burst int
	mu    sync.Mutex
	seen  *simplelru.LRU[K, *rate.Limiter]
}

// NewRates allows each key burst acts at once and then perMinute.
func NewRates[K comparable](perMinute float64, burst int) *Rates[K] {
	seen, err := simplelru.NewLRU[K, *rate.Limiter](maxKeys, nil)
	if err != nil {
		panic(err) // only for a size below 1
	}
	return &Rates[K]{every: rate.Limit(perMinute / 60), burst: burst, seen: seen}
}

// Allow counts one act of k. It returns 0, or, for an act beyond the limit, which is
// not counted, how long it is until one may be again.
func (l *Rates[K]) Allow(k K, now time.Time) time.Duration {
	r := l.of(k).ReserveN(now, 1)
	wait := r.DelayFrom(now)
	if wait > 0 {
		r.CancelAt(now)
	}
	return wait
}

// Spent reports, without counting, that k is beyond the limit.
func (l *Rates[K]) Spent(k K, now time.Time) bool { return l.of(k).TokensAt(now) < 1 }

func (l *Rates[K]) of(k K) *rate.Limiter {
	l.mu.Lock()
	defer l.mu.Unlock()
	lim, ok := l.seen.Get(k)
	if !ok {
		lim = rate.NewLimiter(l.every, l.burst)
		l.seen.Add(k, lim)
	}
	return lim
}

// Network is what stands for an address: itself, or with IPv6 its /64, which is what
// one customer has.
func Network(a netip.Addr) netip.Addr {
	if a.Is6() {
		if p, err := a.Prefix(64); err == nil {
			return p.Addr()
		}
	}
	return a
}
