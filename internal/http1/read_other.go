//go:build !linux

package http1

// supported tells whether connections can be served here; else they are net/http's.
const supported = false

func readSome(int, []byte) (n int, again bool, err error) { panic("not supported") }

func (*conn) gone() bool { return false }
