// Package nonblock reads and writes TCP connections with less ado than package net: a
// call that can not block is not announced to Go's scheduler, which on a busy machine
// would take the goroutine's place on its processor away meanwhile, and wake a thread
// for it. Waiting is left to package net, so that deadlines and Close work as usual.
package nonblock

import (
	"errors"
	"io"
	"net"
	"os"
	"syscall"
)

// errAgain says that there is nothing to read, or no room to write.
var errAgain = errors.New("not now")

// Conn is a connection that one goroutine at a time reads, and one writes.
type Conn struct {
	raw           syscall.RawConn
	reader        func(fd uintptr) bool // made once
	writer        func(fd uintptr) bool
	in, out       []byte
	got, sent     int
	inErr, outErr error
}

// New returns a Conn for c, which may be used beside it. It returns nil if c is no TCP
// connection, or the system is not Linux.
func New(c net.Conn) *Conn {
	tcp, ok := c.(*net.TCPConn)
	if !ok || !supported {
		return nil
	}
	raw, err := tcp.SyscallConn()
	if err != nil {
		return nil
	}
	o := &Conn{raw: raw}
	o.reader, o.writer = o.read, o.write
	return o
}

// Read is io.Reader's. Its errors are those of a net.Conn.
func (c *Conn) Read(b []byte) (int, error) {
	c.in, c.got, c.inErr = b, 0, nil
	err := c.raw.Read(c.reader)
	c.in = nil
	switch {
	case err != nil:
		return 0, err
	case c.inErr != nil:
		return 0, failed("read", c.inErr)
	case c.got == 0 && len(b) > 0:
		return 0, io.EOF
	}
	return c.got, nil
}

func (c *Conn) read(fd uintptr) bool {
	c.got, c.inErr = Read(int(fd), c.in)
	return c.inErr != errAgain
}

// Write is io.Writer's. Its errors are those of a net.Conn.
func (c *Conn) Write(b []byte) (int, error) {
	c.out, c.sent, c.outErr = b, 0, nil
	err := c.raw.Write(c.writer)
	c.out = nil
	if err == nil && c.outErr != nil {
		err = failed("write", c.outErr)
	}
	return c.sent, err
}

func (c *Conn) write(fd uintptr) bool {
	for c.sent < len(c.out) {
		n, err := write(int(fd), c.out[c.sent:])
		if err == errAgain {
			return false
		}
		if c.outErr = err; err != nil {
			break
		}
		c.sent += n
	}
	return true
}

// Again tells whether an error of Read means that there is nothing yet.
func Again(err error) bool { return err == errAgain }

func failed(op string, err error) error {
	return &net.OpError{Op: op, Net: "tcp", Err: os.NewSyscallError(op, err)}
}
