package session

import (
	"bytes"
	"encoding/base64"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"
)

func keys(t testing.TB, fill ...byte) Keys {
	t.Helper()
	var raw [][]byte
	for _, b := range fill {
		raw = append(raw, bytes.Repeat([]byte{b}, KeySize))
	}
	k, err := NewKeys(raw...)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestOpen(t *testing.T) {
	now := time.Unix(1000, 0)
	text, err := keys(t, 1).Seal("alice", "session", "alice.test", now.Add(time.Minute))
	if err != nil {
		t.Fatal(err)
	}
	changed := []byte(text)
	changed[len(changed)/2] ^= 1
	cases := map[string]struct {
		keys          Keys
		text          string
		purpose, host string
		now           time.Time
		err           error
	}{
		"right":           {keys(t, 1), text, "session", "alice.test", now, nil},
		"after rotation":  {keys(t, 2, 1), text, "session", "alice.test", now, nil},
		"key removed":     {keys(t, 2), text, "session", "alice.test", now, ErrInvalid},
		"another host":    {keys(t, 1), text, "session", "bob.test", now, ErrInvalid},
		"another purpose": {keys(t, 1), text, "login", "alice.test", now, ErrInvalid},
		"expired":         {keys(t, 1), text, "session", "alice.test", now.Add(time.Minute), ErrInvalid},
		"changed":         {keys(t, 1), string(changed), "session", "alice.test", now, ErrInvalid},
		"cut":             {keys(t, 1), text[:10], "session", "alice.test", now, ErrInvalid},
		"empty":           {keys(t, 1), "", "session", "alice.test", now, ErrInvalid},
		"no base64":       {keys(t, 1), "a=%", "session", "alice.test", now, ErrInvalid},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			var got string
			err := c.keys.Open(c.text, c.purpose, c.host, c.now, &got)
			if !errors.Is(err, c.err) || (err == nil) != (got == "alice") {
				t.Errorf("Open = %q, %v; want %v", got, err, c.err)
			}
		})
	}
}

func TestReadKeys(t *testing.T) {
	file := filepath.Join(t.TempDir(), "key")
	for text, good := range map[string]bool{
		base64.StdEncoding.EncodeToString(make([]byte, KeySize)) + "\n": true,
		base64.StdEncoding.EncodeToString(make([]byte, 16)):             false,
		"secret": false,
	} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := ReadKeys(file); (err == nil) != good {
			t.Errorf("ReadKeys of %q = %v", text, err)
		}
	}
	if _, err := ReadKeys(); err == nil {
		t.Error("no key was accepted")
	}
}
