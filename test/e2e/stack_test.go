// Package e2e tests the product as people use it: the real gateway, started by
// real Nomad through the driver, found in real Consul, with its state in a real
// S3 server, through the router, by HTTP, WebSocket and a real browser. Only the
// language model is a stand-in.
package e2e

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	consul "github.com/hashicorp/consul/api"

	"openclaw-sandbox/internal/devcluster"
	"openclaw-sandbox/internal/objstore"
	"openclaw-sandbox/internal/sandbox"
	"openclaw-sandbox/internal/snapshot"
	"openclaw-sandbox/internal/webhook"
	"openclaw-sandbox/test/patience"
)

const (
	// startLimit is how long a gateway may take on a busy machine of two cores.
	startLimit = 150 * time.Second
	// stackStart is how long the stack takes to start on a machine for which the limits are meant.
	stackStart = 20 * time.Second
	pollPause  = 100 * time.Millisecond
	// snapshotInterval is what a crash may lose at most.
	snapshotInterval = 3 * time.Second
	artifacts        = "../../test-artifacts"
)

// hooksToken is the gateways' own, for /hooks/.
const hooksToken = "the-gateways-own-token-for-hooks"

// tokenOf is a user's token at the router that asks for one.
func tokenOf(user string) string { return "token-of-" + user }

var tokenUsers = []string{"heidi", "ivan", "judy"}

// router is one of the routers, as a caller with one identity sees it.
type router struct{ addr, domain, token string }

func (r router) port() string { _, p, _ := net.SplitHostPort(r.addr); return p }

func (r router) host(user string) string { return user + "." + r.domain + ":" + r.port() }

func (r router) url(user string) string { return "http://" + r.host(user) }

// stack is the running stack, shared by the tests: they use different users.
type stack struct {
	*devcluster.Stack
	dev                                                  router
	tokens                                               map[string]router
	broken                                               router // its sandboxes never start
	consulURL, bridgeIP, nomadPort, modelAddr, secretKey string
	accessKey                                            string
	source, bin                                          string // what it was made of
	store                                                objstore.Store
	webhooks                                             *webhook.Derived // with what the second router's webhooks are signed
	telegramAddr                                         string           // which sandboxes may reach
}

var shared *stack

func needStack(t *testing.T) *stack {
	t.Helper()
	if shared == nil {
		t.Skip("the end-to-end tests need root: they run sandboxes with real isolation")
	}
	return shared
}

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	if os.Geteuid() != 0 {
		return m.Run()
	}
	dir, err := os.MkdirTemp("", "ocs-e2e-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	// The sandbox's user must get to start.sh.
	if err := os.Chmod(dir, 0o711); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	if shared, err = up(ctx, dir); err != nil {
		fmt.Fprintln(os.Stderr, "the stack does not start:", err)
		keepLogs(filepath.Join(dir, "stack"))
		return 1
	}
	code := m.Run()
	shared.reportStarts()
	if code != 0 {
		keepLogs(filepath.Join(dir, "stack"))
	}
	down, stop := context.WithTimeout(context.Background(), 4*time.Minute)
	defer stop()
	if err := shared.Down(down); err != nil {
		fmt.Fprintln(os.Stderr, "the stack does not stop:", err)
		code = 1
	}
	if code != 0 {
		keepLogs(filepath.Join(dir, "stack")) // with what the end said
	}
	if left := leftovers(dir); left != "" {
		fmt.Fprintln(os.Stderr, "the stack left something behind:\n"+left)
		code = 1
	}
	return code
}

// reportStarts prints a line for each start of a gateway, which test/report counts: a
// start raises the epoch of its user's head by one.
func (s *stack) reportStarts() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for info, err := range s.store.List(ctx, "users/") {
		if err != nil {
			fmt.Fprintln(os.Stderr, "count the starts:", err)
			return
		}
		user, ok := strings.CutSuffix(strings.TrimPrefix(info.Key, "users/"), "/head")
		if !ok || strings.Contains(user, "/") {
			continue
		}
		h, _, err := snapshot.ReadHead(ctx, s.store, sandbox.User(user))
		if err != nil {
			continue // a test may have damaged it
		}
		for range h.Epoch {
			fmt.Println("openclaw-start user=" + user)
		}
	}
}

// keepLogs puts the logs of the stack's agents beside the screenshots.
func keepLogs(dir string) {
	logs, err := filepath.Glob(filepath.Join(dir, "*", "*.log"))
	tasks, terr := filepath.Glob(filepath.Join(dir, "nomad", "data", "alloc", "*", "alloc", "logs", "*.std*.[0-9]*")) // not the pipes beside them
	err = errors.Join(err, terr)
	if err == nil && len(logs) == 0 {
		err = fmt.Errorf("%s has none", dir)
	}
	for _, from := range append(logs, tasks...) {
		name := filepath.Base(from)
		if alloc, ok := strings.CutPrefix(from, filepath.Join(dir, "nomad", "data", "alloc")+"/"); ok {
			name = alloc[:8] + "." + name
		}
		text, rerr := os.ReadFile(from)
		err = errors.Join(err, rerr, os.WriteFile(filepath.Join(artifacts, name), text, 0o644))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "keep the logs:", err)
	}
}

const (
	e2eBridge       = "ocs-e2e0"
	e2eBridgeSubnet = "172.26.96.0/20"
	e2eBridgeIP     = "172.26.96.1"
)

func up(ctx context.Context, dir string) (*stack, error) {
	if err := os.MkdirAll(artifacts, 0o755); err != nil {
		return nil, err
	}
	bin := filepath.Join(dir, "bin")
	for name, pkg := range map[string]string{"sandbox": "openclaw-sandbox/plugin", "sandbox-router": "openclaw-sandbox/cmd/sandbox-router"} {
		if out, err := exec.CommandContext(ctx, "go", "build", "-race", "-o", filepath.Join(bin, name), pkg).CombinedOutput(); err != nil {
			return nil, fmt.Errorf("build %s: %w\n%s", name, err, out)
		}
	}
	source, err := filepath.Abs("../..")
	if err != nil {
		return nil, err
	}
	tokens := "identity \"token\" {\n"
	for _, u := range tokenUsers {
		sum := sha256.Sum256([]byte(tokenOf(u)))
		tokens += fmt.Sprintf("  token %q { sha256 = %q }\n", u, hex.EncodeToString(sum[:]))
	}
	tokens += "}\n"
	tokens += lazy
	master := filepath.Join(dir, "webhooks.key")
	if err := os.WriteFile(master, []byte(base64.StdEncoding.EncodeToString([]byte("the master secret of 32 bytes !!"))), 0o600); err != nil {
		return nil, err
	}
	webhooks, err := webhook.ReadMasters(master)
	if err != nil {
		return nil, err
	}
	ports, err := devcluster.FreePorts(1)
	if err != nil {
		return nil, err
	}
	telegram := net.JoinHostPort(e2eBridgeIP, strconv.Itoa(ports[0]))
	tokens += fmt.Sprintf("webhook \"hooks\" {\n path = \"/hooks/\"\n signature = \"signed\"\n secret_files = [%q]\n}\n", master)
	tokens += fmt.Sprintf("webhook \"telegram\" {\n path = \"/telegram-webhook\"\n signature = \"telegram\"\n secret_files = [%q]\n port = 8787\n}\n", master)
	begin := time.Now()
	s, err := upWith(ctx, devcluster.Options{
		Source: source, Bin: bin, Dir: filepath.Join(dir, "stack"), Bridge: e2eBridge, BridgeSubnet: e2eBridgeSubnet, Allow: []string{telegram},
		Settings: map[string]any{"hooks": map[string]any{"enabled": true, "token": hooksToken}},
		Routers: []devcluster.RouterOptions{
			{Job: "sandbox-router", Identity: devIdentity}, {Job: "sandbox-router-tokens", Identity: tokens},
			{Job: "sandbox-router-broken", Identity: devIdentity, Sandboxes: "openclaw-broken"},
		},
	})
	if err != nil {
		return nil, err
	}
	patience.Measure(time.Since(begin), stackStart)
	s.webhooks, s.telegramAddr = webhooks, telegram
	s.tokens = map[string]router{}
	for _, u := range tokenUsers {
		s.tokens[u] = router{addr: s.Routers[1], domain: "localhost", token: tokenOf(u)}
	}
	s.broken = router{addr: s.Routers[2], domain: "localhost"}
	return s, nil
}

// lazy lets routers look often; tests give their users policies of their own.
// The lead leaves a slow machine time for a start.
var lazy = fmt.Sprintf("idle {\n  period     = \"1s\"\n  wake_ahead = %q\n}\n", wakeAhead.String())

const wakeAhead = time.Minute

var devIdentity = "identity \"dev\" {}\n" + lazy

// upWith starts a stack with real isolation, whose first router lets everybody in.
func upWith(ctx context.Context, o devcluster.Options) (*stack, error) {
	o.Runtime, o.SnapshotInterval = "image", snapshotInterval.String()
	o.Progress = func(f string, a ...any) { fmt.Printf(f+"\n", a...) }
	st, err := devcluster.Up(ctx, o)
	if err != nil {
		return nil, err
	}
	s := &stack{Stack: st, source: o.Source, bin: o.Bin, consulURL: "http://" + st.Consul.Addr, bridgeIP: st.BridgeIP, modelAddr: st.ModelAddr, secretKey: st.S3.SecretKey, accessKey: st.S3.AccessKey}
	s.dev = router{addr: st.Routers[0], domain: "localhost"}
	_, s.nomadPort, _ = net.SplitHostPort(st.Nomad.Addr)
	s.store, err = objstore.Open(ctx, objstore.Config{URL: "s3://" + st.S3.Bucket, Endpoint: st.S3.Endpoint(), Region: "us-east-1",
		AccessKeyID: st.S3.AccessKey, SecretAccessKey: st.S3.SecretKey, PathStyle: true})
	return s, err
}

// leftovers are processes, mounts, interfaces and rules of the stack that is gone.
func leftovers(dir string) string {
	var out strings.Builder
	for _, cmd := range [][]string{{"pgrep", "-af", dir}, {"grep", dir, "/proc/self/mounts"}, {"ip", "-o", "link", "show", e2eBridge}, {"sh", "-c", "nft list tables | grep ocs_e2e0"}, {"sh", "-c", "iptables -S | grep " + e2eBridge}} {
		if b, err := exec.Command(cmd[0], cmd[1:]...).Output(); err == nil && len(b) > 0 {
			fmt.Fprintf(&out, "%v:\n%s", cmd, b)
		}
	}
	return out.String()
}

func eventually(t *testing.T, limit time.Duration, what string, ok func() bool) {
	t.Helper()
	limit = patience.Of(limit)
	for end := time.Now().Add(limit); !ok(); time.Sleep(pollPause) {
		if time.Now().After(end) {
			t.Fatalf("no %s within %s", what, limit)
		}
	}
}

// do sends a request for a user's sandbox, as a program would.
func (s *stack) do(t *testing.T, r router, method, user, path, body string, h http.Header) *http.Response {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, "http://"+r.addr+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Host = r.host(user)
	s.endAfter(t, user)
	for k, v := range h {
		req.Header[k] = v
	}
	if r.token != "" {
		req.Header.Set("Authorization", "Bearer "+r.token)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatalf("%s %s for %s: %v", method, path, user, err)
	}
	return resp
}

func (s *stack) get(t *testing.T, r router, user, path string, h http.Header) *http.Response {
	t.Helper()
	return s.do(t, r, http.MethodGet, user, path, "", h)
}

func (s *stack) post(t *testing.T, r router, user, path, body, accept string) *http.Response {
	t.Helper()
	return s.do(t, r, http.MethodPost, user, path, body, http.Header{"Content-Type": {"application/json"}, "Accept": {accept}})
}

// postTo posts JSON to a path of the router under another host name.
func (s *stack) postTo(t *testing.T, r router, host, user, path, body string) *http.Response {
	t.Helper()
	s.endAfter(t, user)
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+r.addr+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Host = host
	req.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	return resp
}

// dispatch starts a sandbox by hand and returns the child job's id.
func (s *stack) dispatch(t *testing.T, user string) string {
	t.Helper()
	resp, _, err := s.Nomad.Client().Jobs().Dispatch("openclaw", map[string]string{"user": user}, nil, "", nil)
	if err != nil {
		t.Fatal(err)
	}
	return resp.DispatchedJobID
}

func (s *stack) passing(user string) *consul.ServiceEntry {
	entries, _, err := s.Consul.Client().Health().Service("openclaw-gateway", "", true, nil)
	if err != nil {
		return nil
	}
	for _, e := range entries {
		if e.Service.Meta["user"] == user {
			return e
		}
	}
	return nil
}

func (s *stack) waitPassing(t *testing.T, user string) (e *consul.ServiceEntry) {
	t.Helper()
	s.endAfter(t, user)
	eventually(t, startLimit, "passing gateway of "+user, func() bool { e = s.passing(user); return e != nil })
	return e
}
