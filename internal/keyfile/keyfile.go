// Package keyfile reads secrets of a fixed size that an operator keeps in files.
package keyfile

import (
	"encoding/base64"
	"fmt"
	"os"
	"strings"
)

// Read reads files with size bytes in base64 each (RFC 4648 section 4), as
// `openssl rand -base64` writes them; spaces around do not matter. Its error begins with
// what, a name for people of what the files hold.
func Read(what string, size int, files ...string) ([][]byte, error) {
	var keys [][]byte
	for _, name := range files {
		text, err := os.ReadFile(name)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", what, err)
		}
		key, err := base64.StdEncoding.DecodeString(strings.TrimSpace(string(text)))
		if err != nil || len(key) != size {
			return nil, fmt.Errorf("%s %s: want %d bytes in base64, as of `openssl rand -base64 %d`", what, name, size, size)
		}
		keys = append(keys, key)
	}
	return keys, nil
}
