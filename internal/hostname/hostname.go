// Package hostname reads the names that requests are sent to.
package hostname

import (
	"net"
	"strings"
)

// Of is a Host field's name without the port, in lower case and without a dot at its end:
// three ways to write one name (RFC 9110 section 7.2, RFC 1034 section 3.1).
func Of(host string) string {
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	return strings.TrimSuffix(strings.ToLower(host), ".")
}
