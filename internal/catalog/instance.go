package catalog

import (
	"fmt"
	"net"
	"strconv"
	"strings"

	consul "github.com/hashicorp/consul/api"

	"openclaw-sandbox/internal/sandbox"
)

// Instance is a user's running gateway.
type Instance struct {
	User       sandbox.User
	Generation string // the allocation's id: another one is another process
	Addr       string // host:port
	Node       string
	Job        string // the dispatched child job
	// Ports are further ports of the sandbox that its job opens to routers, as
	// INSIDE=OUTSIDE with commas: "8787=23456".
	Ports string
	// created is Consul's index of the registration: the newest wins. A learnt
	// instance has the index that was seen when it was learnt.
	created uint64
}

// At is where port of the sandbox can be reached, host:port; "" if the job does not
// open it: without a word of the job it might be another process's.
func (i Instance) At(port int) string {
	host, _, err := net.SplitHostPort(i.Addr)
	if err != nil {
		return ""
	}
	for pair := range strings.SplitSeq(i.Ports, ",") {
		inside, outside, _ := strings.Cut(pair, "=")
		if n, err := strconv.ParseUint(outside, 10, 16); err == nil && n > 0 && inside == strconv.Itoa(port) {
			return net.JoinHostPort(host, outside)
		}
	}
	return ""
}

// newer decides between two gateways of one user, the same way in every router.
func (i Instance) newer(than Instance) bool {
	if i.created != than.created {
		return i.created > than.created
	}
	return i.Generation > than.Generation
}

// entry is what the table needs of a registration. Decoding no more than that
// halves what following Consul costs.
type entry struct {
	Node    struct{ Address string }
	Service struct {
		ID, Address string
		Port        int
		Meta        map[string]string
		CreateIndex uint64
	}
	Checks []struct{ ServiceID, Status string }
}

// passing reports whether no check of the gateway itself fails. The node's own checks
// (serfHealth, maintenance) do not count: they fail when the node's Consul agent is away,
// which says nothing about a sandbox that runs there. Whether the node still answers is
// found out by the request.
func (e *entry) passing() bool {
	for _, c := range e.Checks {
		if c.ServiceID != "" && c.Status != consul.HealthPassing {
			return false
		}
	}
	return true
}

func (e *entry) instance() (Instance, error) {
	user, err := sandbox.ParseUser(e.Service.Meta["user"])
	if err != nil {
		return Instance{}, err
	}
	generation := e.Service.Meta["generation"]
	if generation == "" || e.Service.Port <= 0 {
		return Instance{}, fmt.Errorf("it has no generation or no port")
	}
	host := e.Service.Address
	if host == "" {
		host = e.Node.Address
	}
	return Instance{User: user, Generation: generation, Addr: net.JoinHostPort(host, strconv.Itoa(e.Service.Port)),
		Node: e.Service.Meta["node"], Job: e.Service.Meta["job"], Ports: e.Service.Meta["ports"], created: e.Service.CreateIndex}, nil
}
