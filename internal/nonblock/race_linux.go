//go:build race

package nonblock

import "syscall"

const supported = true

// Read is that of call_linux.go, by calls of which the race detector knows: whoever
// reads what another wrote to a connection comes after them.
func Read(fd int, b []byte) (int, error) { return call(syscall.Read, fd, b) }

func write(fd int, b []byte) (int, error) { return call(syscall.Write, fd, b) }

func call(do func(int, []byte) (int, error), fd int, b []byte) (int, error) {
	for {
		n, err := do(fd, b)
		switch err {
		case nil:
			return n, nil
		case syscall.EINTR:
		case syscall.EAGAIN:
			return 0, errAgain
		default:
			return 0, err
		}
	}
}
