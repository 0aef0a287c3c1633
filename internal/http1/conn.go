package http1

import (
	"io"
	"net"
	"net/http"
	"runtime/debug"
	"sync/atomic"
	"syscall"
	"time"

	"openclaw-sandbox/internal/nonblock"
)

// inSize is what is read at once. A plain request's head fits. It is the size of
// net/http's own reader, which so takes at once what it is handed.
const inSize = 4 << 10

// The states of a connection. Only its own goroutine makes it busy or idle, and
// whoever makes it over closes it.
const (
	stateFresh uint32 = iota // there was no request yet
	stateIdle
	stateBusy
	stateOver
)

// conn is a connection as long as only plain requests have come.
type conn struct {
	server *Server
	tcp    *net.TCPConn
	raw    syscall.RawConn
	direct *nonblock.Conn
	remote string

	state   atomic.Uint32
	since   atomic.Int64 // Server.clock when it got into the state
	request atomic.Pointer[requestContext]

	// Of its own goroutine.
	fill func(fd uintptr) bool // reads; made once
	x    *exchange             // nil while nothing was read
	err  error                 // of fill
}

// exchange is what a request needs, for as long as it is answered: an idle connection
// holds nothing.
type exchange struct {
	in     [inSize]byte
	have   int // bytes in it
	head   head
	fields http.Header
	answer answer
}

func newExchange() *exchange {
	return &exchange{fields: http.Header{}, answer: answer{header: http.Header{}, out: make([]byte, 0, outSize), body: make([]byte, 0, smallBody)}}
}

// keepOut is the largest buffer of an answer that is used again: heads can be larger
// than outSize.
const keepOut = 64 << 10

// giveBack ends the use of c.x.
func (c *conn) giveBack() {
	x := c.x
	if c.x = nil; cap(x.answer.out) <= keepOut {
		x.have, x.answer.conn, x.answer.err = 0, nil, nil
		c.server.pool.Put(x)
	}
}

// serve answers requests until the connection ends or is net/http's.
func (c *conn) serve() {
	c.fill = c.read
	for c.next() {
		if !parse(c.x.in[:c.x.have], &c.x.head, c.x.fields) {
			clear(c.x.fields)
			c.handOver()
			return
		}
		if !c.serveOne() {
			break
		}
	}
	if c.x != nil {
		c.giveBack()
	}
	c.end()
}

// next waits for bytes, and reports whether there are any to look at.
func (c *conn) next() bool {
	if c.x == nil {
		if err := c.raw.Read(c.fill); err != nil || c.err != nil || c.x == nil || c.x.have == 0 {
			return false
		}
	}
	from := c.state.Load()
	return from != stateOver && c.enter(from, stateBusy)
}

// enter goes from one state to another, unless the connection was ended meanwhile.
func (c *conn) enter(from, to uint32) bool {
	c.since.Store(c.server.clock.Load())
	return c.state.CompareAndSwap(from, to)
}

// read is called with the descriptor when there may be bytes.
func (c *conn) read(fd uintptr) bool {
	if c.x == nil {
		c.x = c.server.pool.Get().(*exchange)
	}
	c.x.have, c.err = nonblock.Read(int(fd), c.x.in[:])
	if nonblock.Again(c.err) {
		c.giveBack()
		return false
	}
	return true
}

// serveOne answers the request whose head was parsed, and reports whether another
// may follow.
func (c *conn) serveOne() bool {
	x := c.x
	h := &x.head
	ctx := &requestContext{conn: c}
	c.request.Store(ctx)
	target := h.url
	r := (&http.Request{Method: h.method, URL: &target, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Header: x.fields,
		Body: http.NoBody, Host: h.host, RemoteAddr: c.remote, RequestURI: h.target}).WithContext(ctx)
	x.answer.begin(c, h.method)
	well := c.call(&x.answer, r)
	stays := well && x.answer.finish()
	c.request.Store(nil)
	ctx.end()
	clear(x.fields)
	clear(x.answer.header)
	switch {
	case !well || x.answer.err != nil:
		return false
	case !stays:
		c.linger()
		return false
	}
	if x.have = copy(x.in[:], x.in[h.size:x.have]); x.have == 0 {
		c.giveBack()
	}
	if !c.enter(stateBusy, stateIdle) {
		return false
	}
	if c.server.closing.Load() { // it may have looked before
		c.endIf(stateIdle)
	}
	return true
}

// call calls the handler, and reports whether it returned.
func (c *conn) call(a *answer, r *http.Request) (well bool) {
	defer func() {
		if e := recover(); e != nil && e != http.ErrAbortHandler {
			c.server.logf("http: panic serving %v: %v\n%s", c.remote, e, debug.Stack())
		}
	}()
	c.server.handler.ServeHTTP(a, r)
	return true
}

// linger lets the client read the answer before the connection ends.
func (c *conn) linger() {
	c.tcp.CloseWrite()
	c.tcp.SetReadDeadline(time.Now().Add(lingerFor))
	io.Copy(io.Discard, struct{ io.Reader }{c.tcp})
}

// handOver leaves the connection, and what was read of it, to net/http.
func (c *conn) handOver() {
	h := &handed{TCPConn: c.tcp, read: append([]byte(nil), c.x.in[:c.x.have]...)}
	c.giveBack()
	if !c.server.handed.put(h) {
		c.server.state(c.tcp, http.StateClosed)
	}
	c.server.forget(c)
}

// end closes the connection.
func (c *conn) end() {
	c.tcp.Close()
	c.server.state(c.tcp, http.StateClosed)
	c.server.forget(c)
}

// endIf closes the connection, whose goroutine then ends, if it is in the state.
func (c *conn) endIf(state uint32) {
	if c.state.CompareAndSwap(state, stateOver) {
		c.tcp.Close()
	}
}

// leave ends the request: its client has gone.
func (c *conn) leave() {
	if ctx := c.request.Load(); ctx != nil {
		ctx.end()
	}
}

// look is called now and then; now is Server.clock.
func (c *conn) look(now time.Duration) {
	state := c.state.Load()
	age := now - time.Duration(c.since.Load())
	switch state {
	case stateFresh:
		if limit := c.server.head; limit > 0 && age > limit || c.server.closing.Load() && age > freshFor {
			c.endIf(state)
		}
	case stateIdle:
		if limit := c.server.idle; limit > 0 && age > limit {
			c.endIf(state)
		}
	case stateBusy:
		if age > 0 && c.gone() {
			c.leave()
		}
	}
}
