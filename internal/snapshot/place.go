package snapshot

import (
	"cmp"
	"errors"
	"io"
	"io/fs"
	"slices"

	"golang.org/x/sys/unix"
)

// A restore makes many small files. So their calls go to the kernel as they are,
// with the descriptor of a folder that os.Root opened and a name without a slash in
// it: os.File would double them, to learn whether it can wait for the file.

// piece is a part of a file that lies in one block.
type piece struct {
	file *known
	at   int64 // in the file
	from span
}

// inOrder sorts a block's pieces as they were packed: by path, so that those of a
// folder come together.
func inOrder(pieces []piece) {
	slices.SortFunc(pieces, func(a, b piece) int { return cmp.Compare(a.from.Off, b.from.Off) })
}

// write puts a piece of a file in its place. A file that this piece fills is
// written, dressed and stamped at once; the pieces of a larger file come in any order.
func (t *target) write(in *folder, k *known, content []byte, at int64) error {
	e := &k.Record.Entry
	whole := int64(len(content)) == e.Size
	flags, mode := unix.O_CREAT|unix.O_WRONLY, uint32(0o600) // until it is whole
	if whole {
		flags, mode = flags|unix.O_EXCL, e.Mode // less the umask
	}
	err := in.open(e.Path, flags, mode, func(dir int, name string, fd int) error {
		if err := writeAll(fd, content, at); err != nil || !whole {
			return err
		}
		return t.dress(k, dir, name, fd)
	})
	if err == nil && t.progress != nil && len(content) > 0 {
		t.mu.Lock()
		defer t.mu.Unlock()
		t.done += int64(len(content))
		t.progress(t.done, t.total)
	}
	return err
}

// open opens a file, following no link, for as long as use takes. Its errors name
// the path.
func (f *folder) open(p pathname, flags int, mode uint32, use func(dir int, name string, fd int) error) error {
	dir, name, err := f.fd(p)
	if err != nil {
		return err
	}
	var fd int
	err = uninterrupted(func() (err error) {
		fd, err = unix.Openat(dir, name, flags|unix.O_NOFOLLOW|unix.O_CLOEXEC, mode)
		return err
	})
	if err == nil {
		err = use(dir, name, fd)
		if cerr := unix.Close(fd); cerr != unix.EINTR { // closed all the same
			err = errors.Join(err, cerr)
		}
	}
	if err != nil {
		return &fs.PathError{Op: "restore", Path: string(p), Err: err}
	}
	return nil
}

func writeAll(fd int, content []byte, at int64) error {
	for len(content) > 0 {
		var n int
		err := uninterrupted(func() (err error) {
			n, err = unix.Pwrite(fd, content, at)
			return err
		})
		if err == nil && n == 0 {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			return err
		}
		content, at = content[n:], at+int64(n)
	}
	return nil
}

// dress gives an open file or folder, which has all its content, its owner, mode and
// time, and notes its stamp.
func (t *target) dress(k *known, dir int, name string, fd int) error {
	if o := t.reader.opts; o.UID >= 0 || o.GID >= 0 {
		if err := unix.Fchown(fd, o.UID, o.GID); err != nil {
			return err
		}
	}
	mtime := unix.NsecToTimespec(k.Record.Entry.MTime)
	if err := unix.UtimesNanoAt(dir, name, []unix.Timespec{mtime, mtime}, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return err
	}
	var st unix.Stat_t
	err := unix.Fstat(fd, &st)
	if err == nil && uint32(st.Mode)&uint32(fs.ModePerm) != k.Record.Entry.Mode {
		if err = unix.Fchmod(fd, k.Record.Entry.Mode); err == nil {
			err = unix.Fstat(fd, &st)
		}
	}
	if err != nil {
		return err
	}
	k.Stamp = stampOfStat(&st)
	return nil
}

// uninterrupted calls again what a signal broke off, such as the Go scheduler's own.
func uninterrupted(call func() error) error {
	for {
		if err := call(); err != unix.EINTR {
			return err
		}
	}
}
