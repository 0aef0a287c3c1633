package apitoken

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	consul "github.com/hashicorp/consul/api"

	"openclaw-sandbox/internal/sandbox"
)

// callTimeout bounds a call that is not meant to hang.
const callTimeout = 10 * time.Second

// Store is where an operator keeps tokens.
type Store struct {
	Consul *consul.Client
	Prefix string // with a slash at its end
}

// Create makes a token for i.User, with i's role, end and comment, and returns it:
// nobody can have it again. Its error is ErrConsul, or says what is wrong with i.
func (s Store) Create(ctx context.Context, i Info) (string, Info, error) {
	i.Created = time.Now().UTC().Truncate(time.Second)
	if err := i.check(i.Created); err != nil {
		return "", i, fmt.Errorf("create a token: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	token := newToken()
	sum := sha256.Sum256([]byte(token))
	i.ID = idOf(sum)
	value, err := json.Marshal(record{Info: i, SHA256: hex.EncodeToString(sum[:])})
	if err != nil {
		return "", i, fmt.Errorf("create a token: %w", err)
	}
	// Only where nothing is: another token's id may be the same, once in 2⁴⁸.
	ok, _, err := s.Consul.KV().CAS(&consul.KVPair{Key: s.Prefix + i.ID, Value: value}, (&consul.WriteOptions{}).WithContext(ctx))
	if err == nil && !ok {
		err = errors.New("another token has this id; try again")
	}
	if err != nil {
		return "", i, fmt.Errorf("create a token: %w: %w", ErrConsul, err)
	}
	return token, i, nil
}

// Listed is a token, or what is wrong with what Consul has in its place.
type Listed struct {
	Info
	Error string `json:"error,omitempty"`
}

// List returns the tokens of a user, of all if u is empty, by their id. Its error is
// ErrConsul.
func (s Store) List(ctx context.Context, u sandbox.User) ([]Listed, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	pairs, _, err := s.Consul.KV().List(s.Prefix, (&consul.QueryOptions{}).WithContext(ctx))
	if err != nil {
		return nil, fmt.Errorf("list the tokens: %w: %w", ErrConsul, err)
	}
	out := []Listed{}
	for _, p := range pairs {
		id := strings.TrimPrefix(p.Key, s.Prefix)
		rec, _, err := parse(id, p.Value)
		l := Listed{Info: rec.Info}
		if err != nil { // one bad record must not hide the others
			l = Listed{Info: Info{ID: id, User: rec.User}, Error: err.Error()}
		}
		if u == "" || rec.User == u {
			out = append(out, l)
		}
	}
	return out, nil
}

// Revoke removes a token: routers refuse it within about a second. Its error is
// ErrUnknown or ErrConsul.
func (s Store) Revoke(ctx context.Context, id string) error {
	if !validID.MatchString(id) {
		return fmt.Errorf("revoke %q: %w", id, ErrUnknown)
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	p, _, err := s.Consul.KV().Get(s.Prefix+id, (&consul.QueryOptions{}).WithContext(ctx))
	if err == nil && p == nil {
		return fmt.Errorf("revoke %q: %w", id, ErrUnknown)
	}
	if err == nil {
		_, err = s.Consul.KV().Delete(s.Prefix+id, (&consul.WriteOptions{}).WithContext(ctx))
	}
	if err != nil {
		return fmt.Errorf("revoke %q: %w: %w", id, ErrConsul, err)
	}
	return nil
}
