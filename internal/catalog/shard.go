package catalog

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"
	"sync/atomic"
	"time"

	consul "github.com/hashicorp/consul/api"

	"openclaw-sandbox/internal/blocking"
	"openclaw-sandbox/internal/sandbox"
)

// shard is what is registered under one name.
type shard struct {
	catalog *Catalog
	name    string
	consul  *consul.Raw

	view    atomic.Pointer[view]
	failing atomic.Bool // the last query had no answer

	mu     sync.Mutex      // guards what follows, and storing view
	warned map[string]bool // service ids that were complained about
	index  uint64          // of the view: an older answer does not replace a newer one
	fresh  time.Time       // of the last point look-up's answer
	asking *look           // the point look-up under way; nil if none
	back   time.Time       // when Consul answered again after the last outage
}

// view is one immutable state of a shard.
type view struct {
	users    map[sandbox.User]Instance
	early    map[sandbox.User]early    // learnt, and not yet in users
	critical map[sandbox.User]Instance // registered with a check that fails, and not in users
	gone     map[string]eviction       // by generation: in one of these, and not believed
	at       time.Time                 // of Consul's last answer
}

// eviction is what a gateway gets that did not answer, or that sleeps.
type eviction struct {
	until   time.Time // then it is believed again, if it is still registered
	created uint64    // of the registration: a later one is of a gateway that was started again
	asleep  bool      // frozen: believed again only when it is learnt, whatever until is
}

// evicted tells whether a registered instance is not to be believed now.
func (v *view) evicted(i Instance) bool {
	if len(v.gone) == 0 {
		return false
	}
	e, ok := v.gone[i.Generation]
	return ok && (e.asleep || time.Now().Before(e.until))
}

// early is a learnt instance, and when it is no longer believed.
type early struct {
	Instance
	until time.Time
	// thawed: its check may fail until Consul has run it again.
	thawed bool
}

// look is a point look-up that others join. err may be read once done is closed.
type look struct {
	done chan struct{}
	err  error
}

// find is the user's instance, evicted or not, and a learnt one also past its
// time. v may be nil.
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

// lookup is the user's instance that is to be believed.
func (s *shard) lookup(u sandbox.User) (Instance, bool) {
	v := s.view.Load()
	if v == nil {
		return Instance{}, false
	}
	i, ok := v.users[u]
	ok = ok && !v.evicted(i)
	if len(v.early) > 0 {
		if e, learnt := v.early[u]; learnt && (!ok || e.newer(i)) && !s.expired(e) && !v.evicted(e.Instance) {
			return e.Instance, true
		}
	}
	if !ok {
		return Instance{}, false
	}
	return i, true
}

// expired: while Consul is away it can not show what it would.
func (s *shard) expired(e early) bool { return time.Now().After(e.until) && !s.failing.Load() }

func (s *shard) learn(i Instance) {
	s.mu.Lock()
	defer s.mu.Unlock()
	was := s.view.Load()
	if was == nil || s.catalog.ended.has(i.Generation) {
		return // before the first view nothing is known to be newer or older
	}
	is := *was
	is.gone = maps.Clone(was.gone)
	delete(is.gone, i.Generation)
	if shown, ok := was.users[i.User]; !ok || shown.Generation != i.Generation && was.evicted(shown) {
		e := early{Instance: i, until: time.Now().Add(earlyFor)}
		e.created = s.index
		if c, fails := was.critical[i.User]; fails && c.Generation == i.Generation {
			e.Instance, e.until, e.thawed = c, time.Now().Add(backFor), true
		}
		is.early = with(was.early, i.User, e)
	}
	s.replace(was, &is)
}

func (s *shard) evict(u sandbox.User, generation string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	was := s.view.Load()
	if was == nil {
		return
	}
	i, learnt := was.users[u], was.early[u].Instance
	if learnt.Generation == generation {
		i = learnt
	}
	if i.Generation != generation {
		return
	}
	if was.gone[generation].asleep {
		return // that it does not answer is no news
	}
	is := *was
	is.gone = with(was.gone, generation, eviction{until: time.Now().Add(goneFor), created: i.created})
	s.replace(was, &is)
}

// with is a copy of m that has one more.
func with[K comparable, V any](m map[K]V, k K, v V) map[K]V {
	out := maps.Clone(m)
	if out == nil {
		out = map[K]V{}
	}
	out[k] = v
	return out
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
	s.mu.Lock()
	known := s.index
	s.mu.Unlock()
	entries, meta, err := s.query((&consul.QueryOptions{}).WithContext(ctx))
	if err != nil {
		return fmt.Errorf("ask Consul: %w", err)
	}
	// A consistent read that began after an index was known cannot have a lower one, unless
	// the indexes began again. If the view changed meanwhile, the answer may just be older.
	s.mu.Lock()
	reset := meta.LastIndex < known && s.index == known
	s.mu.Unlock()
	s.publish(entries, meta.LastIndex, reset)
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
	blocking.Query[[]entry]{Ask: s.query, Take: s.publish, Wait: c.Wait, Slack: callTimeout, MinBackoff: c.MinBackoff, MaxBackoff: c.MaxBackoff,
		Settle: settle, Quick: maxQuick, Idle: idlePause,
		Failed: func(err error) {
			s.failing.Store(true)
			s.catalog.outage(err)
		}}.Run(ctx)
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
	var failing []Instance
	for n := range entries {
		e := &entries[n]
		i, err := e.instance()
		switch {
		case err != nil:
			if warned[e.Service.ID] = true; !s.warned[e.Service.ID] {
				s.catalog.log.Warn("a registered gateway is ignored", "service_id", e.Service.ID, "error", err)
			}
			continue
		case s.catalog.ended.shown(i.Generation):
			continue // Nomad said that it ended; Consul has not noticed
		case !e.passing():
			critical[i.Generation] = true
			failing = append(failing, i)
			continue
		}
		if was, ok := is.users[i.User]; !ok || i.newer(was) {
			is.users[i.User] = i
		}
	}
	s.warned = warned
	is.fails(failing)
	was := s.view.Load()
	if was != nil {
		is.gone = is.stillGone(was)
		if s.failing.Load() {
			s.back = is.at
		}
		until := s.back.Add(backFor)
		is.early = s.stillEarly(was.early, is, critical, is.at.Before(until))
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
		if _, shown := v.users[u]; shown || !critical[i.Generation] || v.evicted(i) {
			continue
		}
		if v.early == nil {
			v.early = map[sandbox.User]early{}
		}
		v.early[u] = early{Instance: i, until: until}
	}
}

// stillGone are the evictions that stand: not over, and not of a gateway that has
// registered anew since, as one does that was started again in its place.
func (v *view) stillGone(was *view) map[string]eviction {
	if len(was.gone) == 0 {
		return nil
	}
	out := maps.Clone(was.gone)
	maps.DeleteFunc(out, func(_ string, e eviction) bool { return !e.asleep && v.at.After(e.until) })
	shown := map[string]bool{}
	note := func(i Instance) {
		e, ok := out[i.Generation]
		if shown[i.Generation] = true; ok && i.created > e.created {
			delete(out, i.Generation)
		}
	}
	for _, i := range v.users {
		note(i)
	}
	for _, i := range v.critical {
		note(i)
	}
	for _, e := range was.early {
		note(e.Instance)
	}
	// What sleeps may do so for ever, but not longer than it is registered.
	maps.DeleteFunc(out, func(generation string, e eviction) bool { return e.asleep && !shown[generation] })
	return out
}

// stillEarly are the learnt instances that Consul, in the view is, has neither shown
// nor replaced. One that it shows as critical is believed only right after an
// outage, and only if it answers.
func (s *shard) stillEarly(learnt map[sandbox.User]early, is *view, critical map[string]bool, justBack bool) map[sandbox.User]early {
	var out map[sandbox.User]early
	for u, e := range learnt {
		i, shown := is.users[u]
		if s.expired(e) || shown && (i.Generation == e.Generation || i.newer(e.Instance)) || critical[e.Generation] && !e.thawed && (!justBack || is.evicted(e.Instance)) {
			continue
		}
		if out == nil {
			out = map[sandbox.User]early{}
		}
		out[u] = e
	}
	return out
}
