// Package driver is the Nomad task driver `sandbox`. It decorates one of Nomad's
// own drivers: before the process starts it takes and restores the user's state,
// it returns from StartTask when the gateway serves, it saves while the process
// runs and once more when it has ended. Logs, stats, exec and limits are the
// inner driver's.
package driver

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/nomad/drivers/shared/eventer"
	"github.com/hashicorp/nomad/plugins/base"
	"github.com/hashicorp/nomad/plugins/drivers"
	"github.com/hashicorp/nomad/plugins/shared/hclspec"

	"openclaw-sandbox/internal/objstore"
	"openclaw-sandbox/internal/spool"
	"openclaw-sandbox/plugin/runtime"
)

const (
	pluginName    = "sandbox"
	pluginVersion = "0.1.0"
)

// Driver is the plugin. SetConfig comes before any task.
type Driver struct {
	ctx    context.Context // the plugin's life
	log    hclog.Logger
	events *eventer.Eventer

	settings settings
	store    objstore.Store
	runtime  runtime.Runtime
	spool    *spool.Spool
	spooling sync.Mutex // held while a spooled state is saved
	metrics  *metrics
	// why is what keeps this node from running sandboxes; nil if nothing does.
	why error

	mu    sync.Mutex // guards tasks; never held while anything waits
	tasks map[string]*task
}

var (
	_ drivers.DriverPlugin               = (*Driver)(nil)
	_ drivers.ExecTaskStreamingRawDriver = (*Driver)(nil)
)

// New returns the driver; ctx ends with the plugin.
func New(ctx context.Context, log hclog.Logger) *Driver {
	return &Driver{ctx: ctx, log: log.Named(pluginName), events: eventer.NewEventer(ctx, log), tasks: map[string]*task{}, metrics: newMetrics()}
}

// PluginInfo names the plugin.
func (d *Driver) PluginInfo() (*base.PluginInfoResponse, error) {
	return &base.PluginInfoResponse{Type: base.PluginTypeDriver, Name: pluginName, PluginVersion: pluginVersion,
		PluginApiVersions: []string{drivers.ApiVersion010}}, nil
}

// ConfigSchema is the plugin config's shape.
func (d *Driver) ConfigSchema() (*hclspec.Spec, error) { return configSpec, nil }

// TaskConfigSchema is a task's config block's shape.
func (d *Driver) TaskConfigSchema() (*hclspec.Spec, error) { return taskConfigSpec, nil }

// SetConfig checks the plugin's config and prepares the node. A config that can
// not be right is an error; a node that lacks something is unhealthy instead, so
// that the operator sees why.
func (d *Driver) SetConfig(c *base.Config) error {
	var config Config
	if err := base.MsgPackDecode(c.PluginConfig, &config); err != nil {
		return fmt.Errorf("plugin \"sandbox\": %w", err)
	}
	var err error
	if d.settings, err = config.check(); err != nil {
		return fmt.Errorf("plugin \"sandbox\": %w", err)
	}
	if d.store, err = objstore.Open(d.ctx, config.Store.objstore()); err != nil {
		return fmt.Errorf("plugin \"sandbox\": %w", err)
	}
	if d.runtime, err = runtime.New(d.ctx, config.Runtime, d.log); err != nil {
		return fmt.Errorf("plugin \"sandbox\": %w", err)
	}
	if err := d.runtime.Configure(c.AgentConfig); err != nil {
		return fmt.Errorf("plugin \"sandbox\": %w", err)
	}
	if d.spool, err = spool.Open(filepath.Join(d.settings.dataDir, "spool")); err != nil {
		return fmt.Errorf("plugin \"sandbox\": data_dir: %w", err)
	}
	go d.uploadSpooled() // ends with the plugin
	if d.settings.metricsFile != "" {
		go d.writeMetrics(d.settings.metricsFile) // likewise
	}
	d.forwardEvents()
	if d.why = d.prepareNode(); d.why != nil {
		d.log.Error("this node can not run sandboxes", "reason", d.why)
	}
	return nil
}

// nodeTimeout bounds what is done to the node itself.
const nodeTimeout = 10 * time.Second

func (d *Driver) prepareNode() error {
	if err := d.runtime.Check(); err != nil {
		return err
	}
	// With an image nobody but us has business below the folder: the states of
	// all users lie there. Without one the process itself must get to its own.
	mode := os.FileMode(0o700)
	if d.runtime.Name() == "raw_exec" {
		mode = 0o711
	}
	if err := errors.Join(os.MkdirAll(d.runsDir(), mode), os.Chmod(d.settings.dataDir, mode), os.Chmod(d.runsDir(), mode)); err != nil {
		return fmt.Errorf("data_dir: %w", err)
	}
	if d.settings.egress == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(d.ctx, nodeTimeout)
	defer cancel()
	if err := d.settings.egress.Apply(ctx); err != nil {
		return fmt.Errorf("egress rules: %w; install nftables, or set egress { enabled = false } if another firewall isolates sandboxes", err)
	}
	return nil
}

func (d *Driver) runsDir() string { return filepath.Join(d.settings.dataDir, "run") }

// Capabilities are the runtime's.
func (d *Driver) Capabilities() (*drivers.Capabilities, error) { return d.runtime.Capabilities() }

func (d *Driver) inner() drivers.DriverPlugin { return d.runtime.Inner() }

func (d *Driver) task(id string) (*task, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if t := d.tasks[id]; t != nil {
		return t, nil
	}
	return nil, drivers.ErrTaskNotFound
}

func (d *Driver) keep(t *task) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.tasks[t.cfg.ID] = t
}

func (d *Driver) forget(id string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.tasks, id)
}

// TaskStats are the inner driver's.
func (d *Driver) TaskStats(ctx context.Context, id string, interval time.Duration) (<-chan *drivers.TaskResourceUsage, error) {
	return d.inner().TaskStats(ctx, id, interval)
}

// inShell has a shell look the command up. A command that libcontainer itself
// does not find leaves its start waiting for input that nobody closes, with the
// container's lock held; a shell says "not found" and ends with 127.
func inShell(cmd []string) []string {
	return append([]string{"/bin/sh", "-c", `exec "$@"`, "sh"}, cmd...)
}

// ExecTask is the inner driver's, by a shell.
func (d *Driver) ExecTask(id string, cmd []string, timeout time.Duration) (*drivers.ExecTaskResult, error) {
	if err := d.awake(id); err != nil {
		return nil, err
	}
	return d.inner().ExecTask(id, inShell(cmd), timeout)
}

// ExecTaskStreamingRaw is the inner driver's, by a shell.
func (d *Driver) ExecTaskStreamingRaw(ctx context.Context, id string, cmd []string, tty bool, stream drivers.ExecTaskStream) error {
	if err := d.awake(id); err != nil {
		return err
	}
	s, ok := d.inner().(drivers.ExecTaskStreamingRawDriver)
	if !ok {
		return fmt.Errorf("runtime %s has no interactive exec", d.runtime.Name())
	}
	return s.ExecTaskStreamingRaw(ctx, id, inShell(cmd), tty, stream)
}
