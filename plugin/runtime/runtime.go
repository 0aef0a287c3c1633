// Package runtime holds what runs a sandbox's process: one of Nomad's own task
// drivers, and what must be prepared around it.
package runtime

import (
	"context"
	"fmt"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/nomad/plugins/base"
	"github.com/hashicorp/nomad/plugins/drivers"
)

// Spec is a sandbox's process, as the job describes it.
type Spec struct {
	Image     string // root file system; "host" is the node's own
	Command   string
	Args      []string
	StatePath string // where the process sees the state
}

// Dirs are a run's folders on the node.
type Dirs struct {
	Run   string // of this run alone; the runtime may make folders in it
	State string // the user's state
}

// Runtime prepares a node for a sandbox's process and starts it by Inner.
type Runtime interface {
	// Name is the runtime's name in the plugin's config.
	Name() string
	// Inner is the Nomad driver that runs the process.
	Inner() drivers.DriverPlugin
	// Configure passes the agent's settings on to Inner.
	Configure(agent *base.AgentConfig) error
	// Capabilities are what Nomad is told of the driver.
	Capabilities() (*drivers.Capabilities, error)
	// Check returns an error that says what this node lacks.
	Check() error
	// CheckSpec returns an error that names the field this runtime can not serve.
	CheckSpec(Spec) error
	// StatePath is where the process sees its state.
	StatePath(Spec, Dirs) string
	// DefaultUser is the Unix user of a task that names none; "" is the agent's own.
	DefaultUser() string
	// Prepare sets up the node's side and returns the task as Inner is to start it.
	Prepare(cfg *drivers.TaskConfig, s Spec, d Dirs) (*drivers.TaskConfig, error)
	// Inside is cfg as Inner knows it, for a task that already runs.
	Inside(cfg *drivers.TaskConfig, d Dirs) *drivers.TaskConfig
	// Cleanup undoes Prepare. It may be called again, and after a partial Prepare.
	Cleanup(d Dirs) error
}

// New returns the runtime of that name, "image" or "raw_exec".
func New(ctx context.Context, name string, log hclog.Logger) (Runtime, error) {
	switch name {
	case "image":
		return newImage(ctx, log)
	case "raw_exec":
		return newRawExec(ctx, log), nil
	}
	return nil, fmt.Errorf("runtime: %q is not one of image, raw_exec", name)
}

// configure encodes an inner driver's own plugin config and hands it over.
func configure(inner drivers.DriverPlugin, config any, agent *base.AgentConfig) error {
	var raw []byte
	if err := base.MsgPackEncode(&raw, config); err != nil {
		return fmt.Errorf("encode the inner driver's config: %w", err)
	}
	if err := inner.SetConfig(&base.Config{PluginConfig: raw, AgentConfig: agent}); err != nil {
		return fmt.Errorf("configure the inner driver: %w", err)
	}
	return nil
}
