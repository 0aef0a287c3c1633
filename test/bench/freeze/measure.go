package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/hashicorp/nomad/api"

	"openclaw-sandbox/internal/devcluster"
	"openclaw-sandbox/internal/pause"
	"openclaw-sandbox/test/bench/table"
)

const (
	user = "bench"
	// limit bounds a start, and each step of a freeze.
	limit = 3 * time.Minute
	// settle is how long nothing may change before it counts as over.
	settle = 2 * time.Second
	// idle and still are how many bytes a sandbox's memory changes by meanwhile when it
	// has nothing to do, and when it is frozen: who else uses its pages comes and goes.
	idle, still = 64 << 20, 8 << 20
)

// memory of a sandbox's processes, in bytes: what is in RAM (PSS), and in the swap.
type memory struct{ ram, swap int64 }

// figures of one freeze.
type figures struct {
	running, frozen memory
	thaw            time.Duration // from a request at the router to the first byte of its answer
}

type bench struct {
	stack *devcluster.Stack
	alloc *api.Allocation
}

// prepare wakes a sandbox, and has it used once.
func prepare(ctx context.Context, stack *devcluster.Stack) (*bench, error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	b := &bench{stack: stack}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+stack.Routers[0]+"/api/chat", strings.NewReader(`{"message":"hello"}`))
	if err != nil {
		return nil, err
	}
	req.Host = host(stack)
	req.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if body, err := io.ReadAll(resp.Body); err != nil || resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("the first chat: %s %.300s: %v", resp.Status, body, err)
	}
	entries, _, err := stack.Consul.Client().Health().Service("openclaw-gateway", "", false, nil)
	if err != nil || len(entries) != 1 {
		return nil, fmt.Errorf("%d gateways in Consul: %v", len(entries), err)
	}
	b.alloc, _, err = stack.Nomad.Client().Allocations().Info(entries[0].Service.Meta["generation"], (&api.QueryOptions{}).WithContext(ctx))
	return b, err
}

// freeze freezes the sandbox, waits until its memory was pushed out if that is asked
// for, and thaws it.
func (b *bench) freeze(ctx context.Context, push bool) (f figures, err error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	if _, err = b.steady(ctx, settle, idle); err != nil { // what the last one began is over
		return f, err
	}
	if f.running, err = b.memory(); err != nil {
		return f, err
	}
	if err := b.signal(ctx, "SIGSTOP"); err != nil {
		return f, err
	}
	if f.frozen, err = b.memory(); err != nil {
		return f, err
	}
	if push {
		if !pause.For(ctx, pageOutAfter) {
			return f, ctx.Err()
		}
		if f.frozen, err = b.steady(ctx, 2*settle, still); err != nil {
			return f, err
		}
	}
	if err := b.frozen(ctx); err != nil { // the router has heard of it
		return f, err
	}
	begin := time.Now()
	resp, err := b.ask(ctx, "/healthz")
	if err != nil {
		return f, err
	}
	f.thaw = time.Since(begin)
	resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return f, fmt.Errorf("/healthz: %s", resp.Status)
	}
	return f, nil
}

// ask sends a request for the sandbox to the router.
func (b *bench) ask(ctx context.Context, path string) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+b.stack.Routers[0]+path, nil)
	if err != nil {
		return nil, err
	}
	req.Host = host(b.stack)
	return http.DefaultClient.Do(req)
}

func host(stack *devcluster.Stack) string {
	_, port, _ := net.SplitHostPort(stack.Routers[0])
	return user + ".localhost:" + port
}

// frozen waits until the router says that the sandbox is.
func (b *bench) frozen(ctx context.Context) error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		resp, err := b.ask(ctx, "/api/status")
		if err != nil {
			return err
		}
		var is struct{ Status string }
		err = json.NewDecoder(resp.Body).Decode(&is)
		resp.Body.Close()
		if err != nil || is.Status == "frozen" {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("the router says %q of the frozen sandbox: %w", is.Status, ctx.Err())
		}
	}
}

func (b *bench) signal(ctx context.Context, name string) error {
	if err := b.stack.Nomad.Client().Allocations().Signal(b.alloc, (&api.QueryOptions{}).WithContext(ctx), "gateway", name); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

// steady waits until the memory in RAM has not changed by more than slack for a while.
func (b *bench) steady(ctx context.Context, quiet time.Duration, slack int64) (memory, error) {
	tick := time.NewTicker(quiet)
	defer tick.Stop()
	last, err := b.memory()
	for err == nil {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return last, fmt.Errorf("its memory, %d MB, goes on changing: %w", last.ram>>20, ctx.Err())
		}
		var now memory
		if now, err = b.memory(); err == nil && max(now.ram-last.ram, last.ram-now.ram) <= slack {
			return now, nil
		}
		last = now
	}
	return last, err
}

// memory adds up the sandbox's processes: those in its cgroups.
func (b *bench) memory() (m memory, err error) {
	groups, err := filepath.Glob("/proc/[0-9]*/cgroup")
	if err != nil {
		return m, err
	}
	found := 0
	for _, g := range groups {
		text, err := os.ReadFile(g)
		if err != nil || !strings.Contains(string(text), b.alloc.ID) {
			continue // it has ended, or is somebody else's
		}
		rollup, err := os.ReadFile(filepath.Join(filepath.Dir(g), "smaps_rollup"))
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ESRCH) {
			continue
		} else if err != nil {
			return m, err
		}
		found++
		for line := range strings.Lines(string(rollup)) {
			f := strings.Fields(line)
			if len(f) != 3 {
				continue
			}
			kb, err := strconv.ParseInt(f[1], 10, 64)
			switch {
			case err != nil:
			case f[0] == "Pss:":
				m.ram += kb << 10
			case f[0] == "SwapPss:":
				m.swap += kb << 10
			}
		}
	}
	if found == 0 {
		return m, errors.New("the sandbox has no processes")
	}
	return m, nil
}

// render makes the table: medians, and the range of the thaw.
func render(rows map[string][]figures, rounds int) string {
	var w strings.Builder
	fmt.Fprintf(&w, "%s. One gateway after its first chat, alone on the node; medians of %d.\n\n", table.Machine(), rounds)
	fmt.Fprintln(&w, "| | running, MB | **frozen, MB in RAM** | MB in swap | **first request at the router to first byte, ms** | min – max |")
	fmt.Fprintln(&w, "|---|---|---|---|---|---|")
	for _, name := range []string{"frozen", "frozen, pushed out, no swap", "frozen, pushed out to swap"} {
		m := func(of func(figures) int64) int64 {
			var v []int64
			for _, f := range rows[name] {
				v = append(v, of(f))
			}
			return table.Median(v)
		}
		var thaws []int64
		for _, f := range rows[name] {
			thaws = append(thaws, f.thaw.Milliseconds())
		}
		fmt.Fprintf(&w, "| %s | %d | **%d** | %d | **%d** | %d – %d |\n", name, m(func(f figures) int64 { return f.running.ram })>>20,
			m(func(f figures) int64 { return f.frozen.ram })>>20, m(func(f figures) int64 { return f.frozen.swap })>>20,
			table.Median(thaws), slices.Min(thaws), slices.Max(thaws))
	}
	return w.String()
}
