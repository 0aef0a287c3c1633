package proxy

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"
)

// Another port of a gateway has connections of its own: requests to both in turn
// close none. The next generation ends both. An anonymous request names no user.
func TestAside(t *testing.T) {
	var opened atomic.Int32
	closed := make(chan net.Conn, 8)
	server := func(name string) *httptest.Server {
		srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprintf(w, "%s for %q from %q", name, r.Header.Get("X-Forwarded-User"), r.Header.Get("X-Forwarded-For"))
		}))
		srv.Config.ConnState = func(c net.Conn, s http.ConnState) {
			switch s {
			case http.StateNew:
				opened.Add(1)
			case http.StateClosed:
				closed <- c
			}
		}
		srv.Start()
		t.Cleanup(srv.Close)
		return srv
	}
	own, channel, next := server("gateway"), server("channel"), server("next")
	target := to("g1", own)()
	srv := front(t, Config{}, func() Target { return target })
	ask := func(want string) {
		t.Helper()
		resp, err := http.Get(srv.URL)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if b, err := io.ReadAll(resp.Body); err != nil || string(b) != want {
			t.Errorf("%s (%v), want %s", b, err, want)
		}
	}
	aside := to("g1", channel)()
	aside.Aside, aside.Anonymous = true, true
	for range 3 {
		target = to("g1", own)()
		ask(`gateway for "alice" from "192.0.2.1"`)
		target = aside
		ask(`channel for "" from "192.0.2.1"`)
	}
	if opened.Load() != 2 || len(closed) != 0 {
		t.Errorf("%d connections opened, %d closed, want one to each port", opened.Load(), len(closed))
	}
	target = to("g2", next)()
	ask(`next for "alice" from "192.0.2.1"`)
	for range 2 {
		select {
		case <-closed:
		case <-time.After(20 * time.Second):
			t.Fatal("a connection of the generation before stays open")
		}
	}
}
