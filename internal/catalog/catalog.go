// Package catalog knows who is where: the passing gateways in Consul, as a table
// in memory. A look-up is an atomic load or two and costs no call; the table
// follows Consul by one blocking query per shard, and stands as it was while
// Consul is away.
//
// Lock order: a shard's mutex, then that of waiters. Neither is held while
// anything waits.
package catalog

import (
	"context"
	"fmt"
	"hash/fnv"
	"log/slog"
	"strconv"
	"sync"
	"time"

	consul "github.com/hashicorp/consul/api"

	"openclaw-sandbox/internal/sandbox"
)

// Config says what to watch.
type Config struct {
	// Service is the name that gateways register under.
	Service string
	// Shards spreads gateways over that many names, Service-0, Service-1, …; with 1
	// there is only Service.
	Shards int
	// Wait is how long one blocking query may hang; Consul adds up to a sixteenth.
	Wait time.Duration
	// MinBackoff and MaxBackoff bound the pause after a failed query.
	MinBackoff, MaxBackoff time.Duration
}

// DefaultConfig are the settings that a deployment rarely changes.
func DefaultConfig() Config {
	return Config{Service: "openclaw-gateway", Shards: 1, Wait: 5 * time.Minute, MinBackoff: 100 * time.Millisecond, MaxBackoff: 10 * time.Second}
}

// Shard is the number of a user's shard: the 32-bit FNV-1a hash of the user id,
// modulo the number of shards. It is part of the contract with the job.
func Shard(u sandbox.User, shards int) int {
	h := fnv.New32a()
	h.Write([]byte(u))
	return int(h.Sum32() % uint32(shards))
}

// ServiceOf is the name that the user's gateway registers under.
func (c Config) ServiceOf(u sandbox.User) string {
	if c.Shards <= 1 {
		return c.Service
	}
	return c.Service + "-" + strconv.Itoa(Shard(u, c.Shards))
}

const (
	// goneFor is how long an evicted gateway is not believed, while Consul still says
	// that it passes.
	goneFor = 5 * time.Second
	// earlyFor is how long a learnt gateway stays while Consul answers and does not
	// show it: Nomad registers a service a moment after its task runs, but with a
	// thousand starts at once that was seen to take minutes.
	earlyFor = time.Minute
	// backFor is how long after an outage of Consul a gateway stays that it calls
	// critical: a few intervals of the job's check.
	backFor = 15 * time.Second
	// freshFor is how long the answer of a point look-up serves further ones: many
	// misses at once are one query.
	freshFor = 100 * time.Millisecond
	// callTimeout bounds a call that is not meant to hang.
	callTimeout = 5 * time.Second
	// idlePause is the least time between two answers that teach nothing new.
	idlePause = 200 * time.Millisecond
	// settle is the least time between two queries of one shard once maxQuick came
	// closer to each other: a change of a node is many changes in a burst.
	settle   = 20 * time.Millisecond
	maxQuick = 2
	// warnEvery spaces what is logged of an outage, which every shard notices.
	warnEvery = 10 * time.Second
)

// Catalog is the table. Run keeps it; the other methods may be called from anywhere.
type Catalog struct {
	config Config
	log    *slog.Logger
	shards []*shard
	// plain is the name without a shard's number, when there are several: gateways
	// that were dispatched by hand, or before there were shards. Nil with one shard.
	plain   *shard
	waiters waiters
	ended   ended

	warning sync.Mutex // guards warned; taken after nothing else
	warned  time.Time
}

// New returns an empty catalog.
func New(c Config, client *consul.Client, log *slog.Logger) (*Catalog, error) {
	if c.Shards < 1 {
		return nil, fmt.Errorf("consul.shards: want 1 or more, got %d", c.Shards)
	}
	cat := &Catalog{config: c, log: log, waiters: waiters{of: map[sandbox.User]*waiter{}}, ended: ended{at: map[string]time.Time{}}}
	add := func(name string) *shard {
		return &shard{catalog: cat, name: name, consul: client.Raw(), warned: map[string]bool{}}
	}
	if c.Shards == 1 {
		cat.shards = []*shard{add(c.Service)}
		return cat, nil
	}
	for n := range c.Shards {
		cat.shards = append(cat.shards, add(c.Service+"-"+strconv.Itoa(n)))
	}
	cat.plain = add(c.Service)
	return cat, nil
}

// all are the shards, the plain one last.
func (c *Catalog) all(yield func(*shard) bool) {
	for _, s := range c.shards {
		if !yield(s) {
			return
		}
	}
	if c.plain != nil {
		yield(c.plain)
	}
}

func (c *Catalog) shardOf(u sandbox.User) *shard {
	if len(c.shards) == 1 {
		return c.shards[0]
	}
	return c.shards[Shard(u, len(c.shards))]
}

// Lookup returns the user's gateway.
func (c *Catalog) Lookup(u sandbox.User) (Instance, bool) {
	i, ok := c.shardOf(u).lookup(u)
	if c.plain != nil {
		if j, found := c.plain.lookup(u); found && (!ok || j.newer(i)) {
			return j, true
		}
	}
	return i, ok
}

// Ready reports whether every shard had a first view.
func (c *Catalog) Ready() bool {
	for s := range c.all {
		if s.view.Load() == nil {
			return false
		}
	}
	return true
}

// Age is how long ago Consul last answered, for the shard where that is longest;
// zero before the first full view.
func (c *Catalog) Age() time.Duration {
	var oldest time.Time
	for s := range c.all {
		v := s.view.Load()
		if v == nil {
			return 0
		}
		if oldest.IsZero() || v.at.Before(oldest) {
			oldest = v.at
		}
	}
	return time.Since(oldest)
}

// registered is the user's gateway, evicted or not.
func (c *Catalog) registered(u sandbox.User) (Instance, bool) {
	i, ok := c.shardOf(u).view.Load().find(u)
	if c.plain != nil {
		if j, found := c.plain.view.Load().find(u); found && (!ok || j.newer(i)) {
			return j, true
		}
	}
	return i, ok
}

// Len is the number of users with a gateway, evicted or not.
func (c *Catalog) Len() int {
	n := 0
	for s := range c.all {
		if v := s.view.Load(); v != nil {
			n += len(v.users) + len(v.early)
		}
	}
	return n
}

// Wait blocks until the user has a gateway for which ok holds (nil: any), or ctx
// ends, whose error it returns. The gateway may have been evicted, as Lookup tells:
// whoever waits for it finds out whether it answers again.
func (c *Catalog) Wait(ctx context.Context, u sandbox.User, ok func(Instance) bool) (Instance, error) {
	c.waiters.join(u)
	defer c.waiters.leave(u)
	for {
		changed := c.waiters.next(u)
		if i, found := c.registered(u); found && (ok == nil || ok(i)) {
			return i, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return Instance{}, fmt.Errorf("wait for the gateway of %s: %w", u, ctx.Err())
		}
	}
}

// Evict takes a gateway that does not answer from the table, before Consul notices,
// until it is learnt again, registers anew, or a short time has passed in which
// Consul still shows it. It does nothing if the user's gateway is another
// generation by now.
func (c *Catalog) Evict(u sandbox.User, generation string) {
	c.shardOf(u).evict(u, generation)
	if c.plain != nil {
		c.plain.evict(u, generation)
	}
}

// Learn adds a gateway that is known to be ready, before Consul shows it or although
// it was evicted. It is believed until Consul shows it, or a registration that came later, or a short
// time has passed in which Consul answered; what Consul shows already stands.
func (c *Catalog) Learn(i Instance) {
	s := c.shardOf(i.User)
	if c.plain != nil {
		if shown, ok := c.plain.view.Load().find(i.User); ok && shown.Generation == i.Generation {
			s = c.plain
		} else if _, ok := c.plain.lookup(i.User); ok {
			return
		}
	}
	s.learn(i)
}

// Refresh asks Consul once, now, for the user's shard. It is for a user who seems
// to have no gateway, before one is started.
func (c *Catalog) Refresh(ctx context.Context, u sandbox.User) error {
	return c.shardOf(u).refresh(ctx)
}

// Run follows Consul until ctx ends.
func (c *Catalog) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	for s := range c.all {
		wg.Go(func() { s.run(ctx) })
	}
	wg.Wait()
	return ctx.Err()
}

// outage logs that Consul fails, once in a while for all shards.
func (c *Catalog) outage(err error) {
	c.warning.Lock()
	defer c.warning.Unlock()
	if time.Since(c.warned) < warnEvery {
		return
	}
	c.warned = time.Now()
	c.log.Warn("Consul does not answer; the last view stands", "age", c.Age().Round(time.Millisecond), "error", err)
}
