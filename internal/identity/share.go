package identity

import (
	"net/http"
	"slices"

	"openclaw-sandbox/internal/sandbox"
)

// Share is who may use a sandbox beside the user of its name.
type Share struct {
	Users  []sandbox.User
	Groups []string // as a provider names them, see Mapping.Share
}

// Shares are the shared sandboxes.
type Shares map[sandbox.User]Share

// For is c, who may also use what is shared with them.
func (s Shares) For(c Caller) Caller {
	c.shares = s
	return c
}

// Groups are all that shares name.
func (s Shares) Groups() []string {
	var all []string
	for _, share := range s {
		all = append(all, share.Groups...)
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// with reports whether u's sandbox is shared with c. Whoever entered in the place of
// a sandbox's user (By) is a member of nothing.
func (s Shares) with(c Caller, u sandbox.User) bool {
	share, ok := s[u]
	if !ok || c.By != "" {
		return false
	}
	return slices.Contains(share.Users, c.User) || slices.ContainsFunc(c.Groups, func(g string) bool { return slices.Contains(share.Groups, g) })
}

// Sharing is a method whose callers may also use what is shared with them.
type Sharing struct {
	Method
	Shares Shares
}

// Identify asks the method.
func (s Sharing) Identify(r *http.Request) (Caller, error) {
	c, err := s.Method.Identify(r)
	return s.Shares.For(c), err
}

// Strip lets the method take out of a request what it would trust.
func (s Sharing) Strip(r *http.Request) { Strip(s.Method, r) }

// Ready asks the method.
func (s Sharing) Ready() bool { return Ready(s.Method) }
