// Package identity says who is asking. A method is `dev` (anybody is who they
// say, for a loopback listener), static tokens, a JWT or a header that an
// authenticating proxy sets; package login adds sessions, package apitoken tokens
// that an operator makes.
package identity

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"openclaw-sandbox/internal/sandbox"
)

// ErrUnauthenticated is returned when a request bears no identity, or a wrong one.
var ErrUnauthenticated = errors.New("no valid identity")

// Role is what a caller may do.
type Role string

const (
	RoleUser  Role = "user"  // their own sandbox, and what is shared with them
	RoleAdmin Role = "admin" // every sandbox
)

// ParseRole checks a role.
func ParseRole(role string) (Role, error) {
	if r := Role(role); r == RoleUser || r == RoleAdmin {
		return r, nil
	}
	return "", fmt.Errorf("role: want %q or %q, got %q", RoleUser, RoleAdmin, role)
}

// Caller is who is asking.
type Caller struct {
	User sandbox.User
	Role Role
	// Anyone is set by `dev`: the caller is whoever's sandbox is meant.
	Anyone bool
	// By is who is there in User's place: an admin, at the host of User's sandbox.
	By sandbox.User
	// Groups are those of the caller that a Share names.
	Groups []string

	// Bearer: the identity came in Authorization: Bearer (RFC 6750), which a page of
	// another origin cannot make a browser send.
	Bearer bool

	shares Shares
}

// May reports whether the caller may use u's sandbox.
func (c Caller) May(u sandbox.User) bool {
	return c.Anyone || c.Role == RoleAdmin || c.User == u || c.shares.with(c, u)
}

// Person is who is really asking.
func (c Caller) Person() sandbox.User {
	if c.By != "" {
		return c.By
	}
	return c.User
}

// Method finds the caller of a request. It returns ErrUnauthenticated if the
// request bears no identity that the method knows. It removes from the request
// what it has used, so that no credential travels on to a sandbox.
type Method interface {
	Identify(r *http.Request) (Caller, error)
}

// Dev lets everybody be anybody. The listener must be on loopback.
type Dev struct{ Self sandbox.User }

// Identify never fails.
func (d Dev) Identify(*http.Request) (Caller, error) {
	return Caller{User: d.Self, Role: RoleUser, Anyone: true}, nil
}

// Token is a static credential, known by its SHA-256 only.
type Token struct {
	Sum  [sha256.Size]byte
	User sandbox.User
	Role Role
}

// ParseToken checks a token's settings; sum is the SHA-256 of the token in hex.
func ParseToken(sum, user, role string) (Token, error) {
	var t Token
	var bad error
	raw, err := hex.DecodeString(sum)
	if err != nil || len(raw) != sha256.Size {
		bad = errors.New("sha256: want 64 hex digits, as of `printf %s TOKEN | sha256sum`")
	}
	copy(t.Sum[:], raw)
	if t.User, err = sandbox.ParseUser(user); err != nil {
		bad = errors.Join(bad, fmt.Errorf("user: %w", err))
	}
	t.Role, err = ParseRole(role)
	return t, errors.Join(bad, err)
}

// Tokens are static bearer tokens (RFC 6750).
type Tokens []Token

// Identify looks at Authorization: Bearer. Every token is compared, in constant
// time, so that the time taken tells nothing.
func (ts Tokens) Identify(r *http.Request) (Caller, error) {
	scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if !strings.EqualFold(scheme, "bearer") || token == "" {
		return Caller{}, ErrUnauthenticated
	}
	sum := sha256.Sum256([]byte(strings.TrimSpace(token)))
	found := -1
	for i := range ts {
		if subtle.ConstantTimeCompare(ts[i].Sum[:], sum[:]) == 1 {
			found = i
		}
	}
	if found < 0 {
		return Caller{}, ErrUnauthenticated
	}
	r.Header.Del("Authorization")
	return Caller{User: ts[found].User, Role: ts[found].Role, Bearer: true}, nil
}

// Ready reports whether m has what it needs to know callers, as a first view of
// what it follows.
func Ready(m Method) bool {
	switch m := m.(type) {
	case Any:
		for _, one := range m {
			if !Ready(one) {
				return false
			}
		}
	case interface{ Ready() bool }:
		return m.Ready()
	}
	return true
}

// Strip removes a token of ours, also from a request that needs none.
func (ts Tokens) Strip(r *http.Request) { ts.Identify(r) }

// Any tries methods in turn; the first that knows the caller decides.
type Any []Method

// Identify returns ErrUnauthenticated if no method knows the caller. What any
// method would trust is gone from the request afterwards, also where another decided.
func (a Any) Identify(r *http.Request) (Caller, error) {
	caller, err := Caller{}, ErrUnauthenticated
	for _, m := range a {
		if c, e := m.Identify(r); e == nil {
			caller, err = c, nil
			break
		}
	}
	a.Strip(r)
	return caller, err
}

// Strip removes what any method would trust, and nobody else sends: a request that
// needs no identity must not bear one to a sandbox.
func (a Any) Strip(r *http.Request) {
	for _, m := range a {
		Strip(m, r)
	}
}

// Strip takes out of a request what m would trust, if it trusts anything that stays.
func Strip(m Method, r *http.Request) {
	if s, ok := m.(interface{ Strip(*http.Request) }); ok {
		s.Strip(r)
	}
}
