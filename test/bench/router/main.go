// Command router measures what the router costs beside other proxies: CPU time per
// request of the proxy's processes, latency, and memory and descriptors of idle
// WebSockets. Ours is the real binary with a real Consul, and checks a token and
// looks its route up for each request; the others have one fixed route and let
// everybody in. `make bench-router` runs it and writes the tables into
// docs/benchmarks.md. It needs Linux.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"openclaw-sandbox/internal/devcluster"
	"openclaw-sandbox/test/bench/table"
	"openclaw-sandbox/test/rig"
)

// wantedIdle WebSockets, where the limit on descriptors allows them.
const wantedIdle = 10000

func main() {
	stub := flag.String("stub", "", "internal: be the stub gateway on these addresses")
	reverse := flag.String("reverseproxy", "", "internal: be a ReverseProxy, address and upstream")
	b := bench{samples: map[string]map[string][]sample{}, added: map[string][]time.Duration{}, idle: map[string]idleCost{}}
	flag.IntVar(&b.rounds, "rounds", 5, "how often each load is measured")
	flag.DurationVar(&b.duration, "duration", 1500*time.Millisecond, "how long each load is measured, each time")
	only := flag.String("peers", "", "only these, separated by commas, besides ours and nginx")
	bin := flag.String("bin", "bin", "folder of the built binaries")
	out := flag.String("out", "", "Markdown file whose section \"router\" is replaced by the tables")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	var err error
	switch {
	case *stub != "":
		err = serveStub(*stub)
	case *reverse != "":
		err = serveReverseProxy(*reverse)
	default:
		err = b.run(ctx, *bin, *only, *out)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench router:", err)
		os.Exit(1)
	}
}

// bench holds what was measured, by row and peer.
type bench struct {
	rounds   int
	duration time.Duration
	idling   int // how many idle WebSockets

	peers   []peer
	stubs   []string // the stub's address for each peer
	samples map[string]map[string][]sample
	added   map[string][]time.Duration
	idle    map[string]idleCost
	parts   []part
}

func (b *bench) run(ctx context.Context, bin, only, out string) (err error) {
	bin, err = filepath.Abs(bin)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "ocs-bench-router-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return err
	}
	files := int(min(limit.Max, 65536))
	// Two each, and some for the rest, in hundreds.
	b.idling = min(wantedIdle, (files/2-100)/100*100)
	consul, err := devcluster.StartConsul(ctx, filepath.Join(dir, "consul"), 0)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, consul.Stop(context.WithoutCancel(ctx))) }()
	b.peers = slices.DeleteFunc(peers(bin, consul, files), func(p peer) bool {
		return only != "" && p.name != "ours" && p.name != "nginx" && !slices.Contains(strings.Split(only, ","), p.name)
	})
	stop, err := b.startStubs()
	if err != nil {
		return err
	}
	defer stop()
	if b.parts, err = parts(ctx, consul); err != nil {
		return err
	}
	for round := range b.rounds {
		order := make([]int, len(b.peers))
		for i := range order {
			order[i] = i
			if round%2 == 1 { // whoever goes first may find the machine in another mood
				order[i] = len(order) - 1 - i
			}
		}
		for _, i := range order {
			if err := b.turn(ctx, i, filepath.Join(dir, fmt.Sprintf("%d-%d", round, i)), round == 0); err != nil {
				return fmt.Errorf("%s: %w", b.peers[i].name, err)
			}
		}
		fmt.Fprintf(os.Stderr, "round %d of %d done\n", round+1, b.rounds)
	}
	text := b.render()
	return table.Publish(out, "router", text)
}

// startStubs starts the stub gateway as a process of its own.
func (b *bench) startStubs() (stop func(), err error) {
	if b.stubs, err = rig.FreeAddrs(len(b.peers)); err != nil {
		return nil, err
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(self, "-stub", strings.Join(b.stubs, ","))
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	return func() { cmd.Process.Kill(); cmd.Wait() }, nil
}

// turn measures one peer, in a fresh process, with every load.
func (b *bench) turn(ctx context.Context, i int, dir string, first bool) (err error) {
	p := b.peers[i]
	start := func() (*server, error) {
		if err := os.MkdirAll(dir, 0o711); err != nil {
			return nil, err
		}
		return p.start(ctx, dir, b.stubs[i])
	}
	if first {
		s, err := start()
		if err != nil {
			return err
		}
		b.idle[p.name], err = idle(ctx, s, b.idling)
		if err = errors.Join(err, s.stop()); err != nil {
			return fmt.Errorf("idle WebSockets: %w", err)
		}
	}
	s, err := start()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.stop()) }()
	for _, r := range rows {
		got, err := load(ctx, s.pid, b.duration, func(n int) (client, error) { return r.dial(ctx, s.addr, n) })
		if err != nil {
			return fmt.Errorf("%s: %w", r.name, err)
		}
		if b.samples[r.name] == nil {
			b.samples[r.name] = map[string][]sample{}
		}
		b.samples[r.name][p.name] = append(b.samples[r.name][p.name], got)
	}
	added, err := stream(ctx, s.addr, b.stubs[i], streams)
	b.added[p.name] = append(b.added[p.name], added)
	return err
}

// streams is how many event streams are opened each time, and as many without proxy.
const streams = 100

// row is a kind of load.
type row struct {
	name string
	dial func(ctx context.Context, addr string, n int) (client, error)
}

var rows = []row{
	{"HTTP, 1 KB", get(1 << 10)},
	{"HTTP, 256 KB", get(256 << 10)},
	{"WebSocket, echo of 128 B", echoes(128)},
	{"WebSocket, echo of 64 KB", echoes(64 << 10)},
}

func get(n int) func(context.Context, string, int) (client, error) {
	return func(_ context.Context, addr string, _ int) (client, error) {
		return dialHTTP(addr, fmt.Sprintf("/bytes?n=%d", n), n)
	}
}

func echoes(size int) func(context.Context, string, int) (client, error) {
	return func(ctx context.Context, addr string, n int) (client, error) {
		c, err := rig.Dial(ctx, addr, n, socketHeader())
		if err != nil {
			return nil, err
		}
		return &echoer{c, make([]byte, size)}, nil
	}
}
