package config

import (
	"math"
	"time"
)

// Client bounds clients' connections before anything is known of a request.
type Client struct {
	HeadTimeout time.Duration // for the head of a request to come
	IdleTimeout time.Duration // of a connection between two requests
	MaxHead     int           // bytes of a request's head
}

func defaultClient() Client {
	return Client{HeadTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute, MaxHead: 64 << 10}
}

// minHead is what is read of a head at once, whatever the bound.
const minHead = 4 << 10

type clientBlock struct {
	HeadTimeout *duration `hcl:"head_timeout" default:"10s" doc:"for the head of a request to come, from its first byte" want:"more than 0s"`
	IdleTimeout *duration `hcl:"idle_timeout" default:"2m" doc:"of a connection between two requests; longer than that of a load balancer in front" want:"more than 0s"`
	MaxHead     *size     `hcl:"max_head" default:"64KiB" doc:"of a request's head; beyond, 431" want:"4KiB or more"`
}

func (b *clientBlock) apply(c *Client, bad *problems) {
	if b == nil {
		return
	}
	bad.duration("client.head_timeout", &c.HeadTimeout, b.HeadTimeout, 1)
	bad.duration("client.idle_timeout", &c.IdleTimeout, b.IdleTimeout, 1)
	most := int64(c.MaxHead)
	bad.size("client.max_head", "a size like \"64KiB\", of 4KiB or more", &most, b.MaxHead, minHead, math.MaxInt32)
	c.MaxHead = int(most)
}
