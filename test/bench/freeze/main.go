// Command freeze measures what a frozen sandbox costs and how soon it answers again:
// the memory of the real gateway while it runs, frozen, and frozen and pushed out of
// RAM, without swap and with a swap file that it makes, and beside each how long
// the first request at the router waits for its answer's first byte. `make bench` runs it and writes
// the table into docs/benchmarks.md. It needs root on Linux.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"openclaw-sandbox/internal/devcluster"
	"openclaw-sandbox/test/bench/stack"
	"openclaw-sandbox/test/bench/table"
)

const (
	bridge       = "ocs-bench2"
	bridgeSubnet = "172.26.160.0/20"
	// pageOutAfter leaves time to thaw a sandbox that is still in RAM.
	pageOutAfter = 10 * time.Second
	swapSize     = "4G"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "bench freeze:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	rounds := flag.Int("rounds", 5, "how often each freeze is measured")
	source := flag.String("source", ".", "the repository's root")
	bin := flag.String("bin", "bin", "folder of the built binaries")
	out := flag.String("out", "", "Markdown file whose section \"freeze\" is replaced by the table")
	flag.Parse()
	rows := map[string][]figures{}
	err := stack.With(ctx, stack.Options{Source: *source, Bin: *bin, Bridge: bridge, BridgeSubnet: bridgeSubnet,
		DriverConfig: fmt.Sprintf("freeze {\n  page_out_after = %q\n}", pageOutAfter.String())}, func(s *devcluster.Stack, dir string) error {
		b, err := prepare(ctx, s)
		if err != nil {
			return err
		}
		return b.measure(ctx, dir, *rounds, rows)
	})
	if err != nil {
		return err
	}
	text := render(rows, *rounds)
	return table.Publish(*out, "freeze", text)
}

// measure freezes gateways in each way. A swap file lies in dir.
func (b *bench) measure(ctx context.Context, dir string, rounds int, rows map[string][]figures) error {
	for _, way := range []struct {
		name       string
		push, swap bool
	}{{"frozen", false, false}, {"frozen, pushed out, no swap", true, false}, {"frozen, pushed out to swap", true, true}} {
		if way.swap {
			off, err := swapOn(ctx, filepath.Join(dir, "swap"))
			if err != nil {
				return err
			}
			defer off()
		}
		for round := range rounds {
			f, err := b.freeze(ctx, way.push)
			if err != nil {
				return fmt.Errorf("%s: %w", way.name, err)
			}
			rows[way.name] = append(rows[way.name], f)
			fmt.Fprintf(os.Stderr, "%s: round %d of %d done\n", way.name, round+1, rounds)
		}
	}
	return nil
}

// swapOn gives the machine a swap file until off is called.
func swapOn(ctx context.Context, file string) (off func(), err error) {
	const script = `fallocate -l "$2" "$1" && chmod 600 "$1" && mkswap -q "$1" && swapon "$1"`
	if text, err := exec.CommandContext(ctx, "sh", "-c", script, "sh", file, swapSize).CombinedOutput(); err != nil {
		return nil, fmt.Errorf("make a swap file: %w: %s", err, text)
	}
	return func() {
		if text, err := exec.Command("swapoff", file).CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "swapoff: %v: %s\n", err, text)
		}
	}, nil
}
