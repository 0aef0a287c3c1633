// Package image tests docker/Dockerfile with a real Docker Engine: `make image`
// builds it, a container of it serves, and a chat with it works.
package image

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"openclaw-sandbox/internal/chat"
	"openclaw-sandbox/internal/demomodel"
	"openclaw-sandbox/internal/readiness"
)

const (
	tag = "openclaw-sandbox:test"
	// startLimit is how long a gateway may take on a busy machine of two cores.
	startLimit = 150 * time.Second
	chatLimit  = 2 * time.Minute
)

func TestImage(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("this test needs root: it runs a Docker Engine")
	}
	e := startEngine(t)
	base := e.baseImage(t)
	build := exec.CommandContext(t.Context(), "make", "-C", "../..", "image", "IMAGE="+tag, "IMAGE_FLAGS=--network=host --build-arg=BASE="+base)
	e.run(t, build)

	t.Run("holds no secret and drops root", func(t *testing.T) { inspect(t, e) })
	t.Run("keeps the compile cache closed", func(t *testing.T) {
		got := e.docker(t, "run", "--rm", "--network=none", "--entrypoint=sh", tag, "-c",
			`cd /opt/openclaw && find . -maxdepth 2 -writable; find compile-cache -type f | wc -l`)
		if n, err := strconv.Atoi(got); err != nil || n < 1000 {
			t.Errorf("want nothing writable in /opt/openclaw, and a warm compile cache; got %q", got)
		}
	})
	t.Run("says what is missing", func(t *testing.T) {
		cmd := exec.CommandContext(t.Context(), "docker", "run", "--rm", "--network=none", "-e", "SANDBOX_STATE=/nowhere", tag)
		cmd.Env = e.env()
		out, err := cmd.CombinedOutput()
		if err == nil || !strings.Contains(string(out), `the state folder "/nowhere" is missing`) {
			t.Errorf("without a state folder: %v: %s", err, out)
		}
	})
	t.Run("chats", func(t *testing.T) { converse(t, e) })
}

// secretName matches a variable that would hold a credential.
var secretName = regexp.MustCompile(`(?i)key|token|secret|passw|credential`)

func inspect(t *testing.T, e *engine) {
	var image []struct {
		Config struct {
			User       string
			Env        []string
			Entrypoint []string
			Volumes    map[string]struct{}
		}
	}
	if err := json.Unmarshal([]byte(e.docker(t, "image", "inspect", tag)), &image); err != nil || len(image) != 1 {
		t.Fatalf("inspect: %v", err)
	}
	c := image[0].Config
	if c.User == "" || c.User == "root" || c.User == "0" {
		t.Errorf("it runs as %q; want a user without rights", c.User)
	}
	if _, ok := c.Volumes["/state"]; !ok || strings.Join(c.Entrypoint, " ") != "/opt/openclaw/start.sh" {
		t.Errorf("entrypoint %q, volumes %v; want start.sh and /state", c.Entrypoint, c.Volumes)
	}
	for _, v := range c.Env {
		if name, _, _ := strings.Cut(v, "="); secretName.MatchString(name) {
			t.Errorf("its environment has %s", name)
		}
	}
	if h := e.docker(t, "history", "--no-trunc", "--format={{.CreatedBy}}", tag); secretName.MatchString(h) {
		t.Errorf("a layer's command speaks of a secret:\n%s", h)
	}
}

// converse runs the image as strictly as a node would, and talks to it as the
// router does.
func converse(t *testing.T, e *engine) {
	model, err := demomodel.Listen(t.Context(), "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: demomodel.Handler()}
	served := make(chan struct{})
	go func() { defer close(served); srv.Serve(model) }()
	t.Cleanup(func() { srv.Close(); <-served })

	config, err := os.ReadFile("testdata/gateway.json")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	// The container's user reads it.
	file := filepath.Join(dir, "gateway.json")
	if err := os.WriteFile(file, []byte(strings.ReplaceAll(string(config), "@model@", model.Addr().String())), 0o644); err != nil {
		t.Fatal(err)
	}
	addr := freeAddr(t)
	_, port, _ := net.SplitHostPort(addr)
	id := e.docker(t, "run", "--detach", "--network=host", "--read-only", "--tmpfs=/tmp", "--cap-drop=ALL", "--security-opt=no-new-privileges",
		"--env=SANDBOX_CONFIG=/gateway.json", "--env=SANDBOX_PORT="+port, "--env=OPENCLAW_OFFLINE=1", "--volume="+file+":/gateway.json:ro", tag)
	ctx, stop := context.WithCancel(context.Background())
	exited := make(chan struct{})
	go func() {
		defer close(exited)
		wait := exec.CommandContext(ctx, "docker", "wait", id)
		wait.Env = e.env()
		wait.Run()
	}()
	t.Cleanup(func() {
		if t.Failed() {
			logs := exec.Command("docker", "logs", "--tail=40", id)
			logs.Env = e.env()
			out, _ := logs.CombinedOutput()
			t.Logf("the container's log:\n%s", out)
		}
		rm := exec.Command("docker", "rm", "--force", "--volumes", id)
		rm.Env = e.env()
		rm.Run()
		stop()
		<-exited
	})

	header := http.Header{}
	for k, v := range map[string]string{"For": "192.0.2.1", "Host": "alice.localhost", "Proto": "http", "User": "alice"} {
		header.Set("X-Forwarded-"+k, v)
	}
	fmt.Println("openclaw-start user=image") // test/report counts it
	probe := readiness.Probe{URL: "http://" + addr + "/startupz", Header: header, Contains: `"status":"started"`,
		Interval: 25 * time.Millisecond, MaxInterval: 250 * time.Millisecond, AttemptTimeout: 5 * time.Second, Timeout: startLimit}
	if err := probe.Wait(t.Context(), exited); err != nil {
		t.Fatal(err)
	}
	talk, cancel := context.WithTimeout(t.Context(), chatLimit)
	defer cancel()
	c, err := chat.Dial(talk, addr, "alice.localhost", header, chat.ToTalk, (&net.Dialer{}).DialContext)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	reply, err := c.Say("", "hello from a container", nil)
	if err != nil || !strings.Contains(reply, "You said: hello from a container") {
		t.Errorf("the reply is %q, %v", reply, err)
	}
	e.docker(t, "stop", "--time=60", id)
	if code := e.docker(t, "inspect", "--format={{.State.ExitCode}}", id); code != "0" {
		t.Errorf("it ended with code %s after SIGTERM; want 0", code)
	}
}

// freeAddr is an address of this machine that nobody listens on.
func freeAddr(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}
