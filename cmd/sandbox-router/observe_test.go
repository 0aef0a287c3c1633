package main

import (
	"bytes"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"
)

const goodTrace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

func TestObserve(t *testing.T) {
	secret := strings.Repeat("s", maxSegment+1)
	for name, c := range map[string]struct {
		path           string
		header         http.Header
		id, trace, log string // what the handler gets, and what the log line has
	}{
		"plain":               {path: "/a/b", log: `"method":"GET","host":"alice.claw.test","path":"/a/b"`},
		"status and size":     {path: "/a", log: `"status":418,"bytes":5`},
		"an id of the sender": {path: "/", header: http.Header{requestID: {"req-1.A_b"}}, id: "req-1.A_b", log: `"id":"req-1.A_b"`},
		"an id that lies":     {path: "/", header: http.Header{requestID: {"x\" \"status\":200"}}},
		"an id too long":      {path: "/", header: http.Header{requestID: {strings.Repeat("x", 65)}}},
		"a trace":             {path: "/", header: http.Header{"Traceparent": {goodTrace}, "Tracestate": {"a=b"}}, trace: goodTrace},
		"a trace of zeros":    {path: "/", header: http.Header{"Traceparent": {"00-" + strings.Repeat("0", 32) + "-b7ad6b7169203331-01"}, "Tracestate": {"a=b"}}},
		"a longer version 0":  {path: "/", header: http.Header{"Traceparent": {goodTrace + "-00"}}},
		"a later version":     {path: "/", header: http.Header{"Traceparent": {"cc" + goodTrace[2:] + "-00"}}, trace: "cc" + goodTrace[2:] + "-00"},
		"two traces":          {path: "/", header: http.Header{"Traceparent": {goodTrace, goodTrace}}},
		"secrets":             {path: "/hook/" + secret + "?token=" + secret, header: http.Header{"Cookie": {secret}, "Authorization": {secret}}, log: `"path":"/hook/*"`},
	} {
		t.Run(name, func(t *testing.T) {
			var log bytes.Buffer
			var got *http.Request
			h := observe(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				got = r.Clone(r.Context())
				r.URL.Path, r.Host = "/stripped", "other"
				w.WriteHeader(http.StatusTeapot)
				io.WriteString(w, "short")
			}), accessLog(slog.New(slog.NewJSONHandler(&log, nil))))
			r := httptest.NewRequest(http.MethodGet, "http://alice.claw.test"+c.path, nil)
			for k, v := range c.header {
				r.Header[k] = v
			}
			w := httptest.NewRecorder()
			h.ServeHTTP(w, r)

			id := got.Header.Get(requestID)
			if !safeID.MatchString(id) || c.id != "" && id != c.id || id != w.Header().Get(requestID) || c.id == "" && c.header.Get(requestID) == id {
				t.Errorf("the handler got the id %q, the client %q", id, w.Header().Get(requestID))
			}
			if trace := got.Header.Get("Traceparent"); trace != c.trace || (got.Header.Get("Tracestate") != "") != (trace != "" && c.header.Get("Tracestate") != "") {
				t.Errorf("the handler got the trace %q with state %q", trace, got.Header.Get("Tracestate"))
			}
			if line := log.String(); !strings.Contains(line, c.log) || strings.Contains(line, secret) || strings.Count(line, "\n") != 1 {
				t.Errorf("the log: %s", line)
			}
		})
	}
}

func TestObserveLeavesOutProbes(t *testing.T) {
	var log bytes.Buffer
	h := observe(http.NotFoundHandler(), accessLog(slog.New(slog.NewJSONHandler(&log, nil))))
	h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/_sandbox/readyz", nil))
	if log.Len() > 0 {
		t.Errorf("the log: %s", &log)
	}
}

// An upgrade is told when it happens, and the connection is the real one.
func TestObserveUpgrade(t *testing.T) {
	told := make(chan answered, 1)
	up := websocket.Upgrader{}
	srv := httptest.NewServer(observe(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		conn, err := up.Upgrade(w, r, nil)
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		select {
		case a := <-told:
			told <- a
		case <-time.After(time.Minute):
			t.Error("the upgrade was not told while it is open")
		}
		conn.ReadMessage()
	}), func(a answered) { told <- a }))
	defer srv.Close()
	conn, _, err := websocket.DefaultDialer.Dial("ws"+strings.TrimPrefix(srv.URL, "http"), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if a := <-told; a.status != http.StatusSwitchingProtocols {
		t.Errorf("told %+v", a)
	}
}
