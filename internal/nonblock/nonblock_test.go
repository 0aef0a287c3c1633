package nonblock

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"time"
)

// patience bounds what must happen some time.
const patience = 20 * time.Second

func pair(t *testing.T) (near *net.TCPConn, far net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if far, err = net.Dial("tcp", l.Addr().String()); err != nil {
		t.Fatal(err)
	}
	accepted, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	near = accepted.(*net.TCPConn)
	t.Cleanup(func() { near.Close(); far.Close() })
	near.SetDeadline(time.Now().Add(patience))
	far.SetDeadline(time.Now().Add(patience))
	return near, far
}

// More than fits into the kernel's buffers arrives as a whole, in both directions.
func TestBothWays(t *testing.T) {
	near, far := pair(t)
	c := New(near)
	if c == nil {
		t.Skip("not supported on this system")
	}
	want := bytes.Repeat([]byte("0123456789abcdef"), 1<<19)
	echoed := make(chan error, 1)
	go func() {
		_, err := io.CopyN(far, far, int64(len(want)))
		far.Close()
		echoed <- err
	}()
	wrote := make(chan error, 1)
	go func() {
		n, err := c.Write(want)
		if n != len(want) && err == nil {
			err = io.ErrShortWrite
		}
		wrote <- err
	}()
	got, err := io.ReadAll(c)
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("got %d bytes, %v; want %d", len(got), err, len(want))
	}
	if err := errors.Join(<-wrote, <-echoed); err != nil {
		t.Error(err)
	}
}

// What ends a wait is what ends it for package net.
func TestEnds(t *testing.T) {
	for name, c := range map[string]struct {
		end  func(near *net.TCPConn, far net.Conn)
		want func(error) bool
	}{
		"a deadline": {func(near *net.TCPConn, _ net.Conn) { near.SetReadDeadline(time.Unix(1, 0)) }, func(err error) bool {
			ne, ok := errors.AsType[net.Error](err)
			return ok && ne.Timeout() && errors.Is(err, os.ErrDeadlineExceeded)
		}},
		"Close":   {func(near *net.TCPConn, _ net.Conn) { near.Close() }, func(err error) bool { return errors.Is(err, net.ErrClosed) }},
		"the end": {func(_ *net.TCPConn, far net.Conn) { far.Close() }, func(err error) bool { return err == io.EOF }},
		"a reset": {func(_ *net.TCPConn, far net.Conn) { far.(*net.TCPConn).SetLinger(0); far.Close() }, func(err error) bool {
			_, ok := errors.AsType[net.Error](err)
			return ok
		}},
	} {
		near, far := pair(t)
		conn := New(near)
		if conn == nil {
			t.Skip("not supported on this system")
		}
		read := make(chan error, 1)
		go func() {
			_, err := conn.Read(make([]byte, 1))
			read <- err
		}()
		c.end(near, far)
		if err := <-read; !c.want(err) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if New(&net.UnixConn{}) != nil {
		t.Error("made of no connection")
	}
}
