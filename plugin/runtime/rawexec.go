package runtime

import (
	"context"
	"fmt"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/nomad/drivers/rawexec"
	"github.com/hashicorp/nomad/plugins/base"
	"github.com/hashicorp/nomad/plugins/drivers"
)

// rawExec runs the process as it is, on the node. It isolates nothing: for
// laptops and for tests without root.
type rawExec struct{ inner drivers.DriverPlugin }

func newRawExec(ctx context.Context, log hclog.Logger) Runtime {
	return &rawExec{inner: rawexec.NewRawExecDriver(ctx, log)}
}

func (r *rawExec) Name() string                { return "raw_exec" }
func (r *rawExec) Inner() drivers.DriverPlugin { return r.inner }
func (r *rawExec) DefaultUser() string         { return "" }
func (r *rawExec) Check() error                { return nil }

func (r *rawExec) Configure(agent *base.AgentConfig) error {
	return configure(r.inner, &rawexec.Config{Enabled: true}, agent)
}

func (r *rawExec) Capabilities() (*drivers.Capabilities, error) { return r.inner.Capabilities() }

func (r *rawExec) CheckSpec(s Spec) error {
	if s.Image != "" && s.Image != "host" {
		return fmt.Errorf("image: runtime raw_exec runs on the node itself and takes no image, got %q", s.Image)
	}
	return nil
}

// StatePath is the folder itself: there is no other view of the file system.
func (r *rawExec) StatePath(_ Spec, d Dirs) string { return d.State }

func (r *rawExec) Prepare(cfg *drivers.TaskConfig, s Spec, d Dirs) (*drivers.TaskConfig, error) {
	in := cfg.Copy()
	if err := in.EncodeConcreteDriverConfig(&rawexec.TaskConfig{Command: s.Command, Args: s.Args}); err != nil {
		return nil, fmt.Errorf("encode the task for raw_exec: %w", err)
	}
	return in, nil
}

func (r *rawExec) Inside(cfg *drivers.TaskConfig, _ Dirs) *drivers.TaskConfig { return cfg.Copy() }

func (r *rawExec) Cleanup(Dirs) error { return nil }
