package upstream

import (
	"bufio"
	"io"
	"math"
	"net"
	"net/http"
	"syscall"
	"time"

	"openclaw-sandbox/internal/nonblock"
)

// conn is a connection to a gateway. One exchange at a time uses it.
type conn struct {
	net.Conn
	br     *bufio.Reader // only during an exchange: an idle connection holds no buffer
	direct io.ReadWriter // reads and writes at less cost, or is Conn
	raw    syscall.RawConn
	abort  func() // closes the connection; made once, for context.AfterFunc
	reused bool
	since  time.Time   // idle since
	fields http.Header // of the answer, if quick read its head

	left     int64 // how many bytes may still be read: bounds heads
	received bool  // something of the answer
	tooLarge bool

	peek    func(fd uintptr) bool // made once, for quiet
	waiting bool                  // what peek found
}

func newConn(nc net.Conn) *conn {
	c := &conn{Conn: nc, direct: nc}
	if d := nonblock.New(nc); d != nil {
		c.direct = d
	}
	c.abort = func() { c.Close() }
	if s, ok := nc.(syscall.Conn); ok {
		if raw, err := s.SyscallConn(); err == nil {
			c.raw = raw
		}
	}
	c.peek = func(fd uintptr) bool { c.waiting = somethingWaits(fd); return true }
	return c
}

func (c *conn) begin(cl *Client) {
	c.br = cl.readers.Get().(*bufio.Reader)
	c.br.Reset(c)
	c.received, c.tooLarge, c.left = false, false, cl.o.MaxHead
}

// end gives the reader back. It is called only when the exchange is over for all
// goroutines.
func (c *conn) end(cl *Client) {
	clear(c.fields)
	c.br.Reset(nil)
	cl.readers.Put(c.br)
	c.br = nil
}

// Read bounds what the reader of a head may take.
func (c *conn) Read(b []byte) (int, error) {
	if c.left <= 0 {
		c.tooLarge = true
		return 0, ErrHeadTooLarge
	}
	if int64(len(b)) > c.left {
		b = b[:c.left]
	}
	n, err := c.direct.Read(b)
	c.left -= int64(n)
	if n > 0 {
		c.received = true
	}
	return n, err
}

// Write is the connection's.
func (c *conn) Write(b []byte) (int, error) { return c.direct.Write(b) }

// unbounded ends the bound: a body may be of any size.
func (c *conn) unbounded() { c.left = math.MaxInt64 }

// quiet tells whether nothing came over an idle connection: neither its end nor
// bytes that nobody asked for, which the next request would take for its answer.
func (c *conn) quiet() bool {
	if c.raw == nil {
		return true
	}
	return c.raw.Read(c.peek) == nil && !c.waiting
}
