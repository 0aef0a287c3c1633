// Package rig is what the benchmarks of the router and its tests with many users stand
// on: real routers, with a real Consul, before stub gateways, and a real Nomad that
// only pretends to run them.
package rig

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	consul "github.com/hashicorp/consul/api"

	"openclaw-sandbox/internal/catalog"
	"openclaw-sandbox/internal/devcluster"
)

const (
	// readyLimit bounds a start of the router.
	readyLimit = 30 * time.Second
	// stopLimit bounds its end, before it is killed.
	stopLimit = 20 * time.Second
)

// Route registers the gateway of a user at addr (host:port), as Nomad would, and
// returns when Consul has it.
func Route(ctx context.Context, c *devcluster.Consul, user, addr string) error {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return err
	}
	n, err := strconv.Atoi(port)
	if err != nil {
		return err
	}
	name := catalog.DefaultConfig().Service
	if err := c.Client().Agent().ServiceRegisterOpts(&consul.AgentServiceRegistration{ID: "gateway-" + user, Name: name, Address: host, Port: n,
		Meta: map[string]string{"user": user, "generation": "g1-" + user, "node": "rig"}}, consul.ServiceRegisterOpts{}.WithContext(ctx)); err != nil {
		return fmt.Errorf("register the gateway: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, readyLimit)
	defer cancel()
	q := (&consul.QueryOptions{WaitTime: time.Second}).WithContext(ctx)
	for {
		entries, meta, err := c.Client().Health().Service(name, "", true, q)
		if err != nil {
			return fmt.Errorf("see the gateway registered: %w", err)
		}
		for _, e := range entries {
			if e.Service.Meta["user"] == user && e.Service.Port == n {
				return nil
			}
		}
		q.WaitIndex = meta.LastIndex
	}
}

// Router is one router process.
type Router struct {
	Addr    string // host:port of its listener
	Metrics string // of /metrics
	Pid     int
	Log     string // its file
	cmd     *exec.Cmd
	ended   chan error
}

// Options of a router.
type Options struct {
	Bin    string // the binary
	Dir    string // for its config and log; it must exist
	Config string // HCL: who may enter, and what else is not the default
	Consul string // host:port
	Shards int    // 0 is 1
	Nomad  string // host:port; empty where nothing wakes
}

// StartRouter starts a router and returns when it has its view of Consul.
func StartRouter(ctx context.Context, o Options) (*Router, error) {
	addrs, err := FreeAddrs(3)
	if err != nil {
		return nil, err
	}
	r := &Router{Addr: addrs[0], Metrics: addrs[1], ended: make(chan error, 1), Log: filepath.Join(o.Dir, "router.log")}
	if o.Nomad == "" {
		o.Nomad = addrs[2] // where nobody listens
	}
	// No limits: all clients have one address, and there are more than any user has.
	const limits = "limits {\n requests_per_minute_per_user = 0\n requests_per_minute_per_address = 0\n websockets_per_user = 0\n connections_per_address = 0\n max_connections = 0\n}\n"
	text := limits + fmt.Sprintf("listen = %q\nmetrics_listen = %q\ndrain_delay = \"0s\"\ndrain_timeout = \"5s\"\n%s\nconsul {\n address = %q\n shards = %d\n}\nnomad { address = %q }\n",
		r.Addr, r.Metrics, o.Config, o.Consul, max(o.Shards, 1), "http://"+o.Nomad)
	file := filepath.Join(o.Dir, "router.hcl")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		return nil, err
	}
	log, err := os.Create(r.Log)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	r.cmd = exec.Command(o.Bin, "-config", file)
	r.cmd.Stdout, r.cmd.Stderr = log, log
	r.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := r.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start the router: %w", err)
	}
	r.Pid = r.cmd.Process.Pid
	go func() { r.ended <- r.cmd.Wait() }()
	ctx, cancel := context.WithTimeout(ctx, readyLimit)
	defer cancel()
	for !answers(ctx, "http://"+r.Addr+"/_sandbox/readyz") {
		select {
		case err := <-r.ended:
			r.ended <- err
			return nil, fmt.Errorf("the router ended: %w; see %s", err, r.Log)
		case <-ctx.Done():
			r.Kill()
			return nil, fmt.Errorf("the router is not ready: %w; see %s", ctx.Err(), r.Log)
		case <-time.After(20 * time.Millisecond):
		}
	}
	return r, nil
}

// Scrape returns the router's metrics, each under its name and labels as they are written.
func (r *Router) Scrape() (map[string]float64, error) {
	resp, err := http.Get("http://" + r.Metrics + "/metrics")
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	m := map[string]float64{}
	lines := bufio.NewScanner(resp.Body)
	for lines.Scan() {
		if i := strings.LastIndexByte(lines.Text(), ' '); i > 0 && lines.Text()[0] != '#' {
			if v, err := strconv.ParseFloat(lines.Text()[i+1:], 64); err == nil {
				m[lines.Text()[:i]] = v
			}
		}
	}
	return m, lines.Err()
}

// Stop drains the router.
func (r *Router) Stop() error {
	r.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case err := <-r.ended:
		return err
	case <-time.After(stopLimit):
		r.Kill()
		return fmt.Errorf("the router did not end within %s", stopLimit)
	}
}

// Kill ends the router without a chance to tidy up.
func (r *Router) Kill() {
	r.cmd.Process.Kill()
	r.ended <- <-r.ended // so that it can be told again
}

func answers(ctx context.Context, url string) bool {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return false
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return false
	}
	resp.Body.Close()
	return resp.StatusCode == http.StatusOK
}

// FreeAddrs are n addresses of 127.0.0.1 that nobody listens on.
func FreeAddrs(n int) ([]string, error) {
	ports, err := devcluster.FreePorts(n)
	if err != nil {
		return nil, err
	}
	var all []string
	for _, port := range ports {
		all = append(all, net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
	}
	return all, nil
}
