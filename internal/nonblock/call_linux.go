//go:build !race

package nonblock

import (
	"syscall"
	"unsafe"
)

const supported = true

// maxCall bounds one call, and so for how long it keeps the processor: to copy that
// much takes some ten microseconds.
const maxCall = 64 << 10

// Read reads what is there from a descriptor that does not block; 0 bytes are its end.
// Again tells of its error whether there is nothing yet.
func Read(fd int, b []byte) (int, error) { return call(syscall.SYS_READ, fd, b) }

func write(fd int, b []byte) (int, error) { return call(syscall.SYS_WRITE, fd, b) }

func call(which uintptr, fd int, b []byte) (int, error) {
	if len(b) == 0 {
		return 0, nil
	}
	for {
		n, _, errno := syscall.RawSyscall(which, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(min(len(b), maxCall)))
		switch errno {
		case 0:
			return int(n), nil
		case syscall.EINTR:
		case syscall.EAGAIN:
			return 0, errAgain
		default:
			return 0, errno
		}
	}
}
