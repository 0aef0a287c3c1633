package archive

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"

	"openclaw-sandbox/internal/objstore"
	"openclaw-sandbox/internal/snapshot"
)

// layout is where the folders of cloudflare/moltworker's bucket, which rclone fills,
// belong in a state; clawdbot is OpenClaw's older name.
var layout = []struct{ from, to string }{
	{"openclaw/", "openclaw/"}, {"clawdbot/", "openclaw/"}, {"workspace/", "workspace/"}, {"skills/", "workspace/skills/"},
}

// FromPrefix writes the plain objects below a prefix into dir, each as a file,
// where it belongs in a state. What is newer in the layout wins: openclaw/ over
// clawdbot/. read is told of bytes that were read; it may be nil. It returns how many files it wrote, ErrHostile, ErrTooLarge, or the
// store's error; fs.ErrNotExist if the prefix has none of the known folders.
func FromPrefix(ctx context.Context, st objstore.Store, prefix string, dir *os.Root, maxBytes, maxPaths int64, read func(n int64)) (int64, error) {
	prefix = strings.Trim(prefix, "/")
	if prefix != "" {
		prefix += "/"
	}
	var bytes, paths int64
	for _, l := range layout {
		for info, err := range st.List(ctx, prefix+l.from) {
			if err != nil {
				return paths, err
			}
			if strings.HasSuffix(info.Key, "/") {
				continue // a folder's marker
			}
			name := l.to + strings.TrimPrefix(info.Key, prefix+l.from)
			if !fs.ValidPath(name) || strings.ContainsRune(name, 0) {
				return paths, fmt.Errorf("%w: %.200q", ErrHostile, info.Key)
			}
			if _, err := dir.Lstat(name); err == nil {
				continue
			}
			if paths++; paths > maxPaths || bytes > maxBytes-info.Size {
				return paths, fmt.Errorf("%w: more than %d paths or %d bytes", snapshot.ErrTooLarge, maxPaths, maxBytes)
			}
			bytes += info.Size
			if err := fetch(ctx, st, info, dir, name); err != nil {
				return paths, fmt.Errorf("%.200q: %w", info.Key, err)
			}
			if read != nil {
				read(info.Size)
			}
		}
	}
	if paths == 0 {
		return 0, fmt.Errorf("%q has none of openclaw/, clawdbot/, workspace/, skills/: %w", prefix, fs.ErrNotExist)
	}
	return paths, nil
}

func fetch(ctx context.Context, st objstore.Store, info objstore.Info, dir *os.Root, name string) error {
	if err := dir.MkdirAll(path.Dir(name), 0o700); err != nil {
		return err
	}
	body, _, err := st.Get(ctx, info.Key)
	if err != nil {
		return err
	}
	defer body.Close()
	f, err := dir.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	n, err := io.Copy(f, io.LimitReader(body, info.Size+1))
	if err == nil && n != info.Size {
		err = errors.New("it changed while it was read")
	}
	return errors.Join(err, f.Close())
}
