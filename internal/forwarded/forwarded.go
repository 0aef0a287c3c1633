// Package forwarded finds out whom a proxy in front of the router forwards for.
package forwarded

import (
	"context"
	"net"
	"net/http"
	"net/netip"
	"strings"
)

// Trust are the networks of proxies whose X-Forwarded-For and X-Forwarded-Proto are
// believed. Forwarded (RFC 7239) is not read.
type Trust []netip.Prefix

// Trusts reports that a is a trusted proxy's address.
func (t Trust) Trusts(a netip.Addr) bool {
	for _, n := range t {
		if n.Contains(a) {
			return true
		}
	}
	return false
}

// Handler makes r.RemoteAddr the client's address, with port 0 if a proxy told it;
// Peer still has the connection's. It stands before everything that asks who a
// request comes from.
func (t Trust) Handler(next http.Handler) http.Handler {
	if len(t) == 0 {
		return next
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		peer := Addr(r.RemoteAddr)
		if !t.Trusts(peer) {
			next.ServeHTTP(w, r)
			return
		}
		r = r.WithContext(context.WithValue(r.Context(), key{}, &hop{peer: r.RemoteAddr, scheme: scheme(r.Header)}))
		if client := t.client(peer, r.Header["X-Forwarded-For"]); client != peer {
			r.RemoteAddr = netip.AddrPortFrom(client, 0).String()
		}
		next.ServeHTTP(w, r)
	})
}

// client is the right-most address that is no trusted proxy's: what stands to the
// left of it, its sender may have made up. If all are trusted it is the left-most.
func (t Trust) client(peer netip.Addr, lines []string) netip.Addr {
	for i := len(lines) - 1; i >= 0; i-- {
		for rest, more := lines[i], true; more; {
			var last string
			if at := strings.LastIndexByte(rest, ','); at >= 0 {
				rest, last = rest[:at], rest[at+1:]
			} else {
				last, more = rest, false
			}
			a := Addr(strings.Trim(last, " \t"))
			if !a.IsValid() {
				return peer // no address: the trusted one beside it is the last that is known
			}
			if peer = a; !t.Trusts(a) {
				return a
			}
		}
	}
	return peer
}

// scheme is what the one X-Forwarded-Proto says; "" if there is not one that is valid.
func scheme(h http.Header) string {
	if v := h["X-Forwarded-Proto"]; len(v) == 1 && (v[0] == "http" || v[0] == "https") {
		return v[0]
	}
	return ""
}

type key struct{}

// hop is the connection of a request that a trusted proxy sent.
type hop struct{ peer, scheme string }

// Peer is the other end of the request's connection (host:port), whoever the client is.
func Peer(r *http.Request) string {
	if h, ok := r.Context().Value(key{}).(*hop); ok {
		return h.peer
	}
	return r.RemoteAddr
}

// Scheme is what a trusted proxy says that the client used, http or https; "" if none
// says it.
func Scheme(r *http.Request) string {
	if h, ok := r.Context().Value(key{}).(*hop); ok {
		return h.scheme
	}
	return ""
}

// Remote is the address at the other end of a connection.
func Remote(c net.Conn) netip.Addr { return Addr(c.RemoteAddr().String()) }

// Addr parses an address with or without port; the zero address if it is none.
func Addr(text string) netip.Addr {
	ap, err := netip.ParseAddrPort(text)
	a := ap.Addr()
	if err != nil {
		if a, err = netip.ParseAddr(strings.Trim(text, "[]")); err != nil {
			return netip.Addr{}
		}
	}
	return a.Unmap().WithZone("")
}
