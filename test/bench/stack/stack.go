// Package stack is what the benchmarks of the real gateway share: a stack of everything,
// with the sandboxes' real isolation.
package stack

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"openclaw-sandbox/internal/devcluster"
)

// Options are a stack's settings.
type Options struct {
	Source, Bin          string // the repository's root, and the folder of the built binaries
	Bridge, BridgeSubnet string // of the sandboxes; no other stack may have them
	DriverConfig         string // HCL: further blocks of the driver's config
}

// With starts a stack, lets f use it and a folder of its own, and ends it. It needs root.
func With(ctx context.Context, o Options, f func(s *devcluster.Stack, dir string) error) (err error) {
	if os.Geteuid() != 0 {
		return errors.New("it runs sandboxes with real isolation: run it as root")
	}
	dir, err := os.MkdirTemp("", "ocs-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	// The sandbox's user must get to start.sh.
	if err := os.Chmod(dir, 0o711); err != nil {
		return err
	}
	for _, p := range []*string{&o.Source, &o.Bin} {
		if *p, err = filepath.Abs(*p); err != nil {
			return err
		}
	}
	s, err := devcluster.Up(ctx, devcluster.Options{Source: o.Source, Bin: o.Bin, Dir: filepath.Join(dir, "stack"), Runtime: "image",
		Bridge: o.Bridge, BridgeSubnet: o.BridgeSubnet, SnapshotInterval: "15s", DriverConfig: o.DriverConfig,
		Routers:  []devcluster.RouterOptions{{Job: "sandbox-router", Identity: "identity \"dev\" {}\n"}},
		Progress: func(f string, a ...any) { fmt.Fprintf(os.Stderr, f+"\n", a...) }})
	if err != nil {
		return err
	}
	defer func() {
		if derr := s.Down(context.WithoutCancel(ctx)); err == nil {
			err = derr
		}
	}()
	return f(s, dir)
}
