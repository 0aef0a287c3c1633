package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"openclaw-sandbox/internal/chat/chattest"
)

func TestFlags(t *testing.T) {
	good := filepath.Join(t.TempDir(), "router.hcl")
	bad := filepath.Join(t.TempDir(), "router.hcl")
	for file, text := range map[string]string{good: `identity "dev" {}`, bad: "identity \"dev\" {}\nlisen = 1"} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for name, c := range map[string]struct {
		args           []string
		stdout, stderr string
		usage, fails   bool
	}{
		"help":       {[]string{"--help"}, "", "-check-config", false, false},
		"version":    {[]string{"-version"}, "dev", "", false, false},
		"check":      {[]string{"-check-config", "-config", good}, "is valid", "", false, false},
		"check bad":  {[]string{"-check-config", "-config", bad}, "", "", false, true},
		"no file":    {[]string{"-config", "/no/such/file"}, "", "", false, true},
		"wrong flag": {[]string{"-nonsense"}, "", "-nonsense", true, true},
		"argument":   {[]string{"serve"}, "", "unexpected argument", true, true},
	} {
		t.Run(name, func(t *testing.T) {
			var stdout, stderr bytes.Buffer
			err := run(t.Context(), c.args, &stdout, &stderr)
			if (err != nil) != c.fails || errors.Is(err, errUsage) != c.usage {
				t.Errorf("err = %v", err)
			}
			if !strings.Contains(stdout.String(), c.stdout) || !strings.Contains(stderr.String(), c.stderr) {
				t.Errorf("stdout %q, stderr %q", &stdout, &stderr)
			}
		})
	}
}

// apiToken is an API token that fakeConsul has.
var apiToken = "ocs_" + strings.Repeat("a", 52)

// fakeConsul answers the catalog's query with one gateway, and that for API tokens
// with one, and then lets them hang, as blocking queries do.
func fakeConsul(t *testing.T, g *chattest.Gateway) *httptest.Server {
	host, port, _ := net.SplitHostPort(g.Addr())
	n, err := strconv.Atoi(port)
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		tokens := strings.HasPrefix(r.URL.Path, "/v1/kv/openclaw/token/")
		if !tokens && !strings.HasPrefix(r.URL.Path, "/v1/health/service/openclaw-gateway") {
			http.NotFound(w, r)
			return
		}
		if index := r.FormValue("index"); index != "" && index != "0" {
			<-r.Context().Done()
			return
		}
		w.Header().Set("X-Consul-Index", "7")
		if tokens {
			sum := sha256.Sum256([]byte(apiToken))
			text := hex.EncodeToString(sum[:])
			value := fmt.Appendf(nil, `{"user":"bob","role":"user","sha256":%q}`, text)
			json.NewEncoder(w).Encode([]any{map[string]any{"Key": "openclaw/token/" + text[:12], "Value": value}})
			return
		}
		json.NewEncoder(w).Encode([]any{map[string]any{"Node": map[string]any{"Address": host},
			"Service": map[string]any{"ID": "x", "Address": host, "Port": n, "CreateIndex": 5, "Meta": map[string]string{"user": "alice", "generation": "g1", "node": "n1"}}}})
	}))
	t.Cleanup(func() { srv.CloseClientConnections(); srv.Close() })
	return srv
}

func freeAddr(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// The whole program, before a catalog with one gateway: it serves, counts, and at
// its end tells a WebSocket to reconnect.
func TestServeAndDrain(t *testing.T) {
	g := chattest.New(t, "alice")
	listen, metricsListen := freeAddr(t), freeAddr(t)
	file := filepath.Join(t.TempDir(), "router.hcl")
	text := fmt.Sprintf("listen = %q\nmetrics_listen = %q\ndrain_delay = \"0s\"\ndrain_timeout = \"5s\"\nidentity \"dev\" {}\nidentity \"api\" {}\nshare \"alice\" { users = [\"bob\"] }\nconsul { address = %q }\nnomad { address = %q }\n",
		listen, metricsListen, fakeConsul(t, g).URL, "http://"+freeAddr(t))
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	ended := make(chan error, 1)
	var log bytes.Buffer
	go func() { ended <- run(ctx, []string{"-config", file}, io.Discard, &log) }()

	get := func(addr, path string) (int, string) {
		resp, err := http.Get("http://" + addr + path)
		if err != nil {
			return 0, err.Error()
		}
		defer resp.Body.Close()
		b, _ := io.ReadAll(resp.Body)
		return resp.StatusCode, string(b)
	}
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		code, body := get(listen, "/_sandbox/readyz")
		if code == http.StatusOK {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("not ready: %d %s", code, body)
		}
	}
	if code, body := get(listen, "/u/alice/chat"); code != http.StatusOK || !strings.Contains(body, "Control UI of alice") {
		t.Errorf("proxied: %d %s", code, body)
	}
	if code, body := get(listen, "/_sandbox/nothing"); code != http.StatusNotFound {
		t.Errorf("%d %s", code, body)
	}
	// Who sends a token is who it says, and no longer anybody.
	for path, want := range map[string]int{"/u/alice/chat": http.StatusOK, "/u/carol/api/status": http.StatusForbidden, "/u/bob/api/status": http.StatusOK} {
		r, err := http.NewRequest("GET", "http://"+listen+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Authorization", "Bearer "+apiToken)
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		if resp.Body.Close(); resp.StatusCode != want {
			t.Errorf("with an API token, %s: %s, want %d", path, resp.Status, want)
		}
	}
	conn, _, err := websocket.DefaultDialer.Dial("ws://"+listen+"/u/alice", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetReadDeadline(time.Now().Add(20 * time.Second))
	if _, b, err := conn.ReadMessage(); err != nil || !strings.Contains(string(b), "connect.challenge") {
		t.Fatalf("%s, %v", b, err)
	}
	_, metrics := get(metricsListen, "/metrics")
	for _, want := range []string{`sandbox_router_requests_total{class="1xx"} 1`, `sandbox_router_requests_total{class="2xx"}`, `sandbox_router_requests_total{class="4xx"} 2`, "sandbox_router_websockets 1", "sandbox_router_catalog_users 1"} {
		if !strings.Contains(metrics, want) {
			t.Errorf("the metrics lack %s", want)
		}
	}
	if strings.Contains(metrics, "alice") {
		t.Error("a metric names a user")
	}

	stop()
	if _, _, err := conn.ReadMessage(); !websocket.IsCloseError(err, websocket.CloseServiceRestart) {
		t.Errorf("at the end the client read %v, want close 1012", err)
	}
	select {
	case err := <-ended:
		if err != nil {
			t.Errorf("run: %v", err)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("the program did not end")
	}
	if code, _ := get(listen, "/_sandbox/healthz"); code != 0 {
		t.Errorf("it still serves: %d", code)
	}
}
