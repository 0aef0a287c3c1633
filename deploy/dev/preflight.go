package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"syscall"

	"openclaw-sandbox/internal/devcluster"
)

// minFree is the disk space that a few sandboxes need.
const minFree = 2 << 30

// preflight says, one sentence each, everything that would fail later, with its
// remedy. It returns the runtime to use.
func preflight(s *settings) (string, error) {
	rt := s.runtime
	if rt == "" {
		rt = "raw_exec"
		if runtime.GOOS == "linux" && os.Geteuid() == 0 {
			rt = "image"
		}
	}
	var bad []error
	switch {
	case rt != "image" && rt != "raw_exec":
		bad = append(bad, fmt.Errorf("-runtime %q is not one of image, raw_exec", rt))
	case rt == "image" && (runtime.GOOS != "linux" || os.Geteuid() != 0):
		bad = append(bad, errors.New("-runtime image needs root on Linux; run as root, or leave the flag away to run without isolation"))
	case rt == "image":
		for _, need := range []struct{ path, remedy string }{
			{"/usr/lib/cni/bridge", "apt-get install containernetworking-plugins"}, {"iptables", "apt-get install iptables"}, {"nft", "apt-get install nftables"},
		} {
			if _, err := exec.LookPath(need.path); err != nil {
				bad = append(bad, fmt.Errorf("%s is missing; %s", need.path, need.remedy))
			}
		}
	}
	for _, p := range []struct {
		what, flag string
		port       int
	}{
		{"the router", "port", s.router}, {"the router's metrics", "metrics-port", s.metrics}, {"Consul", "consul-port", s.consul},
		{"Nomad", "nomad-port", s.nomad}, {"the S3 server", "s3-port", s.s3},
	} {
		l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(p.port)))
		if err != nil {
			bad = append(bad, fmt.Errorf("port %d for %s is in use; stop what uses it, or run `make dev ARGS=\"-%s N\"` with a free one", p.port, p.what, p.flag))
			continue
		}
		l.Close()
	}
	for _, tool := range []string{"consul", "nomad", "versitygw", "node"} {
		if _, err := devcluster.Tool(tool); err != nil {
			bad = append(bad, err)
		}
	}
	if _, err := devcluster.OpenClaw(); err != nil {
		bad = append(bad, err)
	}
	bad = append(bad, disk(s.dir))
	return rt, errors.Join(bad...)
}

// lock keeps the folder for this run. It goes with the process, however that ends.
func lock(dir string) (unlock func() error, err error) {
	if err := os.MkdirAll(dir, 0o711); err != nil {
		return nil, fmt.Errorf("%w; choose another folder with -dir", err)
	}
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("%w; choose another folder with -dir", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		return nil, fmt.Errorf("another `make dev` uses %s; stop it, or choose another folder with -dir", dir)
	}
	return f.Close, nil
}

// disk checks the space.
func disk(dir string) error {
	var fs syscall.Statfs_t
	if err := syscall.Statfs(dir, &fs); err != nil {
		return fmt.Errorf("look at the disk of %s: %w", dir, err)
	}
	if free := uint64(fs.Bavail) * uint64(fs.Bsize); free < minFree {
		return fmt.Errorf("only %d MB are free in %s; free at least %d MB, or choose another folder with -dir", free>>20, dir, minFree>>20)
	}
	return nil
}
