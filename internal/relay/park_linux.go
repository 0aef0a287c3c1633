package relay

import (
	"errors"
	"net"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// loops park pairs of TCP connections.
type loops struct {
	relay *Relay
	all   []*loop
	next  atomic.Uint32
}

func newParking(r *Relay) (parking, error) {
	l := &loops{relay: r}
	for range r.options.Loops {
		made, err := newLoop(r)
		if err != nil {
			for _, one := range l.all {
				one.free()
			}
			return nil, err
		}
		l.all = append(l.all, made)
	}
	for _, one := range l.all {
		r.running.Go(one.run)
	}
	return l, nil
}

func (l *loops) close() {
	for _, one := range l.all {
		one.send(order{kind: orderStop})
	}
}

// park takes both descriptors out of Go's poller. Should that fail, as when there
// are no descriptors left, the pair is as it was.
func (l *loops) park(p Pair) (Session, bool) {
	client, ok := p.Client.(*net.TCPConn)
	if !ok {
		return nil, false
	}
	upstream, ok := p.Upstream.(*net.TCPConn)
	if !ok {
		return nil, false
	}
	var fds [2]int
	var err error
	if fds[Client], err = dup(client); err == nil {
		if fds[Upstream], err = dup(upstream); err != nil {
			unix.Close(fds[Client])
		}
	}
	if err != nil {
		l.relay.log.Warn("a pair of connections is relayed by goroutines", "error", &Error{Upstream, "park", err})
		return nil, false
	}
	// The duplicates keep the connections open.
	client.Close()
	upstream.Close()
	s := &parked{loop: l.all[l.next.Add(1)%uint32(len(l.all))], fds: [2]int32{int32(fds[0]), int32(fds[1])}, activity: p.Activity, done: p.Done}
	for side, b := range [2][]byte{p.FromClient, p.FromUpstream} {
		l.relay.options.apply(fds[side])
		if len(b) > 0 {
			s.flows[side].pend = append([]byte(nil), b...)
		}
	}
	s.loop.send(order{kind: orderStart, pair: s})
	return s, true
}

// dup duplicates a connection's descriptor; it stays non-blocking, since that
// belongs to what the two share.
func dup(conn *net.TCPConn) (fd int, err error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return 0, err
	}
	var failed error
	err = raw.Control(func(original uintptr) { fd, failed = unix.FcntlInt(original, unix.F_DUPFD_CLOEXEC, 0) })
	return fd, errors.Join(err, failed)
}

// apply sets the options on a descriptor. An error means a connection that is
// broken already; reading it will say so.
func (o Options) apply(fd int) {
	if o.KeepAlive > 0 {
		every := int(seconds(o.KeepAlive).Seconds())
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1)
		unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, every)
		unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, every)
		unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_KEEPCNT, probes)
	}
	if o.UserTimeout > 0 {
		unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(o.UserTimeout.Milliseconds()))
	}
}

func (o Options) userTimeout(conn *net.TCPConn) {
	raw, err := conn.SyscallConn()
	if err != nil || o.UserTimeout <= 0 {
		return
	}
	raw.Control(func(fd uintptr) {
		unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(o.UserTimeout.Milliseconds()))
	})
}
