package relay

import "golang.org/x/sys/unix"

const (
	// bulk is the size of a read, and of what is left of a frame, from which on the
	// bytes are not brought into this process: splice(2) has a price of its own.
	bulk = 32 << 10
	// headRead is how much is read of a flow whose last frame was large, so that most
	// of the next one is left to splice.
	headRead = 1 << 10
	// pipeSize gives a pipe enough slots for MaxPending bytes in small pieces.
	pipeSize = 256 << 10
)

// pipe is where a loop's bytes are between two sockets. It is empty whenever the
// loop turns to another pair, so that one is enough.
type pipe struct {
	read, write int32
	state       pipeState
}

type pipeState uint8

const (
	pipeUnmade pipeState = iota
	pipeOpen
	pipeUseless // there is none to be had, or the kernel refuses
)

// open makes the pipe if need be, and tells whether there is one.
func (p *pipe) open() bool {
	if p.state != pipeUnmade {
		return p.state == pipeOpen
	}
	var fds [2]int
	p.state = pipeUseless
	if err := unix.Pipe2(fds[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		return false
	}
	p.read, p.write, p.state = int32(fds[0]), int32(fds[1]), pipeOpen
	unix.FcntlInt(uintptr(fds[0]), unix.F_SETPIPE_SZ, pipeSize) // else it stays at 64 KiB
	return true
}

func (p *pipe) close() {
	if p.state == pipeOpen {
		unix.Close(int(p.read))
		unix.Close(int(p.write))
	}
	p.state = pipeUseless
}

func splice(from, to int32, n int) (int, unix.Errno) {
	moved, _, errno := unix.RawSyscall6(unix.SYS_SPLICE, uintptr(from), 0, uintptr(to), 0, uintptr(n), unix.SPLICE_F_MOVE|unix.SPLICE_F_NONBLOCK)
	if errno != 0 {
		return 0, errno
	}
	return int(moved), 0
}

// splices tells whether what comes next is payload that needs no look.
func (p *parked) splices(f *flow) bool {
	return f.bulk && !f.drop && f.scan.payload() >= bulk && p.loop.pipe.open()
}

// splice moves payload through the pipe; its results are those of a read.
func (p *parked) splice(from Side) (int, unix.Errno) {
	f, pipe := &p.flows[from], &p.loop.pipe
	n, errno := splice(p.fds[from], pipe.write, int(min(f.scan.payload(), MaxPending)))
	if errno != 0 || n == 0 {
		if errno == unix.EINVAL || errno == unix.ENOSYS {
			pipe.close()
			return 0, unix.EINTR // read it, then
		}
		return n, errno
	}
	f.scan.skip(uint64(n))
	for rest := n; rest > 0; {
		moved, errno := splice(pipe.read, p.fds[1-from], rest)
		if errno == 0 {
			rest -= moved
		} else if errno != unix.EINTR {
			// The receiver does not take more now, or at all. The pipe is for others, so the
			// rest waits as if it had been read; to write it shows which of the two it is.
			p.empty(f, rest)
			break
		}
	}
	return n, 0
}

// empty takes what is left in the pipe.
func (p *parked) empty(f *flow, rest int) {
	buf := p.loop.scratch[:rest]
	for got := 0; got < rest; {
		n, errno := transfer(unix.SYS_READ, p.loop.pipe.read, buf[got:])
		if errno != 0 && errno != unix.EINTR { // which a pipe with bytes in it does not say
			p.lose(Client, &Error{Client, "splice", errno})
			p.lose(Upstream, p.err)
			p.loop.pipe.close()
			return
		}
		got += n
	}
	p.keep(f, buf)
}
