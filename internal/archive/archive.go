// Package archive carries a user's state into and out of tar files (POSIX.1-2001
// pax, as archive/tar), plain or compressed by gzip or zstd.
package archive

import (
	"archive/tar"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"

	"github.com/klauspost/compress/zstd"

	"openclaw-sandbox/internal/snapshot"
)

// ErrHostile: an archive's entry would land outside the folder, or is what no
// state can hold.
var ErrHostile = errors.New("the archive has an entry that is not allowed")

// Compress returns a writer for a file of that name: by its ending .tar.gz, .tgz,
// .tar.zst, or plain. The caller closes it before the file.
func Compress(name string, w io.Writer) (io.WriteCloser, error) {
	switch {
	case strings.HasSuffix(name, ".gz"), strings.HasSuffix(name, ".tgz"):
		return gzip.NewWriter(w), nil
	case strings.HasSuffix(name, ".zst"):
		return zstd.NewWriter(w)
	}
	return plain{w}, nil
}

// Decompress is the other way round.
func Decompress(name string, r io.Reader) (io.ReadCloser, error) {
	switch {
	case strings.HasSuffix(name, ".gz"), strings.HasSuffix(name, ".tgz"):
		return gzip.NewReader(r)
	case strings.HasSuffix(name, ".zst"):
		d, err := zstd.NewReader(r, zstd.WithDecoderMaxMemory(256<<20))
		if err != nil {
			return nil, err
		}
		return d.IOReadCloser(), nil
	}
	return io.NopCloser(r), nil
}

type plain struct{ io.Writer }

func (plain) Close() error { return nil }

// Write writes a snapshot as a tar stream.
func Write(ctx context.Context, w io.Writer, t *snapshot.Tree, progress func(done, total int64)) error {
	nodes := t.Nodes()
	var done, total int64
	for _, n := range nodes {
		total += n.Size
	}
	out := tar.NewWriter(w)
	for _, n := range nodes {
		h := &tar.Header{Name: n.Path, Mode: int64(n.Mode.Perm()), ModTime: n.Time, Format: tar.FormatPAX}
		switch n.Mode.Type() {
		case fs.ModeDir:
			h.Typeflag, h.Name = tar.TypeDir, n.Path+"/"
		case fs.ModeSymlink:
			h.Typeflag, h.Linkname = tar.TypeSymlink, n.Target
		default:
			h.Typeflag, h.Size = tar.TypeReg, n.Size
		}
		if err := out.WriteHeader(h); err != nil {
			return fmt.Errorf("%.200q: %w", n.Path, err)
		}
		if h.Typeflag != tar.TypeReg {
			continue
		}
		if err := t.Copy(ctx, out, n.Path); err != nil {
			return fmt.Errorf("%.200q: %w", n.Path, err)
		}
		if done += n.Size; progress != nil {
			progress(done, total)
		}
	}
	return out.Close()
}

// Extract unpacks a tar stream into dir, which should be empty. Nothing is written
// outside dir or through a link: names that lead out are ErrHostile, and links come
// last. Owners, set-id bits and what is no file, folder or link are left out. It
// returns ErrTooLarge's kin of the limits: more than maxBytes or maxPaths.
func Extract(ctx context.Context, r io.Reader, dir *os.Root, maxBytes, maxPaths int64) error {
	type link struct{ name, target string }
	var links []link
	var bytes, paths int64
	in := tar.NewReader(r)
	for {
		h, err := in.Next()
		if err == io.EOF {
			break
		}
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return fmt.Errorf("read the archive: %w", err)
		}
		name := path.Clean(strings.TrimSuffix(h.Name, "/"))
		if name == "." {
			continue
		}
		if !fs.ValidPath(strings.ToValidUTF8(name, "_")) || strings.ContainsRune(name, 0) {
			return fmt.Errorf("%w: %.200q", ErrHostile, h.Name)
		}
		if paths++; paths > maxPaths || bytes > maxBytes-max(h.Size, 0) {
			return fmt.Errorf("%w: more than %d paths or %d bytes", snapshot.ErrTooLarge, maxPaths, maxBytes)
		}
		if parent := path.Dir(name); parent != "." {
			if err := dir.MkdirAll(parent, 0o755); err != nil {
				return fmt.Errorf("%.200q: %w", name, err)
			}
		}
		switch h.Typeflag {
		case tar.TypeDir:
			err = dir.MkdirAll(name, 0o755)
			if err == nil {
				err = dir.Chmod(name, h.FileInfo().Mode().Perm()|0o700)
			}
		case tar.TypeReg:
			bytes += h.Size
			err = file(dir, name, h, in)
		case tar.TypeSymlink:
			links = append(links, link{name, h.Linkname})
		}
		if err != nil {
			return fmt.Errorf("%.200q: %w", name, err)
		}
	}
	for _, l := range links {
		if err := dir.Symlink(l.target, l.name); err != nil {
			return fmt.Errorf("%.200q: %w", l.name, err)
		}
	}
	return nil
}

func file(dir *os.Root, name string, h *tar.Header, content io.Reader) error {
	f, err := dir.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, content)
	if err == nil {
		err = f.Chmod(h.FileInfo().Mode().Perm())
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	return dir.Chtimes(name, h.ModTime, h.ModTime)
}
