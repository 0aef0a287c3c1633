package devcluster

import (
	"context"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	nomad "github.com/hashicorp/nomad/api"
)

// TestAgents starts each agent, restarts it, and leaves nothing behind.
func TestAgents(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	dir := t.TempDir()

	c, err := StartConsul(ctx, filepath.Join(dir, "consul"), 0)
	if err != nil {
		t.Fatal(err)
	}
	s, err := StartS3(ctx, filepath.Join(dir, "s3"), 0, "key", "secret-of-the-test")
	if err != nil {
		t.Fatal(err)
	}
	n, err := StartNomad(ctx, NomadOptions{Dir: filepath.Join(dir, "nomad"), ConsulAddr: c.Addr, Bridge: "ocs-test0", BridgeSubnet: "172.26.112.0/24"})
	if err != nil {
		t.Fatal(err)
	}
	if err := n.Restart(ctx); err != nil {
		t.Errorf("restart Nomad: %v", err)
	}
	if nodes, _, err := n.Client().Nodes().List(&nomad.QueryOptions{}); err != nil || len(nodes) != 1 {
		t.Errorf("nodes after the restart: %v, %v; want one", nodes, err)
	}
	for name, stop := range map[string]func(context.Context) error{"nomad": n.Stop, "s3": s.Stop, "consul": c.Stop} {
		if err := stop(ctx); err != nil {
			t.Errorf("stop %s: %v", name, err)
		}
	}
	for _, p := range []*process{n.p, s.p, c.p} {
		if _, err := os.Stat(filepath.Join("/proc", "self")); err == nil {
			if _, err := os.Stat("/proc/" + strconv.Itoa(p.cmd.Process.Pid)); err == nil {
				t.Errorf("%s still runs", p.name)
			}
		}
	}
}
