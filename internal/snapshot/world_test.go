package snapshot

import (
	"context"
	"encoding/json"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"openclaw-sandbox/internal/objstore"
)

// world is one user whose sandbox is started, saved, killed, resumed and started
// elsewhere, all at the same time, over a store where everything goes wrong; and
// somebody tidies meanwhile. Every state is a number, in two files that change
// together. See design notes in docs/architecture.md, "The fence".
type world struct {
	t     *testing.T
	store *simStore
	rng   *rand.Rand
	grace time.Duration
	// saveUnrestored is a mutation: a run whose restore failed saves all the same.
	saveUnrestored bool

	mu     sync.Mutex        // guards what follows
	values map[string]string // the number that each segment was made of
	last   int               // the last number
	acked  uint64            // the highest sequence that a save was told is committed
	// branches are those that a node was told are kept, and their number.
	branches map[string]string
}

const (
	simRuns  = 4  // starts of the user, overlapping
	simSaves = 4  // of a run, at most
	simChaos = .1 // of requests go wrong
)

// play runs one schedule and returns what it broke.
func (w *world) play(t *testing.T, dir string) []string {
	synctest.Test(t, func(t *testing.T) {
		w.t = t
		var wg sync.WaitGroup
		for i := range simRuns {
			rng := rand.New(rand.NewPCG(w.rng.Uint64(), uint64(i)))
			begin := time.Duration(rng.Int64N(int64(20 * time.Second)))
			wg.Go(func() {
				time.Sleep(begin)
				w.start(rng, filepath.Join(dir, strconv.Itoa(i)))
			})
		}
		tidy := rand.New(rand.NewPCG(w.rng.Uint64(), 99))
		wg.Go(func() {
			c := &simClient{simStore: w.store, rng: tidy, chaos: simChaos / 2}
			for range 6 {
				time.Sleep(time.Duration(tidy.Int64N(int64(20 * time.Second))))
				c.dead = false
				Tidy(context.Background(), c, user, TidyOptions{Retention: Retention{Last: 1}, Grace: w.grace})
			}
		})
		wg.Wait()
		time.Sleep(time.Hour) // what was late has arrived
		for range 3 {         // all that is not needed goes
			if _, err := Tidy(context.Background(), &simClient{simStore: w.store, rng: tidy}, user, TidyOptions{Retention: Retention{Last: 1}, Grace: w.grace}); err != nil && !errors.Is(err, objstore.ErrNotFound) {
				w.store.violate("tidy: %v", err)
			}
			time.Sleep(2 * time.Hour)
		}
		w.end(filepath.Join(dir, "end"))
	})
	return w.store.broken
}

func (w *world) client(rng *rand.Rand) *simClient {
	c := &simClient{simStore: w.store, rng: rng, chaos: simChaos}
	return c
}

func (w *world) options(dir string) Options {
	o := DefaultOptions()
	o.MaxSegments, o.Parallel, o.IndexFile, o.Retention.Every = 3, 2, filepath.Join(dir, "index"), 0
	return o
}

// start is one start of the user's sandbox, and its life.
func (w *world) start(rng *rand.Rand, dir string) {
	state := filepath.Join(dir, "state")
	if err := os.MkdirAll(state, 0o700); err != nil {
		w.t.Error(err)
		return
	}
	root, err := os.OpenRoot(state)
	if err != nil {
		w.t.Error(err)
		return
	}
	defer root.Close()
	c := w.client(rng)
	w.mu.Lock()
	acked := w.acked
	w.mu.Unlock()
	run, err := Claim(context.Background(), c, user, Writer{Alloc: filepath.Base(dir)}, w.options(dir))
	if err != nil {
		return
	}
	head := run.Head()
	if head.Seq < acked {
		w.store.violate("a start got snapshot %d after %d was committed", head.Seq, acked)
	}
	err = run.Restore(context.Background(), root, nil)
	if err != nil {
		if errors.Is(err, ErrCorrupt) {
			w.store.violate("a restore found: %v", err)
		}
		if !w.saveUnrestored {
			return
		}
		run.restored = true
	} else {
		w.check(head, root)
		if head.Seq == 0 {
			if err := root.WriteFile("kept", []byte("since the beginning"), 0o600); err != nil {
				w.t.Error(err)
			}
		}
	}
	w.live(rng, c, run, root, dir)
}

// live changes and saves, and is killed and resumed now and then.
func (w *world) live(rng *rand.Rand, c *simClient, run *Run, root *os.Root, dir string) {
	var err error
	saves := 1 + rng.IntN(simSaves)
	for i := 0; i < saves; i++ {
		time.Sleep(time.Duration(rng.Int64N(int64(3 * time.Second))))
		w.mu.Lock()
		w.last++
		value := strconv.Itoa(w.last)
		w.mu.Unlock()
		for _, f := range []string{"a", "b"} {
			if err := root.WriteFile(f, []byte(value), 0o600); err != nil {
				w.t.Error(err)
			}
		}
		w.sending(c, value)
		final := i == saves-1
		var cap *Capture
		if final {
			cap, err = run.Still(context.Background(), root)
		} else {
			cap, err = run.Capture(context.Background(), root, filepath.Join(dir, "staging"))
		}
		if err == nil {
			_, err = run.Commit(context.Background(), cap, final)
		}
		switch {
		case err == nil:
			w.mu.Lock()
			w.acked = max(w.acked, run.Head().Seq)
			w.mu.Unlock()
		case errors.Is(err, ErrFenced):
			w.settle(rng, run.Memento(), root, dir, value)
			return
		case !isDown(err):
			w.store.violate("a save answered: %v", err)
		}
		if err != nil && final && rng.IntN(2) == 0 { // the state waits on the node, which comes back
			w.settle(rng, run.Memento(), root, dir, value)
			return
		}
		if !c.dead {
			continue
		}
		// The process was killed: another goes on with what it had on disk, or nobody does.
		if rng.IntN(2) == 0 {
			return
		}
		if rng.IntN(2) == 0 {
			os.Remove(filepath.Join(dir, "index"))
		}
		c = w.client(rng)
		if run, err = Resume(context.Background(), c, run.Memento(), w.options(dir)); err != nil {
			return
		}
	}
}

// sending notes what the segments that c sends are made of.
func (w *world) sending(c *simClient, value string) {
	c.sent = func(key string, _ []byte) {
		if name, ok := strings.CutPrefix(key, segmentKey(user, "")); ok {
			w.mu.Lock()
			w.values[name] = value
			w.mu.Unlock()
		}
	}
}

// simTries is how often a node tries to send what waits on it. More would be needed
// once in 10^20 schedules.
const simTries = 60

// settle sends what a run left behind, as its node does for as long as it takes: as
// the run's last snapshot, or, if another has taken over, as a branch.
func (w *world) settle(rng *rand.Rand, m Memento, root *os.Root, dir, value string) {
	ctx := context.Background()
	for range simTries {
		time.Sleep(time.Duration(rng.Int64N(int64(30 * time.Second))))
		c := w.client(rng)
		w.sending(c, value)
		run, err := Resume(ctx, c, m, w.options(dir))
		if err == nil {
			var cap *Capture
			if cap, err = run.Still(ctx, root); err == nil {
				_, err = run.Commit(ctx, cap, true)
			}
		}
		branch := ""
		if errors.Is(err, ErrFenced) {
			branch, err = Branch(ctx, c, m, Writer{Alloc: filepath.Base(dir)}, root, w.options(dir))
		}
		if err != nil {
			if !isDown(err) {
				w.store.violate("what waited on a node: %v", err)
				return
			}
			continue
		}
		w.mu.Lock()
		defer w.mu.Unlock()
		if branch != "" {
			w.branches[branch] = value
		} else {
			w.acked = max(w.acked, run.Head().Seq)
		}
		return
	}
	w.store.violate("what waited on a node was never taken")
}

// check holds what was restored against what was saved.
func (w *world) check(h Head, root *os.Root) {
	var got [2]string
	for i, f := range []string{"a", "b"} {
		b, err := root.ReadFile(f)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			w.t.Error(err)
		}
		got[i] = string(b)
	}
	want := ""
	if n := len(h.Segments); n > 0 {
		w.mu.Lock()
		want = w.values[h.Segments[n-1].Name]
		w.mu.Unlock()
	}
	if _, err := root.Stat("kept"); err != nil && h.Seq > 0 {
		w.store.violate("snapshot %d of epoch %d lost what was never removed", h.Seq, h.Epoch)
	}
	if got != [2]string{want, want} {
		w.store.violate("snapshot %d of epoch %d restored as %q, it was saved as %q", h.Seq, h.Epoch, got, want)
	}
}

// end looks at the store when all is quiet: the newest and every kept snapshot
// are whole, and nothing committed is lost.
func (w *world) end(dir string) {
	c := &simClient{simStore: w.store, rng: rand.New(rand.NewPCG(1, 1))}
	versions, err := Versions(context.Background(), c, user)
	if errors.Is(err, objstore.ErrNotFound) {
		return // nobody got as far as a claim
	}
	if err != nil {
		w.store.violate("list the versions: %v", err)
		return
	}
	for i, v := range versions {
		h, _, err := readHead(context.Background(), c, user, v.key)
		if err != nil {
			w.store.violate("snapshot %d: %v", v.Seq, err)
			continue
		}
		if v.Newest && h.Seq < w.acked {
			w.store.violate("the newest is snapshot %d, but %d was committed", h.Seq, w.acked)
		}
		w.whole(c, &h.Head, filepath.Join(dir, strconv.Itoa(i)))
	}
	for name, value := range w.branches {
		h, err := ReadBranch(context.Background(), c, user, name)
		if err != nil {
			w.store.violate("branch %s: %v", name, err)
			continue
		}
		if got := w.values[h.Segments[0].Name]; got != value {
			w.store.violate("branch %s has %s, its run had %s", name, got, value)
		}
		w.whole(c, h, filepath.Join(dir, name))
	}
}

// whole restores a snapshot into a folder and checks what comes out.
func (w *world) whole(c *simClient, h *Head, to string) {
	tree, err := OpenTree(context.Background(), c, h, DefaultOptions())
	if err != nil {
		w.store.violate("snapshot %d of epoch %d: %v", h.Seq, h.Epoch, err)
		return
	}
	if err := os.MkdirAll(to, 0o700); err != nil {
		w.t.Error(err)
		return
	}
	root, err := os.OpenRoot(to)
	if err != nil {
		w.t.Error(err)
		return
	}
	defer root.Close()
	if err := tree.Write(context.Background(), root, nil); err != nil {
		w.store.violate("snapshot %d of epoch %d: %v", h.Seq, h.Epoch, err)
		return
	}
	w.check(*h, root)
}

func jsonHead(raw []byte, h *Head) error { return json.Unmarshal(raw, h) }
