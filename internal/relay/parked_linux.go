package relay

import (
	"bytes"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	// turn is how many full buffers one direction may move before others are
	// served.
	turn = 8
	// small is what is left over after a short write and is copied rather than kept
	// in a large buffer.
	small = 4 << 10
)

// parked is a pair in a loop, whose goroutine alone touches it.
type parked struct {
	loop     *loop
	fds      [2]int32
	slot     int32
	flows    [2]flow // by where the bytes come from
	frame    []byte  // the close frame that the client shall get
	err      error   // the first failure
	activity func(head []byte)
	done     func(error)

	added  bool // has a slot
	queued bool // is among the loop's ready pairs
	told   bool // the close frame went out, or waits behind what goes out
	ended  bool
}

// flow is one direction. Its flags about the connection are of the one that it
// comes from.
type flow struct {
	scan  scanner
	pend  []byte            // was read and could not be written yet
	large *[MaxPending]byte // what pend lies in, unless it is small

	readable bool // there may be something to read
	rdhup    bool // the sender has ended: read until its end shows
	hup      bool // the connection is dead both ways
	eof      bool // nothing is to be read any more
	done     bool // and that was passed on
	drop     bool // the receiver can not be written to
	bulk     bool // its frames are large
}

// Close implements Session.
func (p *parked) Close() { p.loop.send(order{kind: orderEnd, pair: p}) }

// CloseWith implements Session.
func (p *parked) CloseWith(code uint16, reason string) {
	p.loop.send(order{kind: orderTell, pair: p, frame: closeFrame(code, reason)})
}

// event takes note of what epoll says about one side.
func (p *parked) event(side Side, events uint32) {
	from, to := &p.flows[side], &p.flows[1-side]
	if events&(unix.EPOLLIN|unix.EPOLLRDHUP|unix.EPOLLHUP|unix.EPOLLERR) != 0 {
		from.readable = true
	}
	if events&(unix.EPOLLRDHUP|unix.EPOLLHUP|unix.EPOLLERR) != 0 {
		from.rdhup = true // bytes may stand before the end: a short read is not the last one
	}
	if events&(unix.EPOLLHUP|unix.EPOLLERR) != 0 {
		from.hup = true
	}
	if from.readable {
		p.pump(side)
	}
	if events&(unix.EPOLLOUT|unix.EPOLLHUP|unix.EPOLLERR) != 0 && len(to.pend) > 0 && !p.ended {
		p.pump(1 - side)
	}
	p.settle()
}

// again gives both directions a turn.
func (p *parked) again() {
	p.queued = false
	for side := range p.flows {
		if !p.ended {
			p.pump(Side(side))
		}
	}
	p.settle()
}

// pump moves what comes from one side until there is no more, the other side does
// not take it, or others must have a turn.
func (p *parked) pump(from Side) {
	f := &p.flows[from]
	for left := turn; ; {
		if len(f.pend) > 0 && !p.flush(from) {
			return
		}
		p.inject(from)
		if len(f.pend) > 0 {
			continue
		}
		if f.eof {
			p.finish(from)
			return
		}
		if !f.readable {
			return
		}
		if left == 0 {
			p.enqueue()
			return
		}
		buf := p.loop.scratch[:]
		var n int
		var errno unix.Errno
		spliced := p.splices(f)
		if spliced {
			n, errno = p.splice(from)
		} else {
			if f.bulk {
				buf = buf[:headRead]
			}
			n, errno = transfer(unix.SYS_READ, p.fds[from], buf)
		}
		switch {
		case errno == unix.EINTR:
		case errno == unix.EAGAIN:
			f.readable = false
		case errno != 0:
			p.lose(from, &Error{from, "read", errno})
		case n == 0:
			f.eof = true
		case spliced:
			left-- // a short one says nothing: the pipe's slots were full
		default:
			if n < len(buf) {
				f.readable = f.rdhup
			} else {
				left--
			}
			p.pass(from, buf[:n])
			f.bulk = n >= bulk || f.bulk && (f.scan.payload() >= bulk || n < len(buf))
		}
	}
}

// lose notes that one side can not be read: nor can it be written to, then. What
// came from it goes out first.
func (p *parked) lose(side Side, err error) {
	p.fault(err)
	p.flows[side].eof = true
	p.drop(1 - side)
}

// drop notes that what comes from one side can not be delivered any more.
func (p *parked) drop(from Side) {
	f := &p.flows[from]
	f.drop = true
	p.release(f)
}

// pass sends b, which was read into the scratch buffer, on.
func (p *parked) pass(from Side, b []byte) {
	f := &p.flows[from]
	b = p.follow(from, b)
	if f.drop {
		return
	}
	for len(b) > 0 {
		n, errno := transfer(unix.SYS_WRITE, p.fds[1-from], b)
		switch {
		case errno == unix.EINTR:
		case errno == unix.EAGAIN:
			p.keep(f, b)
			return
		case errno != 0:
			p.undeliverable(from, errno)
			return
		}
		b = b[n:]
	}
}

// undeliverable deals with a receiver that can not be written to. It may have
// said something before it went, which the other side must get, so that the pair
// ends when that is read.
func (p *parked) undeliverable(from Side, errno unix.Errno) {
	p.fault(&Error{1 - from, "write", errno})
	p.drop(from)
	back := &p.flows[1-from]
	back.readable, back.rdhup = true, true
	p.enqueue()
}

// follow reports what a client sends, and cuts what a gateway sends at the end of
// a frame once the client is to be told to go.
func (p *parked) follow(from Side, b []byte) []byte {
	f := &p.flows[from]
	switch {
	case from == Client:
		if p.activity == nil {
			f.scan.pass(b)
		} else {
			f.scan.hear(b, &p.loop.head, p.activity)
		}
	case p.frame != nil:
		n, _, _ := f.scan.frame(b)
		return b[:n]
	default:
		f.scan.pass(b)
	}
	return b
}

// keep holds what could not be written; b lies in the scratch buffer.
func (p *parked) keep(f *flow, b []byte) {
	if len(b) <= small {
		f.pend = bytes.Clone(b)
		return
	}
	f.pend, f.large = b, p.loop.scratch
	p.loop.scratch = p.loop.relay.buffers.Get().(*[MaxPending]byte)
}

func (p *parked) release(f *flow) {
	if f.large != nil {
		p.loop.relay.buffers.Put(f.large)
	}
	f.pend, f.large = nil, nil
}

// flush writes what is pending and tells whether none of it is left.
func (p *parked) flush(from Side) bool {
	f := &p.flows[from]
	for len(f.pend) > 0 {
		n, errno := transfer(unix.SYS_WRITE, p.fds[1-from], f.pend)
		switch {
		case errno == unix.EINTR:
		case errno == unix.EAGAIN:
			return false
		case errno != 0:
			p.undeliverable(from, errno)
			return true
		}
		f.pend = f.pend[n:]
	}
	p.release(f)
	return true
}

// tell wants the client to get a close frame and bounds what that may take.
func (p *parked) tell(frame []byte) {
	if p.ended || p.frame != nil {
		return
	}
	p.frame = frame
	p.loop.closes = append(p.loop.closes, closing{p, time.Now().Add(p.loop.relay.options.closeWait)})
	p.again()
}

// inject puts the close frame behind the gateway's last frame. Nothing is read
// from the gateway then, and the pair stays until the client has answered.
func (p *parked) inject(from Side) {
	f := &p.flows[from]
	if from == Client || p.frame == nil || p.told || f.eof || f.drop || !f.scan.boundary() || f.scan.ended {
		return
	}
	p.told, f.eof, f.readable = true, true, false
	f.pend = p.frame
}

// finish passes the end of what came from one side on.
func (p *parked) finish(from Side) {
	f := &p.flows[from]
	if f.done {
		return
	}
	f.done = true
	if !f.drop {
		unix.Shutdown(int(p.fds[1-from]), unix.SHUT_WR) // an error means that it is dead, which shows
	}
}

// settle ends the pair when both directions are done, or when one is and the
// connection that the other one needs is dead.
func (p *parked) settle() {
	if p.ended {
		return
	}
	c, u := &p.flows[Client], &p.flows[Upstream]
	switch {
	case c.done && u.done:
	case c.done && (u.drop || c.hup):
		p.fault(&Error{Client, "write", unix.ECONNRESET})
	case u.done && (c.drop || u.hup) && !p.told:
		p.fault(&Error{Upstream, "write", unix.ECONNRESET})
	default:
		return
	}
	if p.frame != nil {
		p.err = ErrClosed // however it went
	}
	p.end(p.err)
}

// fault notes the first failure.
func (p *parked) fault(err error) {
	if p.err == nil {
		p.err = err
	}
}

// enqueue asks for another turn.
func (p *parked) enqueue() {
	if !p.queued && !p.ended {
		p.queued = true
		p.loop.ready = append(p.loop.ready, p)
	}
}

// end closes both connections.
func (p *parked) end(err error) {
	if p.ended {
		return
	}
	p.ended = true
	if p.added {
		p.loop.remove(p)
	}
	for side, fd := range p.fds {
		unix.Close(int(fd))
		p.release(&p.flows[side])
	}
	p.loop.relay.open.Add(-1)
	if p.done != nil {
		p.done(err)
	}
	p.activity, p.done = nil, nil // a Session may be kept for long
}

// transfer reads or writes on a descriptor that does not block, so that Go's
// scheduler need not know of the call.
func transfer(call uintptr, fd int32, b []byte) (int, unix.Errno) {
	n, _, errno := unix.RawSyscall(call, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)))
	if errno != 0 {
		return 0, errno
	}
	return int(n), 0
}
