package upstream

import (
	"net/http"
	"strconv"
	"strings"

	"openclaw-sandbox/internal/syntax"
)

// framing says how a request's body is sent.
type framing struct {
	length   int64 // of the body; -1 is unknown: chunked
	expect   bool  // wait for a 100
	trailers []string
}

func (f framing) hasBody() bool { return f.length != 0 }

// appendHead appends the head of r with the header h, or refuses it. It writes no
// hop-by-hop field of h but the ones that it makes itself, and frames the body by
// r's ContentLength alone (RFC 9112 section 6). The fields that Connection names
// must be gone from h: see EndToEnd.
func appendHead(b []byte, r *http.Request, h http.Header, addr string) ([]byte, framing, error) {
	f := framing{length: r.ContentLength}
	if r.Body == nil || r.Body == http.NoBody {
		f.length = 0
	}
	switch {
	case !syntax.Token.Only(r.Method):
		return b, f, refuse("its method is malformed")
	case r.Method == http.MethodConnect, r.Method == http.MethodTrace:
		// A tunnel is not ours to give (RFC 9110 section 9.3.6); an echo would show
		// what only the gateway may see (section 9.3.8).
		return b, f, &RequestError{Status: http.StatusMethodNotAllowed, Reason: "its method is not for a gateway"}
	}
	b = append(b, r.Method...)
	b = append(b, ' ')
	target := r.URL.RequestURI()
	if !validTarget(target, r.Method) || r.URL.Opaque != "" {
		return b, f, refuse("its target is malformed")
	}
	b = append(b, target...)
	b = append(b, " HTTP/1.1\r\nHost: "...)
	host := r.Host
	if host == "" {
		host = addr // HTTP/1.0 does without
	}
	if !validHost(host) {
		return b, f, refuse("its host is malformed")
	}
	b = append(b, host...)
	b = append(b, '\r', '\n')
	for name, values := range h {
		if hopByHop(name) || framed(name) {
			continue
		}
		if !syntax.Token.Only(name) {
			return b, f, refuse("the name of a header is malformed")
		}
		for _, v := range values {
			if !validValue(v) {
				return b, f, refuse("a header's value has a control character")
			}
			b = appendField(b, name, v)
		}
	}
	return f.append(b, r), f, nil
}

// append appends what says how the body and the trailers come, and ends the head.
func (f *framing) append(b []byte, r *http.Request) []byte {
	switch {
	case f.length > 0:
		b = append(b, "Content-Length: "...)
		b = strconv.AppendInt(b, f.length, 10)
		b = append(b, '\r', '\n')
	case f.length < 0:
		b = append(b, "Transfer-Encoding: chunked\r\n"...)
	case r.Method == http.MethodPost || r.Method == http.MethodPut || r.Method == http.MethodPatch:
		b = append(b, "Content-Length: 0\r\n"...) // RFC 9110 section 8.6
	}
	if f.length < 0 && len(r.Trailer) > 0 {
		for name := range r.Trailer {
			if syntax.Token.Only(name) && mayTrail(name) {
				f.trailers = append(f.trailers, name)
				b = appendField(b, "Trailer", name)
			}
		}
	}
	if f.hasBody() && r.ProtoAtLeast(1, 1) && len(r.Header["Expect"]) > 0 && hasToken(r.Header["Expect"], "100-continue") {
		f.expect = true
		b = append(b, "Expect: 100-continue\r\n"...)
	}
	// Whoever sends TE names it in Connection (RFC 9110 section 10.1.4).
	if len(r.Header["Te"]) > 0 && hasToken(r.Header["Te"], "trailers") {
		b = append(b, "TE: trailers\r\nConnection: TE\r\n"...)
	}
	return append(b, '\r', '\n')
}

func appendField(b []byte, name, value string) []byte {
	b = append(b, name...)
	b = append(b, ':', ' ')
	b = append(b, value...)
	return append(b, '\r', '\n')
}

func refuse(why string) error { return &RequestError{Status: http.StatusBadRequest, Reason: why} }

// EndToEnd sets dst to the fields of src that are for the other end: not the
// hop-by-hop ones, nor those that Connection names (RFC 9110 section 7.6.1). The
// values are shared with src. Whoever sets fields of its own does so afterwards,
// so that a client can not name them in Connection.
func EndToEnd(dst, src http.Header) {
	clear(dst)
	for name, values := range src {
		if !hopByHop(name) {
			dst[name] = values
		}
	}
	dropNamed(dst, src["Connection"])
}

// dropNamed deletes the fields that the values of Connection name.
func dropNamed(h http.Header, connection []string) {
	for _, v := range connection {
		for name := range strings.SplitSeq(v, ",") {
			h.Del(strings.Trim(name, " \t"))
		}
	}
}

// hopByHop tells whether a field is for one connection only (RFC 9110 section
// 7.6.1), with what is obsolete or common beside it.
func hopByHop(name string) bool {
	switch len(name) {
	case 2:
		return strings.EqualFold(name, "TE")
	case 7:
		return strings.EqualFold(name, "Trailer") || strings.EqualFold(name, "Upgrade")
	case 10:
		return strings.EqualFold(name, "Connection") || strings.EqualFold(name, "Keep-Alive")
	case 16:
		return strings.EqualFold(name, "Proxy-Connection")
	case 17:
		return strings.EqualFold(name, "Transfer-Encoding")
	case 18:
		return strings.EqualFold(name, "Proxy-Authenticate")
	case 19:
		return strings.EqualFold(name, "Proxy-Authorization")
	}
	return false
}

// framed tells whether appendHead itself writes a request's field.
func framed(name string) bool {
	switch len(name) {
	case 4:
		return strings.EqualFold(name, "Host")
	case 6:
		return strings.EqualFold(name, "Expect")
	case 14:
		return strings.EqualFold(name, "Content-Length")
	}
	return false
}

// mayTrail refuses trailers that would frame, route or authenticate (RFC 9110
// section 6.5.1): a receiver that merges them into its header must not be fooled.
func mayTrail(name string) bool {
	if hopByHop(name) || framed(name) {
		return false
	}
	for _, no := range []string{"Authorization", "Cookie", "Set-Cookie", "Content-Encoding", "Content-Type", "Content-Range",
		"Cache-Control", "Max-Forwards", "Range", "Origin"} {
		if strings.EqualFold(name, no) {
			return false
		}
	}
	return true
}

// hasToken tells whether a list contains a token, without regard to case and
// parameters.
func hasToken(values []string, want string) bool {
	for _, v := range values {
		for item := range strings.SplitSeq(v, ",") {
			item, _, _ = strings.Cut(item, ";")
			if strings.EqualFold(strings.Trim(item, " \t"), want) {
				return true
			}
		}
	}
	return false
}
