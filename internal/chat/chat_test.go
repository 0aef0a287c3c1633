package chat_test

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"openclaw-sandbox/internal/chat"
	"openclaw-sandbox/internal/chat/chattest"
)

func identity(user string) http.Header {
	return http.Header{"X-Forwarded-For": {"192.0.2.1"}, "X-Forwarded-Host": {"alice.localhost"}, "X-Forwarded-Proto": {"http"}, "X-Forwarded-User": {user}}
}

func dial(t *testing.T, ctx context.Context, addr, user string) (*chat.Client, error) {
	t.Helper()
	c, err := chat.Dial(ctx, addr, "alice.localhost:8080", identity(user), chat.ToOperate, (&net.Dialer{}).DialContext)
	if err == nil {
		t.Cleanup(func() { c.Close() })
	}
	return c, err
}

func TestSay(t *testing.T) {
	g := chattest.New(t, "alice")
	c, err := dial(t, t.Context(), g.Addr(), "alice")
	if err != nil {
		t.Fatal(err)
	}
	if h := g.Header(); h.Get("Host") != "alice.localhost:8080" || h.Get("Origin") != "" {
		t.Errorf("the gateway saw host %q and origin %q, want the user's host and no origin", h.Get("Host"), h.Get("Origin"))
	}
	var pieces []string
	life := 0
	reply, err := c.Say("", "hello", func(s string) error {
		if s == "" {
			life++
			return nil
		}
		pieces = append(pieces, s)
		return nil
	})
	if err != nil || reply != "You said: hello" {
		t.Errorf("Say = %q, %v", reply, err)
	}
	if want := []string{"You ", "said: ", "hello"}; !slices.Equal(pieces, want) || life == 0 {
		t.Errorf("pieces = %q and %d signs of life, want %q and some", pieces, life, want)
	}
	if reply, err = c.Say("agent:main:work", "again", nil); err != nil || reply != "You said: again" {
		t.Errorf("the second message: %q, %v", reply, err)
	}
	if want := []string{chat.DefaultSession, "agent:main:work"}; !slices.Equal(g.Sessions(), want) {
		t.Errorf("sessions = %q, want %q", g.Sessions(), want)
	}
}

// A message that meets a running turn is answered by a later one.
func TestSayQueued(t *testing.T) {
	g := chattest.New(t, "alice")
	c, err := dial(t, t.Context(), g.Addr(), "alice")
	if err != nil {
		t.Fatal(err)
	}
	var streamed strings.Builder
	reply, err := c.Say("", "QUEUE", func(s string) error { streamed.WriteString(s); return nil })
	if err != nil || reply != "You said: later" || streamed.String() != reply {
		t.Errorf("Say = %q, %v; streamed %q", reply, err, streamed.String())
	}
}

func TestSayFails(t *testing.T) {
	g := chattest.New(t, "alice")
	for message, want := range map[string]error{"REFUSE": chat.ErrRefused, "VANISH": chat.ErrBroken} {
		c, err := dial(t, t.Context(), g.Addr(), "alice")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Say("", message, nil); !errors.Is(err, want) {
			t.Errorf("%s: err = %v, want %v", message, err, want)
		}
	}
	c, err := dial(t, t.Context(), g.Addr(), "alice")
	if err != nil {
		t.Fatal(err)
	}
	var turn *chat.TurnError
	if _, err := c.Say("", "FAIL", nil); !errors.As(err, &turn) || turn.State != "error" || turn.Message != "the model has no key" {
		t.Errorf("FAIL: err = %v, want the turn's error with the gateway's words", err)
	}
	stop := errors.New("enough")
	if _, err := c.Say("", "hello", func(string) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("err = %v, want the callback's", err)
	}
}

func TestContextEndsTheConversation(t *testing.T) {
	g := chattest.New(t, "alice")
	ctx, cancel := context.WithCancel(t.Context())
	c, err := dial(t, ctx, g.Addr(), "alice")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { _, err := c.Say("", "HANG", nil); done <- err }()
	cancel()
	if err := <-done; !errors.Is(err, chat.ErrBroken) {
		t.Errorf("err = %v, want ErrBroken", err)
	}
}

func TestDialFails(t *testing.T) {
	g := chattest.New(t, "alice")
	if _, err := dial(t, t.Context(), g.Addr(), "bob"); !errors.Is(err, chat.ErrRefused) {
		t.Errorf("another user: err = %v, want ErrRefused", err)
	}
	denies := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusForbidden) }))
	defer denies.Close()
	if _, err := dial(t, t.Context(), strings.TrimPrefix(denies.URL, "http://"), "alice"); !errors.Is(err, chat.ErrRefused) || !strings.Contains(err.Error(), "403") {
		t.Errorf("403 at the upgrade: err = %v, want ErrRefused with the status", err)
	}
	g.Close()
	if _, err := dial(t, t.Context(), g.Addr(), "alice"); !errors.Is(err, chat.ErrBroken) {
		t.Errorf("a closed port: err = %v, want ErrBroken", err)
	}
}
