//go:build !linux

package relay

import "net"

// newParking says that nothing can be parked here.
func newParking(*Relay) (parking, error) { return nil, nil }

func (Options) userTimeout(*net.TCPConn) {}
