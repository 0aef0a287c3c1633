// Package chat is a client of the OpenClaw gateway's WebSocket protocol (version
// 4), for callers who want a reply and not a protocol.
package chat

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/gorilla/websocket"
)

// How a conversation can fail.
var (
	// ErrRefused: the gateway did not accept the connection or the message.
	ErrRefused = errors.New("the gateway refused")
	// ErrBroken: the connection ended before the reply did.
	ErrBroken = errors.New("the connection to the gateway broke")
)

// RefusedError is a request that the gateway did not accept. It is ErrRefused.
type RefusedError struct {
	Method  string // "connect" or "chat.send"
	Code    string // the gateway's, for example CodeInvalid
	Message string // what the gateway says about it
}

// CodeInvalid is the gateway's code for a request that is wrong in itself, such as
// a session of an agent that does not exist.
const CodeInvalid = "INVALID_REQUEST"

func (e *RefusedError) Error() string {
	return fmt.Sprintf("%v %s: %s (%s)", ErrRefused, e.Method, e.Message, e.Code)
}

// Unwrap makes it ErrRefused.
func (e *RefusedError) Unwrap() error { return ErrRefused }

// TurnError is a turn that began and did not end with a reply.
type TurnError struct {
	State   string // "error" or "aborted"
	Message string // what the gateway says about it, for its user; may be empty
}

func (e *TurnError) Error() string {
	if e.Message == "" {
		return "the turn ended as " + e.State
	}
	return "the turn ended as " + e.State + ": " + e.Message
}

// DefaultSession is the conversation that the Control UI opens with.
const DefaultSession = "agent:main:main"

// protocol is the version that this client speaks.
const protocol = 4

const (
	handshakeTimeout = 20 * time.Second
	maxMessage       = 26 << 20 // the gateway's own limit of a frame
	// maxSilence: a gateway sends a tick every 30 s, so one that is silent for
	// longer than two of them is gone, or frozen.
	maxSilence = 75 * time.Second
)

// Client is a connection to one gateway. It is for one goroutine.
type Client struct {
	conn *websocket.Conn
	id   int
	stop func() bool
}

// Dial connects to the gateway at addr (host:port). header carries the identity
// that the gateway trusts; host is the name under which the user knows it. ctx
// bounds the client's whole life.
func Dial(ctx context.Context, addr, host string, header http.Header, dial func(ctx context.Context, network, addr string) (net.Conn, error)) (*Client, error) {
	h := header.Clone()
	h.Set("Host", host)
	d := websocket.Dialer{HandshakeTimeout: handshakeTimeout, NetDialContext: dial}
	conn, resp, err := d.DialContext(ctx, "ws://"+addr+"/", h)
	if err != nil {
		if resp != nil {
			return nil, fmt.Errorf("%w: %s", ErrRefused, resp.Status)
		}
		return nil, fmt.Errorf("%w: %w", ErrBroken, err)
	}
	conn.SetReadLimit(maxMessage)
	c := &Client{conn: conn}
	// gorilla's reads know no context: closing the connection ends them.
	c.stop = context.AfterFunc(ctx, func() { conn.Close() })
	if err := c.hello(); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

// Close ends the connection.
func (c *Client) Close() error {
	c.stop()
	return c.conn.Close()
}

type frame struct {
	Type    string          `json:"type"`
	ID      string          `json:"id"`
	Event   string          `json:"event"`
	OK      bool            `json:"ok"`
	Payload json.RawMessage `json:"payload"`
	Error   struct {
		Code    string `json:"code"`
		Message string `json:"message"`
	} `json:"error"`
}

func (c *Client) read() (frame, error) {
	var f frame
	c.conn.SetReadDeadline(time.Now().Add(maxSilence))
	if err := c.conn.ReadJSON(&f); err != nil {
		var closed *websocket.CloseError
		if errors.As(err, &closed) && closed.Code == websocket.ClosePolicyViolation {
			return f, fmt.Errorf("%w: %s", ErrRefused, closed.Text)
		}
		return f, fmt.Errorf("%w: %w", ErrBroken, err)
	}
	return f, nil
}

// hello answers the gateway's challenge.
func (c *Client) hello() error {
	late := time.AfterFunc(handshakeTimeout, func() { c.conn.Close() })
	defer late.Stop()
	for {
		f, err := c.read()
		if err != nil {
			return err
		}
		if f.Type == "event" && f.Event == "connect.challenge" {
			break
		}
	}
	return c.call("connect", map[string]any{
		"minProtocol": protocol, "maxProtocol": protocol, "role": "operator",
		"client": map[string]string{"id": "gateway-client", "version": "1.0.0", "platform": "linux", "mode": "backend"},
		"scopes": []string{"operator.read", "operator.write"},
	}, nil)
}

// call sends a request and waits for its answer; events meanwhile go to on.
func (c *Client) call(method string, params any, on func(frame)) error {
	c.id++
	id := strconv.Itoa(c.id)
	if err := c.conn.WriteJSON(map[string]any{"type": "req", "id": id, "method": method, "params": params}); err != nil {
		return fmt.Errorf("%w: %w", ErrBroken, err)
	}
	for {
		f, err := c.read()
		switch {
		case err != nil:
			return err
		case f.Type == "res" && f.ID == id && f.OK:
			return nil
		case f.Type == "res" && f.ID == id:
			return &RefusedError{Method: method, Code: f.Error.Code, Message: f.Error.Message}
		case on != nil:
			on(f)
		}
	}
}

// turn is a chat event.
type turn struct {
	RunID        string `json:"runId"`
	State        string `json:"state"`
	DeltaText    string `json:"deltaText"`
	ErrorMessage string `json:"errorMessage"`
	Message      struct {
		Content []struct {
			Text string `json:"text"`
		} `json:"content"`
	} `json:"message"`
}

// Say sends a message to a session ("" for DefaultSession) and returns the whole
// reply. delta (may be nil) gets each piece as it comes, and "" now and then as a
// sign of life; its error ends the conversation. It returns a *TurnError if the
// turn failed, ErrRefused if there was none, or ErrBroken.
func (c *Client) Say(session, message string, delta func(text string) error) (string, error) {
	if session == "" {
		session = DefaultSession
	}
	run := rand.Text()
	var early []frame // events may come before the answer to the request
	err := c.call("chat.send", map[string]any{"sessionKey": session, "message": message, "idempotencyKey": run}, func(f frame) { early = append(early, f) })
	if err != nil {
		return "", err
	}
	for {
		var f frame
		if len(early) > 0 {
			f, early = early[0], early[1:]
		} else if f, err = c.read(); err != nil {
			return "", err
		}
		if f.Event == "tick" && delta != nil {
			if err := delta(""); err != nil {
				return "", err
			}
		}
		if f.Type != "event" || f.Event != "chat" {
			continue
		}
		var t turn
		if json.Unmarshal(f.Payload, &t) != nil || t.RunID != run {
			continue
		}
		switch t.State {
		case "delta":
			if delta != nil && t.DeltaText != "" {
				if err := delta(t.DeltaText); err != nil {
					return "", err
				}
			}
		case "final":
			var text strings.Builder
			for _, p := range t.Message.Content {
				text.WriteString(p.Text)
			}
			return text.String(), nil
		case "aborted", "error":
			return "", &TurnError{State: t.State, Message: t.ErrorMessage}
		}
	}
}
