// Command start measures how long a first request waits for a sleeping sandbox,
// phase by phase, and beside it, in the same run and in turns, a bare start of
// the same gateway: the same start.sh, the same settings, the same Unix user, no
// Nomad, no Consul, no S3, no router. `make bench` runs it and writes the table
// into docs/benchmarks.md. It needs root on Linux.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"openclaw-sandbox/internal/devcluster"
	"openclaw-sandbox/test/bench/stack"
	"openclaw-sandbox/test/bench/table"
)

const (
	bridge       = "ocs-bench0"
	bridgeSubnet = "172.26.128.0/20"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "bench start:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	rounds := flag.Int("rounds", 5, "how often each start is measured")
	source := flag.String("source", ".", "the repository's root")
	bin := flag.String("bin", "bin", "folder of the built binaries")
	out := flag.String("out", "", "Markdown file whose section \"start\" is replaced by the table")
	flag.Parse()
	rows := map[string][]phases{}
	err := stack.With(ctx, stack.Options{Source: *source, Bin: *bin, Bridge: bridge, BridgeSubnet: bridgeSubnet}, func(s *devcluster.Stack, dir string) error {
		b := &bench{stack: s, dir: dir}
		if err := b.prepare(ctx); err != nil {
			return err
		}
		return b.measure(ctx, *rounds, rows)
	})
	if err != nil {
		return err
	}
	text := render(rows, *rounds)
	return table.Publish(*out, "start", text)
}

// measure starts gateways both ways in turns.
func (b *bench) measure(ctx context.Context, rounds int, rows map[string][]phases) error {
	for round := range rounds {
		steps := []func(context.Context, int) error{
			func(ctx context.Context, n int) error {
				user := fmt.Sprintf("bench%d", n)
				fresh, err := b.wake(ctx, user)
				if err != nil {
					return err
				}
				again, err := b.wake(ctx, user)
				rows["new user"], rows["user with state"] = append(rows["new user"], fresh), append(rows["user with state"], again)
				return err
			},
			func(ctx context.Context, n int) error {
				state := filepath.Join(b.dir, fmt.Sprintf("bare%d", n))
				fresh, err := b.bare(ctx, state)
				if err != nil {
					return err
				}
				again, err := b.bare(ctx, state)
				rows["bare, new user"], rows["bare, user with state"] = append(rows["bare, new user"], fresh), append(rows["bare, user with state"], again)
				return err
			},
		}
		if round%2 == 1 { // whoever goes first may find the machine warmer
			steps[0], steps[1] = steps[1], steps[0]
		}
		for _, step := range steps {
			if err := step(ctx, round); err != nil {
				return err
			}
		}
		fmt.Fprintf(os.Stderr, "round %d of %d done\n", round+1, rounds)
	}
	return nil
}
