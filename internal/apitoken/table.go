package apitoken

import (
	"context"
	"crypto/sha256"
	"log/slog"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	consul "github.com/hashicorp/consul/api"

	"openclaw-sandbox/internal/blocking"
	"openclaw-sandbox/internal/identity"
)

// Config says what a router follows.
type Config struct {
	// Prefix is where tokens are kept, with a slash at its end.
	Prefix string
	// Wait is how long one blocking query may hang; Consul adds up to a sixteenth.
	Wait time.Duration
	// MinBackoff and MaxBackoff bound the pause after a failed query.
	MinBackoff, MaxBackoff time.Duration
}

// DefaultConfig are the settings that a deployment rarely changes.
func DefaultConfig() Config {
	return Config{Prefix: DefaultPrefix, Wait: 5 * time.Minute, MinBackoff: 100 * time.Millisecond, MaxBackoff: 10 * time.Second}
}

const (
	// settle is the least time between two queries: Consul may end one early, and
	// then it is no news.
	settle = 100 * time.Millisecond
	// idlePause is the same where an answer can not be waited on.
	idlePause = time.Second
	// failuresPerMinute is how many wrong tokens one address may send.
	failuresPerMinute = 30
	// inUse is how long after its last use a token gets in also from an address that
	// has sent too many wrong ones: behind a load balancer all have one address.
	inUse = time.Hour
	// warnEvery spaces what is logged of an outage.
	warnEvery = 10 * time.Second
)

// Table is what a router knows of tokens. Run keeps it; the other methods may be
// called from anywhere. While Consul is away the last view stands.
type Table struct {
	config   Config
	kv       *consul.KV
	log      *slog.Logger
	failures *identity.Limit
	now      func() time.Time
	// view is by the token's SHA-256. A look-up in a map takes a time that depends on
	// the key, which is a hash of what was sent: who can not choose the hash learns
	// nothing from it of any other, and so it need not be constant.
	view   atomic.Pointer[view]
	warned map[string]bool // keys that were complained about; only Run has it
}

type view map[[sha256.Size]byte]*entry

// entry is one token. It stays while its record does, with when it was last used.
type entry struct {
	record record
	used   atomic.Int64 // seconds since 1970
}

// New returns a table without a view.
func New(c Config, client *consul.Client, log *slog.Logger) *Table {
	return &Table{config: c, kv: client.KV(), log: log, failures: identity.NewLimit(failuresPerMinute, failuresPerMinute), now: time.Now, warned: map[string]bool{}}
}

// Ready reports whether there was a first view.
func (t *Table) Ready() bool { return t.view.Load() != nil }

// Identify knows the callers of tokens in Authorization: Bearer (RFC 6750).
func (t *Table) Identify(r *http.Request) (identity.Caller, error) {
	token, ok := bearer(r)
	if !ok {
		return identity.Caller{}, identity.ErrUnauthenticated
	}
	now := t.now()
	e := t.find(token, now)
	if e == nil {
		if t.Ready() { // before, every token is wrong
			t.failures.Allow(r, now)
		}
		return identity.Caller{}, identity.ErrUnauthenticated
	}
	if used := e.used.Load(); used != now.Unix() {
		if now.Sub(time.Unix(used, 0)) > inUse && t.failures.Spent(r, now) {
			return identity.Caller{}, identity.ErrUnauthenticated
		}
		e.used.Store(now.Unix())
	}
	return identity.Caller{User: e.record.User, Role: e.record.Role, Bearer: true}, nil
}

// Strip removes any token of this kind, valid or not: a revoked one is no business
// of a sandbox's either.
func (t *Table) Strip(r *http.Request) {
	if _, ok := bearer(r); ok {
		r.Header.Del("Authorization")
	}
}

func (t *Table) find(token string, now time.Time) *entry {
	v := t.view.Load()
	if v == nil || len(token) != tokenSize {
		return nil
	}
	e := (*v)[sha256.Sum256([]byte(token))]
	if e == nil || e.record.Expired(now) {
		return nil
	}
	return e
}

// bearer is the request's token, if it is of this kind.
func bearer(r *http.Request) (string, bool) {
	scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	token = strings.TrimSpace(token)
	return token, strings.EqualFold(scheme, "bearer") && strings.HasPrefix(token, mark)
}

// Run follows Consul until ctx ends, as the catalog does.
func (t *Table) Run(ctx context.Context) error {
	c := t.config
	var complained time.Time
	return blocking.Query[consul.KVPairs]{Wait: c.Wait, Slack: callTimeout, MinBackoff: c.MinBackoff, MaxBackoff: c.MaxBackoff, Settle: settle, Idle: idlePause,
		Ask:  func(q *consul.QueryOptions) (consul.KVPairs, *consul.QueryMeta, error) { return t.kv.List(c.Prefix, q) },
		Take: func(pairs consul.KVPairs, _ uint64, _ bool) { t.publish(pairs) },
		Failed: func(err error) {
			if time.Since(complained) >= warnEvery {
				complained = time.Now()
				t.log.Warn("Consul does not tell the API tokens; the last view stands", "error", err)
			}
		}}.Run(ctx)
}

// publish makes an answer the view.
func (t *Table) publish(pairs consul.KVPairs) {
	was, is, warned := t.view.Load(), make(view, len(pairs)), map[string]bool{}
	for _, p := range pairs {
		rec, sum, err := parse(strings.TrimPrefix(p.Key, t.config.Prefix), p.Value)
		if err != nil {
			if warned[p.Key] = true; !t.warned[p.Key] {
				t.log.Warn("an API token in Consul is ignored", "key", p.Key, "error", err)
			}
			continue
		}
		if was != nil {
			if e, ok := (*was)[sum]; ok && e.record == rec {
				is[sum] = e
				continue
			}
		}
		is[sum] = &entry{record: rec}
	}
	t.warned = warned
	t.view.Store(&is)
	if was == nil || len(*was) != len(is) {
		// Without the right to read them, Consul says that there are none.
		t.log.Info("API tokens", "count", len(is))
	}
}
