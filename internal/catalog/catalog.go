// Package catalog knows who is where: the passing gateways in Consul, as a table
// in memory. A look-up is one atomic load and costs no call; the table follows
// Consul by a blocking query, and stands as it was while Consul is away.
package catalog

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	consul "github.com/hashicorp/consul/api"

	"openclaw-sandbox/internal/sandbox"
)

// Instance is a user's running gateway.
type Instance struct {
	User       sandbox.User
	Generation string // the allocation's id: another one is another process
	Addr       string // host:port
	Node       string
	Job        string // the dispatched child job
	created    uint64 // Consul's index of the registration: the newest wins
}

// Config says what to watch.
type Config struct {
	// Service is the name that gateways register under.
	Service string
	// Shards spreads gateways over that many names; only 1 is served yet.
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

// Catalog is the table. Run keeps it; the other methods may be called from anywhere.
type Catalog struct {
	config Config
	health *consul.Health
	log    *slog.Logger

	view atomic.Pointer[view]

	mu      sync.Mutex // guards changed; taken after nothing else
	changed chan struct{}
	gone    map[string]time.Time // evicted generations, and when
	warned  map[string]bool      // service ids that were complained about
	index   uint64               // of the view: an older answer does not replace a newer one
}

// view is one immutable state of the table.
type view struct {
	users map[sandbox.User]Instance
	at    time.Time // of Consul's last answer
}

const (
	// goneFor is how long an evicted gateway stays away from the table, while
	// Consul still says that it passes.
	goneFor = 5 * time.Second
	// callTimeout bounds a call that is not meant to hang.
	callTimeout = 5 * time.Second
	// idlePause is the least time between two answers that teach nothing new.
	idlePause = 200 * time.Millisecond
)

// New returns an empty catalog.
func New(c Config, client *consul.Client, log *slog.Logger) (*Catalog, error) {
	if c.Shards != 1 {
		return nil, fmt.Errorf("consul.shards: only 1 is served by this version, got %d", c.Shards)
	}
	return &Catalog{config: c, health: client.Health(), log: log, changed: make(chan struct{}), gone: map[string]time.Time{}, warned: map[string]bool{}}, nil
}

// Lookup returns the user's gateway.
func (c *Catalog) Lookup(u sandbox.User) (Instance, bool) {
	v := c.view.Load()
	if v == nil {
		return Instance{}, false
	}
	i, ok := v.users[u]
	return i, ok
}

// Ready reports whether there was a first full view.
func (c *Catalog) Ready() bool { return c.view.Load() != nil }

// Age is how long ago Consul last answered; zero before the first view.
func (c *Catalog) Age() time.Duration {
	if v := c.view.Load(); v != nil {
		return time.Since(v.at)
	}
	return 0
}

// Len is the number of users with a gateway.
func (c *Catalog) Len() int {
	if v := c.view.Load(); v != nil {
		return len(v.users)
	}
	return 0
}

// Wait blocks until the user has a gateway for which ok holds (nil: any), or ctx
// ends, whose error it returns.
func (c *Catalog) Wait(ctx context.Context, u sandbox.User, ok func(Instance) bool) (Instance, error) {
	for {
		c.mu.Lock()
		changed := c.changed
		c.mu.Unlock()
		if i, found := c.Lookup(u); found && (ok == nil || ok(i)) {
			return i, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return Instance{}, fmt.Errorf("wait for the gateway of %s: %w", u, ctx.Err())
		}
	}
}

// Evict drops a gateway that can not be reached, before Consul notices. It does
// nothing if the user's gateway is another generation by now.
func (c *Catalog) Evict(u sandbox.User, generation string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	v := c.view.Load()
	if v == nil || v.users[u].Generation != generation {
		return
	}
	c.gone[generation] = time.Now()
	users := make(map[sandbox.User]Instance, len(v.users))
	for k, i := range v.users {
		if k != u {
			users[k] = i
		}
	}
	c.view.Store(&view{users: users, at: v.at})
}

// Refresh asks Consul once, now. It is for a user who seems to have no gateway,
// before one is started.
func (c *Catalog) Refresh(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	entries, meta, err := c.health.Service(c.config.Service, "", true, (&consul.QueryOptions{}).WithContext(ctx))
	if err != nil {
		return fmt.Errorf("ask Consul: %w", err)
	}
	c.publish(entries, meta.LastIndex, false)
	return nil
}

// Run follows Consul until ctx ends.
func (c *Catalog) Run(ctx context.Context) error {
	var index uint64
	backoff := c.config.MinBackoff
	for ctx.Err() == nil {
		// Consul adds up to a sixteenth to the wait; what takes longer hangs.
		call, cancel := context.WithTimeout(ctx, c.config.Wait+c.config.Wait/16+callTimeout)
		q := (&consul.QueryOptions{WaitIndex: index, WaitTime: c.config.Wait}).WithContext(call)
		entries, meta, err := c.health.Service(c.config.Service, "", true, q)
		cancel()
		if err != nil {
			if ctx.Err() != nil {
				break
			}
			c.log.Warn("Consul does not answer; the last view stands", "age", c.Age().Round(time.Millisecond), "error", err)
			pause := backoff/2 + rand.N(backoff) // spread, so that routers do not come back all at once
			backoff = min(2*backoff, c.config.MaxBackoff)
			index = 0
			c.pause(ctx, pause)
			continue
		}
		backoff = c.config.MinBackoff
		// The rules of consul's blocking queries: an index that went back, or is
		// zero, starts over.
		reset := meta.LastIndex < index
		if reset || meta.LastIndex == 0 {
			index = 0
			c.pause(ctx, idlePause) // without an index the next query does not block
		} else {
			index = meta.LastIndex
		}
		c.publish(entries, meta.LastIndex, reset)
	}
	return ctx.Err()
}

func (c *Catalog) pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// publish makes an answer the view, unless the view is of a later index. reset
// says that Consul's indexes began anew.
func (c *Catalog) publish(entries []*consul.ServiceEntry, index uint64, reset bool) {
	users := make(map[sandbox.User]Instance, len(entries))
	c.mu.Lock()
	defer c.mu.Unlock()
	if index < c.index && !reset {
		return
	}
	c.index = index
	for _, e := range entries {
		i, err := instance(e)
		if err != nil {
			if !c.warned[e.Service.ID] {
				c.warned[e.Service.ID] = true
				c.log.Warn("a registered gateway is ignored", "service_id", e.Service.ID, "error", err)
			}
			continue
		}
		if at, ok := c.gone[i.Generation]; ok && time.Since(at) < goneFor {
			continue
		}
		if was, ok := users[i.User]; !ok || i.newer(was) {
			users[i.User] = i
		}
	}
	for g, at := range c.gone {
		if time.Since(at) >= goneFor {
			delete(c.gone, g)
		}
	}
	c.view.Store(&view{users: users, at: time.Now()})
	close(c.changed)
	c.changed = make(chan struct{})
}

// newer decides between two gateways of one user, the same way in every router.
func (i Instance) newer(than Instance) bool {
	if i.created != than.created {
		return i.created > than.created
	}
	return i.Generation > than.Generation
}

func instance(e *consul.ServiceEntry) (Instance, error) {
	user, err := sandbox.ParseUser(e.Service.Meta["user"])
	if err != nil {
		return Instance{}, err
	}
	generation := e.Service.Meta["generation"]
	if generation == "" || e.Service.Port <= 0 {
		return Instance{}, fmt.Errorf("it has no generation or no port")
	}
	host := e.Service.Address
	if host == "" {
		host = e.Node.Address
	}
	return Instance{User: user, Generation: generation, Addr: net.JoinHostPort(host, strconv.Itoa(e.Service.Port)),
		Node: e.Service.Meta["node"], Job: e.Service.Meta["job"], created: e.Service.CreateIndex}, nil
}
