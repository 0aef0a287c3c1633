// Package upstream is a small HTTP/1.1 client of one gateway, for a proxy that
// has net/http's server in front. It carries one request and its answer at a time
// over a connection, in the goroutine of the request: the head is written by hand,
// the answer read with http.ReadResponse, and a second goroutine exists only while
// a request has a body. That halves what a request costs with http.Transport and
// httputil.ReverseProxy, and lets the rules about what may pass stand in one place.
package upstream

import (
	"bufio"
	"context"
	"net"
	"sync"
	"time"
)

// Options are a Client's settings.
type Options struct {
	// Dial opens a connection. It bounds its own time: the dial timeout is its
	// setting. Its errors are returned as they are.
	Dial func(ctx context.Context, network, addr string) (net.Conn, error)
	// IdleTimeout is how long an unused connection is kept. It is to be shorter
	// than the gateway's own, or a request meets a connection that is being closed.
	IdleTimeout time.Duration
	// HeadTimeout is how long a gateway may take from the end of the request to
	// the head of its answer; 0 is no limit.
	HeadTimeout time.Duration
	// ContinueTimeout is how long a body is held back for the gateway's 100, if the
	// client sent Expect: 100-continue (RFC 9110 section 10.1.1); then it is sent
	// regardless. 0 is a second.
	ContinueTimeout time.Duration
	// MaxIdle is how many unused connections a Pool keeps.
	MaxIdle int
	// MaxHead bounds, in bytes, the heads of one answer: the informational ones
	// and the last. What was read along with them counts, up to 16 KiB.
	MaxHead int64
}

const (
	// bufferSize is read and written at once. Heads are written from such a buffer.
	bufferSize = 32 << 10
	readerSize = 16 << 10
	// wholesaleSize of what is left of a body is moved by the kernel (splice(2)): below
	// that, its calls cost more than the copies.
	wholesaleSize = 64 << 10
	// keepBuffer is the largest buffer that goes back to the pool.
	keepBuffer = 64 << 10
)

// Client holds what the pools of all gateways share. It is safe for concurrent use.
type Client struct {
	o       Options
	buffers sync.Pool // of *[]byte
	readers sync.Pool // of *bufio.Reader
}

// New returns a client.
func New(o Options) *Client {
	if o.ContinueTimeout == 0 {
		o.ContinueTimeout = time.Second
	}
	return &Client{o: o,
		buffers: sync.Pool{New: func() any { b := make([]byte, bufferSize); return &b }},
		readers: sync.Pool{New: func() any { return bufio.NewReaderSize(nil, readerSize) }},
	}
}

func (c *Client) buffer() *[]byte { return c.buffers.Get().(*[]byte) }

func (c *Client) release(b *[]byte) {
	if cap(*b) <= keepBuffer {
		*b = (*b)[:cap(*b)]
		c.buffers.Put(b)
	}
}

// Pool are the connections to one gateway in one generation of it: whoever holds
// it makes another for another generation, so that a connection to an address
// that was given away is never used again. It is safe for concurrent use.
type Pool struct {
	client *Client
	addr   string

	mu     sync.Mutex // guards what follows
	idle   []*conn    // the last one was used last
	sweep  *time.Timer
	closed bool
}

// Pool returns a pool of connections to addr (host:port). It opens none yet.
func (c *Client) Pool(addr string) *Pool { return &Pool{client: c, addr: addr} }

// Close drops the idle connections, and the others when their exchange is over.
func (p *Pool) Close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	if p.sweep != nil {
		p.sweep.Stop()
	}
	for _, c := range p.idle {
		c.Close()
	}
	p.idle = nil
}

// take returns an idle connection that is still good, or nil.
func (p *Pool) take() *conn {
	for {
		p.mu.Lock()
		n := len(p.idle)
		if n == 0 {
			p.mu.Unlock()
			return nil
		}
		c := p.idle[n-1]
		p.idle[n-1] = nil
		p.idle = p.idle[:n-1]
		p.mu.Unlock()
		if time.Since(c.since) < p.client.o.IdleTimeout && c.quiet() {
			c.begin(p.client)
			return c
		}
		c.Close()
	}
}

// dial opens a connection.
func (p *Pool) dial(ctx context.Context) (*conn, error) {
	nc, err := p.client.o.Dial(ctx, "tcp", p.addr)
	if err != nil {
		return nil, err
	}
	c := newConn(nc)
	c.begin(p.client)
	return c, nil
}

// put keeps c, whose exchange ended well, for another one.
func (p *Pool) put(c *conn) {
	c.end(p.client)
	c.reused, c.since = true, time.Now()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed || len(p.idle) >= p.client.o.MaxIdle {
		c.Close()
		return
	}
	p.idle = append(p.idle, c)
	switch {
	case p.sweep == nil:
		p.sweep = time.AfterFunc(p.client.o.IdleTimeout, p.expire)
	case len(p.idle) == 1:
		p.sweep.Reset(p.client.o.IdleTimeout)
	}
}

// expire closes what was idle for too long. It runs as long as anything is idle.
func (p *Pool) expire() {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := 0
	for n < len(p.idle) && time.Since(p.idle[n].since) >= p.client.o.IdleTimeout {
		p.idle[n].Close()
		n++
	}
	p.idle = append(p.idle[:0], p.idle[n:]...)
	clear(p.idle[len(p.idle):cap(p.idle)])
	if len(p.idle) > 0 {
		p.sweep.Reset(p.client.o.IdleTimeout - time.Since(p.idle[0].since))
	}
}
