package idle

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	consul "github.com/hashicorp/consul/api"

	"openclaw-sandbox/internal/sandbox"
)

// LedgerPrefix is where it is written in Consul's KV what was done with the sandboxes
// of a parameterized job, and when they are to be woken: one key a user.
func LedgerPrefix(job string) string { return job + "/idle/" }

// Entry is what was done last with a user's sandbox.
type Entry struct {
	Act        Act       `json:"act"` // Freeze, Stop, or Keep for one that was busy
	Why        string    `json:"why"`
	At         time.Time `json:"at"`
	Generation string    `json:"generation"`
	// Due is when the gateway's next job is; zero if it has none.
	Due time.Time `json:"due,omitzero"`
}

// Ledger is what was done with sandboxes. Its methods may be called from anywhere.
type Ledger struct {
	kv     *consul.KV
	prefix string
}

// NewLedger returns the ledger of a job in a Consul's KV.
func NewLedger(c *consul.Client, job string) Ledger { return Ledger{c.KV(), LedgerPrefix(job)} }

// callTimeout bounds one call of Consul.
const callTimeout = 5 * time.Second

// Of returns what was done last with the user's sandbox; ok is false if nothing was.
func (l Ledger) Of(ctx context.Context, u sandbox.User) (e Entry, ok bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	p, _, err := l.kv.Get(l.prefix+string(u), (&consul.QueryOptions{}).WithContext(ctx))
	if err != nil || p == nil {
		return e, false, err
	}
	return e, true, json.Unmarshal(p.Value, &e)
}

// all returns every entry.
func (l Ledger) all(ctx context.Context) (map[sandbox.User]Entry, error) {
	out := map[sandbox.User]Entry{}
	return out, each(ctx, l.kv, l.prefix, func(u sandbox.User, text []byte) {
		var e Entry
		if json.Unmarshal(text, &e) == nil { // what somebody broke is what was not written
			out[u] = e
		}
	})
}

func (l Ledger) write(ctx context.Context, u sandbox.User, e Entry) error {
	text, err := json.Marshal(e)
	if err != nil {
		return err
	}
	return put(ctx, l.kv, l.prefix+string(u), text)
}

func put(ctx context.Context, kv *consul.KV, key string, value []byte) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	if _, err := kv.Put(&consul.KVPair{Key: key, Value: value}, (&consul.WriteOptions{}).WithContext(ctx)); err != nil {
		return fmt.Errorf("write %s: %w", key, err)
	}
	return nil
}

// each reads what lies below a prefix, one key a user.
func each(ctx context.Context, kv *consul.KV, prefix string, f func(u sandbox.User, text []byte)) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	pairs, _, err := kv.List(prefix, (&consul.QueryOptions{}).WithContext(ctx))
	if err != nil {
		return fmt.Errorf("read %s: %w", prefix, err)
	}
	for _, p := range pairs {
		if u, err := sandbox.ParseUser(strings.TrimPrefix(p.Key, prefix)); err == nil {
			f(u, p.Value)
		}
	}
	return nil
}
