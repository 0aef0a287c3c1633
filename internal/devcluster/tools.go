// Package devcluster runs a whole cluster on one machine: Consul, Nomad with the
// sandbox driver, an S3 server, the demo model, the jobs and the router, all real.
// `make dev` and the tests on the real stack share it.
package devcluster

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
)

// ErrNoTool is returned by Tool when a binary is neither in the cache nor on PATH.
var ErrNoTool = errors.New("not installed; run `make tools`")

// CacheDir is where `make tools` puts what it builds: $OPENCLAW_SANDBOX_CACHE, or
// /var/cache/openclaw-sandbox for root, or the user's cache folder.
func CacheDir() string {
	if dir := os.Getenv("OPENCLAW_SANDBOX_CACHE"); dir != "" {
		return dir
	}
	if os.Geteuid() == 0 {
		return "/var/cache/openclaw-sandbox"
	}
	dir, err := os.UserCacheDir()
	if err != nil {
		dir = os.TempDir()
	}
	return filepath.Join(dir, "openclaw-sandbox")
}

// Tool is the path of nomad, consul, versitygw, pebble or node. The cache comes first:
// `make tools` links a fitting binary of the machine into it. It returns
// ErrNoTool if there is none.
func Tool(name string) (string, error) {
	path := filepath.Join(CacheDir(), "bin", name)
	if name == "node" {
		path = filepath.Join(CacheDir(), "node", "node_modules", "node", "bin", "node")
	}
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	if path, err := exec.LookPath(name); err == nil && name != "node" {
		return path, nil
	}
	return "", fmt.Errorf("%s: %w", name, ErrNoTool)
}

// OpenClaw is the folder of the openclaw package. It returns ErrNoTool if it is
// not installed.
func OpenClaw() (string, error) {
	dir := filepath.Join(CacheDir(), "openclaw", "node_modules", "openclaw")
	if _, err := os.Stat(filepath.Join(dir, "openclaw.mjs")); err != nil {
		return "", fmt.Errorf("openclaw: %w", ErrNoTool)
	}
	return dir, nil
}

// Ports that this package gives out lie below those that the kernel gives to
// outgoing connections (ip(7), ip_local_port_range) and those that Nomad gives to
// jobs (from 20000): neither may take one before who is to listen on it does.
const (
	firstPort = 10_000
	lastPort  = 19_999
	portTries = 1000
)

// given are the ports that this process gave out already: who asked for one may not
// listen on it yet.
var given sync.Map

// FreePorts are n different ports that nobody listens on at this moment, and that this
// process has not given out before.
func FreePorts(n int) ([]int, error) {
	var ports []int
	for range portTries + n {
		if len(ports) == n {
			return ports, nil
		}
		port := firstPort + rand.IntN(lastPort-firstPort+1)
		l, err := net.Listen("tcp", ":"+strconv.Itoa(port))
		if err != nil {
			continue
		}
		l.Close()
		if _, before := given.LoadOrStore(port, true); !before {
			ports = append(ports, port)
		}
	}
	return nil, fmt.Errorf("find %d free ports: %d tries were in vain", n, portTries)
}

// mark is in the environment of an agent, and so of all that it starts.
func mark(dir string) string { return "OPENCLAW_DEV_AGENT=" + dir }

// agentEnv is what an agent inherits: enough to run, and nothing that a task or a
// client library would take for its own settings.
func agentEnv(extra ...string) []string {
	env := []string{"LANG=C.UTF-8"}
	for _, k := range []string{"PATH", "HOME", "TMPDIR"} {
		if v, ok := os.LookupEnv(k); ok {
			env = append(env, k+"="+v)
		}
	}
	return append(env, extra...)
}
