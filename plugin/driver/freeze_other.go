//go:build !linux

package driver

import (
	"context"
	"syscall"

	"openclaw-sandbox/plugin/pageout"
)

// freezerOf stops the process group: Nomad's executor gives each task its own.
func freezerOf(pid int, _ string) (freezer, error) { return groupFreezer(pid), nil }

type groupFreezer int

func (p groupFreezer) freeze() error { return syscall.Kill(-int(p), syscall.SIGSTOP) }
func (p groupFreezer) thaw() error   { return syscall.Kill(-int(p), syscall.SIGCONT) }

func (p groupFreezer) pageOut(ctx context.Context) (pageout.Result, error) {
	return pageout.Out(ctx, "", []int{int(p)})
}
