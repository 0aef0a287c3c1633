package upstream

import (
	"net/http"

	"openclaw-sandbox/internal/syntax"
)

// hostBytes are those of RFC 3986 section 3.2.2, and of a port.
var hostBytes = syntax.Of("!$&'()*+,;=" + ":[]%" + syntax.Unreserved)

func validHost(s string) bool { return hostBytes.Only(s) }

// validValue refuses control characters, but not the tab (RFC 9110 section 5.5).
func validValue(s string) bool {
	for i := 0; i < len(s); i++ {
		if b := s[i]; b < ' ' && b != '\t' || b == 0x7f {
			return false
		}
	}
	return true
}

// validTarget takes the origin form, and the asterisk form of OPTIONS (RFC 9112
// section 3.2); a gateway gets no other.
func validTarget(s, method string) bool {
	if s == "*" {
		return method == http.MethodOptions
	}
	if s == "" || s[0] != '/' {
		return false
	}
	for i := 0; i < len(s); i++ {
		if b := s[i]; b <= ' ' || b == 0x7f {
			return false
		}
	}
	return true
}
