package upstream

import (
	"slices"
	"strings"
)

// HostOnly returns Set-Cookie fields without their Domain attributes (RFC 6265 section
// 5.2.3): a sandbox may set cookies for its own host, not for the login's and for other
// sandboxes'. It leaves the given slice as it is.
func HostOnly(fields []string) []string {
	out := slices.Clone(fields)
	for n, field := range out {
		parts := strings.Split(field, ";")
		kept := slices.DeleteFunc(parts[1:], func(attribute string) bool {
			name, _, _ := strings.Cut(attribute, "=")
			return strings.EqualFold(strings.TrimSpace(name), "domain")
		})
		out[n] = strings.Join(append(parts[:1], kept...), ";")
	}
	return out
}
