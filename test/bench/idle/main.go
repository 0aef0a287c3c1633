// Command idle measures what it costs a router to know who is idle: to note what its
// clients do, to tell the other routers, and, at the one that is the reaper, to look
// at everybody each period. Consul is real, and two further routers tell what their
// clients do; both are processes of their own, so that the CPU is one router's alone.
// `go run ./test/bench/idle -out docs/benchmarks.md` writes the table.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"sync"
	"syscall"
	"time"

	consul "github.com/hashicorp/consul/api"

	"openclaw-sandbox/internal/activity"
	"openclaw-sandbox/internal/catalog"
	"openclaw-sandbox/internal/devcluster"
	"openclaw-sandbox/internal/idle"
	"openclaw-sandbox/internal/sandbox"
	"openclaw-sandbox/test/bench/meter"
	"openclaw-sandbox/test/bench/table"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "bench idle:", err)
		os.Exit(1)
	}
}

type options struct {
	users, rate int
	duration    time.Duration
}

func run(ctx context.Context) error {
	var o options
	flag.IntVar(&o.users, "users", 10_000, "sandboxes that run")
	flag.IntVar(&o.rate, "rate", 100, "users a second who do something, at each router")
	flag.DurationVar(&o.duration, "duration", time.Minute, "of each measurement")
	out := flag.String("out", "", "Markdown file whose section \"idle\" is replaced by the table")
	other := flag.String("be", "", "be the other routers, with Consul at ADDRESS (for this program's own use)")
	flag.Parse()
	if *other != "" {
		return others(ctx, *other, o)
	}
	text, err := measure(ctx, o)
	if err != nil {
		return err
	}
	return table.Publish(*out, "idle", text)
}

func measure(ctx context.Context, o options) (_ string, err error) {
	dir, err := os.MkdirTemp("", "ocs-bench-idle-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(dir)
	c, err := devcluster.StartConsul(ctx, dir, 0)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, c.Stop(context.WithoutCancel(ctx))) }()
	self, err := os.Executable()
	if err != nil {
		return "", err
	}
	child := exec.CommandContext(ctx, self, "-be", c.Addr, "-users", strconv.Itoa(o.users), "-rate", strconv.Itoa(o.rate))
	child.Stderr = os.Stderr
	alive, err := child.StdinPipe()
	if err != nil {
		return "", err
	}
	if err := child.Start(); err != nil {
		return "", err
	}
	defer func() { alive.Close(); child.Wait() }()

	f := fleet(o.users)
	r, err := newRouter("measured", c.Addr, f)
	if err != nil {
		return "", err
	}
	life, end := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer end()
	wg.Go(func() { r.board.Run(life) })
	wg.Go(func() { r.use(life, o, 0) })
	told, err := meter.CPU(func() error { return meter.Pause(ctx, o.duration) })
	if err != nil {
		return "", err
	}
	wg.Go(func() { r.reaper.Run(life) })
	for !r.reaper.Holds() {
		if err := meter.Pause(ctx, time.Millisecond); err != nil {
			return "", err
		}
	}
	before := r.board.Writes()
	reaps, err := meter.CPU(func() error { return meter.Pause(ctx, o.duration) })
	if err != nil {
		return "", err
	}
	writes := float64(r.board.Writes()-before) / o.duration.Minutes()
	view, err := r.board.Read(ctx)
	if err != nil {
		return "", err
	}
	return table.Machine() + fmt.Sprintf(". %d sandboxes, three routers with one Consul server; at each %d users a second do something. CPU of one router's process in %% of one core, %s each.\n\n", o.users, o.rate, o.duration) +
		"| | |\n|---|---|\n" +
		fmt.Sprintf("| note and tell what clients do | %.2f %% |\n| **the same, and be the reaper** | **%.2f %%** |\n| transactions that each router writes to Consul | %.1f a minute |\n| routers that were seen | %d |\n", told, reaps, writes, view.Routers), nil
}

// router is what one router knows and does about idle sandboxes.
type router struct {
	*activity.Tracker
	board  *activity.Board
	reaper *idle.Reaper
}

func newRouter(name, consulAddr string, f fleet) (*router, error) {
	cc, err := consul.NewClient(&consul.Config{Address: consulAddr})
	if err != nil {
		return nil, err
	}
	log := slog.New(slog.NewTextHandler(io.Discard, nil))
	told := activity.DefaultConfig()
	told.Name = name
	r := &router{Tracker: activity.NewTracker()}
	r.board = activity.NewBoard(told, cc, r.Tracker, log)
	c := idle.DefaultConfig()
	// Nobody is frozen or stopped: to do that is the gateways' and Nomad's work.
	c.Policy = idle.Policy{FreezeAfter: 24 * time.Hour, StopAfter: 48 * time.Hour}
	r.reaper = idle.New(c, cc, r.board, f, f, f, log, nil)
	return r, nil
}

// use lets users do something, one after the other, until ctx ends.
func (r *router) use(ctx context.Context, o options, from int) {
	tick := time.NewTicker(time.Second / time.Duration(o.rate))
	defer tick.Stop()
	for n := from; ; n++ {
		select {
		case <-tick.C:
			r.Note(user(n%o.users), activity.Message)
		case <-ctx.Done():
			return
		}
	}
}

// others are two more routers, until this process's parent ends.
func others(ctx context.Context, consulAddr string, o options) error {
	ctx, end := context.WithCancel(ctx)
	go func() { io.Copy(io.Discard, os.Stdin); end() }()
	var wg sync.WaitGroup
	for n := range 2 {
		r, err := newRouter(fmt.Sprintf("other-%d", n), consulAddr, fleet(o.users))
		if err != nil {
			return err
		}
		for u := range o.users { // all were here before
			r.Note(user(u), activity.Call)
		}
		wg.Go(func() { r.board.Run(ctx) })
		wg.Go(func() { r.use(ctx, o, n*o.users/3) })
	}
	wg.Wait()
	return nil
}

// fleet is so many sandboxes that run and that nobody touches.
type fleet int

func (f fleet) Ready() bool { return true }

func (f fleet) Running(yield func(catalog.Instance, catalog.State) bool) {
	for n := range int(f) {
		u := user(n)
		if !yield(catalog.Instance{User: u, Generation: "allocation-of-" + string(u), Job: "j"}, catalog.Serving) {
			return
		}
	}
}

func (f fleet) Freeze(context.Context, catalog.Instance) error { return errors.New("unexpected") }
func (f fleet) Stop(context.Context, catalog.Instance) error   { return errors.New("unexpected") }
func (f fleet) Wake(sandbox.User)                              {}

func (f fleet) Probe(context.Context, catalog.Instance) (idle.Rest, error) {
	return idle.Rest{}, errors.New("unexpected")
}

func user(n int) sandbox.User { return sandbox.User("user-" + strconv.Itoa(n)) }
