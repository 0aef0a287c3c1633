package catalog

import (
	"maps"
	"sync"
	"time"

	"openclaw-sandbox/internal/sandbox"
)

// endedFor is how long an ended generation is remembered after Consul showed it last.
// It is longer than a blocking query takes, which repeats what Consul shows.
const endedFor = time.Hour

// ended remembers generations whose process has ended, so that no registration that
// Consul has not removed yet brings their route back.
type ended struct {
	mu sync.Mutex
	at map[string]time.Time // by generation: when it ended, or was shown last
}

func (e *ended) add(generation string, now time.Time) {
	e.mu.Lock()
	defer e.mu.Unlock()
	maps.DeleteFunc(e.at, func(_ string, at time.Time) bool { return now.Sub(at) > endedFor })
	e.at[generation] = now
}

func (e *ended) has(generation string) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	_, ok := e.at[generation]
	return ok
}

// shown is has for a generation that Consul shows: it is remembered for longer then.
func (e *ended) shown(generation string) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	_, ok := e.at[generation]
	if ok {
		e.at[generation] = time.Now()
	}
	return ok
}

// End removes the route of a generation whose allocation has ended, whatever Consul shows
// or cannot show: the node may give its address to another user's gateway at any moment.
// The generation is not believed again.
func (c *Catalog) End(generation string) {
	if generation == "" {
		return
	}
	c.ended.add(generation, time.Now())
	for s := range c.all {
		s.end(generation)
	}
}

func (s *shard) end(generation string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	was := s.view.Load()
	if was == nil {
		return
	}
	is, found := *was, false
	is.users, found = without(was.users, generation, found)
	is.critical, found = without(was.critical, generation, found)
	for u, e := range was.early {
		if e.Generation == generation {
			is.early = maps.Clone(was.early)
			delete(is.early, u)
			found = true
		}
	}
	if found {
		s.replace(was, &is)
	}
}

// without is m without the instance of a generation, and whether it was there or found
// was set before.
func without(m map[sandbox.User]Instance, generation string, found bool) (map[sandbox.User]Instance, bool) {
	for u, i := range m {
		if i.Generation == generation {
			out := maps.Clone(m)
			delete(out, u)
			return out, true
		}
	}
	return m, found
}
