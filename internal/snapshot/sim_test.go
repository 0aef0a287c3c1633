package snapshot

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"openclaw-sandbox/internal/objstore"
)

// simStore is an object store of a simulated world: it is linearizable, as S3 is,
// and everything else goes wrong. What it does is drawn from a seed; time is that
// of a synctest bubble.
type simStore struct {
	// Faults that the protocol does not bear: mutations that the test must find.
	ignoreConditions, loseSegments bool

	mu      sync.Mutex // guards what follows
	rng     *rand.Rand
	objects map[string]simObject
	writes  int
	epoch   uint64 // of the head
	broken  []string
}

type simObject struct {
	body []byte
	etag string
}

func newSimStore(seed uint64) *simStore {
	return &simStore{rng: rand.New(rand.NewPCG(seed, 1)), objects: map[string]simObject{}}
}

// violate notes that an invariant does not hold.
func (s *simStore) violate(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.broken = append(s.broken, fmt.Sprintf(format, args...))
}

// put is the write itself, at one point in time.
func (s *simStore) put(key string, body []byte, cond objstore.Condition) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	have, ok := s.objects[key]
	etag := ""
	if ok {
		etag = have.etag
	}
	if !cond.Holds(ok, etag) && !s.ignoreConditions {
		return "", objstore.ErrPrecondition
	}
	if s.loseSegments && strings.Contains(key, "/seg/") && s.rng.IntN(8) == 0 {
		return "lost", nil
	}
	s.writes++
	etag = strconv.Itoa(s.writes)
	s.objects[key] = simObject{body, etag}
	if strings.HasSuffix(key, "/head") {
		var h Head
		if err := jsonHead(body, &h); err != nil || h.Epoch < s.epoch {
			s.broken = append(s.broken, fmt.Sprintf("a head of epoch %d was written after one of epoch %d (%v)", h.Epoch, s.epoch, err))
		}
		s.epoch = h.Epoch
	}
	return etag, nil
}

// simClient is one process's way to the store.
type simClient struct {
	*simStore
	rng   *rand.Rand
	chaos float64 // how likely a request goes wrong
	calls sync.Mutex
	dead  bool
	sent  func(key string, body []byte) // before a write
}

var errDead = fmt.Errorf("the process was killed: %w", objstore.ErrUnreachable)

// fate of one request.
type fate int

const (
	fine    fate = iota
	refused      // it never arrives
	muted        // it is done, the answer gets lost
	late         // the answer gets lost, and it is done later, if it still can be
	killed       // the process is killed while it is under way
)

// draw decides on a request, and lets time pass.
func (c *simClient) draw() fate {
	c.calls.Lock()
	if c.dead {
		c.calls.Unlock()
		return killed
	}
	wait := time.Duration(c.rng.ExpFloat64() * float64(200*time.Millisecond))
	f := fine
	if c.rng.Float64() < c.chaos {
		f = fate(1 + c.rng.IntN(4))
	}
	if f == killed {
		c.dead = true
	}
	c.calls.Unlock()
	time.Sleep(wait)
	return f
}

func (c *simClient) Put(_ context.Context, key string, body io.ReadSeeker, cond objstore.Condition) (string, error) {
	b, err := io.ReadAll(body)
	if err != nil {
		return "", err
	}
	if c.sent != nil {
		c.sent(key, b)
	}
	switch c.draw() {
	case fine:
		return c.put(key, b, cond)
	case muted:
		c.put(key, b, cond)
	case late, killed:
		c.calls.Lock()
		wait := time.Duration(c.rng.Int64N(int64(5 * time.Minute)))
		lost := c.rng.IntN(2) == 0
		c.calls.Unlock()
		if !lost {
			go func() { time.Sleep(wait); c.put(key, b, cond) }() // the bubble waits for it
		}
	}
	return "", objstore.ErrUnreachable
}

func (c *simClient) Upload(ctx context.Context, key string, body io.Reader) error {
	b, err := io.ReadAll(body)
	if err == nil {
		_, err = c.Put(ctx, key, bytes.NewReader(b), objstore.Condition{})
	}
	return err
}

func (c *simClient) get(key string) (simObject, error) {
	if c.draw() != fine {
		return simObject{}, objstore.ErrUnreachable
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	o, ok := c.objects[key]
	if !ok {
		return o, objstore.ErrNotFound
	}
	return o, nil
}

func (c *simClient) Get(_ context.Context, key string) (io.ReadCloser, objstore.Info, error) {
	o, err := c.get(key)
	return io.NopCloser(bytes.NewReader(o.body)), objstore.Info{Key: key, Size: int64(len(o.body)), ETag: o.etag}, err
}

func (c *simClient) GetRange(_ context.Context, key string, off, n int64) (io.ReadCloser, error) {
	o, err := c.get(key)
	if err != nil {
		return nil, err
	}
	return io.NopCloser(bytes.NewReader(o.body[min(off, int64(len(o.body))):min(off+n, int64(len(o.body)))])), nil
}

func (c *simClient) Delete(_ context.Context, key string) error {
	if f := c.draw(); f != fine && f != muted {
		return objstore.ErrUnreachable
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.objects, key)
	return nil
}

func (c *simClient) List(_ context.Context, prefix string) iter.Seq2[objstore.Info, error] {
	return func(yield func(objstore.Info, error) bool) {
		if c.draw() != fine {
			yield(objstore.Info{}, objstore.ErrUnreachable)
			return
		}
		c.mu.Lock()
		objects := maps.Clone(c.objects)
		c.mu.Unlock()
		for _, key := range slices.Sorted(maps.Keys(objects)) {
			if strings.HasPrefix(key, prefix) && !yield(objstore.Info{Key: key, Size: int64(len(objects[key].body)), ETag: objects[key].etag}, nil) {
				return
			}
		}
	}
}

func isDown(err error) bool { return errors.Is(err, objstore.ErrUnreachable) }
