package image

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const (
	engineStart = time.Minute
	engineStop  = 30 * time.Second
	pollPause   = 50 * time.Millisecond
)

// engine is a Docker Engine of the test's own: it shares no image, socket,
// network or cgroup with one that the machine may run.
type engine struct {
	dir    string
	cgroup string // parent of its containers' cgroups
}

// startEngine starts an engine that ends with the test and leaves nothing behind.
func startEngine(t *testing.T) *engine {
	t.Helper()
	for _, bin := range []string{"containerd", "dockerd", "docker"} {
		if _, err := exec.LookPath(bin); err != nil {
			t.Fatalf("%v; run `make tools`, or install a Docker Engine (apt-get install docker.io)", err)
		}
	}
	e := &engine{dir: t.TempDir(), cgroup: "openclaw-image-test-" + strconv.Itoa(os.Getpid())}
	t.Cleanup(func() { e.sweep(t) })
	for _, d := range []string{"client", "root"} {
		if err := os.Mkdir(e.path(d), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	e.write(t, "containerd.toml", fmt.Sprintf(`version = 2
disabled_plugins = ["io.containerd.grpc.v1.cri"]
[plugins."io.containerd.internal.v1.opt"]
path = %q
`, e.path("opt")))
	e.write(t, "dockerd.json", "{}") // else the machine's own is read

	containerd := e.path("containerd.sock")
	e.daemon(t, "containerd", "--log-level=warn", "--config", e.path("containerd.toml"), "--address", containerd,
		"--root", e.path("root/containerd"), "--state", e.path("run/containerd"))
	ended := e.daemon(t, "dockerd", "--log-level=warn", "--config-file", e.path("dockerd.json"), "--host", e.host(), "--containerd", containerd,
		"--data-root", e.path("root/docker"), "--exec-root", e.path("run/docker"), "--pidfile", e.path("dockerd.pid"),
		// Without a bridge of its own it changes nothing in the machine's network.
		"--bridge", "none", "--iptables=false", "--ip6tables=false", "--ip-forward=false", "--ip-masq=false",
		"--exec-opt", "native.cgroupdriver=cgroupfs", "--cgroup-parent", "/"+e.cgroup)
	e.waitReady(t, ended)
	return e
}

func (e *engine) path(name string) string { return filepath.Join(e.dir, name) }

func (e *engine) host() string { return "unix://" + e.path("docker.sock") }

func (e *engine) write(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(e.path(name), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// env is what a Docker client needs to speak to this engine, and to no other.
func (e *engine) env() []string {
	return append(os.Environ(), "DOCKER_HOST="+e.host(), "DOCKER_CONFIG="+e.path("client"), "DOCKER_CONTEXT=",
		// Debian's client has no buildx; the engine's own builder serves everywhere.
		"DOCKER_BUILDKIT=0")
}

// daemon starts a server that is ended with the test, by SIGKILL if need be. The
// channel is closed when it has ended.
func (e *engine) daemon(t *testing.T, bin string, args ...string) <-chan struct{} {
	t.Helper()
	log, err := os.Create(e.path(bin + ".log"))
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	cmd := exec.CommandContext(ctx, bin, args...)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = engineStop
	cmd.Stdout, cmd.Stderr = log, log
	// A group of its own: Ctrl-C reaches the test, which ends the servers in order.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		stop()
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		cmd.Wait() // how it ended is in its log
	}()
	t.Cleanup(func() {
		stop()
		<-ended
		log.Close()
		if t.Failed() {
			t.Logf("end of the log of %s:\n%s", bin, tail(log.Name()))
		}
	})
	return ended
}

func (e *engine) waitReady(t *testing.T, ended <-chan struct{}) {
	t.Helper()
	limit := time.After(engineStart)
	tick := time.NewTicker(pollPause)
	defer tick.Stop()
	for {
		cmd := exec.CommandContext(t.Context(), "docker", "version")
		cmd.Env = e.env()
		if cmd.Run() == nil {
			return
		}
		select {
		case <-tick.C:
		case <-ended:
			t.Fatal("dockerd ended while it was starting")
		case <-limit:
			t.Fatalf("dockerd did not answer within %s", engineStart)
		}
	}
}

// docker runs a command of the Docker client and returns what it printed.
func (e *engine) docker(t *testing.T, args ...string) string {
	t.Helper()
	return e.run(t, exec.CommandContext(t.Context(), "docker", args...))
}

func (e *engine) run(t *testing.T, cmd *exec.Cmd) string {
	t.Helper()
	var out, errs bytes.Buffer
	cmd.Env, cmd.Stdout, cmd.Stderr = e.env(), &out, &errs
	if err := cmd.Run(); err != nil {
		t.Fatalf("%s: %v\n%s%s", strings.Join(cmd.Args, " "), err, last(out.String()), last(errs.String()))
	}
	return strings.TrimSpace(out.String())
}

// sweep removes what a stopped engine leaves, and says what it could not.
func (e *engine) sweep(t *testing.T) {
	for _, m := range e.mounts(t) {
		unix.Unmount(m, unix.MNT_DETACH)
	}
	if left := e.mounts(t); len(left) > 0 {
		t.Errorf("mounts are left: %v", left)
	}
	for _, pattern := range []string{"/sys/fs/cgroup/" + e.cgroup, "/sys/fs/cgroup/*/" + e.cgroup} {
		dirs, _ := filepath.Glob(pattern)
		for _, d := range dirs {
			if err := os.Remove(d); err != nil {
				t.Errorf("a cgroup is left: %v", err)
			}
		}
	}
	lines, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, l := range lines {
		if b, err := os.ReadFile(l); err == nil && bytes.Contains(b, []byte(e.dir)) {
			t.Errorf("a process is left: %s", bytes.ReplaceAll(b, []byte{0}, []byte{' '}))
		}
	}
}

// mounts are the mount points in the engine's folder, the last mounted first.
func (e *engine) mounts(t *testing.T) (points []string) {
	b, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		t.Error(err)
	}
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) > 1 && strings.HasPrefix(f[1], e.dir+"/") {
			points = append([]string{f[1]}, points...)
		}
	}
	return points
}

// last is the end of a command's output.
func last(text string) string {
	const enough = 4 << 10
	return text[max(0, len(text)-enough):]
}

func tail(file string) string {
	b, err := os.ReadFile(file)
	if err != nil {
		return err.Error()
	}
	return last(string(b))
}
