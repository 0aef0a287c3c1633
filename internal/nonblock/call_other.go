//go:build !linux

package nonblock

const supported = false

// Read is not supported here.
func Read(int, []byte) (int, error) { panic("not supported") }

func write(int, []byte) (int, error) { panic("not supported") }
