package devcluster

import (
	"bytes"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"text/template"

	nomad "github.com/hashicorp/nomad/api"
)

// NomadOptions describe a single Nomad agent that is server and client.
type NomadOptions struct {
	Dir          string   // data, config and log
	Port         int      // HTTP; 0 is a free one
	ConsulAddr   string   // empty for none
	PluginDir    string   // where the binary `sandbox` is; empty for none
	PluginConfig string   // HCL text inside plugin "sandbox" { config { … } }
	Bridge       string   // name of the bridge for sandboxes
	BridgeSubnet string   // its IPv4 subnet
	Env          []string // further environment, for the driver
	ClientConfig string   // HCL text inside client { … }
}

// Nomad is one running agent.
type Nomad struct {
	Addr string // host:port of its HTTP API
	opts NomadOptions
	// ownBridge: the bridge was named by our caller. Nomad's default one may be that
	// of a real agent of this machine, and is left alone.
	ownBridge bool
	args      []string
	p         *process
	api       *nomad.Client
}

//go:embed nomad.hcl.tmpl
var nomadConfig string

// StartNomad starts an agent and waits until its node can run tasks.
func StartNomad(ctx context.Context, o NomadOptions) (*Nomad, error) {
	ports, err := FreePorts(3)
	if err != nil {
		return nil, err
	}
	if o.Port == 0 {
		o.Port = ports[0]
	}
	ours := o.Bridge != ""
	if !ours {
		o.Bridge, o.BridgeSubnet = "nomad", "172.26.64.0/20"
	}
	if err := os.MkdirAll(o.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("nomad: %w", err)
	}
	var text bytes.Buffer
	err = template.Must(template.New("nomad").Parse(nomadConfig)).Execute(&text, map[string]any{
		"O": o, "RPC": ports[1], "Serf": ports[2], "DataDir": filepath.Join(o.Dir, "data"),
	})
	if err != nil {
		return nil, fmt.Errorf("nomad config: %w", err)
	}
	file := filepath.Join(o.Dir, "nomad.hcl")
	// The plugin's config holds the store's credentials.
	if err := os.WriteFile(file, text.Bytes(), 0o600); err != nil {
		return nil, fmt.Errorf("nomad config: %w", err)
	}
	n := &Nomad{Addr: net.JoinHostPort("127.0.0.1", strconv.Itoa(o.Port)), opts: o, ownBridge: ours, args: []string{"agent", "-config=" + file}}
	if n.api, err = nomad.NewClient(&nomad.Config{Address: "http://" + n.Addr}); err != nil {
		return nil, fmt.Errorf("nomad client: %w", err)
	}
	n.sweep() // of an earlier run that was killed
	return n, n.Start(ctx)
}

// Start starts a stopped agent again; its tasks, which went on, are recovered.
func (n *Nomad) Start(ctx context.Context) error {
	bin, err := Tool("nomad")
	if err != nil {
		return err
	}
	if n.p, err = startProcess("Nomad", filepath.Join(n.opts.Dir, "nomad.log"), agentEnv(append(n.opts.Env, mark(n.opts.Dir))...), bin, n.args...); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, agentStart)
	defer cancel()
	if err = n.p.waitReady(ctx, n.ready); err != nil {
		n.p.kill()
	}
	return err
}

// ready is nil when the node is ready and has the driver, if it was given one.
func (n *Nomad) ready(ctx context.Context) error {
	nodes, _, err := n.Client().Nodes().List((&nomad.QueryOptions{}).WithContext(ctx))
	if err != nil {
		return err
	}
	if len(nodes) == 0 || nodes[0].Status != nomad.NodeStatusReady {
		return errors.New("its node has not joined yet")
	}
	if n.opts.PluginDir == "" {
		return nil
	}
	d := nodes[0].Drivers["sandbox"]
	if d == nil || !d.Healthy {
		why := "not detected"
		if d != nil {
			why = d.HealthDescription
		}
		return fmt.Errorf("the sandbox driver is not healthy: %s", why)
	}
	return nil
}

// Stop ends the agent. Tasks go on: stop the jobs first.
func (n *Nomad) Stop(ctx context.Context) error {
	if n == nil {
		return nil
	}
	err := n.p.stop(ctx)
	n.sweep()
	return err
}

// Restart stops the agent and starts it again, with its tasks running meanwhile.
func (n *Nomad) Restart(ctx context.Context) error {
	if err := n.p.stop(ctx); err != nil {
		return err
	}
	return n.Start(ctx)
}

// Crash kills the agent, and nothing but it, and starts it again.
func (n *Nomad) Crash(ctx context.Context) error {
	n.p.cmd.Process.Kill()
	<-n.p.done
	return n.Start(ctx)
}

// Client is a client of this Nomad, whatever the environment says.
func (n *Nomad) Client() *nomad.Client { return n.api }

// sweep removes what Nomad leaves behind on purpose for its next start: tasks that
// nobody stopped and their helpers, mounts in its folder, networks.
func (n *Nomad) sweep() {
	killStrays(mark(n.opts.Dir))
	if os.Geteuid() != 0 {
		return
	}
	unmountUnder(n.opts.Dir)
	if n.ownBridge {
		sweepNetwork(n.opts.Bridge, n.opts.BridgeSubnet)
	}
}

// unmountUnder detaches the mounts in a folder.
func unmountUnder(dir string) {
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return // not Linux
	}
	lines := strings.Split(string(mounts), "\n")
	for i := len(lines) - 1; i >= 0; i-- { // the last mounted first
		if f := strings.Fields(lines[i]); len(f) > 1 && strings.HasPrefix(f[1], dir+"/") {
			unmount(f[1])
		}
	}
}
