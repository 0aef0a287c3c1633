// Command sandbox is a Nomad task driver plugin: it runs one OpenClaw gateway per
// user, with the user's state restored from an object store before the start and
// saved while it runs and when it stops.
//
// The binary's file name is the plugin's name: put it as `sandbox` into Nomad's
// plugin_dir, and configure it with a plugin "sandbox" block.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/hashicorp/go-hclog"
	// Its init turns this binary into the executor of a task, as a subprocess.
	_ "github.com/hashicorp/nomad/drivers/shared/executor"
	"github.com/hashicorp/nomad/plugins"

	"openclaw-sandbox/plugin/driver"
)

func main() {
	// An agent that is killed leaves this process with a closed stderr, and takes it
	// back when it starts again: a log line in between must not be the end of it. (Go
	// ends a program that writes to a closed stderr, unless it asks for the signal.
	// Ignoring it instead would be inherited by every child.)
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
	plugins.ServeCtx(func(ctx context.Context, log hclog.Logger) any { return driver.New(ctx, log) })
}
