package relay

import (
	"net"
	"time"
)

// probes without an answer end a connection.
const probes = 3

// keepAlive sets the options on a connection that stays with Go's own poller. A
// connection that is not TCP at its bottom has none.
func (o Options) keepAlive(conn net.Conn) {
	if inner, ok := conn.(interface{ NetConn() net.Conn }); ok { // tls.Conn
		conn = inner.NetConn()
	}
	tcp, ok := conn.(*net.TCPConn)
	if !ok {
		return
	}
	if o.KeepAlive > 0 {
		// An error means a connection that is broken already; reading it will say so.
		tcp.SetKeepAliveConfig(net.KeepAliveConfig{Enable: true, Idle: seconds(o.KeepAlive), Interval: seconds(o.KeepAlive), Count: probes})
	}
	o.userTimeout(tcp)
}

// seconds rounds to what the kernel takes.
func seconds(d time.Duration) time.Duration { return max(d.Round(time.Second), time.Second) }
