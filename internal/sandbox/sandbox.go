// Package sandbox holds the words that the router and the task driver share:
// who a sandbox belongs to, how far its start is, and why it failed.
package sandbox

import (
	"errors"
	"fmt"
)

// User names the person a sandbox belongs to. It is safe as a DNS label, a
// path element, an object key and a Nomad meta value, because ParseUser is the
// only way in from outside.
type User string

// ErrBadUser is returned by ParseUser for a name outside the rule.
var ErrBadUser = errors.New("a user id is 1 to 40 lower-case letters, digits and hyphens, and neither begins nor ends with a hyphen")

// maxUser is the length of the longest user id, in bytes.
const maxUser = 40

// ParseUser accepts ^[a-z0-9](?:[a-z0-9-]{0,38}[a-z0-9])?$, the rule that
// OpenClaw's own fleet uses for tenant ids. It returns ErrBadUser otherwise.
func ParseUser(s string) (User, error) {
	if len(s) == 0 || len(s) > maxUser || s[0] == '-' || s[len(s)-1] == '-' {
		return "", fmt.Errorf("user %.60q: %w", s, ErrBadUser)
	}
	for i := range len(s) {
		c := s[i]
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' {
			return "", fmt.Errorf("user %.60q: %w", s, ErrBadUser)
		}
	}
	return User(s), nil
}
