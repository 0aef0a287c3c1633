// Package activity knows when clients last used each sandbox, and who of them is
// connected. A Tracker notes it in one router; a Board lets routers tell each other,
// without believing each other's clocks.
package activity

import (
	"hash/fnv"
	"sync"
	"time"

	"openclaw-sandbox/internal/sandbox"
)

// Kind is what a client did.
type Kind uint8

// The kinds. What a page does by itself, what gateways send, and pings are none of
// them: a forgotten tab does all that.
const (
	None    Kind = iota
	Page         // a person opened a page
	Call         // a program's request
	Message      // data over a WebSocket
)

var kindNames = [...]string{None: "nothing", Page: "a page", Call: "a call", Message: "a message"}

func (k Kind) String() string {
	if int(k) < len(kindNames) {
		return kindNames[k]
	}
	return kindNames[None]
}

// Mark is what is known of a user's clients.
type Mark struct {
	Last    time.Time // of the last activity; zero if none is known
	Kind    Kind      // of it
	Left    time.Time // when the last client went; zero if none did
	Clients int       // connected: WebSockets, and requests that are being answered
	Working int       // of these, requests that count as activity until they are answered
	Waiting int       // of Clients, requests of either kind, at this router
}

// Merge is what two routers know together.
func (m Mark) Merge(o Mark) Mark {
	if o.Last.After(m.Last) {
		m.Last, m.Kind = o.Last, o.Kind
	}
	if o.Left.After(m.Left) {
		m.Left = o.Left
	}
	m.Clients += o.Clients
	m.Working += o.Working
	return m
}

// buckets is how many parts a router's marks have on the board.
const buckets = 64

// keepFor is how long a user without clients is remembered.
const keepFor = 24 * time.Hour

// Tracker notes what the clients of this router do. Its methods may be called from
// anywhere, and return at once.
type Tracker struct {
	of [buckets]bucket
}

type bucket struct {
	mu      sync.Mutex // guards what follows
	marks   map[sandbox.User]*Mark
	version uint64 // goes up with each change
}

// NewTracker returns a tracker that knows of nobody.
func NewTracker() *Tracker {
	t := &Tracker{}
	for i := range t.of {
		t.of[i].marks = map[sandbox.User]*Mark{}
	}
	return t
}

func bucketOf(u sandbox.User) int {
	h := fnv.New32a()
	h.Write([]byte(u))
	return int(h.Sum32() % buckets)
}

// change lets f change the user's mark.
func (t *Tracker) change(u sandbox.User, f func(*Mark)) {
	b := &t.of[bucketOf(u)]
	b.mu.Lock()
	defer b.mu.Unlock()
	m := b.marks[u]
	if m == nil {
		m = &Mark{}
		b.marks[u] = m
	}
	f(m)
	b.version++
}

// Note notes that a client of the user's sandbox did something; None is nothing.
func (t *Tracker) Note(u sandbox.User, k Kind) {
	if k == None {
		return
	}
	now := time.Now()
	t.change(u, func(m *Mark) { m.Last, m.Kind = now, k })
}

// Open notes a WebSocket, and Close its end.
func (t *Tracker) Open(u sandbox.User) { t.change(u, func(m *Mark) { m.Clients++ }) }

// Close ends what Open began.
func (t *Tracker) Close(u sandbox.User) {
	now := time.Now()
	t.change(u, func(m *Mark) { m.leave(now) })
}

func (m *Mark) leave(now time.Time) {
	if m.Clients--; m.Clients == 0 {
		m.Left = now
	}
}

// Enter notes a request, which is activity until it is answered unless its kind is
// None. Leave is its end.
func (t *Tracker) Enter(u sandbox.User, k Kind) {
	now := time.Now()
	t.change(u, func(m *Mark) {
		m.Clients++
		m.Waiting++
		if k != None {
			m.Working++
			m.Last, m.Kind = now, k
		}
	})
}

// Leave ends what Enter began, with the same kind.
func (t *Tracker) Leave(u sandbox.User, k Kind) {
	now := time.Now()
	t.change(u, func(m *Mark) {
		m.leave(now)
		m.Waiting--
		if k != None {
			m.Working--
			m.Last, m.Kind = now, k
		}
	})
}

// Mark is what this router knows of a user.
func (t *Tracker) Mark(u sandbox.User) Mark {
	b := &t.of[bucketOf(u)]
	b.mu.Lock()
	defer b.mu.Unlock()
	if m := b.marks[u]; m != nil {
		return *m
	}
	return Mark{}
}

// adopt takes over what a router knew that is gone.
func (t *Tracker) adopt(u sandbox.User, m Mark) {
	m.Clients, m.Working = 0, 0
	t.change(u, func(own *Mark) { *own = own.Merge(m) })
}

// copyOf is a part of the marks and its version; it forgets whom nobody asks for
// any more.
func (t *Tracker) copyOf(n int) (map[sandbox.User]Mark, uint64) {
	b := &t.of[n]
	b.mu.Lock()
	defer b.mu.Unlock()
	out := make(map[sandbox.User]Mark, len(b.marks))
	for u, m := range b.marks {
		if m.Clients == 0 && time.Since(m.Last) > keepFor && time.Since(m.Left) > keepFor {
			delete(b.marks, u)
			continue
		}
		out[u] = *m
	}
	return out, b.version
}

// changed is the version of a part.
func (t *Tracker) changed(n int) uint64 {
	b := &t.of[n]
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.version
}
