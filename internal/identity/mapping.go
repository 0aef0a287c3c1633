package identity

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"openclaw-sandbox/internal/sandbox"
)

// ErrUnknownSubject is returned for somebody whom a provider knows, and the
// mapping does not.
var ErrUnknownSubject = errors.New("the provider knows you, but no sandbox is yours here")

// Mapping makes a caller of what a provider says of somebody. It never changes a
// name to make it fit: two subjects could then become one user.
type Mapping struct {
	Claim         string                  // the claim that names somebody, like "sub" or "email"
	Users         map[string]sandbox.User // the claim's value → user id
	EmailDomain   string                  // if set, NAME@<this> is the user NAME
	NeedVerified  bool                    // an email counts only with email_verified
	Admins        []string                // values of Claim
	GroupsClaim   string                  // a list of groups; "groups" is usual
	AdminGroup    string                  // whoever is in it is an admin
	RequiredGroup string                  // if set, nobody else may enter
	Shared        []string                // see Share
}

// Check finds settings that would let two subjects be one user.
func (m Mapping) Check() error {
	var all []error
	if m.Claim == "" {
		all = append(all, errors.New("claim: want the name of the claim that names a user"))
	}
	seen := map[sandbox.User]string{}
	for value, u := range m.Users {
		if _, err := sandbox.ParseUser(string(u)); err != nil {
			all = append(all, fmt.Errorf("users[%q]: %w", value, err))
		}
		if other, ok := seen[u]; ok {
			all = append(all, fmt.Errorf("users: %q and %q would both be %q", min(value, other), max(value, other), u))
		}
		seen[u] = value
	}
	if (m.AdminGroup != "" || m.RequiredGroup != "") && m.GroupsClaim == "" {
		all = append(all, errors.New("groups_claim: want the claim that lists groups"))
	}
	return errors.Join(all...)
}

// Caller returns who the claims name. It returns ErrUnknownSubject if they name
// nobody here.
func (m Mapping) Caller(claims map[string]any) (Caller, error) {
	value, _ := claims[m.Claim].(string)
	if value == "" {
		return Caller{}, ErrUnknownSubject
	}
	if verified, told := claims["email_verified"]; m.Claim == "email" && (told || m.NeedVerified) && verified != true {
		return Caller{}, ErrUnknownSubject
	}
	if m.RequiredGroup != "" && !m.in(claims, m.RequiredGroup) {
		return Caller{}, ErrUnknownSubject
	}
	u, err := m.user(value)
	if err != nil {
		return Caller{}, err
	}
	c := Caller{User: u, Role: RoleUser}
	if slices.Contains(m.Admins, value) || m.AdminGroup != "" && m.in(claims, m.AdminGroup) {
		c.Role = RoleAdmin
	}
	for _, g := range m.Shared {
		if m.in(claims, g) {
			c.Groups = append(c.Groups, g)
		}
	}
	return c, nil
}

// Share makes callers keep those of their groups that shares name: a session has no
// room for hundreds. It reports whether the provider tells groups at all.
func (m *Mapping) Share(groups []string) bool {
	if m.GroupsClaim == "" {
		return false
	}
	m.Shared = groups
	return true
}

func (m Mapping) user(value string) (sandbox.User, error) {
	if u, ok := m.Users[value]; ok {
		return u, nil
	}
	name := value
	if m.EmailDomain != "" {
		var ok bool
		if name, ok = strings.CutSuffix(value, "@"+m.EmailDomain); !ok {
			return "", ErrUnknownSubject
		}
	}
	u, err := sandbox.ParseUser(name)
	if err != nil {
		return "", ErrUnknownSubject
	}
	for _, taken := range m.Users {
		if taken == u {
			return "", ErrUnknownSubject // the config gives this id to another subject
		}
	}
	return u, nil
}

func (m Mapping) in(claims map[string]any, group string) bool {
	groups, _ := claims[m.GroupsClaim].([]any)
	return slices.Contains(groups, any(group))
}
