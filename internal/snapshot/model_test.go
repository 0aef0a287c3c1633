package snapshot

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
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
		c.sent = func(key string, _ []byte) {
			if name, ok := strings.CutPrefix(key, segmentKey(user, "")); ok {
				w.mu.Lock()
				w.values[name] = value
				w.mu.Unlock()
			}
		}
		cap, err := run.Capture(context.Background(), root, filepath.Join(dir, "staging"))
		if err == nil {
			_, err = run.Commit(context.Background(), cap, i == saves-1)
		}
		switch {
		case err == nil:
			w.mu.Lock()
			w.acked = max(w.acked, run.Head().Seq)
			w.mu.Unlock()
		case errors.Is(err, ErrFenced):
			return
		case !isDown(err):
			w.store.violate("a save answered: %v", err)
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
		tree, err := OpenTree(context.Background(), c, &h.Head, DefaultOptions())
		if err != nil {
			w.store.violate("snapshot %d: %v", v.Seq, err)
			continue
		}
		to := filepath.Join(dir, strconv.Itoa(i))
		if err := os.MkdirAll(to, 0o700); err != nil {
			w.t.Error(err)
			return
		}
		root, err := os.OpenRoot(to)
		if err != nil {
			w.t.Error(err)
			return
		}
		if err := tree.Write(context.Background(), root, nil); err != nil {
			w.store.violate("snapshot %d: %v", v.Seq, err)
		} else {
			w.check(h.Head, root)
		}
		root.Close()
	}
}

func jsonHead(raw []byte, h *Head) error { return json.Unmarshal(raw, h) }

// warm makes the coders' channels outside of any bubble.
func warm(t *testing.T) {
	t.Helper()
	packed := encoder.EncodeAll([]byte("x"), nil)
	for _, d := range []interface {
		DecodeAll(in, out []byte) ([]byte, error)
	}{blockDecoder, metaDecoder} {
		if _, err := d.DecodeAll(packed, nil); err != nil {
			t.Fatal(err)
		}
	}
}

// scratch is a folder in memory, where there is one: schedules write many small files.
func scratch(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "snapshot-model-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func newWorld(seed uint64) *world {
	return &world{store: newSimStore(seed), rng: rand.New(rand.NewPCG(seed, 2)), grace: time.Hour, values: map[string]string{}}
}

// schedules is how many the model test explores.
func schedules(t *testing.T) uint64 {
	if n, err := strconv.ParseUint(os.Getenv("MODEL_SCHEDULES"), 10, 64); err == nil {
		return n
	}
	if testing.Short() {
		return 200
	}
	return 20_000
}

// The protocol of saves, claims, restores, compaction and tidying bears whatever
// the network, the store and the nodes do: a restore is exactly one committed
// snapshot, none older than what a save was told is committed before it began,
// only the newest epoch writes the head, and every kept snapshot stays whole. A
// failure names its seed. MODEL_SCHEDULES=n explores n schedules.
func TestModel(t *testing.T) {
	warm(t)
	dir := scratch(t)
	const shards = 4
	for shard := range uint64(shards) {
		t.Run(fmt.Sprintf("shard %d", shard), func(t *testing.T) {
			t.Parallel()
			for seed := shard; seed < schedules(t); seed += shards {
				at := filepath.Join(dir, fmt.Sprint(seed))
				if broken := newWorld(seed).play(t, at); len(broken) > 0 {
					t.Fatalf("seed %d: %s", seed, strings.Join(broken, "\n"))
				}
				os.RemoveAll(at)
			}
		})
	}
}

// The model finds the faults that it is there to find.
func TestModelFindsMutations(t *testing.T) {
	warm(t)
	dir := scratch(t)
	for name, mutate := range map[string]func(*world){
		"a store that does not honour conditions":    func(w *world) { w.store.ignoreConditions = true },
		"a store that acknowledges and loses":        func(w *world) { w.store.loseSegments = true },
		"tidying without a grace period":             func(w *world) { w.grace = 0 },
		"a run that saves though it did not restore": func(w *world) { w.saveUnrestored = true },
	} {
		t.Run(name, func(t *testing.T) {
			for seed := range uint64(3000) {
				w := newWorld(seed)
				mutate(w)
				at := filepath.Join(dir, fmt.Sprint(seed))
				broken := w.play(t, at)
				os.RemoveAll(at)
				if len(broken) > 0 {
					t.Logf("found with seed %d: %s", seed, broken[0])
					return
				}
			}
			t.Error("not found in 3000 schedules")
		})
	}
}
