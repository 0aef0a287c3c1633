//go:build !linux

package demomodel

import (
	"context"
	"net"
)

// Listen listens on addr.
func Listen(ctx context.Context, addr string) (net.Listener, error) {
	var lc net.ListenConfig
	return lc.Listen(ctx, "tcp", addr)
}
