package objstore

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"
	"path"
	"strings"
	"sync"
)

// dirStore keeps objects as files. It is for tests, and for a single node whose
// operator has no object store. Conditional writes are atomic within one process
// only: do not share the folder between nodes.
type dirStore struct {
	root *os.Root
	mu   sync.Mutex // makes check-and-write of Put atomic
}

// tmpPrefix marks files that are being written; they are no objects.
const tmpPrefix = ".tmp-"

// OpenDir returns a store over a folder, which it makes if need be.
func OpenDir(dir string) (Store, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("open store: %w", err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("open store: %w", err)
	}
	return &dirStore{root: root}, nil
}

func (d *dirStore) Get(ctx context.Context, key string) (io.ReadCloser, Info, error) {
	f, err := d.open(key)
	if err != nil {
		return nil, Info{}, err
	}
	info, err := d.info(key, f)
	if err != nil {
		f.Close()
		return nil, Info{}, err
	}
	return f, info, nil
}

func (d *dirStore) GetRange(ctx context.Context, key string, off, n int64) (io.ReadCloser, error) {
	f, err := d.open(key)
	if err != nil {
		return nil, err
	}
	return struct {
		io.Reader
		io.Closer
	}{io.NewSectionReader(f, off, n), f}, nil
}

func (d *dirStore) open(key string) (*os.File, error) {
	if err := checkKey(key); err != nil {
		return nil, err
	}
	f, err := d.root.Open(key)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("get %s: %w", key, ErrNotFound)
	}
	if err != nil {
		return nil, fmt.Errorf("get %s: %w: %w", key, ErrUnreachable, err)
	}
	return f, nil
}

// info leaves f at its beginning.
func (d *dirStore) info(key string, f *os.File) (Info, error) {
	h := sha256.New()
	n, err := io.Copy(h, f)
	if err == nil {
		_, err = f.Seek(0, io.SeekStart)
	}
	if err != nil {
		return Info{}, fmt.Errorf("get %s: %w: %w", key, ErrUnreachable, err)
	}
	return Info{Key: key, Size: n, ETag: hex.EncodeToString(h.Sum(nil)[:16])}, nil
}

func (d *dirStore) Put(ctx context.Context, key string, body io.ReadSeeker, cond Condition) (string, error) {
	if err := checkKey(key); err != nil {
		return "", err
	}
	if err := ctx.Err(); err != nil {
		return "", fmt.Errorf("put %s: %w", key, err)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if cond != (Condition{}) {
		f, now, err := d.Get(ctx, key)
		if err == nil {
			f.Close()
		}
		switch {
		case err != nil && !errors.Is(err, ErrNotFound):
			return "", err
		case cond.ifAbsent && err == nil, cond.etag != "" && (err != nil || now.ETag != cond.etag):
			return "", fmt.Errorf("put %s: %w", key, ErrPrecondition)
		}
	}
	return d.write(key, body)
}

func (d *dirStore) Upload(ctx context.Context, key string, body io.Reader) error {
	if err := errors.Join(checkKey(key), ctx.Err()); err != nil {
		return fmt.Errorf("put %s: %w", key, err)
	}
	src := &source{Reader: body}
	_, err := d.write(key, src)
	if src.err != nil {
		return fmt.Errorf("put %s: %w", key, src.err)
	}
	return err
}

// write puts a file in its place once it is whole.
func (d *dirStore) write(key string, body io.Reader) (string, error) {
	etag, err := d.writeFile(key, body)
	if err != nil {
		return "", fmt.Errorf("put %s: %w: %w", key, ErrUnreachable, err)
	}
	return etag, nil
}

func (d *dirStore) writeFile(key string, body io.Reader) (string, error) {
	dir := path.Dir(key)
	if err := d.root.MkdirAll(dir, 0o700); err != nil {
		return "", err
	}
	tmp := path.Join(dir, tmpPrefix+rand.Text())
	f, err := d.root.OpenFile(tmp, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return "", err
	}
	h := sha256.New()
	_, err = io.Copy(io.MultiWriter(f, h), body)
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = d.root.Rename(tmp, key)
	}
	if err != nil {
		d.root.Remove(tmp)
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)[:16]), nil
}

func (d *dirStore) Delete(ctx context.Context, key string) error {
	if err := checkKey(key); err != nil {
		return err
	}
	if err := d.root.Remove(key); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("delete %s: %w: %w", key, ErrUnreachable, err)
	}
	return nil
}

func (d *dirStore) List(ctx context.Context, prefix string) iter.Seq2[Info, error] {
	return func(yield func(Info, error) bool) {
		err := fs.WalkDir(d.root.FS(), ".", func(key string, e fs.DirEntry, err error) error {
			if err != nil || e.IsDir() || !strings.HasPrefix(key, prefix) || strings.HasPrefix(e.Name(), tmpPrefix) {
				return err
			}
			f, err := d.open(key)
			if errors.Is(err, ErrNotFound) {
				return nil // deleted meanwhile
			}
			if err != nil {
				return err
			}
			defer f.Close()
			info, err := d.info(key, f)
			if err == nil && !yield(info, nil) {
				return fs.SkipAll
			}
			return err
		})
		if err != nil {
			yield(Info{}, fmt.Errorf("list %s: %w: %w", prefix, ErrUnreachable, err))
		}
	}
}
