package readiness

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

func TestWait(t *testing.T) {
	// Each server turns ready (or not) with its third probe.
	late := func(before, after http.HandlerFunc) http.HandlerFunc {
		var n atomic.Int32
		return func(w http.ResponseWriter, r *http.Request) {
			if n.Add(1) < 3 {
				before(w, r)
				return
			}
			after(w, r)
		}
	}
	answer := func(status int, body string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(status); w.Write([]byte(body)) }
	}
	started := answer(200, `{"ok":true,"status":"started"}`)
	tests := []struct {
		name    string
		serve   http.HandlerFunc
		probe   Probe
		exited  bool
		want    error
		message string
	}{
		{name: "ready at once", serve: started, probe: Probe{Contains: `"status":"started"`}},
		{name: "ready later", serve: late(answer(503, "starting"), started), probe: Probe{Contains: "started"}},
		{name: "200 with another body is not ready", serve: answer(200, "<html>"), probe: Probe{Contains: "started"}, want: ErrNotReady, message: "without"},
		{name: "a wrong status is not ready", serve: answer(503, "started"), probe: Probe{Contains: "started"}, want: ErrNotReady, message: "503"},
		{name: "an accepted status", serve: answer(401, ""), probe: Probe{Statuses: []int{200, 401}}},
		{name: "a redirect is not followed", serve: func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "http://127.0.0.1:1/", 302) },
			want: ErrNotReady, message: "302"},
		{name: "headers are sent", serve: func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("X-Forwarded-For") != "192.0.2.1" {
				w.WriteHeader(403)
			}
		}, probe: Probe{Header: http.Header{"X-Forwarded-For": {"192.0.2.1"}}}},
		{name: "exited", serve: answer(503, ""), exited: true, want: ErrExited},
		{name: "a hanging answer is cut off", serve: func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() },
			probe: Probe{AttemptTimeout: 10 * time.Millisecond}, want: ErrNotReady, message: "deadline"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := httptest.NewServer(tt.serve)
			defer s.Close()
			p := tt.probe
			p.URL = s.URL + "/startupz"
			p.Interval, p.MaxInterval, p.Timeout = time.Millisecond, 4*time.Millisecond, 10*time.Second
			if p.AttemptTimeout == 0 {
				p.AttemptTimeout = 5 * time.Second
			}
			if errors.Is(tt.want, ErrNotReady) {
				p.Timeout = 100 * time.Millisecond
			}
			exited := make(chan struct{})
			if tt.exited {
				close(exited)
			}
			err := p.Wait(t.Context(), exited)
			if !errors.Is(err, tt.want) {
				t.Fatalf("Wait = %v, want %v", err, tt.want)
			}
			if err != nil && !strings.Contains(err.Error(), tt.message) {
				t.Errorf("Wait = %q, want it to say %q", err, tt.message)
			}
		})
	}
}

func TestWaitEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	p := Probe{URL: "http://127.0.0.1:1/", Interval: time.Millisecond, MaxInterval: time.Millisecond, AttemptTimeout: time.Second, Timeout: time.Minute}
	if err := p.Wait(ctx, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("Wait = %v, want %v", err, context.Canceled)
	}
}
