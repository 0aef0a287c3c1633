// Command catalog measures the router's table with many gateways and steady
// changes on a real Consul: the CPU that following it costs, and how old a change
// is when it is seen. `go run ./test/bench/catalog -out docs/benchmarks.md` writes
// the table. Writer and Consul are processes of their own, so that the CPU is the
// catalog's alone.
package main

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	consul "github.com/hashicorp/consul/api"

	"openclaw-sandbox/internal/catalog"
	"openclaw-sandbox/internal/devcluster"
	"openclaw-sandbox/internal/sandbox"
	"openclaw-sandbox/test/bench/meter"
	"openclaw-sandbox/test/bench/table"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "bench catalog:", err)
		os.Exit(1)
	}
}

type options struct {
	instances, rate int
	duration        time.Duration
}

func run(ctx context.Context) error {
	var o options
	flag.IntVar(&o.instances, "instances", 10_000, "gateways")
	flag.IntVar(&o.rate, "rate", 50, "changes a second")
	flag.DurationVar(&o.duration, "duration", 15*time.Second, "of each measurement")
	shards := flag.String("shards", "1,128", "numbers of shards to measure")
	out := flag.String("out", "", "Markdown file whose section \"catalog\" is replaced by the table")
	write := flag.String("write", "", "be the writer: ADDRESS,SHARDS (for this program's own use)")
	flag.Parse()
	if *write != "" {
		return writer(ctx, *write, o)
	}
	text := table.Machine() + fmt.Sprintf(". %d gateways, %d changes a second for %s; CPU in %% of one core, over all of the process. One Consul server, which is also the router's agent.\n\n", o.instances, o.rate, o.duration) +
		"| shards | CPU without changes | **CPU with changes** | seen after, median | 99th of 100 | first full view |\n|---|---|---|---|---|---|\n"
	for s := range strings.SplitSeq(*shards, ",") {
		n, err := strconv.Atoi(s)
		if err != nil {
			return fmt.Errorf("-shards: %w", err)
		}
		r, err := measure(ctx, o, n)
		if err != nil {
			return fmt.Errorf("%d shards: %w", n, err)
		}
		text += fmt.Sprintf("| %d | %.1f | **%.1f** | %.1f ms | %.1f ms | %.2f s |\n", n, r.idle, r.busy, ms(r.seen, 50), ms(r.seen, 99), r.first.Seconds())
	}
	return table.Publish(*out, "catalog", text)
}

func ms(sorted []time.Duration, percent int) float64 {
	return float64(sorted[len(sorted)*percent/100]) / float64(time.Millisecond)
}

type result struct {
	idle, busy float64 // % of a core
	seen       []time.Duration
	first      time.Duration
}

func measure(ctx context.Context, o options, shards int) (r result, err error) {
	dir, err := os.MkdirTemp("", "ocs-bench-catalog-")
	if err != nil {
		return r, err
	}
	defer os.RemoveAll(dir)
	c, err := devcluster.StartConsul(ctx, dir, 0)
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, c.Stop(context.WithoutCancel(ctx))) }()

	self, err := os.Executable()
	if err != nil {
		return r, err
	}
	w := exec.CommandContext(ctx, self, "-write", fmt.Sprintf("%s,%d", c.Addr, shards), "-instances", strconv.Itoa(o.instances), "-rate", strconv.Itoa(o.rate), "-duration", o.duration.String())
	w.Stderr = os.Stderr
	said, err := w.StdoutPipe()
	if err != nil {
		return r, err
	}
	begin, err := w.StdinPipe()
	if err != nil {
		return r, err
	}
	if err := w.Start(); err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, w.Wait()) }()
	defer begin.Close() // the writer ends with it
	if _, err := bufio.NewReader(said).ReadString('\n'); err != nil {
		return r, fmt.Errorf("the writer: %w", err)
	}

	conf := consul.DefaultConfig()
	conf.Address = c.Addr
	conf.Transport.MaxIdleConnsPerHost = shards + 8 // as the router does
	conf.Transport.DisableCompression = true        // likewise
	client, err := consul.NewClient(conf)
	if err != nil {
		return r, err
	}
	watch := catalog.DefaultConfig()
	watch.Shards = shards
	cat, err := catalog.New(watch, client, slog.New(slog.DiscardHandler))
	if err != nil {
		return r, err
	}
	life, end := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer end()
	started := time.Now()
	wg.Go(func() { cat.Run(life) })
	for !cat.Ready() {
		select {
		case <-time.After(time.Millisecond):
		case <-ctx.Done():
			return r, ctx.Err()
		}
	}
	r.first = time.Since(started)
	if n := cat.Len(); n != o.instances {
		return r, fmt.Errorf("%d gateways in the table, want %d", n, o.instances)
	}
	if r.idle, err = meter.CPU(func() error { return meter.Pause(ctx, o.duration) }); err != nil {
		return r, err
	}
	changes := int(o.duration.Seconds()) * o.rate
	r.busy, err = meter.CPU(func() error {
		if _, err := io.WriteString(begin, "go\n"); err != nil {
			return err
		}
		r.seen, err = observe(ctx, cat, changes, o)
		return err
	})
	return r, err
}

// watchers is how many changes are waited for at the same time.
const watchers = 64

// observe waits for each of the writer's changes, which bears the time when it was sent.
func observe(ctx context.Context, cat *catalog.Catalog, changes int, o options) ([]time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, 3*o.duration)
	defer cancel()
	var mu sync.Mutex // guards all and failed
	var all []time.Duration
	var failed error
	var wg sync.WaitGroup
	for w := range watchers {
		wg.Go(func() {
			for n := w; n < changes; n += watchers {
				var sent int64
				_, err := cat.Wait(ctx, user(n%o.instances), func(i catalog.Instance) bool {
					sent, _ = strconv.ParseInt(i.Generation, 10, 64)
					return sent > 0
				})
				late := time.Since(time.Unix(0, sent))
				mu.Lock()
				if err != nil {
					failed = errors.Join(failed, err)
					mu.Unlock()
					return
				}
				all = append(all, late)
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	slices.Sort(all)
	return all, failed
}

func user(n int) sandbox.User { return sandbox.User("user-" + strconv.Itoa(n)) }
