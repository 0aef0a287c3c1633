package rig

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/http"
	"sync"

	"github.com/gorilla/websocket"
)

// They lend write buffers, so that idle connections cost this side little.
var bufferPool, clientPool = new(sync.Pool), new(sync.Pool)

// maxMessage is what goes into one frame.
const maxMessage = 64 << 10

// sources is over how many loopback addresses clients are spread: one address has
// less than 30,000 ports, and a closed connection keeps its port for a while.
const sources = 16

// Dial opens the stub's WebSocket through the server at addr, as client number n,
// and has one message echoed.
func Dial(ctx context.Context, addr string, n int, h http.Header) (*websocket.Conn, error) {
	from := &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 1, byte(1+n%sources))}}
	d := websocket.Dialer{NetDialContext: from.DialContext, ReadBufferSize: 1 << 10, WriteBufferSize: maxMessage + 64, WriteBufferPool: clientPool}
	c, resp, err := d.DialContext(ctx, "ws://"+addr+"/echo", h)
	if err != nil {
		if resp != nil {
			return nil, fmt.Errorf("WebSocket %d: %s: %w", n, resp.Status, err)
		}
		return nil, fmt.Errorf("WebSocket %d: %w", n, err)
	}
	if err := Echo(c, []byte("hello")); err != nil {
		c.Close()
		return nil, fmt.Errorf("WebSocket %d: %w", n, err)
	}
	return c, nil
}

// Echo sends a message and wants it back.
func Echo(c *websocket.Conn, message []byte) error {
	if err := c.WriteMessage(websocket.BinaryMessage, message); err != nil {
		return err
	}
	_, got, err := c.ReadMessage()
	if err != nil {
		return err
	}
	if !bytes.Equal(got, message) {
		return fmt.Errorf("sent %d bytes, another %d came back", len(message), len(got))
	}
	return nil
}
