package http1

import (
	"bytes"
	"net/http"
	"net/textproto"
	"net/url"
	"strings"

	"openclaw-sandbox/internal/syntax"
)

// maxFields is how many header lines a plain request may have.
const maxFields = 64

// head is a plain request's head.
type head struct {
	method, target, host string
	url                  url.URL
	size                 int // bytes, with the empty line at its end
}

// parse reads the head at the start of b into h, and its fields into fields, which
// is empty. It reports false for whatever is not plain, also for what is malformed,
// or not here as a whole: net/http is to judge that. What it takes, net/http takes
// with the same result; FuzzHead compares them.
//
// Plain is a GET or HEAD of HTTP/1.1 without a body, an upgrade, an expectation or
// an end of the connection, with a target in the origin form, one Host, no folded
// lines, no line that ends with LF alone, and in which all bytes are printable.
func parse(b []byte, h *head, fields http.Header) bool {
	end := bytes.Index(b, []byte("\r\n\r\n"))
	if end < 0 {
		return false
	}
	h.size = end + 4
	line, rest, _ := strings.Cut(string(b[:end+2]), "\r\n")
	var version string
	h.method, line, _ = strings.Cut(line, " ")
	h.target, version, _ = strings.Cut(line, " ")
	if h.method != http.MethodGet && h.method != http.MethodHead || version != "HTTP/1.1" || !h.parseTarget() {
		return false
	}
	if !ReadFields(rest, fields, plain) {
		return false
	}
	host := fields["Host"]
	if len(host) != 1 || !hostBytes.Only(host[0]) {
		return false
	}
	h.host = host[0]
	delete(fields, "Host")
	if p := fields["Pragma"]; len(p) > 0 && p[0] == "no-cache" && fields["Cache-Control"] == nil {
		fields["Cache-Control"] = []string{"no-cache"} // as net/http does (RFC 9111 section 5.4)
	}
	return true
}

// ReadFields adds the lines of text, each with CRLF at its end, to fields under their
// canonical names. It reports false for more than 64 lines, for a field for which
// takes does not hold, and for any line that is not strictly a field of printable
// bytes: also for what net/http or RFC 9112 would let pass, as a folded line or one
// that ends with LF alone. fields may have some of the lines then.
func ReadFields(text string, fields http.Header, takes func(name, value string) bool) bool {
	n := strings.Count(text, "\n")
	if n > maxFields {
		return false
	}
	values := make([]string, n) // one allocation for all of them
	for text != "" {
		// The colon is looked for in all of it: if it is not in this line, the name
		// has a line break in it, and is no token.
		at := strings.IndexByte(text, ':')
		if at < 0 {
			return false
		}
		name, ok := canonical(text[:at])
		if !ok {
			return false
		}
		at++
		to := at
		for to < len(text) && (text[to] >= ' ' && text[to] != 0x7f || text[to] == '\t') {
			to++
		}
		if to+1 >= len(text) || text[to] != '\r' || text[to+1] != '\n' {
			return false
		}
		value := strings.Trim(text[at:to], " \t")
		if !takes(name, value) {
			return false
		}
		text = text[to+2:]
		if have, ok := fields[name]; ok {
			fields[name] = append(have, value)
			continue
		}
		values[0] = value
		fields[name], values = values[:1:1], values[1:]
	}
	return true
}

// parseTarget takes a target of the origin form (RFC 9112 section 3.2.1).
func (h *head) parseTarget() bool {
	if h.target == "" || h.target[0] != '/' || !targetBytes.Only(h.target) {
		return false
	}
	path, query, asked := strings.Cut(h.target, "?")
	if pathBytes.Only(path) {
		h.url = url.URL{Path: path, RawQuery: query, ForceQuery: asked && query == ""}
		return true
	}
	u, err := url.ParseRequestURI(h.target)
	if err != nil {
		return false
	}
	h.url = *u
	return true
}

// plain refuses fields that say more than a plain request may.
func plain(name, value string) bool {
	switch name {
	case "Connection":
		return strings.EqualFold(value, "keep-alive")
	case "Content-Length", "Transfer-Encoding", "Trailer", "Expect", "Upgrade":
		return false
	}
	return true
}

// canonical is a field's name as net/http writes it, if it is a token.
func canonical(name string) (string, bool) {
	upper, same := true, true
	for i := 0; i < len(name); i++ {
		b := name[i]
		if !syntax.Token.Has(b) {
			return "", false
		}
		if upper && 'a' <= b && b <= 'z' || !upper && 'A' <= b && b <= 'Z' {
			same = false
		}
		upper = b == '-'
	}
	if !same {
		name = textproto.CanonicalMIMEHeaderKey(name)
	}
	return name, name != ""
}

var (
	hostBytes   = syntax.Of(":[]" + syntax.Unreserved)                   // of a host with a port, without what is rare
	pathBytes   = syntax.Of("/" + syntax.Unreserved)                     // of a path that needs no decoding
	targetBytes = syntax.Of("/?:@!$&'()*+,;=%[]{}|" + syntax.Unreserved) // RFC 3986 section 3.3, and what browsers leave as it is
)
