package upstream

import (
	"syscall"
	"unsafe"
)

// somethingWaits tells whether a read of fd would return: bytes, the end or an error.
func somethingWaits(fd uintptr) bool {
	var b [1]byte
	for {
		// It does not wait, so that the scheduler need not be told.
		_, _, err := syscall.RawSyscall6(syscall.SYS_RECVFROM, fd, uintptr(unsafe.Pointer(&b[0])), 1, syscall.MSG_PEEK|syscall.MSG_DONTWAIT, 0, 0)
		switch err {
		case syscall.EINTR:
			continue
		case syscall.EAGAIN:
			return false
		}
		return true
	}
}
