package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"openclaw-sandbox/internal/chat/chattest"
)

// program is the whole router, in this process, before a catalog with alice's gateway.
type program struct {
	listen, metrics string
	nomad           string // where its Nomad would be; nobody listens there
	file            string // its config
	log             *safeBuffer
	stop            context.CancelFunc
	ended           chan error
	rest            string // of the config, which does not change
	gateway         *chattest.Gateway
}

// startProgram starts it with config over the ordinary one, and returns once it is ready.
func startProgram(t *testing.T, config string) *program {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	p := &program{listen: freeAddr(t), metrics: freeAddr(t), nomad: freeAddr(t), file: filepath.Join(t.TempDir(), "router.hcl"), log: &safeBuffer{},
		stop: stop, ended: make(chan error, 1), gateway: chattest.New(t, "alice")}
	p.rest = fmt.Sprintf("listen = %q\nmetrics_listen = %q\ndrain_delay = \"0s\"\ndrain_timeout = \"5s\"\nconsul { address = %q }\nnomad { address = %q }\n",
		p.listen, p.metrics, fakeConsul(t, p.gateway).URL, "http://"+p.nomad)
	p.write(t, config)
	go func() { p.ended <- run(ctx, []string{"-config", p.file}, io.Discard, p.log) }()
	t.Cleanup(func() {
		stop()
		select {
		case err := <-p.ended:
			if err != nil {
				t.Errorf("run: %v", err)
			}
		case <-time.After(20 * time.Second):
			t.Error("the program did not end")
		}
		if t.Failed() {
			t.Logf("its log:\n%s", p.log)
		}
	})
	// Who dials a port before somebody listens there may be given that very port.
	p.eventually(t, "that it serves", func() bool { return strings.Contains(p.log.String(), `"msg":"serving"`) })
	p.eventually(t, "sandbox_router_catalog_users 1", func() bool { return strings.Contains(p.scrape(), "sandbox_router_catalog_users 1\n") })
	return p
}

func (p *program) write(t *testing.T, config string) {
	t.Helper()
	if err := os.WriteFile(p.file, []byte(config+"\n"+p.rest), 0o600); err != nil {
		t.Fatal(err)
	}
}

func (p *program) eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not seen: %s", what)
		}
	}
}

// scrape is what Prometheus would see.
func (p *program) scrape() string {
	resp, err := http.Get("http://" + p.metrics + "/metrics")
	if err != nil {
		return err.Error()
	}
	defer resp.Body.Close()
	b, _ := io.ReadAll(resp.Body)
	return string(b)
}

// safeBuffer can be read while it is written.
type safeBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *safeBuffer) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(b)
}

func (s *safeBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// Behind a trusted proxy the client is whom it names, for the log and for the gateway;
// and what has come and gone is not counted for ever.
func TestTrustedProxy(t *testing.T) {
	p := startProgram(t, "identity \"dev\" {}\naccess_log = true\ntrusted_proxies = [\"127.0.0.0/8\"]\n")
	own := &http.Transport{}
	r, err := http.NewRequest("GET", "http://"+p.listen+"/u/alice/x", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("X-Forwarded-For", "1.2.3.4, 203.0.113.9")
	resp, err := own.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	io.Copy(io.Discard, resp.Body) // so that the connection stays
	resp.Body.Close()
	if got := p.gateway.Header().Get("X-Forwarded-For"); got != "203.0.113.9" {
		t.Errorf("the gateway was told %q", got)
	}
	p.eventually(t, "the request's line", func() bool { return strings.Contains(p.log.String(), `"from":"203.0.113.9:0"`) })
	conn, _, err := websocket.DefaultDialer.Dial("ws://"+p.listen+"/u/alice", nil)
	if err != nil {
		t.Fatal(err)
	}
	p.eventually(t, "2 connections", func() bool { return strings.Contains(p.scrape(), "sandbox_router_connections 2\n") })
	conn.Close()
	own.CloseIdleConnections()
	p.eventually(t, "no connections", func() bool { return strings.Contains(p.scrape(), "sandbox_router_connections 0\n") })
}
