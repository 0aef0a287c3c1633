// Package syntax tells the bytes of HTTP's syntactic elements apart.
package syntax

// Class are the bytes of an element, as a bit set.
type Class [4]uint64

// Of is the class of the bytes of s.
func Of(s string) (c Class) {
	for _, b := range []byte(s) {
		c[b>>6] |= 1 << (b & 63)
	}
	return c
}

// Has tells whether b is of the class.
func (c *Class) Has(b byte) bool { return c[b>>6]&(1<<(b&63)) != 0 }

// Only tells whether s has bytes, all of the class.
func (c *Class) Only(s string) bool {
	for i := 0; i < len(s); i++ {
		if !c.Has(s[i]) {
			return false
		}
	}
	return s != ""
}

// Bytes that classes are made of.
const (
	Alphanumeric = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
	Unreserved   = "-._~" + Alphanumeric // RFC 3986 section 2.3
)

// Token is the class of a field's name or a method (RFC 9110 section 5.6.2).
var Token = Of("!#$%&'*+-.^_`|~" + Alphanumeric)
