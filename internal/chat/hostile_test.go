package chat_test

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/gorilla/websocket"

	"openclaw-sandbox/internal/chat"
)

// mayCost is how much a hostile gateway may add to the heap, in bytes.
const mayCost = 64 << 20

// heap is the number of bytes that are in use, garbage included.
func heap() uint64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// bounded runs f and reports a heap that grows beyond mayCost meanwhile.
func bounded(t *testing.T, f func() error) error {
	t.Helper()
	runtime.GC()
	before := heap()
	done := make(chan error, 1)
	go func() { done <- f() }()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case err := <-done:
			return err
		case <-tick.C:
			if now := heap(); now > before+mayCost {
				t.Errorf("the heap grew by %d MiB", (now-before)>>20)
				return <-done
			}
		}
	}
}

// A gateway that sends header fields without end is given up after a bounded number of bytes.
func TestEndlessHead(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				conn.Write([]byte("HTTP/1.1 101 Switching Protocols\r\n"))
				line := []byte("X-Filler: " + strings.Repeat("x", 1000) + "\r\n")
				for err := error(nil); err == nil; _, err = conn.Write(line) {
				}
			}()
		}
	}()
	err = bounded(t, func() error { _, err := dial(t, t.Context(), l.Addr().String(), "alice"); return err })
	if !errors.Is(err, chat.ErrBroken) || len(err.Error()) > 500 {
		t.Errorf("Dial returned %v, want a short ErrBroken", err)
	}
}

// hostile is a gateway that answers connect, and then calls talk with each request's id.
func hostile(t *testing.T, talk func(c *websocket.Conn, id, method string) error) (addr string) {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		conn, err := (&websocket.Upgrader{CheckOrigin: func(*http.Request) bool { return true }}).Upgrade(w, r, nil)
		if err != nil {
			return
		}
		defer conn.Close()
		conn.WriteJSON(map[string]any{"type": "event", "event": "connect.challenge"})
		for {
			var in struct{ ID, Method string }
			if conn.ReadJSON(&in) != nil {
				return
			}
			if in.Method == "connect" {
				conn.WriteJSON(map[string]any{"type": "res", "id": in.ID, "ok": true})
				continue
			}
			if talk(conn, in.ID, in.Method) != nil {
				return
			}
		}
	}))
	t.Cleanup(s.Close)
	return strings.TrimPrefix(s.URL, "http://")
}

func flood(payload string) func(c *websocket.Conn, _, _ string) error {
	return func(c *websocket.Conn, _, _ string) error {
		for {
			if err := c.WriteJSON(map[string]any{"type": "event", "event": "chat", "payload": payload}); err != nil {
				return err
			}
		}
	}
}

// Events instead of an answer do not fill the memory: those of a conversation are kept up
// to a bound, and a question keeps none.
func TestEventsInsteadOfAnAnswer(t *testing.T) {
	addr := hostile(t, flood(strings.Repeat("x", 10_000)))
	err := bounded(t, func() error {
		c, err := dial(t, t.Context(), addr, "alice")
		if err != nil {
			return err
		}
		_, err = c.Say("", "hello", nil)
		return err
	})
	if !errors.Is(err, chat.ErrTooMuch) || !errors.Is(err, chat.ErrBroken) {
		t.Errorf("Say returned %v, want ErrTooMuch", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	err = bounded(t, func() error {
		c, err := dial(t, ctx, addr, "alice")
		if err != nil {
			return err
		}
		_, err = c.Quiet()
		return err
	})
	if !errors.Is(err, chat.ErrBroken) {
		t.Errorf("Quiet returned %v, want the end of its context as ErrBroken", err)
	}
}

// A message above the bound ends a client that only asks.
func TestHugeMessage(t *testing.T) {
	addr := hostile(t, flood(strings.Repeat("x", 20<<20)))
	c, err := dial(t, t.Context(), addr, "alice")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Due(); !errors.Is(err, chat.ErrBroken) {
		t.Errorf("Due returned %v, want ErrBroken", err)
	}
}

// What a gateway says is cut where it enters, and no number of it breaks what is written.
func TestHostileWords(t *testing.T) {
	long := strings.Repeat("\u00e9\n", 100_000)
	blockers := make([]map[string]string, 1000)
	for i := range blockers {
		blockers[i] = map[string]string{"message": long}
	}
	addr := hostile(t, func(c *websocket.Conn, id, method string) error {
		switch method {
		case "gateway.suspend.prepare":
			return c.WriteJSON(map[string]any{"type": "res", "id": id, "ok": true, "payload": map[string]any{
				"status": "busy", "retryAfterMs": int64(1) << 62, "blockers": blockers[:2]}})
		case "cron.list":
			return c.WriteJSON(map[string]any{"type": "res", "id": id, "ok": true, "payload": map[string]any{
				"jobs": []map[string]any{{"enabled": true, "nextRunAtMs": int64(1) << 60}}}})
		}
		return c.WriteJSON(map[string]any{"type": "res", "id": id, "ok": false, "error": map[string]string{"code": long, "message": long}})
	})
	c, err := dial(t, t.Context(), addr, "alice")
	if err != nil {
		t.Fatal(err)
	}
	q, err := c.Quiet()
	if err != nil || len(q.Busy) > 1100 || strings.Contains(q.Busy, "\n") || q.RetryAfter < 0 || q.RetryAfter > time.Hour {
		t.Errorf("Quiet = %d bytes, retry after %s, %v", len(q.Busy), q.RetryAfter, err)
	}
	due, err := c.Due()
	if err != nil || due.Before(time.Now()) {
		t.Errorf("Due = %s, %v", due, err)
	}
	if _, err := due.MarshalJSON(); err != nil {
		t.Error(err)
	}
	if _, err = c.Say("", "hello", nil); !errors.Is(err, chat.ErrRefused) || len(err.Error()) > 500 {
		t.Errorf("Say returned an error of %d bytes: %.100v", len(err.Error()), err)
	}
}

func TestText(t *testing.T) {
	for in, want := range map[string]string{
		"plain":                             "plain",
		"two\nlines\x00\x1b[2J":             "two lines  [2J",
		"\u202eright":                       " right",
		strings.Repeat("a", 199) + "\u00e9": strings.Repeat("a", 199),
	} {
		if got := chat.Text(in); got != want {
			t.Errorf("Text(%q) = %q, want %q", in, got, want)
		}
	}
	for _, in := range []string{strings.Repeat("\xff", 500), strings.Repeat("\U0001f980", 500)} {
		if got := chat.Text(in); len(got) > 200 || !utf8.ValidString(got) {
			t.Errorf("Text(%.20q…) is %d bytes, valid: %v", in, len(got), utf8.ValidString(got))
		}
	}
}
