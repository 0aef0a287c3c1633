package relay

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// idleBuffer is what a direction holds while it waits; one that fills it borrows
// a large buffer for as long as that is so.
const idleBuffer = 4 << 10

// copied is a pair that two goroutines relay.
type copied struct {
	relay *Relay
	sides [2]net.Conn
	pair  Pair          // for its callbacks
	ended chan struct{} // closed by fail
	once  sync.Once     // guards ended and why
	why   error
	want  atomic.Pointer[[]byte] // the close frame that CloseWith asked for
	heard scanner                // of what the client sent; only its goroutine uses it
	head  [Head]byte             // likewise

	client sync.Mutex  // one write to the client at a time; guards what follows
	scan   scanner     // of what the client got; it has ended if nothing may follow
	told   atomic.Bool // the client got the close frame; read without client, too

	mu   sync.Mutex // guards what follows
	done [2]bool    // by where the bytes come from: their end was passed on
	lost [2]error   // their receiver can not be written to: they are dropped
}

// past is a deadline that frees whoever reads or writes.
var past = time.Unix(1, 0)

// copy relays with goroutines.
func (r *Relay) copy(p Pair) Session {
	first := [2][]byte{bytes.Clone(p.FromClient), bytes.Clone(p.FromUpstream)}
	p.FromClient, p.FromUpstream = nil, nil
	c := &copied{relay: r, sides: [2]net.Conn{p.Client, p.Upstream}, pair: p, ended: make(chan struct{})}
	for _, conn := range c.sides {
		r.options.keepAlive(conn)
	}
	r.mu.Lock()
	closed := r.closed
	if !closed {
		r.copies[c] = true
		r.running.Go(func() { c.run(first) })
	}
	r.mu.Unlock()
	if closed { // nobody waits for goroutines any more
		c.fail(ErrClosed)
		c.end()
	}
	return c
}

func (c *copied) run(first [2][]byte) {
	var wg sync.WaitGroup
	wg.Go(func() { c.pass(Client, first[Client]) })
	c.pass(Upstream, first[Upstream])
	wg.Wait()
	c.fail(nil)
	c.end()
}

// end closes both connections.
func (c *copied) end() {
	for _, conn := range c.sides {
		conn.Close()
	}
	c.relay.mu.Lock()
	delete(c.relay.copies, c)
	c.relay.mu.Unlock()
	c.relay.open.Add(-1)
	c.pair.done(c.why)
}

// fail ends both directions; the first reason counts. Closing is left to run: to
// close a TLS connection can take seconds.
func (c *copied) fail(err error) {
	c.once.Do(func() {
		if c.why = err; c.want.Load() != nil {
			c.why = ErrClosed // however it went
		}
		close(c.ended)
		for _, conn := range c.sides {
			conn.SetDeadline(past)
		}
	})
}

// pass relays what comes from one side.
func (c *copied) pass(from Side, first []byte) {
	c.forward(from, first)
	small := c.relay.idle.Get().(*[idleBuffer]byte)
	defer c.relay.idle.Put(small)
	var large *[MaxPending]byte
	buf := small[:]
	for open := true; open; {
		n, err := c.sides[from].Read(buf)
		c.forward(from, buf[:n])
		switch {
		case err == nil:
		case errors.Is(err, io.EOF), from == Upstream && c.told.Load() && errors.Is(err, os.ErrDeadlineExceeded): // tell freed it
			c.finish(from)
			open = false
		default:
			c.fail(&Error{from, "read", err})
			open = false
		}
		switch {
		case n == len(buf) && large == nil && open:
			large = c.relay.buffers.Get().(*[MaxPending]byte)
			buf = large[:]
		case (n < idleBuffer || !open) && large != nil:
			c.relay.buffers.Put(large)
			buf, large = small[:], nil
		}
	}
}

// forward writes b, which came from one side, to the other one. If that one can
// not be written to, bytes are dropped until it has said its last: a gateway that
// closes after its answer must be heard, though it takes nothing any more.
func (c *copied) forward(from Side, b []byte) {
	if len(b) == 0 {
		return
	}
	var err error
	if from == Upstream {
		err = c.toClient(b)
	} else {
		err = c.toUpstream(b)
	}
	if err == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.lost[from] == nil {
		c.lost[from] = &Error{1 - from, "write", err}
	}
	c.settle()
}

func (c *copied) toUpstream(b []byte) error {
	c.mu.Lock()
	lost := c.lost[Client] != nil
	c.mu.Unlock()
	if c.pair.Activity != nil {
		c.heard.hear(b, &c.head, c.pair.Activity)
	}
	if lost {
		return nil
	}
	_, err := c.sides[Upstream].Write(b)
	return err
}

// toClient writes the gateway's frames, up to the close frame if one is wanted.
func (c *copied) toClient(b []byte) error {
	c.client.Lock()
	defer c.client.Unlock()
	for len(b) > 0 && !c.told.Load() {
		n := len(b)
		if c.want.Load() != nil {
			n, _, _ = c.scan.frame(b)
		} else {
			c.scan.pass(b)
		}
		if _, err := c.sides[Client].Write(b[:n]); err != nil {
			return err
		}
		b = b[n:]
		c.tell()
	}
	return nil
}

// tell sends the close frame that is wanted, if it can; client is held.
func (c *copied) tell() {
	frame := c.want.Load()
	if frame == nil || c.told.Load() || !c.scan.boundary() || c.scan.ended {
		return
	}
	c.told.Store(true)
	if _, err := c.sides[Client].Write(*frame); err != nil {
		c.fail(ErrClosed)
		return
	}
	closeWrite(c.sides[Client])
	c.sides[Upstream].SetReadDeadline(past)
}

// finish passes the end of what came from one side on.
func (c *copied) finish(from Side) {
	half := true
	if from == Client {
		half = closeWrite(c.sides[Upstream])
	} else {
		c.client.Lock()
		if !c.told.Load() {
			half = closeWrite(c.sides[Client])
			c.scan.ended = true
		}
		c.client.Unlock()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.done[from] = true
	if !half {
		c.fail(nil) // it can only be closed as a whole
	}
	c.settle()
}

// settle ends the pair when nobody can receive what is still to come; mu is held.
func (c *copied) settle() {
	for _, from := range []Side{Client, Upstream} {
		if c.done[from] && c.lost[1-from] != nil && !c.told.Load() {
			c.fail(c.lost[1-from])
		}
	}
}

// closeWrite ends what is sent on conn, if its kind can do that.
func closeWrite(conn net.Conn) bool {
	half, ok := conn.(interface{ CloseWrite() error })
	if ok {
		half.CloseWrite() // an error shows at the next read or write, too
	}
	return ok
}

// Close implements Session.
func (c *copied) Close() { c.fail(ErrClosed) }

// CloseWith implements Session.
func (c *copied) CloseWith(code uint16, reason string) {
	frame := closeFrame(code, reason)
	if !c.want.CompareAndSwap(nil, &frame) {
		return
	}
	c.relay.mu.Lock()
	defer c.relay.mu.Unlock()
	if c.relay.copies[c] && !c.relay.closed {
		c.relay.running.Go(c.restart)
	}
}

// restart tells the client and gives it time to answer.
func (c *copied) restart() {
	wait := c.relay.options.closeWait
	timer := time.NewTimer(wait)
	defer timer.Stop()
	c.sides[Client].SetWriteDeadline(time.Now().Add(wait)) // frees a write that hangs
	c.client.Lock()
	c.tell()
	c.client.Unlock()
	select {
	case <-c.ended:
	case <-timer.C:
		c.fail(ErrClosed)
	}
}
