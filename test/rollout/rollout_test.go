// Package rollout tests that a new version of the router takes over without anybody
// being cut off: the product's own job file, a real Nomad and a real Consul, behind a
// load balancer that follows Consul.
package rollout

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	nomad "github.com/hashicorp/nomad/api"

	"openclaw-sandbox/internal/devcluster"
	"openclaw-sandbox/test/rig"
)

const (
	job      = "sandbox-router"
	service  = "sandbox-router"
	routers  = 2
	users    = 20
	sockets  = 200
	programs = 10
	// limit of each step on a busy machine.
	limit = 3 * time.Minute
)

// stack is what the routers run on.
type stack struct {
	consul *devcluster.Consul
	nomad  *devcluster.Nomad
	bin    string // the router
}

func start(t *testing.T) *stack {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	defer cancel()
	dir, s := t.TempDir(), &stack{}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	stop := func(what string, f func(context.Context) error) {
		t.Cleanup(func() {
			ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
			defer cancel()
			if err := f(ctx); err != nil {
				t.Errorf("stop %s: %v", what, err)
			}
		})
	}
	s.bin = filepath.Join(dir, "sandbox-router")
	if out, err := exec.CommandContext(ctx, "go", "build", "-o", s.bin, "../../cmd/sandbox-router").CombinedOutput(); err != nil {
		t.Fatalf("build the router: %v\n%s", err, out)
	}
	gateway, err := net.Listen("tcp", "127.0.0.1:0")
	must(err)
	srv := &http.Server{Handler: rig.Gateway()}
	ended := make(chan error, 1)
	go func() { ended <- srv.Serve(gateway) }()
	t.Cleanup(func() { srv.Close(); <-ended })
	s.consul, err = devcluster.StartConsul(ctx, filepath.Join(dir, "consul"), 0)
	must(err)
	stop("Consul", func(ctx context.Context) error { return s.consul.Stop(ctx) })
	s.nomad, err = devcluster.StartNomad(ctx, devcluster.NomadOptions{Dir: filepath.Join(dir, "nomad"), ConsulAddr: s.consul.Addr,
		Bridge: "ocs-roll0", BridgeSubnet: "172.26.115.0/24"})
	must(err)
	stop("Nomad", func(ctx context.Context) error { return s.nomad.Stop(ctx) })
	for n := range users {
		must(rig.Route(ctx, s.consul, user(n), gateway.Addr().String()))
	}
	return s
}

// deploy registers the job file, as `nomad job run` would, with more in the router's
// config, and other variables, if need be.
func (s *stack) deploy(t *testing.T, version, more string, others map[string]any) {
	t.Helper()
	text, err := os.ReadFile("../../jobs/router.nomad.hcl")
	if err != nil {
		t.Fatal(err)
	}
	config := fmt.Sprintf("listen = \"127.0.0.1:{{ env `NOMAD_PORT_http` }}\"\nmetrics_listen = \"127.0.0.1:{{ env `NOMAD_PORT_metrics` }}\"\n"+
		"identity \"dev\" {}\nconsul { address = %q }\nnomad { address = %q }\n%s", s.consul.Addr, "http://"+s.nomad.Addr, more)
	var vars strings.Builder
	values := map[string]any{"driver": "raw_exec", "binary": s.bin, "config": config, "count": routers, "port": 0, "canary": 1,
		"env": map[string]string{"VERSION": version}}
	maps.Copy(values, others)
	for name, value := range values {
		b, err := json.Marshal(value) // JSON is HCL
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&vars, "%s = %s\n", name, b)
	}
	c := s.nomad.Client()
	parsed, err := c.Jobs().ParseHCLOpts(&nomad.JobsParseRequest{JobHCL: string(text), Variables: vars.String(), Canonicalize: true})
	if err != nil {
		t.Fatalf("jobs/router.nomad.hcl: %v", err)
	}
	if _, _, err := c.Jobs().Register(parsed, nil); err != nil {
		t.Fatal(err)
	}
	t.Logf("version %s is registered", version)
}

// running are the allocations that run, or have not ended yet.
func (s *stack) running(t *testing.T) (ids map[string]bool) {
	t.Helper()
	all, _, err := s.nomad.Client().Jobs().Allocations(job, true, nil)
	if err != nil {
		t.Fatal(err)
	}
	ids = map[string]bool{}
	for _, a := range all {
		if a.ClientStatus == nomad.AllocClientStatusRunning || a.ClientStatus == nomad.AllocClientStatusPending {
			ids[a.ID] = true
		}
		if a.ClientStatus == nomad.AllocClientStatusFailed {
			t.Fatalf("router %s failed: %+v", a.ID, a.TaskStates)
		}
	}
	return ids
}

// eventually polls other processes until they are so far.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(limit); !ok(); time.Sleep(100 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("no %s within %s", what, limit)
		}
	}
	t.Logf("seen: %s", what)
}

func TestNewVersionTakesOver(t *testing.T) {
	s := start(t)
	s.deploy(t, "1", "", nil)
	b := startBalancer(t, s.consul.Client())
	eventually(t, "the first routers", func() bool { return len(b.instances()) == routers })
	old := s.running(t)

	c := &clients{addr: b.addr}
	c.start(t, sockets, programs)
	eventually(t, "all WebSockets open", func() bool { return c.open.Load() == sockets })
	if failures := c.failed(); len(failures) > 0 {
		t.Fatalf("before anything happens %d failures, like %v", len(failures), failures[0])
	}
	requests, echoes := c.requests.Load(), c.echoes.Load()

	s.deploy(t, "2", "", nil)
	eventually(t, "only new routers", func() bool {
		now := s.running(t)
		for id := range now {
			if old[id] {
				return false
			}
		}
		return len(now) == routers
	})
	eventually(t, "the deployment's success", func() bool {
		d, _, err := s.nomad.Client().Jobs().LatestDeployment(job, nil)
		return err == nil && d != nil && d.JobVersion == 1 && d.Status == nomad.DeploymentStatusSuccessful
	})
	eventually(t, "all WebSockets back", func() bool { return c.open.Load() == sockets })
	more := c.echoes.Load() + 10*sockets
	eventually(t, "messages over all of them", func() bool { return c.echoes.Load() > more })

	failures := c.failed()
	t.Logf("%d requests and %d messages meanwhile; %d WebSockets were told to connect again, and were away for %s at most", c.requests.Load()-requests,
		c.echoes.Load()-echoes, c.lost.Load(), c.longest.Round(time.Millisecond))
	if len(failures) > 0 {
		t.Errorf("%d failures, like %v", len(failures), failures[:min(3, len(failures))])
	}
	if c.lost.Load() < sockets {
		t.Errorf("only %d WebSockets were told to connect again, though all old routers have ended", c.lost.Load())
	}
	if c.longest > backOffMax {
		t.Errorf("a WebSocket was away for %s", c.longest)
	}
}
