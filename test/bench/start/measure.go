package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/hashicorp/nomad/api"

	"openclaw-sandbox/internal/devcluster"
	"openclaw-sandbox/internal/sandbox"
	"openclaw-sandbox/test/bench/table"
)

// startLimit bounds one start.
const startLimit = 3 * time.Minute

// phases of a start; total is what a caller waits for the first byte.
type phases struct{ dispatch, place, restore, gateway, route, total time.Duration }

type bench struct {
	stack *devcluster.Stack
	dir   string
	env   []string // of a gateway
	conf  []byte   // the operator's settings, as the job renders them
}

// prepare wakes one sandbox, to warm the machine's caches and to learn what a
// bare gateway is to be started with.
func (b *bench) prepare(ctx context.Context) error {
	const user = "bench"
	if _, err := b.ask(ctx, user); err != nil {
		return err
	}
	alloc, err := b.alloc(ctx, user)
	if err != nil {
		return err
	}
	read := func(cmd ...string) (string, error) {
		var out bytes.Buffer
		code, err := b.stack.Nomad.Client().Allocations().Exec(ctx, alloc, "gateway", false, cmd, strings.NewReader(""), &out, io.Discard, nil, nil)
		if err != nil || code != 0 {
			return "", fmt.Errorf("read the gateway's settings: code %d: %w", code, err)
		}
		return out.String(), nil
	}
	env, err := read("env")
	if err != nil {
		return err
	}
	for line := range strings.Lines(env) {
		if name, _, _ := strings.Cut(line, "="); !strings.HasPrefix(name, "NOMAD_") && !strings.HasPrefix(name, "SANDBOX_STATE") {
			b.env = append(b.env, strings.TrimSpace(line))
		}
	}
	conf, err := read("cat", "/local/gateway.json")
	b.conf = []byte(conf)
	if err != nil {
		return err
	}
	return b.stop(ctx, user)
}

// ask sends a request for a user's sandbox, as a program would, and returns when
// the gateway's first byte is there.
func (b *bench) ask(ctx context.Context, user string) (time.Time, error) {
	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+b.stack.Routers[0]+"/startupz", nil)
		if err != nil {
			return time.Time{}, err
		}
		_, port, _ := net.SplitHostPort(b.stack.Routers[0])
		req.Host = user + ".localhost:" + port
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			return time.Time{}, err
		}
		first := time.Now()
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err == nil && resp.StatusCode == http.StatusOK {
			return first, nil
		}
		if resp.StatusCode != http.StatusServiceUnavailable {
			return first, fmt.Errorf("the request for %s: %s %.200s", user, resp.Status, body)
		}
	}
}

// wake measures a first request, from the events of the start that it caused, and
// puts the sandbox to sleep again.
func (b *bench) wake(ctx context.Context, user string) (phases, error) {
	begin := time.Now()
	first, err := b.ask(ctx, user)
	if err != nil {
		return phases{}, err
	}
	alloc, at, err := b.events(ctx, user)
	if err != nil {
		return phases{}, err
	}
	placed := time.Unix(0, alloc.CreateTime)
	return phases{
		dispatch: placed.Sub(begin), place: at[sandbox.PhaseClaiming].Sub(placed), restore: at[sandbox.PhaseStarting].Sub(at[sandbox.PhaseClaiming]),
		gateway: at[sandbox.PhaseReady].Sub(at[sandbox.PhaseStarting]), route: first.Sub(at[sandbox.PhaseReady]), total: first.Sub(begin),
	}, b.stop(ctx, user)
}

// events are the times of a start's phases, once the server has all of them: the
// node sends them in batches.
func (b *bench) events(ctx context.Context, user string) (*api.Allocation, map[sandbox.Phase]time.Time, error) {
	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	alloc, err := b.alloc(ctx, user)
	if err != nil {
		return nil, nil, err
	}
	for {
		at := map[sandbox.Phase]time.Time{}
		if ts := alloc.TaskStates["gateway"]; ts != nil {
			for _, e := range ts.Events {
				if p, ok := sandbox.FromAnnotations(e.Details, e.DisplayMessage); ok {
					at[p.Phase] = time.Unix(0, e.Time)
				}
			}
		}
		if !at[sandbox.PhaseClaiming].IsZero() && !at[sandbox.PhaseStarting].IsZero() && !at[sandbox.PhaseReady].IsZero() {
			return alloc, at, nil
		}
		if alloc, _, err = b.stack.Nomad.Client().Allocations().Info(alloc.ID, (&api.QueryOptions{WaitIndex: alloc.ModifyIndex, WaitTime: 5 * time.Second}).WithContext(ctx)); err != nil {
			return nil, nil, fmt.Errorf("the start of %s lacks events: %w", user, err)
		}
	}
}

// alloc is the newest allocation of a user.
func (b *bench) alloc(ctx context.Context, user string) (*api.Allocation, error) {
	c := b.stack.Nomad.Client()
	q := (&api.QueryOptions{}).WithContext(ctx)
	list, _, err := c.Allocations().List(q)
	if err != nil {
		return nil, err
	}
	slices.SortFunc(list, func(a, b *api.AllocationListStub) int { return int(b.CreateIndex) - int(a.CreateIndex) })
	for _, stub := range list {
		a, _, err := c.Allocations().Info(stub.ID, q)
		if err != nil {
			return nil, err
		}
		if a.Job != nil && a.Job.Meta["user"] == user {
			return a, nil
		}
	}
	return nil, fmt.Errorf("no allocation of %s", user)
}

// stop ends a user's sandbox and waits until it has saved.
func (b *bench) stop(ctx context.Context, user string) error {
	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	a, err := b.alloc(ctx, user)
	if err != nil {
		return err
	}
	if _, _, err := b.stack.Nomad.Client().Jobs().Deregister(a.JobID, false, (&api.WriteOptions{}).WithContext(ctx)); err != nil {
		return err
	}
	for a.TaskStates["gateway"].State != "dead" {
		if a, _, err = b.stack.Nomad.Client().Allocations().Info(a.ID, (&api.QueryOptions{WaitIndex: a.ModifyIndex, WaitTime: 5 * time.Second}).WithContext(ctx)); err != nil {
			return err
		}
	}
	return nil
}

// bare starts the gateway without anything around it, with the state in a folder
// that is made if need be, and stops it when it serves.
func (b *bench) bare(ctx context.Context, state string) (_ phases, err error) {
	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	local := state + "-local"
	if err := errors.Join(os.MkdirAll(state, 0o700), os.MkdirAll(local, 0o700), os.WriteFile(filepath.Join(local, "gateway.json"), b.conf, 0o644)); err != nil {
		return phases{}, err
	}
	const nobody = 65534
	if err := errors.Join(os.Chown(state, nobody, nobody), os.Chown(local, nobody, nobody)); err != nil {
		return phases{}, err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return phases{}, err
	}
	addr := l.Addr().String()
	l.Close()
	_, port, _ := net.SplitHostPort(addr)
	cmd := exec.Command(filepath.Join(b.stack.Dir(), "libexec", "start.sh"))
	cmd.Env = append(slices.Clone(b.env), "SANDBOX_STATE="+state, "NOMAD_TASK_DIR="+local, "SANDBOX_PORT="+port, "PATH="+os.Getenv("PATH"))
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	var log bytes.Buffer
	cmd.Stdout, cmd.Stderr = &log, &log
	begin := time.Now()
	if err := cmd.Start(); err != nil {
		return phases{}, err
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	defer func() {
		syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM)
		select {
		case <-ended:
		case <-time.After(20 * time.Second):
			syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
			<-ended
		}
	}()
	for {
		select {
		case err := <-ended:
			ended <- err
			return phases{}, fmt.Errorf("the bare gateway ended: %w\n%s", err, log.String())
		case <-ctx.Done():
			return phases{}, fmt.Errorf("the bare gateway is not ready: %w", ctx.Err())
		case <-time.After(25 * time.Millisecond): // as often as the driver asks at first
		}
		if serves(ctx, addr) {
			took := time.Since(begin)
			return phases{gateway: took, total: took}, nil
		}
	}
}

func serves(ctx context.Context, addr string) bool {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr+"/startupz", nil)
	if err != nil {
		return false
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return false
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 1<<16))
	return err == nil && bytes.Contains(body, []byte(`"started"`))
}

// render makes the table: medians of each phase, and the range of the total.
func render(rows map[string][]phases, rounds int) string {
	var w strings.Builder
	fmt.Fprintf(&w, "%s. Medians of %d, in seconds; \"bare\" is the same gateway by start.sh alone, measured in turns with the others.\n\n", table.Machine(), rounds)
	fmt.Fprintln(&w, "| start | router and Nomad's dispatch | place, network | claim, restore | gateway until ready | Consul, route, first byte | **first request to first byte** | min – max |")
	fmt.Fprintln(&w, "|---|---|---|---|---|---|---|---|")
	for _, name := range []string{"new user", "bare, new user", "user with state", "bare, user with state"} {
		m := func(of func(phases) time.Duration) string {
			var v []time.Duration
			for _, p := range rows[name] {
				v = append(v, of(p))
			}
			return fmt.Sprintf("%.2f", table.Median(v).Seconds())
		}
		var totals []time.Duration
		for _, p := range rows[name] {
			totals = append(totals, p.total)
		}
		fmt.Fprintf(&w, "| %s | %s | %s | %s | %s | %s | **%s** | %.2f – %.2f |\n", name,
			m(func(p phases) time.Duration { return p.dispatch }), m(func(p phases) time.Duration { return p.place }), m(func(p phases) time.Duration { return p.restore }),
			m(func(p phases) time.Duration { return p.gateway }), m(func(p phases) time.Duration { return p.route }), m(func(p phases) time.Duration { return p.total }),
			slices.Min(totals).Seconds(), slices.Max(totals).Seconds())
	}
	return w.String()
}
