package drain

import (
	"net"
	"net/netip"
	"sync"
	"time"

	"openclaw-sandbox/internal/forwarded"
)

// conn is an upgraded connection to a client. What is written to it are the
// gateway's WebSocket frames, in pieces of any size, perhaps after the 101.
type conn struct {
	net.Conn
	drain  *Drain
	closed chan struct{}

	mu     sync.Mutex // one write at a time; guards what follows
	frames boundary
	shut   bool    // the close frame is out, or Close was called
	handed *handed // took over
}

// Write passes the gateway's frames on, until the connection is told to restart.
func (c *conn) Write(b []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.shut {
		return 0, net.ErrClosed
	}
	n, err := c.Conn.Write(b)
	c.frames.pass(b[:n])
	return n, err
}

// Close closes the connection.
func (c *conn) Close() error {
	c.drain.mu.Lock()
	if c.drain.conns[c] {
		c.drain.forget(c)
		close(c.closed)
		c.drain.left(forwarded.Remote(c))
	}
	c.drain.mu.Unlock()
	return c.Conn.Close()
}

// HandOver gives the raw connection to an owner that moves its bytes without c,
// which must not be used any more. start returns what tells the client to connect
// again; the owner calls done once the connection is closed. It returns false,
// without calling start, if the connection has been told to restart already.
func (c *conn) HandOver(start func(raw net.Conn, done func()) (restart func())) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.shut {
		return false
	}
	h := &handed{drain: c.drain, from: forwarded.Remote(c)}
	h.tell = start(c.Conn, h.done)
	c.handed = h
	d := c.drain
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.conns, c) // h keeps less alive
	if !h.over {
		d.conns[h] = true
	}
	return true
}

// handed is a connection to a client that another owner relays. There are many, mostly
// silent, so it is small.
type handed struct {
	drain *Drain
	from  netip.Addr
	tell  func()

	closed chan struct{} // closed at the end, if anybody waits for it; drain.mu guards it, and over
	over   bool
}

func (h *handed) done() {
	h.drain.mu.Lock()
	defer h.drain.mu.Unlock()
	if !h.over {
		h.over = true
		if h.closed != nil {
			close(h.closed)
		}
		h.drain.forget(h)
		h.drain.left(h.from)
	}
}

// restart lets the owner tell the client to connect again, and waits for the end.
func (h *handed) restart() {
	closed := make(chan struct{})
	h.drain.mu.Lock()
	over := h.over
	h.closed = closed
	h.drain.mu.Unlock()
	if over {
		return
	}
	h.tell()
	timer := time.NewTimer(handedWait)
	defer timer.Stop()
	select {
	case <-closed:
	case <-timer.C:
	}
}

// closeFrame is a WebSocket close frame with code 1012.
var closeFrame = []byte{0x88, 0x02, 0x03, 0xf4}

// restartWait bounds what the end of one connection may take: the peer may not
// read, and may not answer.
const restartWait = time.Second

// handedWait is the same for a connection whose owner has bounds of its own, which
// are shorter.
const handedWait = 5 * time.Second

// restart tells the client to connect again, if a whole frame was the last thing
// it got; in the middle of one it would take the close frame for a part of it.
// Then it gives the client a moment to answer: to close at once, with unread
// bytes in the kernel, would reset the connection and lose the close frame.
func (c *conn) restart() {
	c.SetWriteDeadline(time.Now().Add(restartWait)) // frees a write that hangs, too
	c.mu.Lock()
	if c.handed != nil {
		c.mu.Unlock()
		c.handed.restart()
		return
	}
	defer c.Close()
	whole := c.frames.atBoundary()
	c.shut = true
	if whole {
		_, err := c.Conn.Write(closeFrame)
		whole = err == nil
	}
	c.mu.Unlock()
	if !whole {
		return
	}
	timer := time.NewTimer(restartWait)
	defer timer.Stop()
	select {
	case <-c.closed:
	case <-timer.C:
	}
}

// boundary follows a stream of WebSocket frames (RFC 6455 section 5.2) just far
// enough to know where one ends.
type boundary struct {
	begun bool     // bytes have come
	http  uint32   // the last four bytes, while the answer's head has not ended
	head  [14]byte // of the frame whose head is being read
	have  int      // bytes of it
	left  uint64   // bytes of payload still to come
}

func (b *boundary) atBoundary() bool { return b.have == 0 && b.left == 0 && b.http == 0 }

// endOfHead ends the head of an HTTP answer.
const endOfHead = '\r'<<24 | '\n'<<16 | '\r'<<8 | '\n'

func (b *boundary) pass(p []byte) {
	for len(p) > 0 {
		if b.http != 0 || !b.begun && p[0] == 'H' { // of HTTP/1.1; no frame begins so
			b.begun, b.http = true, b.http<<8|uint32(p[0])
			if p = p[1:]; b.http == endOfHead {
				b.http = 0
			}
			continue
		}
		b.begun = true
		if b.left > 0 {
			n := min(b.left, uint64(len(p)))
			b.left, p = b.left-n, p[n:]
			continue
		}
		b.head[b.have] = p[0]
		b.have, p = b.have+1, p[1:]
		if size, payload, ok := b.parse(); ok && b.have == size {
			b.have, b.left = 0, payload
		}
	}
}

// parse returns the sizes of the head and of the payload, once they are known.
func (b *boundary) parse() (size int, payload uint64, ok bool) {
	if b.have < 2 {
		return 0, 0, false
	}
	extended := 0
	switch n := b.head[1] & 0x7f; n {
	case 126:
		extended = 2
	case 127:
		extended = 8
	default:
		payload = uint64(n)
	}
	size = 2 + extended
	if b.head[1]&0x80 != 0 {
		size += 4 // a mask
	}
	if b.have < size {
		return size, 0, false
	}
	for _, d := range b.head[2 : 2+extended] {
		payload = payload<<8 | uint64(d)
	}
	return size, payload, true
}
