package main

import (
	"context"
	"time"

	"github.com/gorilla/websocket"
	"golang.org/x/sync/errgroup"

	"openclaw-sandbox/test/rig"
)

const (
	// dialers open WebSockets at the same time.
	dialers = 32
	// settleLimit is how long the proxy's memory may take to get steady.
	settleLimit = 15 * time.Second
)

// idleCost is what one open, silent WebSocket costs a proxy.
type idleCost struct {
	memory      float64 // bytes
	descriptors float64
	setup       time.Duration // CPU time to open one
}

// idle opens n WebSockets through the proxy, one message each, and leaves them alone.
func idle(ctx context.Context, s *server, n int) (idleCost, error) {
	var cost idleCost
	if err := once(ctx, s.addr, 1); err != nil {
		return cost, err
	}
	memory, descriptors, err := settled(ctx, s.pid)
	if err != nil {
		return cost, err
	}
	before, err := cpu(s.pid)
	if err != nil {
		return cost, err
	}
	conns := make([]*websocket.Conn, n)
	defer func() {
		for _, c := range conns {
			if c != nil {
				c.Close()
			}
		}
	}()
	g, dctx := errgroup.WithContext(ctx)
	for d := range dialers {
		g.Go(func() (err error) {
			for i := d; i < n; i += dialers {
				if conns[i], err = rig.Dial(dctx, s.addr, i, socketHeader()); err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return cost, err
	}
	after, err := cpu(s.pid)
	if err != nil {
		return cost, err
	}
	m, d, err := settled(ctx, s.pid)
	if err != nil {
		return cost, err
	}
	for _, c := range []*websocket.Conn{conns[0], conns[n/2], conns[n-1]} { // they are still open
		if err := rig.Echo(c, []byte("still there")); err != nil {
			return cost, err
		}
	}
	return idleCost{memory: float64(m-memory) / float64(n), descriptors: float64(d-descriptors) / float64(n), setup: (after - before) / time.Duration(n)}, nil
}

// settled is what the process holds once that changes by less than one percent a second.
func settled(ctx context.Context, pid int) (memory, descriptors int, err error) {
	for end := time.Now().Add(settleLimit); ; {
		last := memory
		if memory, descriptors, err = held(pid); err != nil {
			return 0, 0, err
		}
		if diff := memory - last; max(diff, -diff) < memory/100 || time.Now().After(end) {
			return memory, descriptors, nil
		}
		if err := pause(ctx, time.Second); err != nil {
			return 0, 0, err
		}
	}
}
