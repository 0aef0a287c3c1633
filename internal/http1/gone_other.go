//go:build !linux

package http1

// supported tells whether connections can be served here; else they are net/http's.
const supported = false

func (*conn) gone() bool { return false }
