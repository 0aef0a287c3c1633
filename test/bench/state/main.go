// Command state measures how fast users' states are restored and saved, beside
// rclone, s5cmd, restic, kopia and a bare tar | zstd, on one S3 server with the
// same data, in turns; also with 30 ms added to every round trip. `make
// bench-state` runs it and writes the tables into docs/benchmarks.md.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"openclaw-sandbox/internal/devcluster"
	"openclaw-sandbox/test/bench/table"
)

const (
	bucket    = "openclaw"
	accessKey = "bench"
	secretKey = "bench-secret"
	latency   = 30 * time.Millisecond // added to a round trip
)

// Names of contenders, in the order of the tables' columns.
const (
	nameOurs   = "ours"
	nameS5cmd  = "s5cmd"
	nameRclone = "rclone"
	nameRestic = "restic"
	nameKopia  = "kopia"
	nameFloor  = "tar + zstd, one object"
	nameLocal  = "tar + zstd, local file"
)

var (
	order = []string{nameOurs, nameS5cmd, nameRclone, nameRestic, nameKopia, nameFloor, nameLocal}
	peers = []string{nameS5cmd, nameRclone, nameRestic, nameKopia}
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := error(nil)
	if len(os.Args) == 6 && os.Args[1] == "child" {
		err = child(ctx, os.Args[2], os.Args[3], os.Args[4], os.Args[5])
	} else {
		err = run(ctx)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench state:", err)
		os.Exit(1)
	}
}

// bench is one run of all.
type bench struct {
	dir        string
	volume     string // the kind of file system it is on
	rounds     int
	contenders map[string]contender
	sets       []*dataset
	counter    *counter

	direct, slow string // URLs of the S3 server

	took    map[operation]map[string][]usage
	moved   map[operation]map[string]traffic
	seeded  map[string]usage // our first save of each data set
	changed int64            // what changed in A before the save that was counted, compressed
	pause   pauses
}

// operation is a row of the tables.
type operation struct {
	verb, set string
	slow      bool
}

func run(ctx context.Context) (err error) {
	rounds := flag.Int("rounds", 5, "how often each operation is measured")
	scratch := flag.String("dir", "", "where to work; the system's folder for temporary files if empty")
	out := flag.String("out", "", "Markdown file whose section \"state\" is replaced by the tables")
	only := flag.String("only", "", "measure only this contender, to try flags or a change")
	flag.Parse()
	dir, err := os.MkdirTemp(*scratch, "ocs-bench-state-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	at, what, undo, err := volume(dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, undo()) }()
	b := &bench{dir: at, volume: what, rounds: *rounds, took: map[operation]map[string][]usage{}, moved: map[operation]map[string]traffic{}, seeded: map[string]usage{}}
	if b.contenders, err = b.peers(); err != nil {
		return err
	}
	us := &ours{b: b, savers: map[string]*saver{}}
	defer us.close()
	b.contenders[nameOurs] = us
	for name := range b.contenders {
		if *only != "" && *only != name {
			delete(b.contenders, name)
		}
	}
	s3, err := devcluster.StartS3(ctx, b.path("s3"), 0, accessKey, secretKey)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s3.Stop(context.WithoutCancel(ctx))) }()
	b.direct = s3.Endpoint()
	late, err := slow(s3.Addr, latency/2)
	if err != nil {
		return err
	}
	defer late.Close()
	b.slow = "http://" + late.Addr().String()
	if b.counter, err = count(b.direct); err != nil {
		return err
	}
	defer b.counter.Close()
	for _, step := range []func(context.Context) error{b.seed, b.restores, b.saves, b.pauses} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	text := b.render()
	return table.Publish(*out, "state", text)
}

func (b *bench) path(name string) string { return filepath.Join(b.dir, name) }

func progress(format string, a ...any) {
	fmt.Fprintf(os.Stderr, time.Now().Format("15:04:05 ")+format+"\n", a...)
}

// turns calls f for every contender; whoever went first in one round goes last in
// the next.
func (b *bench) turns(round int, f func(name string, c contender) error) error {
	names := slices.Clone(order)
	if round%2 == 1 {
		slices.Reverse(names)
	}
	for _, name := range names {
		if c := b.contenders[name]; c != nil {
			if err := f(name, c); err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
		}
	}
	return nil
}

func (b *bench) seed(ctx context.Context) (err error) {
	progress("making the data")
	if b.sets, err = makeDatasets(ctx, b.path("data")); err != nil {
		return err
	}
	if err := emptied(b.path("home"), b.path("cache")); err != nil {
		return err
	}
	for _, d := range b.sets {
		progress("storing %s, %d MB", d.name, d.bytes/mega)
		if err := b.turns(0, func(_ string, c contender) error { return c.seed(ctx, d, b.direct) }); err != nil {
			return err
		}
	}
	return nil
}

// note keeps what an operation took, or, in the round through the counter, what it moved.
func (b *bench) note(op operation, name string, round int, u usage) {
	if round == 0 {
		if b.moved[op] == nil {
			b.moved[op] = map[string]traffic{}
		}
		b.moved[op][name] = b.counter.take()
		return
	}
	if b.took[op] == nil {
		b.took[op] = map[string][]usage{}
	}
	b.took[op][name] = append(b.took[op][name], u)
	progress("round %d of %d: %s %s, slow %v, %s: %.2f s", round, b.rounds, op.verb, op.set, op.slow, name, u.Wall.Seconds())
}

// ways are the URLs of a round: the first goes through the counter and warms up.
func (b *bench) ways(round int) []string {
	if round == 0 {
		return []string{b.counter.URL}
	}
	return []string{b.direct, b.slow}
}

func (b *bench) restores(ctx context.Context) error {
	into := b.path("restored")
	for round := range b.rounds + 1 {
		for _, d := range b.sets {
			for _, url := range b.ways(round) {
				err := b.turns(round, func(name string, c contender) error {
					if name == nameLocal && url == b.slow {
						return nil
					}
					if err := emptied(into); err != nil {
						return err
					}
					b.counter.take()
					u, err := c.restore(ctx, d, url, into)
					if err != nil {
						return err
					}
					b.note(operation{"restore", d.name, url == b.slow}, name, round, u)
					if round > 0 {
						return nil
					}
					return same(d.dir, into)
				})
				if err != nil {
					return err
				}
			}
		}
	}
	return os.RemoveAll(into)
}

func (b *bench) saves(ctx context.Context) error {
	sets := b.sets[:2]
	for _, d := range sets { // caches and indexes as of a program that goes on
		if err := b.turns(0, func(_ string, c contender) error { _, err := c.save(ctx, d, b.direct); return err }); err != nil {
			return err
		}
	}
	for round := range b.rounds + 1 {
		for _, d := range sets {
			for _, url := range b.ways(round) {
				content, err := d.change(ctx)
				if err != nil {
					return err
				}
				if d.name == "A" && round == 0 {
					b.changed = packed(content)
				}
				err = b.turns(round, func(name string, c contender) error {
					if name == nameLocal {
						return nil
					}
					settle()
					b.counter.take()
					u, err := c.save(ctx, d, url)
					b.note(operation{"save", d.name, url == b.slow}, name, round, u)
					return err
				})
				if err != nil {
					return err
				}
			}
		}
	}
	return nil
}
