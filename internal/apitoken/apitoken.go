// Package apitoken keeps API tokens in Consul's key-value store: an operator makes,
// lists and revokes them, and every router follows. A token is 256 random bits, and
// Consul has its SHA-256 only: what is read there lets nobody in. Who may write
// there may let anybody in.
package apitoken

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base32"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"
	"unicode"

	"openclaw-sandbox/internal/identity"
	"openclaw-sandbox/internal/sandbox"
)

// DefaultPrefix is where tokens are kept.
const DefaultPrefix = "openclaw/token/"

// Errors of the operator's calls.
var (
	// ErrUnknown is returned for an id that no token has.
	ErrUnknown = errors.New("no token has this id")
	// ErrConsul is returned when Consul refuses, or is not reached.
	ErrConsul = errors.New("Consul did not do it")
)

// Info is what may be told of a token.
type Info struct {
	// ID is the beginning of the SHA-256 in hex. It tells tokens apart, and nothing of them.
	ID      string        `json:"id"`
	User    sandbox.User  `json:"user"`
	Role    identity.Role `json:"role"`
	Created time.Time     `json:"created"`
	Expires time.Time     `json:"expires,omitzero"` // zero: never
	Comment string        `json:"comment,omitempty"`
}

// Expired reports whether the token is worth nothing any more.
func (i Info) Expired(now time.Time) bool { return !i.Expires.IsZero() && !now.Before(i.Expires) }

// record is what Consul has.
type record struct {
	Info
	SHA256 string `json:"sha256"` // in hex
}

const (
	// mark begins every token, so that people and secret scanners know one when they
	// see it, and routers need not hash what is none.
	mark       = "ocs_"
	secretSize = 32 // bytes
	idSize     = 12 // hex digits
	maxComment = 200
)

// text is lower-case base32: a double click selects all of it.
var text = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

var tokenSize = len(mark) + text.EncodedLen(secretSize)

var validID = regexp.MustCompile(fmt.Sprintf("^[0-9a-f]{%d}$", idSize))

// newToken is a token that never was before.
func newToken() string {
	var secret [secretSize]byte
	rand.Read(secret[:]) // never fails: see its documentation
	return mark + text.EncodeToString(secret[:])
}

func idOf(sum [sha256.Size]byte) string { return hex.EncodeToString(sum[:])[:idSize] }

// check finds what is wrong with a token before it is made.
func (i Info) check(now time.Time) error {
	if _, err := sandbox.ParseUser(string(i.User)); err != nil {
		return err
	}
	if _, err := identity.ParseRole(string(i.Role)); err != nil {
		return err
	}
	if i.Expired(now) {
		return errors.New("it would have expired already")
	}
	if len(i.Comment) > maxComment || strings.ContainsFunc(i.Comment, unicode.IsControl) {
		return fmt.Errorf("comment: want one line of at most %d bytes", maxComment)
	}
	return nil
}

// parse reads what Consul has under a key. The id, the end of the key, must be that
// of the SHA-256: so no two keys can be for one token.
func parse(id string, value []byte) (record, [sha256.Size]byte, error) {
	var rec record
	var sum [sha256.Size]byte
	if err := json.Unmarshal(value, &rec); err != nil {
		return rec, sum, fmt.Errorf("not a token: %w", err)
	}
	raw, err := hex.DecodeString(rec.SHA256)
	if err != nil || len(raw) != len(sum) {
		return rec, sum, errors.New("sha256: want 64 hex digits")
	}
	copy(sum[:], raw)
	if rec.ID = id; id != idOf(sum) {
		return rec, sum, errors.New("the key is not that of its sha256")
	}
	if rec.User, err = sandbox.ParseUser(string(rec.User)); err != nil {
		return rec, sum, fmt.Errorf("user: %w", err)
	}
	if rec.Role, err = identity.ParseRole(string(rec.Role)); err != nil {
		return rec, sum, err
	}
	return rec, sum, nil
}
