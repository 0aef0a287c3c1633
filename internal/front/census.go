package front

import (
	"net"
	"net/http"
	"net/netip"
	"sync"

	"openclaw-sandbox/internal/forwarded"
	"openclaw-sandbox/internal/limit"
)

// Bounds are how many connections there may be; 0 is no limit.
type Bounds struct {
	Total     int
	ByAddress int             // of one address; an IPv6 address counts as its /64
	Exempt    forwarded.Trust // proxies, which have connections for many
}

// Which bound a connection was refused for.
const (
	RefusedTotal   = "max_connections"
	RefusedAddress = "connections_per_address"
)

// Census counts the open connections of servers, and closes at once those beyond
// the bounds. A hijacked connection counts until Left is called for it.
type Census struct {
	refused func(bound string, by netip.Addr)

	mu     sync.Mutex // guards what follows
	bounds Bounds
	total  int
	by     map[netip.Addr]int
	closed map[net.Conn]bool // refused, and not known to have ended
}

// NewCensus returns an empty census. refused is told of each connection that is
// closed, and must return at once.
func NewCensus(b Bounds, refused func(bound string, by netip.Addr)) *Census {
	return &Census{refused: refused, bounds: b, by: map[netip.Addr]int{}, closed: map[net.Conn]bool{}}
}

// Set changes the bounds. Connections that are open stay.
func (c *Census) Set(b Bounds) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.bounds = b
}

// Open is the number of connections.
func (c *Census) Open() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.total
}

// ConnState is the hook of the servers.
func (c *Census) ConnState(conn net.Conn, s http.ConnState) {
	switch s {
	case http.StateNew:
		if bound := c.enter(conn); bound != "" {
			conn.Close()
			c.refused(bound, limit.Network(forwarded.Remote(conn)))
		}
	case http.StateClosed:
		c.mu.Lock()
		refused := c.closed[conn]
		delete(c.closed, conn)
		c.mu.Unlock()
		if !refused {
			c.Left(forwarded.Remote(conn))
		}
	}
}

func (c *Census) enter(conn net.Conn) (refused string) {
	from := forwarded.Remote(conn)
	a := limit.Network(from)
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.bounds.Total > 0 && c.total >= c.bounds.Total:
		refused = RefusedTotal
	case c.bounds.ByAddress > 0 && c.by[a] >= c.bounds.ByAddress && !c.bounds.Exempt.Trusts(from):
		refused = RefusedAddress
	default:
		c.total++
		c.by[a]++
		return ""
	}
	c.closed[conn] = true
	return refused
}

// Left forgets a connection from that address.
func (c *Census) Left(from netip.Addr) {
	a := limit.Network(from)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.total--
	if c.by[a]--; c.by[a] <= 0 {
		delete(c.by, a)
	}
}
