package rig

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/hashicorp/nomad/api"

	"openclaw-sandbox/internal/devcluster"
)

// Listen listens on n ports in a row, outside those that the kernel gives to
// outgoing connections, for a stub that answers for every gateway. first is the
// lowest.
func Listen(n int) (all []net.Listener, first int, err error) {
	for first := 20000; first+n < 32000; first += 500 {
		if all, err := inRow(first, n); err == nil {
			return all, first, nil
		}
	}
	return nil, 0, fmt.Errorf("no %d free ports in a row", n)
}

func inRow(first, n int) (all []net.Listener, err error) {
	for port := first; port < first+n; port++ {
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			for _, l := range all {
				l.Close()
			}
			return nil, err
		}
		all = append(all, l)
	}
	return all, nil
}

// Pretending are the options of a Nomad whose tasks are only pretended, so that their
// number is no matter of this machine's size. It gives the n ports from first.
func Pretending(dir string, consul *devcluster.Consul, bridge, subnet string, first, n int) devcluster.NomadOptions {
	return devcluster.NomadOptions{Dir: filepath.Join(dir, "nomad"), ConsulAddr: consul.Addr, Bridge: bridge, BridgeSubnet: subnet,
		ClientConfig: fmt.Sprintf("  cpu_total_compute = 1000000\n  memory_total_mb = 1000000\n  min_dynamic_port = %d\n  max_dynamic_port = %d\n", first, first+n-1)}
}

// Register registers the product's own job, whose file is in the repository at
// source, with a task that is only pretended and takes start to start: how it is
// dispatched, what it registers and how it is checked is the file's.
func Register(ctx context.Context, c *api.Client, source string, start time.Duration) error {
	file := filepath.Join(source, "jobs", "openclaw.nomad.hcl")
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	job, err := c.Jobs().ParseHCLOpts(&api.JobsParseRequest{JobHCL: string(text), Canonicalize: true,
		Variables: "network = \"host\"\naddress_mode = \"host\"\ncommand = \"x\"\ncpu = 10\nmemory = 10\n"})
	if err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	off, one, disk := true, 1, 10
	job.TaskGroups[0].EphemeralDisk.SizeMB = &disk
	task := job.TaskGroups[0].Tasks[0]
	task.Driver, task.Templates = "mock_driver", nil
	task.Config = map[string]any{"run_for": "24h", "start_block_for": start.String()}
	task.LogConfig.Disabled, task.LogConfig.MaxFiles, task.LogConfig.MaxFileSizeMB = &off, &one, &one
	if _, _, err = c.Jobs().Register(job, (&api.WriteOptions{}).WithContext(ctx)); err != nil {
		return fmt.Errorf("register %s: %w", file, err)
	}
	return nil
}
