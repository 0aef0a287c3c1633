package main

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"reflect"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"openclaw-sandbox/internal/config"
)

// hangUp sends this process SIGHUP, which the program in it takes.
func hangUp(t *testing.T) {
	t.Helper()
	if err := syscall.Kill(os.Getpid(), syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
}

// Whoever adds a setting says whether it can change while the router runs.
func TestEverySettingIsLiveOrFixed(t *testing.T) {
	for f := range reflect.TypeFor[config.Config]().Fields() {
		if live[f.Name] == (fixed[f.Name] != "") {
			t.Errorf("%s must be in live or in fixed of reload.go", f.Name)
		}
	}
}

const aliceToken = "identity \"token\" {\n token \"alice\" { sha256 = \"1a6ec26d2a4a1a4a4cf2a3ee0a06ccd3ea1f04bdfa7a1f1b50bd2a6f6a6e4b57\" }\n}\n"

// By SIGHUP another config counts; who is being served notices nothing.
func TestReload(t *testing.T) {
	p := startProgram(t, "identity \"dev\" {}\n")
	conn, _, err := websocket.DefaultDialer.Dial("ws://"+p.listen+"/u/alice", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetReadDeadline(time.Now().Add(20 * time.Second))
	if _, _, err := conn.ReadMessage(); err != nil {
		t.Fatal(err)
	}
	// A request whose body is on its way.
	slow, err := net.Dial("tcp", p.listen)
	if err != nil {
		t.Fatal(err)
	}
	defer slow.Close()
	slow.SetDeadline(time.Now().Add(20 * time.Second))
	fmt.Fprintf(slow, "POST /u/alice/x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\n\r\nab")
	p.eventually(t, "both connections", func() bool { return strings.Contains(p.scrape(), "sandbox_router_connections 2\n") })

	status := func() int {
		resp, err := http.Get("http://" + p.listen + "/u/alice/api/status")
		if err != nil {
			return 0
		}
		defer resp.Body.Close()
		io.Copy(io.Discard, resp.Body)
		return resp.StatusCode
	}
	reloaded := func(outcome string, n int) {
		t.Helper()
		p.eventually(t, outcome, func() bool {
			return strings.Contains(p.scrape(), fmt.Sprintf("sandbox_router_reloads_total{outcome=%q} %d\n", outcome, n))
		})
	}
	if got := status(); got != http.StatusOK {
		t.Fatalf("before: %d", got)
	}
	p.write(t, aliceToken+"access_log = true\ndomain = \"other.test\"\nidle { period = \"5s\" }\n")
	hangUp(t)
	reloaded("done", 1)
	if got := status(); got != http.StatusUnauthorized {
		t.Errorf("with tokens only: %d", got)
	}
	for _, want := range []string{`"settings":"domain, idle.period"`, `"msg":"request"`} {
		p.eventually(t, want, func() bool { return strings.Contains(p.log.String(), want) })
	}

	p.write(t, "identity \"magic\" {}\nscheme = \"ftp\"\n")
	hangUp(t)
	reloaded("failed", 1)
	if got := status(); got != http.StatusUnauthorized {
		t.Errorf("after an invalid file: %d", got)
	}
	if got := strings.Count(p.log.String(), "was not reloaded"); got != 3 || !strings.Contains(p.log.String(), `router.hcl:2,`) {
		t.Errorf("%d problems are in the log, want the wrong method, that nobody could enter, and the scheme, with their places", got)
	}

	io.WriteString(slow, "cd")
	resp, err := http.ReadResponse(bufio.NewReader(slow), nil)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Errorf("the request that was on its way: %v, %v", resp, err)
	}
	if err := conn.WriteMessage(websocket.TextMessage, []byte("{}")); err != nil {
		t.Error(err)
	}
	if _, _, err := conn.ReadMessage(); err != nil && !websocket.IsCloseError(err, websocket.ClosePolicyViolation) {
		t.Errorf("the WebSocket: %v", err) // the gateway answers, or closes what is no greeting
	}
}

// Starts and idle sandboxes go by another config from then on.
func TestReloadOfStartsAndIdle(t *testing.T) {
	p := startProgram(t, "identity \"dev\" {}\nwake { max_starting = 1 }\nidle {\n freeze_after = \"0s\"\n stop_after = \"0s\"\n}\n")
	nomad, err := net.Listen("tcp", p.nomad) // it never answers, so that starts last
	if err != nil {
		t.Fatal(err)
	}
	defer nomad.Close()
	get := func(path string) string {
		resp, err := http.Get("http://" + p.listen + path)
		if err != nil {
			return err.Error()
		}
		defer resp.Body.Close()
		b, _ := io.ReadAll(resp.Body)
		return string(b)
	}
	for _, user := range []string{"bob", "carol"} {
		resp, err := http.Post("http://"+p.listen+"/u/"+user+"/_sandbox/start", "", nil)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
	}
	load := func(starting, queued int) {
		t.Helper()
		p.eventually(t, "the load", func() bool {
			return strings.Contains(p.scrape(), fmt.Sprintf("sandbox_router_starts_queued %d\n", queued)) && strings.Contains(p.scrape(), fmt.Sprintf("sandbox_router_starts_running %d\n", starting))
		})
	}
	load(1, 1)
	if got := get("/u/alice/api/status"); !strings.Contains(got, `"idle"`) || strings.Contains(got, `"next"`) {
		t.Errorf("while nothing is frozen or stopped: %s", got)
	}
	p.write(t, "identity \"dev\" {}\nwake { max_starting = 2 }\nidle {\n freeze_after = \"0s\"\n stop_after = \"1h\"\n}\n")
	hangUp(t)
	load(2, 0)
	p.eventually(t, "when alice's is stopped", func() bool { return strings.Contains(get("/u/alice/api/status"), `"next":"stop"`) })
	if strings.Contains(p.log.String(), "need a restart") {
		t.Error("a setting was left as it was")
	}
}

// What can not change is checked together with what can.
func TestMergeKeepsTheListenerSafe(t *testing.T) {
	old, next := config.NewConfig(), config.NewConfig()
	old.Listen, next.DevUser = "0.0.0.0:80", "me"
	merged, kept := merge(old, next)
	if err := merged.Check(); err == nil || !strings.Contains(err.Error(), "loopback") || len(kept) != 1 || kept[0] != "listen" {
		t.Errorf("%v, kept %v", err, kept)
	}
}
