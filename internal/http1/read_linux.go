package http1

import (
	"io"
	"syscall"

	"golang.org/x/sys/unix"
)

// supported tells whether connections can be served here; else they are net/http's.
const supported = true

// readSome reads what is there, or reports that there is nothing yet.
func readSome(fd int, b []byte) (n int, again bool, err error) {
	for {
		n, err := syscall.Read(fd, b)
		switch {
		case err == syscall.EINTR:
		case err == syscall.EAGAIN:
			return 0, true, nil
		case err != nil:
			return 0, false, err
		case n == 0:
			return 0, false, io.EOF
		default:
			return n, false, nil
		}
	}
}

// gone tells whether the client has ended the connection, or its own side of it,
// which net/http takes for the same. Bytes that wait to be read do not matter.
func (c *conn) gone() bool {
	gone := false
	err := c.raw.Control(func(fd uintptr) {
		info, err := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO)
		gone = err != nil || info.State != unix.BPF_TCP_ESTABLISHED
	})
	return err != nil || gone
}
