package http1

import "golang.org/x/sys/unix"

// supported tells whether connections can be served here; else they are net/http's.
const supported = true

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
