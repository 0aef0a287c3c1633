package snapshot

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

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
	return &world{store: newSimStore(seed), rng: rand.New(rand.NewPCG(seed, 2)), grace: time.Hour, values: map[string]string{}, branches: map[string]string{}}
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
