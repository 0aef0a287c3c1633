package wake

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	nomad "github.com/hashicorp/nomad/api"

	"openclaw-sandbox/internal/devcluster"
)

// cluster is a real Consul, a real Nomad and several routers, all processes.
type cluster struct {
	consul  *devcluster.Consul
	nomad   *devcluster.Nomad
	routers []*router
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
	g := startGateways(t, users+users/4+20)
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
	c.nomad, err = devcluster.StartNomad(ctx, devcluster.NomadOptions{Dir: filepath.Join(dir, "nomad"), ConsulAddr: c.consul.Addr, Bridge: "ocs-wake0", BridgeSubnet: "172.26.113.0/24",
		// The tasks are only pretended, so their number is no matter of this machine's size.
		ClientConfig: fmt.Sprintf("  cpu_total_compute = 1000000\n  memory_total_mb = 1000000\n  min_dynamic_port = %d\n  max_dynamic_port = %d\n", g.first, g.last)})
	must(err)
	stop("Nomad", func(ctx context.Context) error { return c.nomad.Stop(ctx) })
	c.register(t, ctx)
	bin := filepath.Join(dir, "sandbox-router")
	if out, err := exec.CommandContext(ctx, "go", "build", "-o", bin, "../../cmd/sandbox-router").CombinedOutput(); err != nil {
		t.Fatalf("build the router: %v\n%s", err, out)
	}
	for n := range routers {
		c.routers = append(c.routers, startRouter(t, bin, filepath.Join(dir, fmt.Sprintf("router-%d", n)), c))
	}
	return c
}

// register registers the product's own job, with a task that is only pretended: how
// it is dispatched, what it registers and how it is checked is the file's.
func (c *cluster) register(t *testing.T, ctx context.Context) {
	t.Helper()
	text, err := os.ReadFile("../../jobs/openclaw.nomad.hcl")
	if err != nil {
		t.Fatal(err)
	}
	nodes, _, err := c.nomad.Client().Nodes().List(nil)
	if err != nil {
		t.Fatal(err)
	}
	if d := nodes[0].Drivers["mock_driver"]; d == nil || !d.Healthy {
		t.Skip("this Nomad was built without its mock_driver; tools/install builds one with it")
	}
	job, err := c.nomad.Client().Jobs().ParseHCLOpts(&nomad.JobsParseRequest{JobHCL: string(text), Canonicalize: true,
		Variables: "network = \"host\"\naddress_mode = \"host\"\ncommand = \"x\"\ncpu = 10\nmemory = 10\n"})
	if err != nil {
		t.Fatal(err)
	}
	off, one, disk := true, 1, 10
	job.TaskGroups[0].EphemeralDisk.SizeMB = &disk
	task := job.TaskGroups[0].Tasks[0]
	task.Driver, task.Templates = "mock_driver", nil
	task.Config = map[string]any{"run_for": "24h", "start_block_for": "300ms"}
	task.LogConfig.Disabled, task.LogConfig.MaxFiles, task.LogConfig.MaxFileSizeMB = &off, &one, &one
	if _, _, err := c.nomad.Client().Jobs().Register(job, (&nomad.WriteOptions{}).WithContext(ctx)); err != nil {
		t.Fatal(err)
	}
}

// router is one router process.
type router struct {
	addr string
	cmd  *exec.Cmd
	done chan struct{} // closed when it has ended
}

func startRouter(t *testing.T, bin, dir string, c *cluster) *router {
	t.Helper()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	l.Close()
	text := fmt.Sprintf(`
listen         = %q
metrics_listen = ""
drain_delay    = "0s"
drain_timeout  = "2s"
identity "dev" {}
consul {
  address = %q
  shards  = %d
}
nomad {
  address = %q
}
wake {
  hold_timeout  = "10m"
  start_timeout = "5m"
  capacity_wait = "1m"
  max_starting  = 32
}
`, addr, c.consul.Addr, shards, "http://"+c.nomad.Addr)
	file := filepath.Join(dir, "router.hcl")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	r := &router{addr: addr, cmd: exec.Command(bin, "-config", file), done: make(chan struct{})}
	r.cmd.Stdout, r.cmd.Stderr = log, log
	r.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := r.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { r.cmd.Wait(); close(r.done) }()
	t.Cleanup(func() {
		r.kill()
		if t.Failed() {
			t.Logf("the last complaints of %s:\n%s", addr, complaints(log.Name(), 25))
		}
	})
	eventually(t, time.Minute, "ready router", func() bool {
		resp, err := http.Get("http://" + addr + "/_sandbox/readyz")
		if err != nil {
			return false
		}
		resp.Body.Close()
		return resp.StatusCode == http.StatusOK
	})
	return r
}

// kill ends the router without a chance to tidy up.
func (r *router) kill() {
	r.cmd.Process.Kill()
	<-r.done
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
