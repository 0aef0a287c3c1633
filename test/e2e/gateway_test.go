package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"openclaw-sandbox/test/patience"
)

// session is a WebSocket connection to a user's gateway, as a program (not a
// browser) would open it: through the router, with no Origin.
type session struct {
	t    *testing.T
	conn *websocket.Conn
	id   int
}

type frame struct {
	Type    string          `json:"type"`
	ID      string          `json:"id"`
	Event   string          `json:"event"`
	OK      bool            `json:"ok"`
	Payload json.RawMessage `json:"payload"`
	Error   json.RawMessage `json:"error"`
}

// dial opens a session for user; the upgrade is held while the sandbox wakes.
func dial(t *testing.T, r router, user string) *session {
	t.Helper()
	shared.endAfter(t, user)
	ctx, cancel := context.WithTimeout(t.Context(), patience.Of(startLimit))
	defer cancel()
	h := http.Header{}
	h.Set("Host", r.host(user))
	if r.token != "" {
		h.Set("Authorization", "Bearer "+r.token)
	}
	conn, resp, err := (&websocket.Dialer{}).DialContext(ctx, "ws://"+r.addr+"/", h)
	if err != nil {
		status := "no answer"
		if resp != nil {
			status = resp.Status
		}
		t.Fatalf("open a WebSocket for %s: %v (%s)", user, err, status)
	}
	t.Cleanup(func() { conn.Close() })
	s := &session{t: t, conn: conn}
	s.event("connect.challenge", 20*time.Second, func(json.RawMessage) bool { return true })
	s.call("connect", map[string]any{
		"minProtocol": 4, "maxProtocol": 4, "role": "operator",
		"client": map[string]any{"id": "gateway-client", "version": "1.0.0", "platform": "linux", "mode": "backend"},
		"scopes": []string{"operator.admin", "operator.read", "operator.write"},
	})
	return s
}

func (s *session) read(limit time.Duration) frame {
	s.t.Helper()
	s.conn.SetReadDeadline(time.Now().Add(limit))
	var f frame
	if err := s.conn.ReadJSON(&f); err != nil {
		s.t.Fatalf("read from the gateway: %v", err)
	}
	return f
}

// event reads until an event of that name satisfies ok.
func (s *session) event(name string, limit time.Duration, ok func(json.RawMessage) bool) {
	s.t.Helper()
	limit = patience.Of(limit)
	for end := time.Now().Add(limit); time.Now().Before(end); {
		if f := s.read(time.Until(end)); f.Type == "event" && f.Event == name && ok(f.Payload) {
			return
		}
	}
	s.t.Fatalf("no event %q within %s", name, limit)
}

// begin sends a request and returns its id.
func (s *session) begin(method string, params any) string {
	s.t.Helper()
	s.id++
	id := fmt.Sprint(s.id)
	if err := s.conn.WriteJSON(map[string]any{"type": "req", "id": id, "method": method, "params": params}); err != nil {
		s.t.Fatalf("%s: %v", method, err)
	}
	return id
}

// call sends a request and returns its payload.
func (s *session) call(method string, params any) json.RawMessage {
	s.t.Helper()
	id := s.begin(method, params)
	for end := time.Now().Add(patience.Of(30 * time.Second)); time.Now().Before(end); {
		f := s.read(time.Until(end))
		if f.Type != "res" || f.ID != id {
			continue
		}
		if !f.OK {
			s.t.Fatalf("%s: the gateway refused: %s", method, f.Error)
		}
		return f.Payload
	}
	s.t.Fatalf("%s: no answer", method)
	return nil
}

const sessionKey = "agent:main:main"

// send begins a turn and returns its run id.
func (s *session) send(message string) string {
	s.t.Helper()
	run := fmt.Sprintf("e2e-%d-%d", time.Now().UnixNano(), s.id)
	s.call("chat.send", map[string]any{"sessionKey": sessionKey, "message": message, "idempotencyKey": run})
	return run
}

// final waits for the end of the run and returns the reply's text.
func (s *session) final(run string, limit time.Duration) string {
	s.t.Helper()
	var p struct {
		RunID   string `json:"runId"`
		State   string `json:"state"`
		Message struct {
			Content []struct {
				Text string `json:"text"`
			} `json:"content"`
		} `json:"message"`
	}
	s.event("chat", limit, func(raw json.RawMessage) bool {
		if json.Unmarshal(raw, &p) != nil || p.RunID != run {
			return false
		}
		switch p.State {
		case "error", "aborted":
			s.t.Fatalf("the turn ended as %q: %s", p.State, raw)
		}
		return p.State == "final"
	})
	text := ""
	for _, c := range p.Message.Content {
		text += c.Text
	}
	return text
}

// chat is one whole turn.
func (s *session) chat(message string) string {
	s.t.Helper()
	return s.final(s.send(message), 60*time.Second)
}

// history is the transcript as the gateway gives it.
func (s *session) history() string {
	s.t.Helper()
	return string(s.call("chat.history", map[string]any{"sessionKey": sessionKey, "limit": 200}))
}
