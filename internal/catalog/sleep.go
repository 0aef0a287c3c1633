package catalog

import "openclaw-sandbox/internal/sandbox"

// State is how a registered gateway is.
type State uint8

// The states.
const (
	Serving  State = iota
	Asleep         // frozen: it answers once it was let go on
	Critical       // a check fails; it may have been frozen before this router began
)

// Sleep notes that the user's gateway is frozen. It is not believed, and Dormant
// tells of it, until it is learnt again or registers anew. It does nothing if
// nothing of that generation is registered.
func (c *Catalog) Sleep(u sandbox.User, generation string) {
	for s := range c.of(u) {
		s.sleep(u, generation)
	}
}

// Rouse notes that the user's gateway is no longer frozen.
func (c *Catalog) Rouse(u sandbox.User, generation string) {
	for s := range c.of(u) {
		s.rouse(u, generation)
	}
}

// Dormant returns the user's gateway if it is registered and frozen, or has a check
// that fails.
func (c *Catalog) Dormant(u sandbox.User) (i Instance, s State, ok bool) {
	for shard := range c.of(u) {
		if j, state, found := shard.view.Load().dormant(u); found && (!ok || j.newer(i)) {
			i, s, ok = j, state, true
		}
	}
	return i, s, ok
}

// Running yields every registered gateway that was not evicted, and how it is.
func (c *Catalog) Running(yield func(Instance, State) bool) {
	for s := range c.all {
		if v := s.view.Load(); v != nil && !v.running(yield) {
			return
		}
	}
}

// of are the shards where the user's gateway may be.
func (c *Catalog) of(u sandbox.User) func(yield func(*shard) bool) {
	return func(yield func(*shard) bool) {
		if yield(c.shardOf(u)) && c.plain != nil {
			yield(c.plain)
		}
	}
}

func (s *shard) sleep(u sandbox.User, generation string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	was := s.view.Load()
	i, ok := was.any(u, generation)
	if !ok || was.gone[generation].asleep {
		return
	}
	is := *was
	is.gone = with(was.gone, generation, eviction{created: i.created, asleep: true})
	s.replace(was, &is)
}

func (s *shard) rouse(u sandbox.User, generation string) {
	s.mu.Lock()
	was := s.view.Load()
	asleep := was != nil && was.gone[generation].asleep
	i, _ := was.any(u, generation)
	s.mu.Unlock()
	if asleep {
		s.learn(i)
	}
}

// any is the user's instance of a generation, in whatever state. v may be nil.
func (v *view) any(u sandbox.User, generation string) (Instance, bool) {
	if v == nil {
		return Instance{}, false
	}
	for _, i := range [...]Instance{v.users[u], v.early[u].Instance, v.critical[u]} {
		if i.Generation == generation && generation != "" {
			return i, true
		}
	}
	return Instance{}, false
}

// dormant is the user's instance that is frozen or critical. v may be nil.
func (v *view) dormant(u sandbox.User) (Instance, State, bool) {
	if v == nil {
		return Instance{}, 0, false
	}
	i, ok := v.critical[u]
	if j, found := v.find(u); found && (!ok || j.Generation != i.Generation) {
		return j, Asleep, v.gone[j.Generation].asleep
	}
	if v.gone[i.Generation].asleep {
		return i, Asleep, ok
	}
	return i, Critical, ok
}

func (v *view) running(yield func(Instance, State) bool) bool {
	pass := func(i Instance, s State) bool {
		if v.gone[i.Generation].asleep {
			s = Asleep
		} else if s == Serving && v.evicted(i) {
			return true
		}
		return yield(i, s)
	}
	for u := range v.users {
		i, _ := v.find(u)
		if !pass(i, Serving) {
			return false
		}
	}
	for u, e := range v.early {
		if _, shown := v.users[u]; !shown && !pass(e.Instance, Serving) {
			return false
		}
	}
	for u, i := range v.critical {
		if _, found := v.find(u); !found && !pass(i, Critical) {
			return false
		}
	}
	return true
}

// fails keeps the newest of those whose checks fail, of users with no better one.
func (v *view) fails(failing []Instance) {
	for _, i := range failing {
		if _, ok := v.users[i.User]; ok {
			continue
		}
		if was, ok := v.critical[i.User]; ok && !i.newer(was) {
			continue
		}
		if v.critical == nil {
			v.critical = map[sandbox.User]Instance{}
		}
		v.critical[i.User] = i
	}
}
