package catalog

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	consul "github.com/hashicorp/consul/api"

	"openclaw-sandbox/internal/sandbox"
)

// shard is what is registered under one name.
type shard struct {
	catalog *Catalog
	name    string
	consul  *consul.Raw

	view    atomic.Pointer[view]
	failing atomic.Bool // the last query had no answer

	mu     sync.Mutex           // guards what follows, and storing view
	gone   map[string]time.Time // evicted generations, and when
	warned map[string]bool      // service ids that were complained about
	index  uint64               // of the view: an older answer does not replace a newer one
	fresh  time.Time            // of the last point look-up's answer
	asking *look                // the point look-up under way; nil if none
	back   time.Time            // when Consul answered again after the last outage
}

// view is one immutable state of a shard.
type view struct {
	users map[sandbox.User]Instance
	early map[sandbox.User]early // learnt, and not yet in users
	at    time.Time              // of Consul's last answer
}

// early is a learnt instance, and when it is no longer believed.
type early struct {
	Instance
	until time.Time
}

// look is a point look-up that others join. err may be read once done is closed.
type look struct {
	done chan struct{}
	err  error
}

// find is the user's instance, a learnt one also past its time. v may be nil.
func (v *view) find(u sandbox.User) (Instance, bool) {
	if v == nil {
		return Instance{}, false
	}
	i, ok := v.users[u]
	if len(v.early) == 0 {
		return i, ok
	}
	if e, learnt := v.early[u]; learnt && (!ok || e.newer(i)) {
		return e.Instance, true
	}
	return i, ok
}

func (s *shard) lookup(u sandbox.User) (Instance, bool) {
	v := s.view.Load()
	if v == nil {
		return Instance{}, false
	}
	if len(v.early) > 0 {
		if e, ok := v.early[u]; ok && s.expired(e) {
			i, ok := v.users[u]
			return i, ok
		}
	}
	return v.find(u)
}

// expired: while Consul is away it can not show what it would.
func (s *shard) expired(e early) bool { return time.Now().After(e.until) && !s.failing.Load() }

func (s *shard) learn(i Instance) {
	s.mu.Lock()
	defer s.mu.Unlock()
	was := s.view.Load()
	if was == nil {
		return // before the first view nothing is known to be newer or older
	}
	if _, shown := was.users[i.User]; shown || s.isGone(i.Generation) {
		return
	}
	i.created = s.index
	is := &view{users: was.users, early: maps.Clone(was.early), at: was.at}
	if is.early == nil {
		is.early = map[sandbox.User]early{}
	}
	is.early[i.User] = early{i, time.Now().Add(earlyFor)}
	s.replace(was, is)
}

func (s *shard) evict(u sandbox.User, generation string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	was := s.view.Load()
	if was == nil {
		return
	}
	shown, learnt := was.users[u].Generation == generation, was.early[u].Generation == generation
	if !shown && !learnt {
		return
	}
	s.gone[generation] = time.Now()
	is := &view{users: was.users, early: was.early, at: was.at}
	if shown {
		is.users = maps.Clone(was.users)
		delete(is.users, u)
	}
	if learnt {
		is.early = maps.Clone(was.early)
		delete(is.early, u)
	}
	s.replace(was, is)
}

func (s *shard) isGone(generation string) bool {
	at, ok := s.gone[generation]
	return ok && time.Since(at) < goneFor
}

func (s *shard) replace(was, is *view) {
	s.view.Store(is)
	s.catalog.waiters.tell(was, is)
}

// refresh asks once, or joins one who asks already.
func (s *shard) refresh(ctx context.Context) error {
	for {
		s.mu.Lock()
		if time.Since(s.fresh) < freshFor {
			s.mu.Unlock()
			return nil
		}
		l, first := s.asking, s.asking == nil
		if first {
			l = &look{done: make(chan struct{})}
			s.asking = l
		}
		s.mu.Unlock()
		if first {
			l.err = s.ask(ctx)
			s.mu.Lock()
			s.asking = nil
			s.mu.Unlock()
			close(l.done)
			return l.err
		}
		select {
		case <-l.done:
			if l.err == nil || !errors.Is(l.err, context.Canceled) {
				return l.err
			}
			// The one who asked went away; this one did not.
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (s *shard) ask(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	entries, meta, err := s.query((&consul.QueryOptions{}).WithContext(ctx))
	if err != nil {
		return fmt.Errorf("ask Consul: %w", err)
	}
	s.publish(entries, meta.LastIndex, false)
	s.mu.Lock()
	s.fresh = time.Now()
	s.mu.Unlock()
	return nil
}

// query asks for all that is registered, passing or not: what is critical and
// what is gone differ after an outage.
func (s *shard) query(q *consul.QueryOptions) (entries []entry, meta *consul.QueryMeta, err error) {
	meta, err = s.consul.Query("/v1/health/service/"+s.name, &entries, q)
	return entries, meta, err
}

// run follows Consul until ctx ends. An agent serves a blocking query from its
// own copy, which the servers stream to it, also without `?cached`; and without
// that it never answers with an old copy while the servers are away.
func (s *shard) run(ctx context.Context) {
	c := s.catalog.config
	var index uint64
	backoff := c.MinBackoff
	for ctx.Err() == nil {
		asked := time.Now()
		// Consul adds up to a sixteenth to the wait; what takes longer hangs.
		call, cancel := context.WithTimeout(ctx, c.Wait+c.Wait/16+callTimeout)
		q := (&consul.QueryOptions{WaitIndex: index, WaitTime: c.Wait}).WithContext(call)
		entries, meta, err := s.query(q)
		cancel()
		if err != nil {
			if ctx.Err() != nil {
				return
			}
			s.failing.Store(true)
			s.catalog.outage(err)
			pause := backoff/2 + rand.N(backoff) // spread, so that routers do not come back all at once
			backoff = min(2*backoff, c.MaxBackoff)
			index = 0
			sleep(ctx, pause)
			continue
		}
		backoff = c.MinBackoff
		// The rules of Consul's blocking queries: an index that went back, or is
		// zero, starts over.
		reset := meta.LastIndex < index
		pause := settle - time.Since(asked)
		if reset || meta.LastIndex == 0 {
			index = 0
			pause = idlePause // without an index the next query does not block
		} else {
			index = meta.LastIndex
		}
		s.publish(entries, meta.LastIndex, reset)
		sleep(ctx, pause)
	}
}

func sleep(ctx context.Context, d time.Duration) {
	if d <= 0 {
		return
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// publish makes an answer the view, unless the view is of a later index. reset
// says that Consul's indexes began anew.
func (s *shard) publish(entries []entry, index uint64, reset bool) {
	is := &view{users: make(map[sandbox.User]Instance, len(entries)), at: time.Now()}
	s.mu.Lock()
	defer s.mu.Unlock()
	if index < s.index && !reset {
		return
	}
	s.index = index
	warned, critical := map[string]bool{}, map[string]bool{}
	for n := range entries {
		e := &entries[n]
		i, err := e.instance()
		switch {
		case err != nil:
			if warned[e.Service.ID] = true; !s.warned[e.Service.ID] {
				s.catalog.log.Warn("a registered gateway is ignored", "service_id", e.Service.ID, "error", err)
			}
			continue
		case s.isGone(i.Generation):
			continue
		case !e.passing():
			critical[i.Generation] = true
			continue
		}
		if was, ok := is.users[i.User]; !ok || i.newer(was) {
			is.users[i.User] = i
		}
	}
	s.warned = warned
	for g := range s.gone {
		if !s.isGone(g) {
			delete(s.gone, g)
		}
	}
	was := s.view.Load()
	if was != nil {
		if s.failing.Load() {
			s.back = is.at
		}
		until := s.back.Add(backFor)
		is.early = s.stillEarly(was.early, is.users, critical, is.at.Before(until))
		if is.at.Before(until) {
			is.keep(was.users, critical, until)
		}
	}
	s.failing.Store(false)
	s.replace(was, is)
}

// keep holds on to what has just become critical: an agent that comes back first
// shows what it knew, and then calls every check critical until it has run once.
func (v *view) keep(was map[sandbox.User]Instance, critical map[string]bool, until time.Time) {
	if len(critical) == 0 {
		return
	}
	for u, i := range was {
		if _, shown := v.users[u]; shown || !critical[i.Generation] {
			continue
		}
		if v.early == nil {
			v.early = map[sandbox.User]early{}
		}
		v.early[u] = early{i, until}
	}
}

// stillEarly are the learnt instances that Consul has neither shown nor replaced.
// One that it shows as critical is believed only right after an outage.
func (s *shard) stillEarly(learnt map[sandbox.User]early, users map[sandbox.User]Instance, critical map[string]bool, justBack bool) map[sandbox.User]early {
	var out map[sandbox.User]early
	for u, e := range learnt {
		i, shown := users[u]
		if s.expired(e) || shown && (i.Generation == e.Generation || i.newer(e.Instance)) || critical[e.Generation] && !justBack {
			continue
		}
		if out == nil {
			out = map[sandbox.User]early{}
		}
		out[u] = e
	}
	return out
}
