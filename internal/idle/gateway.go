package idle

import (
	"context"
	"fmt"
	"net"
	"net/http"

	"openclaw-sandbox/internal/catalog"
	"openclaw-sandbox/internal/chat"
)

// Gateways asks gateways over their own protocol. It is the Prober of production.
type Gateways struct {
	// Domain is that of the users' hosts.
	Domain string
	// Identify sets on h what makes the gateway of a user trust the router; in is a
	// request without a client.
	Identify func(h http.Header, in *http.Request, user string)
	// Dial opens a connection to a gateway.
	Dial func(ctx context.Context, network, addr string) (net.Conn, error)
}

// Probe asks a gateway when its next job is, and for a rest.
func (g Gateways) Probe(ctx context.Context, i catalog.Instance) (Rest, error) {
	host := string(i.User) + "." + g.Domain
	h := http.Header{}
	g.Identify(h, &http.Request{Host: host}, string(i.User))
	c, err := chat.Dial(ctx, i.Addr, host, h, chat.ToOperate, g.Dial)
	if err != nil {
		return Rest{}, fmt.Errorf("ask the gateway of %s: %w", i.User, err)
	}
	due, err := c.Due()
	if err != nil {
		c.Close()
		return Rest{}, fmt.Errorf("ask the gateway of %s for its jobs: %w", i.User, err)
	}
	q, err := c.Quiet()
	if err != nil {
		c.Close()
		return Rest{}, fmt.Errorf("ask the gateway of %s for a rest: %w", i.User, err)
	}
	return Rest{Busy: q.Busy, RetryAfter: q.RetryAfter, Due: due, End: func(resume bool) {
		if resume {
			c.Resume(q) // a rest ends by itself, if this does not end it
		}
		c.Close()
	}}, nil
}
