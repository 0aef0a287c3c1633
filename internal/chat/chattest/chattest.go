// Package chattest is a gateway for tests: it speaks as much of the OpenClaw
// gateway's HTTP and WebSocket protocol (version 4) as the router needs.
package chattest

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gorilla/websocket"
)

// Gateway is a running fake. Messages choose what it does: "FAIL" ends the turn
// as an error, "REFUSE" is not accepted, "VANISH" breaks the connection, "HANG" says nothing
// until the client is gone, "QUEUE …" is answered by a later turn, as the gateway does
// when one is running; anything else is answered by "You said: …", in pieces.
type Gateway struct {
	// User is whom the gateway serves: others are refused, as by trusted-proxy auth.
	User string
	srv  *httptest.Server

	mu       sync.Mutex // guards what follows
	sessions []string
	history  []map[string]any
	header   http.Header
	body     string
}

// New starts a gateway for one user, which ends with the test.
func New(t testing.TB, user string) *Gateway {
	t.Helper()
	g := &Gateway{User: user}
	g.srv = httptest.NewServer(g)
	t.Cleanup(g.srv.Close)
	return g
}

// Addr is where it listens, host:port.
func (g *Gateway) Addr() string { return g.srv.Listener.Addr().String() }

// Close ends it before the test does; the port is closed then.
func (g *Gateway) Close() { g.srv.Close() }

// Sessions are the sessions that messages were sent to, in order.
func (g *Gateway) Sessions() []string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return append([]string(nil), g.sessions...)
}

// Header is that of the last request.
func (g *Gateway) Header() http.Header {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.header.Clone()
}

// Body is that of the last request that was no WebSocket.
func (g *Gateway) Body() string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.body
}

// ServeHTTP is the gateway's port.
func (g *Gateway) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	g.mu.Lock()
	g.body = string(body)
	g.header = r.Header.Clone()
	g.header.Set("Host", r.Host)
	g.mu.Unlock()
	switch {
	case r.Header.Get("X-Forwarded-For") == "" || strings.HasPrefix(r.Header.Get("X-Forwarded-For"), "127."):
		http.Error(w, `{"error":"proxy_attribution_required"}`, http.StatusForbidden)
	case websocket.IsWebSocketUpgrade(r):
		g.socket(w, r)
	case r.URL.Path == "/startupz":
		w.Header().Set("Content-Type", "application/json")
		w.Write([]byte(`{"ok":true,"status":"started"}`))
	default: // like the Control UI: 200 and HTML
		w.Header().Set("Content-Type", "text/html")
		w.Write([]byte("<title>Control UI of " + g.User + "</title>" + r.URL.RequestURI()))
	}
}

type request struct {
	ID     string `json:"id"`
	Method string `json:"method"`
	Params struct {
		SessionKey     string `json:"sessionKey"`
		Message        string `json:"message"`
		IdempotencyKey string `json:"idempotencyKey"`
		MinProtocol    int    `json:"minProtocol"`
		Client         struct {
			ID   string `json:"id"`
			Mode string `json:"mode"`
		} `json:"client"`
		Scopes []string `json:"scopes"`
	} `json:"params"`
}

func (g *Gateway) socket(w http.ResponseWriter, r *http.Request) {
	up := websocket.Upgrader{CheckOrigin: func(*http.Request) bool { return true }}
	conn, err := up.Upgrade(w, r, nil)
	if err != nil {
		return
	}
	defer conn.Close()
	event := func(name string, payload any) {
		conn.WriteJSON(map[string]any{"type": "event", "event": name, "payload": payload})
	}
	event("connect.challenge", map[string]any{"nonce": "n", "ts": 1})
	connected := false
	for {
		var q request
		if conn.ReadJSON(&q) != nil {
			return
		}
		refuse := func(code, message string) {
			conn.WriteJSON(map[string]any{"type": "res", "id": q.ID, "ok": false, "error": map[string]string{"code": code, "message": message}})
		}
		switch {
		case q.Method == "connect":
			if r.Header.Get("X-Forwarded-User") != g.User || q.Params.MinProtocol != 4 || q.Params.Client.Mode != "backend" || len(q.Params.Scopes) == 0 {
				refuse("AUTH_UNAUTHORIZED", "trusted_proxy_user_not_allowed")
				conn.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(websocket.ClosePolicyViolation, "unauthorized"), time.Now().Add(time.Second))
				return
			}
			connected = true
			event("health", map[string]any{})
			conn.WriteJSON(map[string]any{"type": "res", "id": q.ID, "ok": true, "payload": map[string]any{"type": "hello-ok", "protocol": 4}})
		case q.Method == "chat.send" && connected && q.Params.Message == "REFUSE":
			refuse("UNAVAILABLE", "gateway suspension")
		case q.Method == "chat.send" && connected && q.Params.SessionKey == "agent:nobody:main":
			refuse("INVALID_REQUEST", "Agent \"nobody\" no longer exists in configuration")
		case q.Method == "chat.send" && connected:
			g.turn(conn, event, q)
		case q.Method == "chat.history" && connected:
			g.mu.Lock()
			conn.WriteJSON(map[string]any{"type": "res", "id": q.ID, "ok": true, "payload": map[string]any{"messages": g.history}})
			if len(g.history) == 1 { // the turn ends after the first look
				g.history = append(g.history, map[string]any{"role": "assistant", "content": "I think."},
					map[string]any{"role": "assistant", "content": []map[string]string{{"type": "text", "text": "You said: later"}}},
					map[string]any{"role": "user", "content": "QUEUE", "idempotencyKey": "other:user"},
					map[string]any{"role": "assistant", "content": "to another"})
				event("chat", map[string]any{"runId": "another", "state": "status"})
				event("chat", map[string]any{"runId": "another", "state": "final"})
			}
			g.mu.Unlock()
		default:
			refuse("INVALID_REQUEST", "unknown method "+q.Method)
		}
	}
}

func (g *Gateway) turn(conn *websocket.Conn, event func(string, any), q request) {
	g.mu.Lock()
	g.sessions = append(g.sessions, q.Params.SessionKey)
	g.mu.Unlock()
	chat := func(state string, more map[string]any) {
		p := map[string]any{"runId": q.Params.IdempotencyKey, "sessionKey": q.Params.SessionKey, "state": state}
		for k, v := range more {
			p[k] = v
		}
		event("chat", p)
	}
	text := func(s string) map[string]any {
		return map[string]any{"role": "assistant", "content": []map[string]string{{"type": "text", "text": s}}}
	}
	if q.Params.Message == "QUEUE" {
		g.mu.Lock()
		g.history = []map[string]any{{"role": "user", "content": "QUEUE", "idempotencyKey": q.Params.IdempotencyKey + ":user"}}
		g.mu.Unlock()
	} else {
		chat("status", map[string]any{"phase": "preparing_workspace"}) // before the answer, as may be
	}
	payload, _ := json.Marshal(map[string]string{"runId": q.Params.IdempotencyKey, "status": "started"})
	conn.WriteJSON(map[string]any{"type": "res", "id": q.ID, "ok": true, "payload": json.RawMessage(payload)})
	event("chat", map[string]any{"runId": "another", "state": "delta", "deltaText": "not yours"})
	switch q.Params.Message {
	case "FAIL":
		chat("error", map[string]any{"errorMessage": "the model has no key"})
	case "QUEUE":
		chat("final", nil)
	case "VANISH":
		conn.NetConn().Close()
	case "HANG":
		conn.ReadMessage()
	default:
		reply := ""
		for _, word := range []string{"You ", "said: ", q.Params.Message} {
			reply += word
			chat("delta", map[string]any{"deltaText": word, "message": text(reply)})
			event("tick", map[string]any{})
		}
		chat("final", map[string]any{"stopReason": "stop", "message": text(reply)})
	}
}
