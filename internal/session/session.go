// Package session seals small values for a browser to keep: session cookies and
// the steps of a login. A sealed value can be neither read nor made without a key,
// and opens only for the purpose and the host that it was sealed for.
package session

import (
	"crypto/aes"
	"crypto/cipher"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"openclaw-sandbox/internal/keyfile"
)

// KeySize is the size of a key in bytes: AES-256.
const KeySize = 32

// ErrInvalid is returned for a value that no key opens for this purpose and host,
// or that has expired. It does not say which: a client learns nothing from it.
var ErrInvalid = errors.New("the sealed value is not valid here, or has expired")

// Keys seal with the first key and open with any, so that keys can be rotated:
// put the new one first, and remove the old one when what it sealed has expired.
type Keys struct{ aeads []cipher.AEAD }

// NewKeys takes keys of KeySize random bytes, at least one.
func NewKeys(keys ...[]byte) (Keys, error) {
	var k Keys
	if len(keys) == 0 {
		return k, errors.New("want at least one session key")
	}
	for _, key := range keys {
		if len(key) != KeySize {
			return k, fmt.Errorf("want a session key of %d bytes, got %d", KeySize, len(key))
		}
		block, err := aes.NewCipher(key)
		if err != nil {
			return k, fmt.Errorf("session key: %w", err)
		}
		aead, err := cipher.NewGCMWithRandomNonce(block)
		if err != nil {
			return k, fmt.Errorf("session key: %w", err)
		}
		k.aeads = append(k.aeads, aead)
	}
	return k, nil
}

// ReadKeys is NewKeys for files, each with one key in base64.
func ReadKeys(files ...string) (Keys, error) {
	keys, err := keyfile.Read("session key", KeySize, files...)
	if err != nil {
		return Keys{}, err
	}
	return NewKeys(keys...)
}

// Inside is the end, in seconds since 1970 as 8 bytes, and then the value: only what
// has not expired is read, at each request.
const endSize = 8

// Seal returns v, as JSON, sealed until expires for a purpose at a host. The text
// is safe in a cookie and in a URL.
func (k Keys) Seal(v any, purpose, host string, expires time.Time) (string, error) {
	value, err := json.Marshal(v)
	if err != nil {
		return "", fmt.Errorf("seal: %w", err)
	}
	plain := append(binary.BigEndian.AppendUint64(nil, uint64(expires.Unix())), value...)
	return base64.RawURLEncoding.EncodeToString(k.aeads[0].Seal(nil, nil, plain, bound(purpose, host))), nil
}

// Open reads into v what Seal made for the same purpose and host. It returns
// ErrInvalid for anything else.
func (k Keys) Open(text, purpose, host string, now time.Time, v any) error {
	raw, err := base64.RawURLEncoding.DecodeString(text)
	if err != nil {
		return ErrInvalid
	}
	for _, aead := range k.aeads {
		plain, err := aead.Open(nil, nil, raw, bound(purpose, host))
		if err != nil {
			continue
		}
		if len(plain) < endSize || now.Unix() >= int64(binary.BigEndian.Uint64(plain)) || json.Unmarshal(plain[endSize:], v) != nil {
			return ErrInvalid
		}
		return nil
	}
	return ErrInvalid
}

// bound is the additional data: neither part contains a line break.
func bound(purpose, host string) []byte { return []byte(purpose + "\n" + host) }
