package config

import (
	"math"

	"github.com/dustin/go-humanize"
)

// Limits bound what one user, one address and all together may have. 0 is no limit.
type Limits struct {
	MaxBody              int64 // bytes of one request
	UserPerMinute        int   // requests of one user
	AddressPerMinute     int   // requests of one address
	Burst                int   // requests at once, of either
	WebSockets           int   // open ones of one user
	Connections          int   // open ones of all
	ConnectionsByAddress int
}

func defaultLimits() Limits {
	return Limits{UserPerMinute: 3000, AddressPerMinute: 6000, Burst: 1000, WebSockets: 100, Connections: 8000, ConnectionsByAddress: 1000}
}

type limitsBlock struct {
	MaxBody              *string `hcl:"max_body"`
	UserPerMinute        *int    `hcl:"requests_per_minute_per_user"`
	AddressPerMinute     *int    `hcl:"requests_per_minute_per_address"`
	Burst                *int    `hcl:"burst"`
	WebSockets           *int    `hcl:"websockets_per_user"`
	Connections          *int    `hcl:"max_connections"`
	ConnectionsByAddress *int    `hcl:"connections_per_address"`
}

func (b *limitsBlock) apply(l *Limits, bad *problems) {
	if b == nil {
		return
	}
	if b.MaxBody != nil {
		n, err := humanize.ParseBytes(*b.MaxBody)
		if err != nil || n > math.MaxInt64 {
			bad.at("limits.max_body", "want a size like \"64MiB\", or \"0\" for no limit, got %q", *b.MaxBody)
		} else {
			l.MaxBody = int64(n)
		}
	}
	bad.count("limits.requests_per_minute_per_user", &l.UserPerMinute, b.UserPerMinute)
	bad.count("limits.requests_per_minute_per_address", &l.AddressPerMinute, b.AddressPerMinute)
	bad.count("limits.burst", &l.Burst, b.Burst)
	bad.count("limits.websockets_per_user", &l.WebSockets, b.WebSockets)
	bad.count("limits.max_connections", &l.Connections, b.Connections)
	bad.count("limits.connections_per_address", &l.ConnectionsByAddress, b.ConnectionsByAddress)
	if l.Burst < 1 && (l.UserPerMinute > 0 || l.AddressPerMinute > 0) {
		bad.at("limits.burst", "want 1 or more; set the rates to 0 for no limit")
	}
}
