package upstream

import "net/http"

// class are the bytes of a syntactic element, as a bit set.
type class [4]uint64

func (c *class) has(b byte) bool { return c[b>>6]&(1<<(b&63)) != 0 }

func classOf(s string) (c class) {
	for _, b := range []byte(s) {
		c[b>>6] |= 1 << (b & 63)
	}
	return c
}

const alphanumeric = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"

var (
	tokenBytes = classOf("!#$%&'*+-.^_`|~" + alphanumeric)               // RFC 9110 section 5.6.2
	hostBytes  = classOf("!$&'()*+,;=" + ":[]%" + "-._~" + alphanumeric) // RFC 3986 section 3.2.2, and a port
)

func only(s string, c *class) bool {
	for i := 0; i < len(s); i++ {
		if !c.has(s[i]) {
			return false
		}
	}
	return s != ""
}

func token(s string) bool     { return only(s, &tokenBytes) }
func validHost(s string) bool { return only(s, &hostBytes) }

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
