package rollout

import (
	"context"
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	consul "github.com/hashicorp/consul/api"
)

// balancer is a load balancer as small as one can be: it copies TCP connections, and
// sends new ones round robin to the routers that pass in Consul.
type balancer struct {
	addr string
	next atomic.Uint32

	mu      sync.Mutex // guards what follows
	passing []string
}

func startBalancer(t *testing.T, c *consul.Client) *balancer {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	b := &balancer{addr: l.Addr().String()}
	ctx, cancel := context.WithCancel(context.Background())
	var all sync.WaitGroup
	all.Go(func() { b.follow(ctx, t, c) })
	all.Go(func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			all.Go(func() { b.carry(ctx, client) })
		}
	})
	t.Cleanup(func() {
		cancel()
		l.Close()
		all.Wait()
	})
	return b
}

// follow keeps the passing instances by blocking queries.
func (b *balancer) follow(ctx context.Context, t *testing.T, c *consul.Client) {
	q := (&consul.QueryOptions{WaitTime: time.Minute}).WithContext(ctx)
	for ctx.Err() == nil {
		entries, meta, err := c.Health().Service(service, "", true, q)
		if err != nil {
			if ctx.Err() == nil {
				t.Errorf("follow Consul: %v", err)
			}
			return
		}
		var passing []string
		for _, e := range entries {
			passing = append(passing, net.JoinHostPort("127.0.0.1", strconv.Itoa(e.Service.Port)))
		}
		slices.Sort(passing)
		b.mu.Lock()
		if !slices.Equal(b.passing, passing) {
			t.Logf("passing: %v", passing)
		}
		b.passing = passing
		b.mu.Unlock()
		q.WaitIndex = meta.LastIndex
	}
}

func (b *balancer) instances() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.passing
}

// pick is one of the passing instances.
func (b *balancer) pick() (string, error) {
	passing := b.instances()
	if len(passing) == 0 {
		return "", fmt.Errorf("no router passes")
	}
	return passing[int(b.next.Add(1))%len(passing)], nil
}

// carry copies until both sides have ended, or ctx has. It makes no second try: a
// router that passes must take connections.
func (b *balancer) carry(ctx context.Context, client net.Conn) {
	defer client.Close()
	addr, err := b.pick()
	if err != nil {
		return
	}
	router, err := net.Dial("tcp", addr)
	if err != nil {
		return
	}
	defer router.Close()
	stop := context.AfterFunc(ctx, func() { client.Close(); router.Close() })
	defer stop()
	var both sync.WaitGroup
	both.Go(func() { half(router, client) })
	both.Go(func() { half(client, router) })
	both.Wait()
}

// half copies one direction, and passes its end on.
func half(to, from net.Conn) {
	io.Copy(to, from)
	to.(*net.TCPConn).CloseWrite()
}
