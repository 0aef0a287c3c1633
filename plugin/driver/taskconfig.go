package driver

import (
	"fmt"
	"net"
	"net/http"
	"strconv"
	"time"

	"github.com/hashicorp/nomad/helper/pluginutils/hclutils"
	"github.com/hashicorp/nomad/plugins/drivers"
	"github.com/hashicorp/nomad/plugins/shared/hclspec"

	"openclaw-sandbox/internal/readiness"
	"openclaw-sandbox/internal/sandbox"
	"openclaw-sandbox/plugin/runtime"
)

// TaskConfig is a task's config block.
type TaskConfig struct {
	User      string             `codec:"user"`
	Image     string             `codec:"image"`
	Command   string             `codec:"command"`
	Args      []string           `codec:"args"`
	StatePath string             `codec:"state_path"`
	Port      string             `codec:"port"`
	Ready     ReadyConfig        `codec:"ready"`
	Snapshot  TaskSnapshotConfig `codec:"snapshot"`
}

// ReadyConfig says when the task is ready.
type ReadyConfig struct {
	Path        string             `codec:"path"`
	Headers     hclutils.MapStrStr `codec:"headers"` // Nomad hands a map over as a list of maps
	Statuses    []int              `codec:"statuses"`
	Contains    string             `codec:"contains"`
	Interval    string             `codec:"interval"`
	MaxInterval string             `codec:"max_interval"`
	Timeout     string             `codec:"timeout"`
}

// TaskSnapshotConfig overrides the plugin's snapshot settings; empty keeps them.
type TaskSnapshotConfig struct {
	Interval string `codec:"interval"`
}

var taskConfigSpec = hclspec.NewObject(map[string]*hclspec.Spec{
	"user":       hclspec.NewAttr("user", "string", true),
	"image":      attr("image", "string", `"host"`),
	"command":    hclspec.NewAttr("command", "string", true),
	"args":       hclspec.NewAttr("args", "list(string)", false),
	"state_path": attr("state_path", "string", `"/state"`),
	"port":       attr("port", "string", `"gateway"`),
	"ready": block("ready", `{ path = "/startupz", headers = [], statuses = [200], contains = "", interval = "25ms", max_interval = "250ms", timeout = "120s" }`, map[string]*hclspec.Spec{
		"path":         attr("path", "string", `"/startupz"`),
		"headers":      attr("headers", "list(map(string))", "[]"),
		"statuses":     attr("statuses", "list(number)", "[200]"),
		"contains":     attr("contains", "string", `""`),
		"interval":     attr("interval", "string", `"25ms"`),
		"max_interval": attr("max_interval", "string", `"250ms"`),
		"timeout":      attr("timeout", "string", `"120s"`),
	}),
	"snapshot": block("snapshot", `{ interval = "" }`, map[string]*hclspec.Spec{
		"interval": attr("interval", "string", `""`),
	}),
})

// attemptTimeout bounds one probe: a gateway may accept and then say nothing.
const attemptTimeout = 5 * time.Second

// plan is a TaskConfig, checked and typed, for one allocation.
type plan struct {
	user     sandbox.User
	spec     runtime.Spec
	probe    readiness.Probe
	interval time.Duration
	address  string                 // of the gateway, host:port
	network  *drivers.DriverNetwork // what Nomad may advertise; nil for the node's own
}

// check returns the plan, or an error that names the field.
func (c TaskConfig) check(cfg *drivers.TaskConfig, rt runtime.Runtime, s settings) (plan, error) {
	p := plan{interval: s.interval, spec: runtime.Spec{Image: c.Image, Command: c.Command, Args: c.Args, StatePath: c.StatePath}}
	var err error
	if p.user, err = sandbox.ParseUser(c.User); err != nil {
		return p, err
	}
	if c.Command == "" {
		return p, fmt.Errorf("command: must not be empty")
	}
	if err := rt.CheckSpec(p.spec); err != nil {
		return p, err
	}
	if c.Snapshot.Interval != "" {
		if p.interval, err = duration("snapshot.interval", c.Snapshot.Interval, minInterval); err != nil {
			return p, err
		}
	}
	p.probe = readiness.Probe{Header: http.Header{}, Statuses: c.Ready.Statuses, Contains: c.Ready.Contains, AttemptTimeout: attemptTimeout}
	for k, v := range c.Ready.Headers {
		p.probe.Header.Set(k, v)
	}
	for _, f := range []struct {
		field, text string
		into        *time.Duration
	}{
		{"ready.interval", c.Ready.Interval, &p.probe.Interval},
		{"ready.max_interval", c.Ready.MaxInterval, &p.probe.MaxInterval},
		{"ready.timeout", c.Ready.Timeout, &p.probe.Timeout},
	} {
		if *f.into, err = duration(f.field, f.text, time.Millisecond); err != nil {
			return p, err
		}
	}
	if len(c.Ready.Path) == 0 || c.Ready.Path[0] != '/' {
		return p, fmt.Errorf("ready.path: want a path that begins with /, got %q", c.Ready.Path)
	}
	if err := p.locate(cfg, c.Port); err != nil {
		return p, err
	}
	p.probe.URL = "http://" + p.address + c.Ready.Path
	return p, nil
}

// locate finds the gateway's address: inside the namespace if the task has one,
// else on the node.
func (p *plan) locate(cfg *drivers.TaskConfig, label string) error {
	if addr := cfg.Env["NOMAD_ALLOC_ADDR_"+label]; addr != "" && cfg.NetworkIsolation != nil {
		host, port, err := net.SplitHostPort(addr)
		if err != nil {
			return fmt.Errorf("port: address %q of %q: %w", addr, label, err)
		}
		n, err := strconv.Atoi(port)
		if err != nil {
			return fmt.Errorf("port: address %q of %q: %w", addr, label, err)
		}
		p.address = addr
		p.network = &drivers.DriverNetwork{IP: host, PortMap: map[string]int{label: n}}
		return nil
	}
	if p.address = cfg.Env["NOMAD_ADDR_"+label]; p.address == "" {
		return fmt.Errorf("port: the group's network has no port %q", label)
	}
	return nil
}
