package drain

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/gorilla/websocket"
)

// A drain lets a running request end, refuses new connections, and tells an open
// WebSocket to reconnect elsewhere.
func TestRun(t *testing.T) {
	d := New()
	inside, release := make(chan struct{}), make(chan struct{})
	mux := http.NewServeMux()
	mux.HandleFunc("/slow", func(w http.ResponseWriter, r *http.Request) {
		close(inside)
		<-release
		io.WriteString(w, "whole")
	})
	mux.HandleFunc("/ws", func(w http.ResponseWriter, r *http.Request) {
		up := websocket.Upgrader{}
		c, err := up.Upgrade(w, r, nil)
		if err != nil {
			t.Error(err)
			return
		}
		for {
			if _, _, err := c.ReadMessage(); err != nil {
				c.Close()
				return
			}
		}
	})
	srv := httptest.NewServer(d.Handler(mux))
	defer srv.Close()
	addr := srv.Listener.Addr().String()

	ws, _, err := websocket.DefaultDialer.DialContext(t.Context(), "ws://"+addr+"/ws", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer ws.Close()
	if d.Open() != 1 {
		t.Errorf("%d open WebSockets, want 1", d.Open())
	}
	slow := make(chan string, 1)
	go func() {
		resp, err := http.Get("http://" + addr + "/slow")
		if err != nil {
			slow <- err.Error()
			return
		}
		defer resp.Body.Close()
		b, _ := io.ReadAll(resp.Body)
		slow <- string(b)
	}()
	<-inside
	ended := make(chan error, 1)
	go func() { ended <- d.Run(srv.Config, time.Millisecond, 10*time.Second) }()
	for {
		// Closed to new connections while the slow request still runs.
		c, err := net.Dial("tcp", addr)
		if err != nil {
			break
		}
		c.Close()
	}
	if !d.Draining() {
		t.Error("Draining = false during a drain")
	}
	close(release)
	if got := <-slow; got != "whole" {
		t.Errorf("the running request got %q, want its whole answer", got)
	}
	if err := <-ended; err != nil {
		t.Errorf("Run = %v", err)
	}
	_, _, err = ws.ReadMessage()
	var closed *websocket.CloseError
	if !errors.As(err, &closed) || closed.Code != websocket.CloseServiceRestart {
		t.Errorf("the WebSocket ended with %v, want 1012", err)
	}
	if d.Open() != 0 {
		t.Errorf("%d WebSockets are still tracked", d.Open())
	}
}

// A request that does not end in time is cut off, and that is an error.
func TestRunCutsOff(t *testing.T) {
	d := New()
	inside := make(chan struct{})
	srv := httptest.NewServer(d.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		close(inside)
		<-r.Context().Done()
	})))
	defer srv.Close()
	go http.Get(srv.URL)
	<-inside
	if err := d.Run(srv.Config, 0, 50*time.Millisecond); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Run = %v, want a deadline error", err)
	}
}
