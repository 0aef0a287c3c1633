package config

import "math"

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
	MaxBody              *size `hcl:"max_body" default:"0" doc:"of one request, like \"64MiB\"; beyond, 413"`
	UserPerMinute        *int  `hcl:"requests_per_minute_per_user" default:"3000" doc:"beyond, 429" want:"0 or more"`
	AddressPerMinute     *int  `hcl:"requests_per_minute_per_address" default:"6000" doc:"beyond, 429; an IPv6 address counts as its /64" want:"0 or more"`
	Burst                *int  `hcl:"burst" default:"1000" doc:"requests at once, of either" want:"1 or more"`
	WebSockets           *int  `hcl:"websockets_per_user" default:"100" doc:"open ones; beyond, 429" want:"0 or more"`
	ConnectionsByAddress *int  `hcl:"connections_per_address" default:"1000" doc:"open ones; beyond, they are closed. Not of trusted_proxies" want:"0 or more"`
	Connections          *int  `hcl:"max_connections" default:"8000" doc:"likewise, of all" want:"0 or more"`
}

func (b *limitsBlock) apply(l *Limits, bad *problems) {
	if b == nil {
		return
	}
	bad.size("limits.max_body", "a size like \"64MiB\", or \"0\" for no limit", &l.MaxBody, b.MaxBody, 0, math.MaxInt64)
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
