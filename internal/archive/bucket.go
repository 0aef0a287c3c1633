package archive

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"

	"openclaw-sandbox/internal/objstore"
)

// tarName begins the name of an object that holds a whole state.
const tarName = "state.tar"

// tars are the endings that Decompress knows.
var tars = []string{tarName, tarName + ".gz", tarName + ".zst"}

// Found looks below a prefix for a state that another program left there: an object
// state.tar, state.tar.gz or state.tar.zst, or the folders that FromPrefix knows. It
// returns the key or the prefix that FromStore wants, "" if there is nothing, and how
// many bytes lie there, or the store's error. Nothing but the listing is read.
func Found(ctx context.Context, st objstore.Store, prefix string) (found string, size int64, err error) {
	prefix = strings.TrimSuffix(prefix, "/") + "/"
	for info, err := range st.List(ctx, prefix) {
		if err != nil {
			return "", 0, err
		}
		name := strings.TrimPrefix(info.Key, prefix)
		for _, t := range tars {
			if name == t {
				return info.Key, info.Size, nil // a whole state counts more than parts of one
			}
		}
		for _, l := range layout {
			if strings.HasPrefix(name, l.from) && !strings.HasSuffix(name, "/") {
				found = prefix
				size += info.Size
			}
		}
	}
	return found, size, nil
}

// FromStore writes what Found has found into dir, which should be empty. read is told
// of bytes that were read; it may be nil. It returns ErrHostile, ErrTooLarge, or the
// store's error.
func FromStore(ctx context.Context, st objstore.Store, found string, dir *os.Root, maxBytes, maxPaths int64, read func(n int64)) error {
	if strings.HasSuffix(found, "/") {
		_, err := FromPrefix(ctx, st, found, dir, maxBytes, maxPaths, read)
		return err
	}
	body, _, err := st.Get(ctx, found)
	if errors.Is(err, objstore.ErrNotFound) {
		return fmt.Errorf("%s: %w", found, fs.ErrNotExist)
	}
	if err != nil {
		return err
	}
	defer body.Close()
	r, err := Decompress(found, counted{body, read})
	if err != nil {
		return fmt.Errorf("%s: %w", found, err)
	}
	defer r.Close()
	if err := Extract(ctx, r, dir, maxBytes, maxPaths); err != nil {
		return fmt.Errorf("%s: %w", found, err)
	}
	return nil
}

// counted tells how much was read.
type counted struct {
	io.Reader
	read func(n int64)
}

func (c counted) Read(p []byte) (int, error) {
	n, err := c.Reader.Read(p)
	if c.read != nil {
		c.read(int64(n))
	}
	return n, err
}
