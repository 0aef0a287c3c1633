package activity

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	consul "github.com/hashicorp/consul/api"

	"openclaw-sandbox/internal/sandbox"
)

// Config are a board's settings.
type Config struct {
	// Prefix is where the routers of one job write in Consul's KV.
	Prefix string
	// Name is this router's, unlike that of any other that lives or has lived.
	Name string
	// Period is how often a router writes what is new: one transaction each time, or
	// several if much is new.
	Period time.Duration
	// SessionTTL is after how long a silent router counts as gone; Consul wants 10 s
	// or more, and may take up to twice as long.
	SessionTTL time.Duration
	// ClockSkew is how far routers' clocks may be apart. It matters only for what was
	// written before this router began to read.
	ClockSkew time.Duration
}

// DefaultConfig are the settings that a deployment rarely changes.
func DefaultConfig() Config {
	return Config{Prefix: "openclaw/activity/", Period: 10 * time.Second, SessionTTL: 15 * time.Second, ClockSkew: 2 * time.Minute}
}

// callTimeout bounds one call of Consul.
const callTimeout = 5 * time.Second

// beats is the folder of the signs of life: one key per router, held by its session,
// so that Consul removes it when the router is gone. The others are numbers, of buckets.
const beats = "beat/"

// Board is where routers tell each other what their clients do. Run writes; the
// other methods may be called from anywhere.
type Board struct {
	config  Config
	consul  *consul.Client
	tracker *Tracker
	log     *slog.Logger
	writes  atomic.Uint64

	session string          // Run's only
	told    [buckets]uint64 // the versions that were written; Run's only

	mu   sync.Mutex // guards seen
	seen map[string]sighting
}

// sighting is when this router first saw a key at its present index. What was
// written is as old as it was then, plus what has passed here since: no other
// clock is needed.
type sighting struct {
	index uint64
	at    time.Time
	first bool // the key had been there before this router began to read
}

// NewBoard returns a board on which Run writes what the tracker knows.
func NewBoard(c Config, client *consul.Client, t *Tracker, log *slog.Logger) *Board {
	return &Board{config: c, consul: client, tracker: t, log: log, seen: map[string]sighting{}}
}

// Writes is how many transactions were written so far.
func (b *Board) Writes() uint64 { return b.writes.Load() }

// wire is a bucket as it is written. Times are how long ago they were, in
// milliseconds, when it was written; At is then, by the writer's clock.
type wire struct {
	At    int64                     `json:"at"`
	Users map[sandbox.User]wireMark `json:"users"`
}

type wireMark struct {
	Last    *int64 `json:"last,omitempty"`
	Kind    Kind   `json:"kind,omitempty"`
	Left    *int64 `json:"left,omitempty"`
	Clients int    `json:"clients,omitempty"`
	Working int    `json:"working,omitempty"`
}

// ago is nil for a time that was never.
func ago(now, t time.Time) *int64 {
	if t.IsZero() {
		return nil
	}
	ms := now.Sub(t).Milliseconds()
	return &ms
}

// Run writes what is new until ctx ends, and then what the end was.
func (b *Board) Run(ctx context.Context) error {
	failing := false
	publish := func(ctx context.Context) {
		err := b.publish(ctx)
		if err != nil && ctx.Err() == nil && !failing {
			b.log.Warn("other routers are not told what clients do; idle sandboxes may be stopped late", "error", err)
		}
		failing = err != nil
	}
	tick := time.NewTicker(b.config.Period)
	defer tick.Stop()
	publish(ctx)
	for {
		select {
		case <-tick.C:
			publish(ctx)
			continue
		case <-ctx.Done():
		}
		last, cancel := context.WithTimeout(context.WithoutCancel(ctx), callTimeout)
		defer cancel()
		publish(last)
		if b.session != "" {
			if _, err := b.consul.Session().Destroy(b.session, (&consul.WriteOptions{}).WithContext(last)); err != nil {
				b.log.Debug("end the session", "error", err)
			}
		}
		return ctx.Err()
	}
}

// Consul refuses a transaction of more than 512 KiB as JSON, in which values are base64
// (limits.txn_max_req_len), or of more than 64 operations (128 since 1.15).
const (
	maxTxnBytes = 256 << 10 // of values
	maxTxnOps   = 32
)

// publish writes the buckets that changed, in transactions of bounded size, and the sign
// of life with the last of them. So a router whose sign of life is seen has told all that
// it knew then, and no reaper takes its users for idle.
func (b *Board) publish(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	if err := b.live(ctx); err != nil {
		return err
	}
	now := time.Now()
	beat := strconv.FormatInt(now.UnixMilli(), 10)
	var ops consul.KVTxnOps
	told, size := b.told, 0
	for n := range buckets {
		if b.tracker.changed(n) == told[n] {
			continue
		}
		marks, version := b.tracker.copyOf(n)
		w := wire{At: now.UnixMilli(), Users: make(map[sandbox.User]wireMark, len(marks))}
		for u, m := range marks {
			w.Users[u] = wireMark{Last: ago(now, m.Last), Kind: m.Kind, Left: ago(now, m.Left), Clients: m.Clients, Working: m.Working}
		}
		text, err := json.Marshal(w)
		if err != nil {
			return err
		}
		if len(ops) > 0 && (size+len(text) > maxTxnBytes || len(ops) >= maxTxnOps) {
			if err := b.write(ctx, ops, told); err != nil {
				return err
			}
			ops, size = nil, 0
		}
		ops = append(ops, &consul.KVTxnOp{Verb: consul.KVSet, Key: b.key(n), Value: text})
		told[n] = version
		size += len(text)
	}
	ops = append(ops, &consul.KVTxnOp{Verb: consul.KVLock, Key: b.config.Prefix + beats + b.config.Name, Value: []byte(beat), Session: b.session})
	return b.write(ctx, ops, told)
}

// write writes one transaction, and then notes the versions that were written by it and
// before.
func (b *Board) write(ctx context.Context, ops consul.KVTxnOps, told [buckets]uint64) error {
	ok, answer, _, err := b.consul.KV().Txn(ops, (&consul.QueryOptions{}).WithContext(ctx))
	b.writes.Add(1)
	if err == nil && !ok {
		// The session is gone, and with it the sign of life: all is written again.
		b.forget()
		err = fmt.Errorf("consul refused: %s", answer.Errors[0].What)
	}
	if err != nil {
		return fmt.Errorf("write what clients do: %w", err)
	}
	b.told = told
	return nil
}

func (b *Board) forget() { b.session, b.told = "", [buckets]uint64{} }

func (b *Board) key(bucket int) string {
	return b.config.Prefix + strconv.Itoa(bucket) + "/" + b.config.Name
}

// live keeps the session, or makes one.
func (b *Board) live(ctx context.Context) error {
	w := (&consul.WriteOptions{}).WithContext(ctx)
	if b.session != "" {
		s, _, err := b.consul.Session().Renew(b.session, w)
		if err != nil || s != nil {
			return err
		}
		b.forget()
	}
	id, _, err := b.consul.Session().Create(&consul.SessionEntry{Name: "openclaw router", Behavior: consul.SessionBehaviorDelete,
		// The default would keep this router's key closed for 15 s after a lost session.
		TTL: b.config.SessionTTL.String(), LockDelay: time.Millisecond}, w)
	if err != nil {
		return fmt.Errorf("make a session: %w", err)
	}
	b.session = id
	return nil
}

// View is what all routers know.
type View struct {
	// Until is when the router that told last of all did so: what came later is not
	// known to be nothing.
	Until time.Time
	// Routers is how many live.
	Routers int

	own    *Tracker
	others map[sandbox.User]Mark
}

// Mark is what is known of a user.
func (v View) Mark(u sandbox.User) Mark { return v.own.Mark(u).Merge(v.others[u]) }

// Own is what this router knows of a user by now.
func (v View) Own(u sandbox.User) Mark { return v.own.Mark(u) }

// Read asks Consul what all routers know, and takes over what those knew that are
// gone: whoever was connected to one of them was active until now.
func (b *Board) Read(ctx context.Context) (View, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	pairs, _, err := b.consul.KV().List(b.config.Prefix, (&consul.QueryOptions{}).WithContext(ctx))
	if err != nil {
		return View{}, fmt.Errorf("read what clients do: %w", err)
	}
	v, gone := b.merge(pairs, true)
	return v, b.remove(ctx, gone)
}

// Of asks Consul what all routers know of one user.
func (b *Board) Of(ctx context.Context, u sandbox.User) (Mark, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	pairs, _, err := b.consul.KV().List(b.config.Prefix+strconv.Itoa(bucketOf(u))+"/", (&consul.QueryOptions{}).WithContext(ctx))
	if err != nil {
		return Mark{}, fmt.Errorf("read what clients do: %w", err)
	}
	v, _ := b.merge(pairs, false)
	return v.Mark(u), nil
}

// merge makes a view. whole says that pairs are all there are; then it returns those
// of routers that are gone, too, whose marks are adopted.
func (b *Board) merge(pairs consul.KVPairs, whole bool) (v View, gone consul.KVPairs) {
	now := time.Now()
	v = View{Until: now, own: b.tracker, others: map[sandbox.User]Mark{}}
	at := b.sight(pairs, now, whole)
	alive := map[string]bool{b.config.Name: true}
	for _, p := range pairs {
		if name, ok := strings.CutPrefix(p.Key, b.config.Prefix+beats); ok && p.Session != "" {
			alive[name] = true
			if name != b.config.Name && at[p.Key].at.Before(v.Until) {
				v.Until = at[p.Key].at
			}
		}
	}
	v.Routers = len(alive)
	for _, p := range pairs {
		part, name, _ := strings.Cut(strings.TrimPrefix(p.Key, b.config.Prefix), "/")
		if part+"/" == beats || name == b.config.Name {
			continue
		}
		var w wire
		if err := json.Unmarshal(p.Value, &w); err != nil {
			b.log.Warn("what another router wrote can not be read", "key", p.Key, "error", err)
			continue
		}
		dead := whole && !alive[name]
		if dead {
			gone = append(gone, p)
		}
		for u, wm := range w.Users {
			m := b.mark(w, wm, at[p.Key])
			if !dead {
				v.others[u] = v.others[u].Merge(m)
				continue
			}
			if m.Working > 0 {
				m.Last = now
			}
			if m.Clients > 0 {
				// It may have been in use until this moment: nobody can say.
				m.Left, m.Last = now, now
			}
			b.tracker.adopt(u, m)
		}
	}
	return v, gone
}

// sight notes what is seen for the first time. If pairs are all there are, what is
// not among them is forgotten.
func (b *Board) sight(pairs consul.KVPairs, now time.Time, whole bool) map[string]sighting {
	b.mu.Lock()
	defer b.mu.Unlock()
	out := make(map[string]sighting, len(pairs))
	for _, p := range pairs {
		s, known := b.seen[p.Key]
		if !known || s.index != p.ModifyIndex {
			s = sighting{index: p.ModifyIndex, at: now, first: !known}
		}
		out[p.Key] = s
	}
	if whole {
		b.seen = out
	} else {
		for k, s := range out {
			b.seen[k] = s
		}
	}
	return out
}

// mark is what another router wrote, by this one's clock. Of what was there before,
// nobody knows how long: at the latest now, and by the writer's clock, if that is to
// be believed, then.
func (b *Board) mark(w wire, m wireMark, s sighting) Mark {
	at := func(ago *int64) time.Time {
		if ago == nil {
			return time.Time{}
		}
		d := time.Duration(*ago) * time.Millisecond
		t := s.at.Add(-d)
		if written := time.UnixMilli(w.At).Add(-d + b.config.ClockSkew); s.first && written.Before(t) {
			return written
		}
		return t
	}
	return Mark{Last: at(m.Last), Kind: m.Kind, Left: at(m.Left), Clients: m.Clients, Working: m.Working}
}

// remove deletes keys whose marks were taken over, unless their router is back.
func (b *Board) remove(ctx context.Context, keys consul.KVPairs) error {
	var errs []error
	for _, p := range keys {
		if _, _, err := b.consul.KV().DeleteCAS(p, (&consul.WriteOptions{}).WithContext(ctx)); err != nil {
			errs = append(errs, fmt.Errorf("remove what a router wrote that is gone: %w", err))
		}
	}
	return errors.Join(errs...)
}
