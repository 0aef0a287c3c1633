package identity

import (
	"net/http"
	"net/netip"

	"openclaw-sandbox/internal/forwarded"
)

// HeaderClaim is what a Mapping knows a trusted header's value as.
const HeaderClaim = "header"

// Header trusts a header that an authenticating proxy sets, on connections from
// that proxy's own networks only.
type Header struct {
	Name     string
	Networks []netip.Prefix
	Mapping  Mapping
}

// Identify believes the peer of the connection, never X-Forwarded-For. Two headers
// are nobody: one of them may have come through the proxy from its client.
func (h Header) Identify(r *http.Request) (Caller, error) {
	values := r.Header.Values(h.Name)
	if len(values) != 1 || !h.trusts(forwarded.Addr(forwarded.Peer(r))) {
		return Caller{}, ErrUnauthenticated
	}
	return h.Mapping.Caller(map[string]any{HeaderClaim: values[0]})
}

// Strip removes the header, whoever sent it.
func (h Header) Strip(r *http.Request) { r.Header.Del(h.Name) }

func (h Header) trusts(a netip.Addr) bool {
	for _, n := range h.Networks {
		if n.Contains(a) {
			return true
		}
	}
	return false
}
