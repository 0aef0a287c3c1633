package relay

import (
	"encoding/binary"
	"os"
	"sync"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	// batch is how many events one wait takes.
	batch = 256
	// interest is what a parked socket is asked for, once and for all: the events
	// are edge-triggered, so that one that is idle or blocked needs no system call.
	interest = unix.EPOLLIN | unix.EPOLLOUT | unix.EPOLLRDHUP | unix.EPOLLET
	// wakeMark stands for the eventfd among the events' slots.
	wakeMark = -1
)

// loop relays its pairs on one goroutine, which alone touches them.
type loop struct {
	relay   *Relay
	epoll   int
	file    *os.File        // owns epoll
	raw     syscall.RawConn // of file
	bounded bool            // file has a deadline
	wake    int             // an eventfd: orders wait
	scratch *[MaxPending]byte
	head    [Head]byte // of a client's message
	pipe    pipe

	slots  []*parked // by slot; nil is a free one
	unused []int32   // slots
	ready  []*parked // had their turn and have more to do
	taken  []*parked // those of ready whose turn it is
	closes []closing // in the order of their time

	mu      sync.Mutex // guards what follows
	orders  []order
	stopped bool
}

// order is what others want of a loop.
type order struct {
	kind  orderKind
	pair  *parked
	frame []byte // of orderTell
}

type orderKind uint8

const (
	orderStart orderKind = iota
	orderTell
	orderEnd
	orderStop
)

// closing is a pair that must have ended at a time.
type closing struct {
	pair *parked
	at   time.Time
}

func newLoop(r *Relay) (*loop, error) {
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, err
	}
	if err := unix.SetNonblock(epoll, true); err != nil { // or os.NewFile would not use Go's poller
		unix.Close(epoll)
		return nil, err
	}
	wake, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		unix.Close(epoll)
		return nil, err
	}
	l := &loop{relay: r, epoll: epoll, wake: wake, scratch: r.buffers.Get().(*[MaxPending]byte)}
	l.file = os.NewFile(uintptr(epoll), "epoll")
	if l.raw, err = l.file.SyscallConn(); err == nil {
		err = l.file.SetReadDeadline(time.Time{}) // fails unless Go's poller has it
	}
	if err != nil {
		l.free()
		return nil, err
	}
	if err := unix.EpollCtl(epoll, unix.EPOLL_CTL_ADD, wake, &unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLET, Fd: wakeMark}); err != nil {
		l.free()
		return nil, err
	}
	return l, nil
}

func (l *loop) free() {
	l.file.Close()
	l.pipe.close()
	unix.Close(l.wake)
}

// send gives the loop an order. A loop that has stopped has ended its pairs; it
// ends those that come too late.
func (l *loop) send(o order) {
	l.mu.Lock()
	stopped := l.stopped
	if !stopped {
		l.orders = append(l.orders, o)
		if len(l.orders) == 1 {
			unix.Write(l.wake, binary.NativeEndian.AppendUint64(nil, 1)) // it only fails if it is pending
		}
	}
	l.mu.Unlock()
	if stopped && o.kind == orderStart {
		o.pair.end(ErrClosed)
	}
}

func (l *loop) run() {
	defer l.free()
	events := make([]unix.EpollEvent, batch)
	for {
		n := l.wait(events)
		woken := false
		for _, e := range events[:n] {
			if e.Fd == wakeMark {
				woken = true
			} else if p := l.slots[e.Fd>>1]; p != nil { // else it ended in this batch
				p.event(Side(e.Fd&1), e.Events)
			}
		}
		if len(l.ready) > 0 {
			l.ready, l.taken = l.taken[:0], l.ready
			for _, p := range l.taken {
				p.again()
			}
			clear(l.taken)
		}
		l.expire()
		// Slots that were freed are used again only now, so that no event of this
		// batch is taken for one of their new owner.
		if woken && !l.obey() {
			return
		}
		if len(l.slots) > batch && len(l.unused) == len(l.slots) && len(l.ready) == 0 {
			l.slots, l.unused, l.ready, l.taken = nil, nil, nil, nil // room for the most that there ever were
		}
	}
}

// wait returns the number of events. The loop waits in Go's poller for its own to
// be ready: a thread that blocks in epoll_wait would lose its place in Go's
// scheduler, and be late to get it back.
func (l *loop) wait(events []unix.EpollEvent) (n int) {
	if len(l.closes) > 0 {
		l.file.SetReadDeadline(l.closes[0].at)
	} else if l.bounded {
		l.file.SetReadDeadline(time.Time{})
	}
	l.bounded = len(l.closes) > 0
	l.raw.Read(func(uintptr) bool { // an error means that the deadline is over
		n = poll(l.epoll, events)
		return n > 0 || len(l.ready) > 0
	})
	return n
}

// poll returns the number of events that are there.
func poll(epoll int, events []unix.EpollEvent) int {
	n, _, errno := unix.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(epoll), uintptr(unsafe.Pointer(&events[0])), uintptr(len(events)), 0, 0, 0)
	if errno != 0 {
		return 0 // a signal
	}
	return int(n)
}

// obey follows the orders; it returns false when all pairs have ended for good.
func (l *loop) obey() bool {
	var counter [8]byte
	unix.Read(l.wake, counter[:]) // resets the eventfd; edge-triggered it need not be empty
	l.mu.Lock()
	orders := l.orders
	l.orders = nil
	for _, o := range orders {
		l.stopped = l.stopped || o.kind == orderStop
	}
	stopped := l.stopped
	l.mu.Unlock()
	for _, o := range orders {
		switch o.kind {
		case orderStart:
			l.add(o.pair)
		case orderTell:
			o.pair.tell(o.frame)
		case orderEnd:
			o.pair.end(ErrClosed)
		}
	}
	if stopped {
		for _, p := range l.slots {
			if p != nil {
				p.end(ErrClosed)
			}
		}
	}
	return !stopped
}

// add parks a pair. What its sockets have already shows as their first event.
func (l *loop) add(p *parked) {
	if n := len(l.unused); n > 0 {
		p.slot, l.unused = l.unused[n-1], l.unused[:n-1]
	} else {
		p.slot = int32(len(l.slots))
		l.slots = append(l.slots, nil)
	}
	l.slots[p.slot] = p
	p.added = true
	for side := range p.flows {
		first := p.flows[side].pend
		p.follow(Side(side), first)
		err := unix.EpollCtl(l.epoll, unix.EPOLL_CTL_ADD, int(p.fds[side]), &unix.EpollEvent{Events: interest, Fd: p.slot<<1 | int32(side)})
		if err != nil {
			p.end(&Error{Side(side), "park", err})
			return
		}
	}
	p.again()
}

// remove forgets a pair.
func (l *loop) remove(p *parked) {
	for _, fd := range p.fds {
		// A child process that is just being started may keep the connection open for a
		// moment, and with it its place in the epoll set.
		unix.EpollCtl(l.epoll, unix.EPOLL_CTL_DEL, int(fd), nil)
	}
	l.slots[p.slot] = nil
	l.unused = append(l.unused, p.slot)
}

// expire ends what had to be ended by now.
func (l *loop) expire() {
	if len(l.closes) == 0 {
		return
	}
	now := time.Now()
	for len(l.closes) > 0 && !now.Before(l.closes[0].at) {
		p := l.closes[0].pair
		l.closes[0] = closing{}
		l.closes = l.closes[1:]
		p.end(ErrClosed)
	}
}
