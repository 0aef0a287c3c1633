package wake

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"openclaw-sandbox/internal/devcluster"
	"openclaw-sandbox/test/rig"
)

// cluster is a real Consul, a real Nomad and several routers, all processes.
type cluster struct {
	consul  *devcluster.Consul
	nomad   *devcluster.Nomad
	routers []*rig.Router
}

// shards is what the routers are told; the job file must do with any number.
const shards = 16

func start(t *testing.T, routers, users int) *cluster {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	defer cancel()
	dir := t.TempDir()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	// More ports than users, so that a second start of one would not fail for want of them.
	ports := users + users/4 + 20
	first := startGateways(t, ports)
	c := &cluster{}
	var err error
	c.consul, err = devcluster.StartConsul(ctx, filepath.Join(dir, "consul"), 0)
	must(err)
	stop := func(what string, f func(context.Context) error) {
		t.Cleanup(func() {
			ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
			defer cancel()
			if err := f(ctx); err != nil {
				t.Errorf("stop %s: %v", what, err)
			}
		})
	}
	stop("Consul", func(ctx context.Context) error { return c.consul.Stop(ctx) })
	c.nomad, err = devcluster.StartNomad(ctx, rig.Pretending(dir, c.consul, "ocs-wake0", "172.26.113.0/24", first, ports))
	must(err)
	stop("Nomad", func(ctx context.Context) error { return c.nomad.Stop(ctx) })
	c.needMockDriver(t)
	must(rig.Register(ctx, c.nomad.Client(), "../..", 300*time.Millisecond))
	bin := filepath.Join(dir, "sandbox-router")
	if out, err := exec.CommandContext(ctx, "go", "build", "-o", bin, "../../cmd/sandbox-router").CombinedOutput(); err != nil {
		t.Fatalf("build the router: %v\n%s", err, out)
	}
	for n := range routers {
		c.routers = append(c.routers, startRouter(t, bin, filepath.Join(dir, fmt.Sprintf("router-%d", n)), c))
	}
	return c
}

// needMockDriver skips where Nomad can not pretend.
func (c *cluster) needMockDriver(t *testing.T) {
	t.Helper()
	nodes, _, err := c.nomad.Client().Nodes().List(nil)
	if err != nil {
		t.Fatal(err)
	}
	if d := nodes[0].Drivers["mock_driver"]; d == nil || !d.Healthy {
		t.Skip("this Nomad was built without its mock_driver; tools/install builds one with it")
	}
}

func startRouter(t *testing.T, bin, dir string, c *cluster) *rig.Router {
	t.Helper()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	r, err := rig.StartRouter(t.Context(), rig.Options{Bin: bin, Dir: dir, Consul: c.consul.Addr, Shards: shards, Nomad: c.nomad.Addr, Config: `
identity "dev" {}
wake {
  hold_timeout  = "12m"
  start_timeout = "5m"
  capacity_wait = "1m"
  max_starting  = 32
}`})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		r.Kill()
		if t.Failed() {
			t.Logf("the last complaints of %s:\n%s", r.Addr, complaints(r.Log, 25))
		}
	})
	return r
}

// complaints are the last n lines of a router's log that are more than news.
func complaints(file string, n int) string {
	b, err := os.ReadFile(file)
	if err != nil {
		return err.Error()
	}
	lines := slices.DeleteFunc(strings.Split(string(b), "\n"), func(l string) bool { return strings.Contains(l, `"level":"INFO"`) })
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}

// eventually polls other processes until they are so far.
func eventually(t *testing.T, limit time.Duration, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(limit); !ok(); time.Sleep(100 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("no %s within %s", what, limit)
		}
	}
}
