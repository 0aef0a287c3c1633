// Package driver tests the task driver on a real Nomad with a real S3 server; a
// small program stands in for the gateway.
package driver

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/nomad/api"

	"openclaw-sandbox/internal/devcluster"
	"openclaw-sandbox/internal/objstore"
	"openclaw-sandbox/internal/sandbox"
	"openclaw-sandbox/internal/snapshot"
	"openclaw-sandbox/plugin/egress"
)

const (
	bridge       = "ocs-drv0"
	bridgeSubnet = "172.26.113.0/24"
	bridgeIP     = "172.26.113.1"
	limit        = 60 * time.Second
)

// stack is a node with the driver.
type stack struct {
	dir     string
	nomad   *devcluster.Nomad
	server  *devcluster.S3
	store   objstore.Store
	gateway string
	runtime string
}

// up starts a node whose driver has the runtime; edit may change the plugin's config.
func up(t *testing.T, runtime string, edit func(config string) string) *stack {
	t.Helper()
	if runtime == "image" && os.Geteuid() != 0 {
		t.Skip("runtime image needs root")
	}
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	s := &stack{runtime: runtime}
	var err error
	// Not t.TempDir: its parents are closed to the sandbox's user.
	if s.dir, err = os.MkdirTemp("", "ocs-driver-"); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(s.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(s.dir); err != nil {
			t.Errorf("something is still mounted or in use: %v", err)
		}
	})
	plugins := filepath.Join(s.dir, "plugins")
	s.gateway = filepath.Join(s.dir, "gateway")
	build(t, filepath.Join(plugins, "sandbox"), "openclaw-sandbox/plugin")
	build(t, s.gateway, "openclaw-sandbox/test/driver/gateway")

	if s.server, err = devcluster.StartS3(ctx, filepath.Join(s.dir, "s3"), 0, "test-key", "test-secret-value"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.server.Stop(context.Background()) })
	s.store, err = objstore.Open(ctx, objstore.Config{URL: "s3://" + s.server.Bucket, Endpoint: s.server.Endpoint(), Region: "us-east-1",
		AccessKeyID: s.server.AccessKey, SecretAccessKey: s.server.SecretKey, PathStyle: true, Attempts: 1})
	if err != nil {
		t.Fatal(err)
	}
	config := fmt.Sprintf(`
runtime  = %q
data_dir = %q
metrics_file = %q
store {
  url               = "s3://%s"
  endpoint          = %q
  region            = "us-east-1"
  access_key_id     = %q
  secret_access_key = %q
  path_style        = true
}
snapshot {
  interval = "1s"
  timeout  = "15s"
}
egress {
  bridge = %q
}
`, runtime, filepath.Join(s.dir, "sandboxes"), s.metrics(), s.server.Bucket, s.server.Endpoint(), s.server.AccessKey, s.server.SecretKey, bridge)
	if edit != nil {
		config = edit(config)
	}
	s.nomad, err = devcluster.StartNomad(ctx, devcluster.NomadOptions{Dir: filepath.Join(s.dir, "nomad"), PluginDir: plugins, PluginConfig: config,
		Bridge: bridge, BridgeSubnet: bridgeSubnet})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		s.stopAll(t)
		s.nomad.Stop(context.Background())
		if runtime == "image" {
			if err := (egress.Rules{Bridge: bridge}).Remove(context.Background()); err != nil {
				t.Error(err)
			}
			if out, _ := exec.Command("grep", s.dir, "/proc/self/mounts").Output(); len(out) > 0 {
				t.Errorf("mounts are left:\n%s", out)
			}
		}
	})
	return s
}

func build(t *testing.T, out, pkg string) {
	t.Helper()
	cmd := exec.Command("go", "build", "-o", out, pkg)
	if text, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build %s: %v\n%s", pkg, err, text)
	}
}

// run registers a job of one sandbox and returns its id; edit may change the task.
func (s *stack) run(t *testing.T, user string, edit func(*api.Task)) string {
	t.Helper()
	id := fmt.Sprintf("box-%s-%d", user, time.Now().UnixNano())
	task := api.NewTask("gateway", "sandbox")
	task.Config = map[string]any{"user": user, "command": s.gateway, "ready": []map[string]any{{"contains": "started", "timeout": "20s"}}}
	task.KillTimeout = ptr(5 * time.Second)
	task.Resources = &api.Resources{CPU: ptr(50), MemoryMB: ptr(64)}
	if edit != nil {
		edit(task)
	}
	group := api.NewTaskGroup("g", 1)
	group.Networks = []*api.NetworkResource{{DynamicPorts: []api.Port{{Label: "gateway"}}}}
	if s.runtime == "image" {
		group.Networks[0].Mode, group.Networks[0].DynamicPorts[0].To = "bridge", 18789
	}
	group.RestartPolicy = &api.RestartPolicy{Attempts: ptr(0), Mode: ptr("fail")}
	group.ReschedulePolicy = &api.ReschedulePolicy{Attempts: ptr(0), Unlimited: ptr(false)}
	group.Tasks = []*api.Task{task}
	job := api.NewBatchJob(id, id, "global", 50)
	job.Datacenters = []string{"*"}
	job.TaskGroups = []*api.TaskGroup{group}
	if _, _, err := s.nomad.Client().Jobs().Register(job, nil); err != nil {
		t.Fatal(err)
	}
	return id
}

func ptr[T any](v T) *T { return &v }

// alloc waits until the job's allocation satisfies ok.
func (s *stack) alloc(t *testing.T, id, what string, ok func(*api.Allocation) bool) *api.Allocation {
	t.Helper()
	var last *api.Allocation
	wait(t, what, func() bool {
		list, _, err := s.nomad.Client().Jobs().Allocations(id, true, nil)
		if err != nil || len(list) == 0 {
			return false
		}
		a, _, err := s.nomad.Client().Allocations().Info(list[0].ID, nil)
		if err != nil {
			return false
		}
		last = a
		return ok(a)
	}, func() string { return events(last) })
	return last
}

func running(a *api.Allocation) bool {
	ts := a.TaskStates["gateway"]
	return ts != nil && ts.State == "running"
}

func ended(a *api.Allocation) bool {
	ts := a.TaskStates["gateway"]
	return ts != nil && ts.State == "dead"
}

// events are what the operator sees of a task.
func events(a *api.Allocation) string {
	if a == nil || a.TaskStates["gateway"] == nil {
		return "(no events)"
	}
	var b strings.Builder
	for _, e := range a.TaskStates["gateway"].Events {
		fmt.Fprintf(&b, "%s: %s\n", e.Type, e.DisplayMessage)
	}
	return b.String()
}

func progress(a *api.Allocation, phase sandbox.Phase) (sandbox.Progress, bool) {
	for _, e := range a.TaskStates["gateway"].Events {
		if p, ok := sandbox.FromAnnotations(e.Details, e.DisplayMessage); ok && p.Phase == phase {
			return p, true
		}
	}
	return sandbox.Progress{}, false
}

func wait(t *testing.T, what string, ok func() bool, detail func() string) {
	t.Helper()
	for end := time.Now().Add(limit); !ok(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("no %s within %s\n%s", what, limit, detail())
		}
	}
}

// addr is the gateway's address as the node reaches it.
func (s *stack) addr(t *testing.T, a *api.Allocation) string {
	t.Helper()
	if s.runtime == "image" {
		return a.NetworkStatus.Address + ":18789"
	}
	for _, p := range a.AllocatedResources.Shared.Ports {
		if p.Label == "gateway" {
			return fmt.Sprintf("127.0.0.1:%d", p.Value)
		}
	}
	t.Fatal("the allocation has no port gateway")
	return ""
}

func (s *stack) ask(t *testing.T, a *api.Allocation, path string) string {
	t.Helper()
	resp, err := http.Get("http://" + s.addr(t, a) + path)
	if err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != 200 {
		t.Fatalf("%s: %s %v: %s", path, resp.Status, err, b)
	}
	return string(b)
}

func (s *stack) stop(t *testing.T, id string) *api.Allocation {
	t.Helper()
	if _, _, err := s.nomad.Client().Jobs().Deregister(id, false, nil); err != nil {
		t.Fatal(err)
	}
	return s.alloc(t, id, "end of "+id, ended)
}

func (s *stack) stopAll(t *testing.T) {
	jobs, _, err := s.nomad.Client().Jobs().List(nil)
	if err != nil {
		t.Errorf("list the jobs: %v", err)
	}
	for _, j := range jobs {
		s.stop(t, j.ID)
		s.nomad.Client().Jobs().Deregister(j.ID, true, nil)
	}
	s.nomad.Client().System().GarbageCollect()
}

func (s *stack) head(t *testing.T, user string) *snapshot.Head {
	t.Helper()
	h, _, err := snapshot.ReadHead(t.Context(), s.store, sandbox.User(user))
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// httpGet is a GET whose failure is the caller's to judge.
func httpGet(url string) (*http.Response, error) {
	c := http.Client{Timeout: 10 * time.Second}
	return c.Get(url)
}
