// Package chat is a client of the OpenClaw gateway's WebSocket protocol (version
// 4), for callers who want a reply and not a protocol.
package chat

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strconv"
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
	Method  string // "connect", "chat.send", …
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
	// early are chat events that came while a call waited for its answer, of earlyBytes.
	// They are kept only while talking is set: other calls have no use for them.
	early      []frame
	earlyBytes int
	talking    bool
}

// What a client may ask for: the gateway's names of what it grants an operator.
var (
	ToTalk    = []string{"operator.read", "operator.write"}
	ToOperate = []string{"operator.admin", "operator.read", "operator.write"} // what Quiet and Due need
)

// Dial connects to the gateway at addr (host:port) for what the client is to do,
// ToTalk or ToOperate. header carries the identity that the gateway trusts; host is
// the name under which the user knows it. ctx bounds the client's whole life.
func Dial(ctx context.Context, addr, host string, header http.Header, scopes []string, dial func(ctx context.Context, network, addr string) (net.Conn, error)) (*Client, error) {
	h := header.Clone()
	h.Set("Host", host)
	var bounded *boundedConn
	d := websocket.Dialer{HandshakeTimeout: handshakeTimeout, NetDialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
		nc, err := dial(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		bounded = newBounded(nc)
		return bounded, nil
	}}
	conn, resp, err := d.DialContext(ctx, "ws://"+addr+"/", h)
	if err != nil {
		if resp != nil {
			return nil, fmt.Errorf("%w: %s", ErrRefused, Text(resp.Status))
		}
		return nil, &brokenError{err}
	}
	bounded.lifted.Store(true)
	conn.SetReadLimit(maxReply)
	if slices.Equal(scopes, ToTalk) {
		conn.SetReadLimit(maxMessage)
	}
	c := &Client{conn: conn}
	// gorilla's reads know no context: closing the connection ends them.
	c.stop = context.AfterFunc(ctx, func() { conn.Close() })
	if err := c.hello(scopes); err != nil {
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
			return f, fmt.Errorf("%w: %s", ErrRefused, Text(closed.Text))
		}
		return f, &brokenError{err}
	}
	return f, nil
}

// hello answers the gateway's challenge.
func (c *Client) hello(scopes []string) error {
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
	_, err := c.call("connect", map[string]any{
		"minProtocol": protocol, "maxProtocol": protocol, "role": "operator",
		"client": map[string]string{"id": "gateway-client", "version": "1.0.0", "platform": "linux", "mode": "backend"},
		"scopes": scopes,
	})
	return err
}

// call sends a request and returns its answer; events that come meanwhile are
// kept for next.
func (c *Client) call(method string, params any) (json.RawMessage, error) {
	c.id++
	id := strconv.Itoa(c.id)
	if err := c.conn.WriteJSON(map[string]any{"type": "req", "id": id, "method": method, "params": params}); err != nil {
		return nil, &brokenError{err}
	}
	for {
		f, err := c.read()
		switch {
		case err != nil:
			return nil, err
		case f.Type == "res" && f.ID == id && f.OK:
			return f.Payload, nil
		case f.Type == "res" && f.ID == id:
			return nil, &RefusedError{Method: method, Code: Text(f.Error.Code), Message: Text(f.Error.Message)}
		case f.Type == "event" && f.Event == "chat" && c.talking:
			if c.earlyBytes += len(f.Payload); len(c.early) >= maxEarly || c.earlyBytes > maxEarlyBytes {
				return nil, ErrTooMuch
			}
			c.early = append(c.early, f)
		}
	}
}

// next returns the next event of a conversation. A tick, which comes every 30 s,
// is passed on as a sign of life.
func (c *Client) next(delta func(text string) error) (turn, error) {
	for {
		var f frame
		var err error
		if len(c.early) > 0 {
			f, c.early = c.early[0], c.early[1:]
			c.earlyBytes -= len(f.Payload)
		} else if f, err = c.read(); err != nil {
			return turn{}, err
		}
		if f.Event == "tick" && delta != nil {
			if err := delta(""); err != nil {
				return turn{}, err
			}
		}
		var t turn
		if f.Type == "event" && f.Event == "chat" && json.Unmarshal(f.Payload, &t) == nil {
			return t, nil
		}
	}
}
