package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"openclaw-sandbox/internal/devcluster"
	"openclaw-sandbox/test/rig"
)

const (
	user  = "alice"
	token = "the-benchmark's-token"
	// startLimit and stopLimit bound a proxy's start and end.
	startLimit = 30 * time.Second
	stopLimit  = 10 * time.Second
)

// server is a running proxy.
type server struct {
	addr string
	pid  int
	stop func() error
}

// peer is a proxy that can be started before an upstream, with files in dir.
type peer struct {
	name  string
	start func(ctx context.Context, dir, upstream string) (*server, error)
}

// peers in the order of the tables; limit is how many descriptors a process may have.
func peers(bin string, consul *devcluster.Consul, limit int) []peer {
	return []peer{
		{"ours", func(ctx context.Context, dir, upstream string) (*server, error) {
			return ours(ctx, bin, dir, upstream, consul)
		}},
		{"nginx", func(ctx context.Context, dir, upstream string) (*server, error) {
			return configured(ctx, dir, upstream, "nginx.conf", nginxConf, limit, "nginx", "-c", "nginx.conf", "-p", dir, "-e", "stderr")
		}},
		{"haproxy", func(ctx context.Context, dir, upstream string) (*server, error) {
			return configured(ctx, dir, upstream, "haproxy.cfg", haproxyConf, limit, "haproxy", "-db", "-f", "haproxy.cfg")
		}},
		{"Caddy", func(ctx context.Context, dir, upstream string) (*server, error) {
			return configured(ctx, dir, upstream, "Caddyfile", caddyConf, limit, "caddy", "run", "--config", "Caddyfile", "--adapter", "caddyfile")
		}},
		{"configurable-http-proxy", httpProxy},
		{"ReverseProxy, tuned", func(ctx context.Context, dir, upstream string) (*server, error) {
			self, err := os.Executable()
			if err != nil {
				return nil, err
			}
			return launch(ctx, dir, func(addr string) []string { return []string{self, "-reverseproxy", addr + "," + upstream} })
		}},
	}
}

// ours is the router's binary, with a token to check and its route in Consul.
func ours(ctx context.Context, bin, dir, upstream string, consul *devcluster.Consul) (*server, error) {
	if err := rig.Route(ctx, consul, user, upstream); err != nil {
		return nil, err
	}
	r, err := rig.StartRouter(ctx, rig.Options{Bin: filepath.Join(bin, "sandbox-router"), Dir: dir, Consul: consul.Addr,
		Config: fmt.Sprintf("identity \"token\" {\n token %q {\n sha256 = %q\n }\n}", user, sum(token))})
	if err != nil {
		return nil, err
	}
	return &server{addr: r.Addr, pid: r.Pid, stop: r.Stop}, nil
}

// httpProxy is JupyterHub's proxy, with one route for everything.
func httpProxy(ctx context.Context, dir, upstream string) (*server, error) {
	node, err := devcluster.Tool("node")
	if err != nil {
		return nil, err
	}
	script := filepath.Join(devcluster.CacheDir(), "chp", "node_modules", "configurable-http-proxy", "bin", "configurable-http-proxy")
	api, err := rig.FreeAddrs(1)
	if err != nil {
		return nil, err
	}
	_, apiPort, _ := net.SplitHostPort(api[0])
	return launch(ctx, dir, func(addr string) []string {
		host, port, _ := net.SplitHostPort(addr)
		return []string{node, script, "--ip", host, "--port", port, "--api-ip", host, "--api-port", apiPort, "--default-target", "http://" + upstream, "--log-level", "error"}
	})
}

// configured writes a config from a template and starts the proxy with it.
func configured(ctx context.Context, dir, upstream, file, conf string, limit int, args ...string) (*server, error) {
	return launch(ctx, dir, func(addr string) []string {
		_, port, _ := net.SplitHostPort(addr)
		text := strings.NewReplacer("{ADDR}", addr, "{PORT}", port, "{UPSTREAM}", upstream, "{CPUS}", fmt.Sprint(runtime.NumCPU()),
			"{LIMIT}", fmt.Sprint(limit), "{CONNS}", fmt.Sprint(limit/2-50), "{DIR}", dir).Replace(conf)
		if err := os.WriteFile(filepath.Join(dir, file), []byte(text), 0o600); err != nil {
			return []string{"false"} // and the log will lack its file
		}
		return args
	})
}

// launch starts a command that is to listen on the address it is told, and returns
// when it answers for the upstream.
func launch(ctx context.Context, dir string, args func(addr string) []string) (*server, error) {
	addrs, err := rig.FreeAddrs(1)
	if err != nil {
		return nil, err
	}
	line := args(addrs[0])
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		return nil, err
	}
	defer log.Close()
	cmd := exec.Command(line[0], line[1:]...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, log, log
	cmd.Env = append(os.Environ(), "HOME="+dir, "NODE_ENV=production")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("%w; `make bench-router` installs it", err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	s := &server{addr: addrs[0], pid: cmd.Process.Pid, stop: func() error {
		cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-ended:
		case <-time.After(stopLimit):
			syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
			<-ended
		}
		return nil
	}}
	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	for {
		if err := once(ctx, s.addr, 1); err == nil {
			return s, nil
		}
		select {
		case err := <-ended:
			b, _ := os.ReadFile(log.Name())
			return nil, fmt.Errorf("%s ended: %w\n%s", line[0], err, b)
		case <-ctx.Done():
			b, _ := os.ReadFile(log.Name())
			return nil, errors.Join(fmt.Errorf("%s does not answer: %w\n%s", line[0], ctx.Err(), b), s.stop())
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// once asks for n bytes.
func once(ctx context.Context, addr string, n int) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("http://%s/bytes?n=%d", addr, n), nil)
	if err != nil {
		return err
	}
	req.Host, req.Close = host, true
	req.Header = header()
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s", resp.Status)
	}
	return nil
}

// httpProxyVersion is that of configurable-http-proxy, as installed.
func httpProxyVersion() string {
	b, err := os.ReadFile(filepath.Join(devcluster.CacheDir(), "chp", "node_modules", "configurable-http-proxy", "package.json"))
	var p struct{ Version string }
	if err != nil || json.Unmarshal(b, &p) != nil {
		return "?"
	}
	return p.Version
}
