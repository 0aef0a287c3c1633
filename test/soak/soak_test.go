// Package soak tests that a router gives back what open WebSockets took: it runs
// the real binary with a real Consul, before a stub gateway, and holds thousands of
// WebSockets while others come and go.
package soak

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"golang.org/x/sync/errgroup"

	"openclaw-sandbox/internal/devcluster"
	"openclaw-sandbox/test/rig"
)

// size of a run.
type size struct {
	idle, busy int
	churn      int   // idle ones that are closed, and opened anew, in each round
	rounds     int   // the first half of them sets the level, the second is held to it
	echoes     int64 // that the busy ones must get in each round
}

var (
	short = size{idle: 1000, busy: 50, churn: 300, rounds: 8, echoes: 2_000}
	full  = size{idle: 10_000, busy: 200, churn: 5_000, rounds: 20, echoes: 50_000}
)

// The bounds. A round of churn must not cost a descriptor or a goroutine that stays;
// what is left is for the connections of the router to Consul and of this test to it.
const (
	slackDescriptors = 8
	slackGoroutines  = 8
	// The heap that is live, and the memory of the process, may in the second half of
	// the rounds pass their highest in the first half by this part and this many bytes.
	slackShare = 0.10
	slackHeap  = 2 << 20
	slackRSS   = 8 << 20
	// limit of each step on a busy machine. Go collects at least every two minutes.
	limit = 4 * time.Minute
	// dialers open WebSockets at the same time.
	dialers = 16
	user    = "alice"
)

func TestWebSocketsComeAndGo(t *testing.T) {
	s := short
	if os.Getenv("SOAK") == "full" {
		s = full
	}
	var files syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &files); err != nil {
		t.Fatal(err)
	}
	// Two descriptors each, in the router as in this process.
	if most := int(min(files.Max, 1<<20))/2 - s.busy - 100; most < s.idle {
		t.Logf("%d descriptors are room for %d idle WebSockets, not %d", files.Max, most, s.idle)
		s.idle = most
	}
	r := start(t)

	// What is made once, by the first few, belongs to the base.
	warm := &clients{addr: r.Addr, conns: make([]*websocket.Conn, 100)}
	warm.fill(t)
	warm.closeAll()
	base := r.settle(t, 0, levels{descriptors: 1 << 20, goroutines: 1 << 20})

	idle := &clients{addr: r.Addr, conns: make([]*websocket.Conn, s.idle)}
	idle.fill(t)
	busy := startBusy(t, r.Addr, s.busy)
	open := s.idle + s.busy
	begin := time.Now()
	level := r.settle(t, open, levels{descriptors: base.descriptors + 2*open + slackDescriptors, goroutines: base.goroutines + slackGoroutines})
	t.Logf("at first: %v; with %d WebSockets: %v", base, open, level)
	high := level
	for round := range s.rounds {
		idle.end(t, s.churn, round)
		r.settle(t, open-s.churn, levels{descriptors: level.descriptors - 2*s.churn + slackDescriptors, goroutines: level.goroutines + slackGoroutines})
		idle.fill(t)
		busy.await(t, s.echoes)
		now := r.settle(t, open, levels{descriptors: level.descriptors + slackDescriptors, goroutines: level.goroutines + slackGoroutines})
		if round < s.rounds/2 {
			high.heap, high.rss = max(high.heap, now.heap), max(high.rss, now.rss)
		} else if now.heap > grown(high.heap, slackHeap) || now.rss > grown(high.rss, slackRSS) {
			t.Errorf("round %d: memory grows: %v; in the first half at most %v", round, now, high)
		}
		if round%max(1, s.rounds/10) == 0 {
			t.Logf("round %d: %v", round, now)
		}
	}
	for _, n := range []int{0, s.idle / 2, s.idle - 1} { // those that stayed do still work
		if err := rig.Echo(idle.conns[n], []byte("still there")); err != nil {
			t.Errorf("an idle WebSocket: %v", err)
		}
	}
	t.Logf("%d WebSockets came and went and %d messages passed in %s", s.rounds*s.churn, busy.stop(t), time.Since(begin).Round(time.Second))
	idle.closeAll()
	end := r.settle(t, 0, levels{descriptors: base.descriptors + slackDescriptors, goroutines: base.goroutines + slackGoroutines, heap: grown(base.heap, slackHeap)})
	t.Logf("in the end: %v", end)
}

func grown(from, by float64) float64 { return from*(1+slackShare) + by }

// start starts Consul, the stub gateway and the router.
func start(t *testing.T) *router {
	t.Helper()
	dir := t.TempDir()
	bin := filepath.Join(dir, "sandbox-router")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", bin, "../../cmd/sandbox-router").CombinedOutput(); err != nil {
		t.Fatalf("build the router: %v\n%s", err, out)
	}
	consul, err := devcluster.StartConsul(t.Context(), filepath.Join(dir, "consul"), 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := consul.Stop(context.Background()); err != nil {
			t.Error(err)
		}
	})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	gateway := &http.Server{Handler: rig.Gateway()}
	served := make(chan error, 1)
	go func() { served <- gateway.Serve(l) }()
	t.Cleanup(func() { gateway.Close(); <-served })
	if err := rig.Route(t.Context(), consul, user, l.Addr().String()); err != nil {
		t.Fatal(err)
	}
	r, err := rig.StartRouter(t.Context(), rig.Options{Bin: bin, Dir: dir, Config: `identity "dev" {}`, Consul: consul.Addr})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Stop(); err != nil {
			t.Error(err)
		}
	})
	return &router{r}
}

// clients hold a number of WebSockets.
type clients struct {
	addr  string
	conns []*websocket.Conn // nil: to be opened
}

func dial(t *testing.T, addr string, n int) (*websocket.Conn, error) {
	return rig.Dial(t.Context(), addr, n, http.Header{"Host": {user + ".localhost"}})
}

// fill opens those that lack.
func (c *clients) fill(t *testing.T) {
	t.Helper()
	var g errgroup.Group
	for d := range dialers {
		g.Go(func() (err error) {
			for i := d; i < len(c.conns) && err == nil; i += dialers {
				if c.conns[i] == nil {
					c.conns[i], err = dial(t, c.addr, i)
				}
			}
			return err
		})
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
}

// end closes n, in each of the ways in which a WebSocket may end.
func (c *clients) end(t *testing.T, n, round int) {
	t.Helper()
	var g errgroup.Group
	g.SetLimit(dialers)
	for k := range n {
		i := (round*n + k) % len(c.conns)
		conn := c.conns[i]
		c.conns[i] = nil
		g.Go(func() error {
			defer conn.Close()
			switch k % 4 {
			case 0: // as the protocol has it
				return conn.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(websocket.CloseNormalClosure, ""), time.Now().Add(limit))
			case 1: // the client's process ends
			case 2: // the client's machine forgets it
				return conn.NetConn().(*net.TCPConn).SetLinger(0)
			case 3: // the gateway ends it
				conn.SetReadDeadline(time.Now().Add(limit))
				if err := conn.WriteMessage(websocket.TextMessage, []byte(rig.Bye)); err != nil {
					return err
				}
				_, _, err := conn.ReadMessage()
				if late, ok := err.(net.Error); err == nil || ok && late.Timeout() {
					return fmt.Errorf("the gateway's end of a WebSocket did not reach the client: %v", err)
				}
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
}

func (c *clients) closeAll() {
	for _, conn := range c.conns {
		conn.Close()
	}
}

// busy WebSockets send without a pause, small messages and large.
type busy struct {
	echoes atomic.Int64
	ending atomic.Bool
	g      errgroup.Group
}

func startBusy(t *testing.T, addr string, n int) *busy {
	t.Helper()
	b := &busy{}
	t.Cleanup(func() { b.ending.Store(true); b.g.Wait() })
	for i := range n {
		conn, err := dial(t, addr, i)
		if err != nil {
			t.Fatal(err)
		}
		b.g.Go(func() error {
			defer conn.Close()
			message := make([]byte, 64<<10)
			for k := i; !b.ending.Load(); k++ {
				size := 128
				if k%64 == 0 {
					size = len(message)
				}
				if err := rig.Echo(conn, message[:size]); err != nil {
					return fmt.Errorf("busy WebSocket %d: %w", i, err)
				}
				b.echoes.Add(1)
			}
			return nil
		})
	}
	return b
}

// await waits until n more messages have come back.
func (b *busy) await(t *testing.T, n int64) {
	t.Helper()
	want := b.echoes.Load() + n
	eventually(t, func() error {
		if got := b.echoes.Load(); got < want {
			return fmt.Errorf("%d of %d echoes", got, want)
		}
		return nil
	})
}

// stop ends them and returns how many messages came back.
func (b *busy) stop(t *testing.T) int64 {
	t.Helper()
	b.ending.Store(true)
	if err := b.g.Wait(); err != nil {
		t.Error(err)
	}
	return b.echoes.Load()
}
