package webhook

import (
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"openclaw-sandbox/internal/keyfile"
	"openclaw-sandbox/internal/sandbox"
)

// Secrets know with what a user's webhooks are signed.
type Secrets interface {
	// Of returns the user's secrets for a hook: none if there are none, several
	// while they are being changed. An error is the operator's to mend.
	Of(hook string, u sandbox.User) ([][]byte, error)
}

// masterSize is the size of a master secret in bytes.
const masterSize = 32

// Derived makes each user's secret from a master secret, so that none needs to be
// kept anywhere.
type Derived struct{ masters [][]byte }

// ReadMasters reads files with one master secret each, in base64. All are good;
// the first is the one that is given out.
func ReadMasters(files ...string) (*Derived, error) {
	if len(files) == 0 {
		return nil, errors.New("want at least one file with a master secret")
	}
	masters, err := keyfile.Read("master secret", masterSize, files...)
	if err != nil {
		return nil, err
	}
	return &Derived{masters}, nil
}

// Of never fails.
func (d *Derived) Of(hook string, u sandbox.User) ([][]byte, error) {
	keys := make([][]byte, len(d.masters))
	for i, master := range d.masters {
		keys[i] = []byte(derive(master, hook, u))
	}
	return keys, nil
}

// Secret is the one to give out: 43 letters, digits, "_" and "-", as Telegram
// wants it.
func (d *Derived) Secret(hook string, u sandbox.User) string { return derive(d.masters[0], hook, u) }

// derive separates hooks and users: neither has a line break in its name.
func derive(master []byte, hook string, u sandbox.User) string {
	return base64.RawURLEncoding.EncodeToString(mac(master, "webhook\n"+hook+"\n"+string(u), nil))
}

// Folder holds secrets that a channel chose: a file per user, named like the user,
// with one secret a line. It is read anew each time, so that a change counts at once.
type Folder string

// maxSecrets bounds a file of secrets, in bytes.
const maxSecrets = 4 << 10

// Of returns none for a user without a file.
func (f Folder) Of(_ string, u sandbox.User) ([][]byte, error) {
	file, err := os.Open(filepath.Join(string(f), string(u))) // a user's id is a valid file name
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("webhook secrets: %w", err)
	}
	defer file.Close()
	text, err := io.ReadAll(io.LimitReader(file, maxSecrets))
	if err != nil {
		return nil, fmt.Errorf("webhook secrets: %w", err)
	}
	var keys [][]byte
	for l := range strings.Lines(string(text)) {
		if l = strings.TrimSpace(l); l != "" {
			keys = append(keys, []byte(l))
		}
	}
	return keys, nil
}
