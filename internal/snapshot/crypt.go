package snapshot

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"

	"openclaw-sandbox/internal/keyfile"
	"openclaw-sandbox/internal/sandbox"
)

// ErrKey: the state is encrypted, and the master key for it is missing or wrong.
var ErrKey = errors.New("the master key of this state is missing or wrong")

// Keys are the operator's master keys, by name. Each is 32 bytes. The active one
// wraps the data keys of what is written; the others only read, so that a key can
// be changed.
type Keys struct {
	Active string
	All    map[string][]byte
}

const keySize = 32 // AES-256

// ReadKeys reads master keys from files, by name. Without any it returns nil. active
// may be empty if there is one key.
func ReadKeys(files map[string]string, active string) (*Keys, error) {
	if len(files) == 0 {
		if active != "" {
			return nil, fmt.Errorf("master key %q is to be active, but there is no key", active)
		}
		return nil, nil
	}
	k := &Keys{Active: active, All: map[string][]byte{}}
	for name, file := range files {
		read, err := keyfile.Read(fmt.Sprintf("master key %q", name), keySize, file)
		if err != nil {
			return nil, err
		}
		k.All[name] = read[0]
		if len(files) == 1 && active == "" {
			k.Active = name
		}
	}
	if k.All[k.Active] == nil {
		return nil, fmt.Errorf("say which master key is active: %q is none of them", k.Active)
	}
	return k, nil
}

// wrappedKey is a user's data key in a head, encrypted with a master key.
type wrappedKey struct {
	Master string `json:"master"` // its name
	Sealed []byte `json:"sealed"` // nonce and AES-256-GCM ciphertext, with the user as additional data
}

// sealer encrypts and decrypts a user's segments. A nil sealer leaves them plain.
type sealer struct{ key []byte }

// wrap encrypts the data key with the active master key.
func (s *sealer) wrap(k *Keys, u sandbox.User) (*wrappedKey, error) {
	aead, err := gcm(k.All[k.Active])
	if err != nil {
		return nil, fmt.Errorf("%w: %q: %w", ErrKey, k.Active, err)
	}
	nonce := make([]byte, aead.NonceSize())
	rand.Read(nonce)
	return &wrappedKey{Master: k.Active, Sealed: aead.Seal(nonce, nonce, s.key, []byte(u))}, nil
}

// unwrap returns the sealer of a head: nil if its state is not encrypted. It
// returns ErrKey if the master key is not at hand, or not the one.
func unwrap(k *Keys, h *Head) (*sealer, error) {
	if h.Key == nil {
		return nil, nil
	}
	if k == nil || k.All[h.Key.Master] == nil {
		return nil, fmt.Errorf("%w: it is encrypted with master key %.60q", ErrKey, h.Key.Master)
	}
	aead, err := gcm(k.All[h.Key.Master])
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrKey, err)
	}
	n := aead.NonceSize()
	if len(h.Key.Sealed) < n {
		return nil, fmt.Errorf("%w: the data key in the head is cut off", ErrCorrupt)
	}
	key, err := aead.Open(nil, h.Key.Sealed[:n], h.Key.Sealed[n:], []byte(h.User))
	if err != nil || len(key) != keySize {
		return nil, fmt.Errorf("%w: master key %.60q does not open it", ErrKey, h.Key.Master)
	}
	return &sealer{key}, nil
}

// seal prepares a head that is about to be written: its data key is wrapped with
// the active master key; a state that was plain gets one when keys are set.
func seal(k *Keys, h *Head) (*sealer, error) {
	s, err := unwrap(k, h)
	if err != nil || k == nil || h.Key != nil && h.Key.Master == k.Active {
		return s, err
	}
	if s == nil {
		s = &sealer{make([]byte, keySize)}
		rand.Read(s.key)
	}
	h.Key, err = s.wrap(k, h.User)
	return s, err
}

func gcm(key []byte) (cipher.AEAD, error) {
	c, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(c)
}

// metaPart is the metadata's number among a segment's parts; blocks count from 0.
const metaPart = 1<<32 - 1

// part is how one part of a segment is encrypted: with a key of the segment's own
// (HKDF with SHA-256, RFC 5869, over the data key and the segment's name, which is
// random), and the part's number as nonce: no nonce is used twice with a key.
func (s *sealer) part(segment string, part uint32) (cipher.AEAD, []byte, error) {
	key, err := hkdf.Key(sha256.New, s.key, nil, "openclaw-sandbox segment "+segment, keySize)
	if err != nil {
		return nil, nil, err
	}
	aead, err := gcm(key)
	if err != nil {
		return nil, nil, err
	}
	return aead, binary.BigEndian.AppendUint32(make([]byte, aead.NonceSize()-4), part), nil
}

func (s *sealer) encrypt(segment string, part uint32, plain []byte) ([]byte, error) {
	if s == nil {
		return plain, nil
	}
	aead, nonce, err := s.part(segment, part)
	if err != nil {
		return nil, err
	}
	return aead.Seal(nil, nonce, plain, nil), nil
}

func (s *sealer) decrypt(segment string, part uint32, stored []byte) ([]byte, error) {
	aead, nonce, err := s.part(segment, part)
	if err != nil {
		return nil, err
	}
	plain, err := aead.Open(nil, nonce, stored, nil)
	if err != nil {
		return nil, fmt.Errorf("%w: it does not decrypt", ErrCorrupt)
	}
	return plain, nil
}
