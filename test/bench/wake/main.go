// Command wake measures what the router and Nomad add to a sandbox's own start:
// Consul, Nomad, the router and the job's registration are real, the task is
// Nomad's mock_driver, which takes a fixed time to start, and a stub answers for
// the gateways. `make bench` runs it and writes the table into docs/benchmarks.md.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/hashicorp/nomad/api"

	"openclaw-sandbox/internal/devcluster"
	"openclaw-sandbox/test/bench/table"
	"openclaw-sandbox/test/rig"
)

const (
	bridge       = "ocs-bench1"
	bridgeSubnet = "172.26.144.0/20"
	// ownStart is how long the task's own start takes.
	ownStart = 300 * time.Millisecond
	// warm wakes are not counted.
	warm = 3
	// limit of one wake.
	limit = time.Minute
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "bench wake:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) (err error) {
	wakes := flag.Int("wakes", 50, "how many sandboxes are woken, one after the other")
	source := flag.String("source", ".", "the repository's root")
	bin := flag.String("bin", "bin", "folder of the built binaries")
	out := flag.String("out", "", "Markdown file whose section \"wake\" is replaced by the table")
	flag.Parse()
	if os.Geteuid() != 0 {
		return fmt.Errorf("Nomad's client needs root")
	}
	dir, err := os.MkdirTemp("", "ocs-bench-wake-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	listeners, first, err := rig.Listen(*wakes + warm + 20)
	if err != nil {
		return err
	}
	stub := &http.Server{Handler: rig.Gateway()}
	defer stub.Close()
	for _, l := range listeners {
		go stub.Serve(l) // ends with Close
	}
	consul, err := devcluster.StartConsul(ctx, filepath.Join(dir, "consul"), 0)
	if err != nil {
		return err
	}
	stop := context.WithoutCancel(ctx)
	defer func() { err = errors.Join(err, consul.Stop(stop)) }()
	nomad, err := devcluster.StartNomad(ctx, rig.Pretending(dir, consul, bridge, bridgeSubnet, first, len(listeners)))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, nomad.Stop(stop)) }()
	if err := rig.Register(ctx, nomad.Client(), *source, ownStart); err != nil {
		return err
	}
	router, err := rig.StartRouter(ctx, rig.Options{Bin: filepath.Join(*bin, "sandbox-router"), Dir: dir, Config: `identity "dev" {}`, Consul: consul.Addr, Nomad: nomad.Addr})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, router.Stop()) }()

	var all []phases
	for n := range warm + *wakes {
		p, err := wake(ctx, nomad.Client(), router.Addr, fmt.Sprintf("user-%d", n))
		if err != nil {
			return err
		}
		if n >= warm {
			all = append(all, p)
		}
	}
	text := render(all)
	return table.Publish(*out, "wake", text)
}

// phases of a wake, without the task's own start.
type phases struct{ dispatch, place, route, added time.Duration }

// wake asks for a user who sleeps, and takes the times apart by the allocation's events.
func wake(ctx context.Context, c *api.Client, router, user string) (phases, error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+router+"/bytes?n=1", nil)
	if err != nil {
		return phases{}, err
	}
	req.Host, req.Close = user+".localhost", true
	begin := time.Now()
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return phases{}, err
	}
	defer resp.Body.Close()
	if _, err := io.ReadFull(resp.Body, make([]byte, 1)); err != nil || resp.StatusCode != http.StatusOK {
		return phases{}, fmt.Errorf("the wake of %s: %s: %w", user, resp.Status, err)
	}
	first := time.Now()
	q := (&api.QueryOptions{Prefix: "openclaw/dispatch-" + user + "-"}).WithContext(ctx)
	jobs, _, err := c.Jobs().List(q)
	if err != nil || len(jobs) != 1 {
		return phases{}, fmt.Errorf("%s has %d jobs: %w", user, len(jobs), err)
	}
	for {
		allocs, meta, err := c.Jobs().Allocations(jobs[0].ID, true, q)
		if err != nil {
			return phases{}, err
		}
		for _, a := range allocs {
			if started := event(a.TaskStates, api.TaskStarted); !started.IsZero() {
				placed := time.Unix(0, a.CreateTime)
				return phases{dispatch: placed.Sub(begin), place: started.Sub(placed) - ownStart, route: first.Sub(started), added: first.Sub(begin) - ownStart}, nil
			}
		}
		q.Prefix, q.WaitIndex, q.WaitTime = "", meta.LastIndex, 5*time.Second
	}
}

// event is when something happened to an allocation's only task.
func event(states map[string]*api.TaskState, kind string) time.Time {
	for _, s := range states {
		for _, e := range s.Events {
			if e.Type == kind {
				return time.Unix(0, e.Time)
			}
		}
	}
	return time.Time{}
}

// render makes the table.
func render(all []phases) string {
	var w strings.Builder
	fmt.Fprintf(&w, "%s. %d wakes, one after the other, of sandboxes whose own start takes %s, which is left out; in ms.\n\n", table.Machine(), len(all), ownStart)
	fmt.Fprintln(&w, "| | router and Nomad's dispatch | place, network, until the task starts | started to first byte | **added in all** |\n|---|---|---|---|---|")
	for _, part := range []struct {
		name string
		of   int
	}{{"median", 50}, {"99th of 100", 99}} {
		fmt.Fprintf(&w, "| %s |", part.name)
		for i, of := range []func(phases) time.Duration{
			func(p phases) time.Duration { return p.dispatch }, func(p phases) time.Duration { return p.place },
			func(p phases) time.Duration { return p.route }, func(p phases) time.Duration { return p.added },
		} {
			var v []time.Duration
			for _, p := range all {
				v = append(v, of(p))
			}
			slices.Sort(v)
			format := " %.0f |"
			if i == 3 {
				format = " **%.0f** |"
			}
			fmt.Fprintf(&w, format, float64(v[min(len(v)*part.of/100, len(v)-1)])/float64(time.Millisecond))
		}
		fmt.Fprintln(&w)
	}
	return w.String()
}
