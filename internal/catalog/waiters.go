package catalog

import (
	"sync"

	"openclaw-sandbox/internal/sandbox"
)

// waiters wakes those who wait for one user when that user's gateway changes, and
// nobody else: a thousand starts at once are a thousand waiters.
type waiters struct {
	mu sync.Mutex
	of map[sandbox.User]*waiter
}

type waiter struct {
	n       int           // how many wait
	changed chan struct{} // closed and replaced at each change
}

func (w *waiters) join(u sandbox.User) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.of[u] == nil {
		w.of[u] = &waiter{changed: make(chan struct{})}
	}
	w.of[u].n++
}

func (w *waiters) leave(u sandbox.User) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.of[u].n--; w.of[u].n == 0 {
		delete(w.of, u)
	}
}

// next is closed at the user's next change; only for one who has joined.
func (w *waiters) next(u sandbox.User) <-chan struct{} {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.of[u].changed
}

// tell wakes those whose user is not the same in both views.
func (w *waiters) tell(was, is *view) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for u, one := range w.of {
		before, had := was.find(u)
		after, has := is.find(u)
		if had != has || before != after {
			close(one.changed)
			one.changed = make(chan struct{})
		}
	}
}
