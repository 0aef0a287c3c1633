// Package audit writes what an operator wants to know afterwards: who came in, who
// was refused, who used somebody else's sandbox. It writes lines with "msg":"audit"
// and "act", never a credential, and no more of them than a disk can take.
package audit

import (
	"log/slog"
	"net/http"
	"sync"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"golang.org/x/time/rate"

	"openclaw-sandbox/internal/identity"
	"openclaw-sandbox/internal/sandbox"
)

const (
	// refusedPerMinute is how many refusals of one address are written, after
	// refusedBurst; totalPerMinute and totalBurst are the same for all of them: a flood
	// may come from many.
	refusedPerMinute, refusedBurst = 10, 20
	totalPerMinute, totalBurst     = 60, 200
	// notedPerMinute and notedBurst are for who was let in, far above what people do:
	// a program with a session may log out in a loop.
	notedPerMinute, notedBurst = 600, 1000
	maxField                   = 256 // bytes of what a client sent

	// visitEvery and startEvery are how often the same act of one person in the same
	// sandbox is written.
	visitEvery = time.Hour
	startEvery = time.Minute
	// maxVisits bounds the memory of them. One that was forgotten is written again.
	maxVisits = 10_000
)

// Log writes audit lines. It is safe for concurrent use.
type Log struct {
	log       *slog.Logger
	now       func() time.Time
	addresses *identity.Limit

	mu       sync.Mutex // guards what follows
	noted    *rate.Limiter
	total    *rate.Limiter // of refusals
	unlogged int           // lines since the last that was written
	visits   *lru.Cache[visit, time.Time]
}

type visit struct {
	act    string
	by, of sandbox.User
}

// New returns a log that writes to log.
func New(log *slog.Logger) *Log {
	visits, err := lru.New[visit, time.Time](maxVisits)
	if err != nil {
		panic(err) // only for a size below 1
	}
	return &Log{log: log, now: time.Now, addresses: identity.NewLimit(refusedPerMinute, refusedBurst),
		noted: rate.NewLimiter(rate.Limit(notedPerMinute)/60, notedBurst), total: rate.NewLimiter(rate.Limit(totalPerMinute)/60, totalBurst), visits: visits}
}

// Note writes an act of somebody who was let in: who, from where, and more, as slog
// takes it.
func (l *Log) Note(act string, r *http.Request, more ...any) {
	l.write(l.noted, true, act, r, more)
}

// Refused is Note for somebody who was not let in, which anybody can be as often as
// they like: beyond a rate, of their address and of all, refusals are only counted.
// The next line tells how many, as "unlogged".
func (l *Log) Refused(act string, r *http.Request, more ...any) {
	l.write(l.total, l.addresses.Allow(r, l.now()), act, r, more)
}

// write writes a line if it is allowed and within the limit, or counts it.
func (l *Log) write(limit *rate.Limiter, allowed bool, act string, r *http.Request, more []any) {
	l.mu.Lock()
	if allowed = allowed && limit.AllowN(l.now(), 1); !allowed {
		l.unlogged++
		l.mu.Unlock()
		return
	}
	unlogged := l.unlogged
	l.unlogged = 0
	l.mu.Unlock()
	args := []any{"act", act, "host", cut(r.Host), "from", r.RemoteAddr}
	if id := r.Header.Get("X-Request-Id"); id != "" {
		args = append(args, "request", cut(id))
	}
	if args = append(args, more...); unlogged > 0 {
		args = append(args, "unlogged", unlogged)
	}
	l.log.Info("audit", args...)
}

func cut(s string) string { return s[:min(len(s), maxField)] }

// Visit writes that c uses u's sandbox, if that is somebody else's: an admin, or one
// with whom it is shared. It does so at their first request, and once an hour.
func (l *Log) Visit(r *http.Request, c identity.Caller, u sandbox.User) {
	l.visit("visit", visitEvery, r, c, u)
}

// Start writes that c starts u's sandbox by hand, if that is somebody else's.
func (l *Log) Start(r *http.Request, c identity.Caller, u sandbox.User) {
	l.visit("start", startEvery, r, c, u)
}

func (l *Log) visit(act string, every time.Duration, r *http.Request, c identity.Caller, u sandbox.User) {
	by := c.Person()
	if by == u || c.Anyone { // with `dev` nobody is somebody else
		return
	}
	v, now := visit{act, by, u}, l.now()
	l.mu.Lock()
	last, known := l.visits.Get(v)
	if known && now.Sub(last) < every {
		l.mu.Unlock()
		return
	}
	l.visits.Add(v, now)
	l.mu.Unlock()
	as := "member"
	if c.Role == identity.RoleAdmin || c.By != "" {
		as = string(identity.RoleAdmin)
	}
	l.Note(act, r, "user", u, "by", by, "as", as)
}
