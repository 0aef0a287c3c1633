package pageout

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// span is a range of a process's addresses: of so many bytes, from an address on.
// It is laid out as an iovec, whose base is an address of the other process.
type span struct{ base, size uintptr }

// iovMax is IOV_MAX: how many ranges one call takes.
const iovMax = 1024

// mappings are a process's ranges that may hold pages of its own.
func mappings(pid int) ([]span, error) {
	f, err := os.Open(filepath.Join("/proc", strconv.Itoa(pid), "maps"))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return parseMaps(f)
}

// parseMaps reads proc_pid_maps(5). It leaves out what is only reserved and the
// kernel's own, [vdso] and its like.
func parseMaps(r io.Reader) (spans []span, err error) {
	lines := bufio.NewReader(r)
	for {
		line, err := lines.ReadString('\n')
		if errors.Is(err, io.EOF) && line == "" {
			return spans, nil
		} else if err != nil {
			return nil, err
		}
		f := strings.Fields(line)
		if len(f) < 5 {
			return nil, fmt.Errorf("a line of maps: %.80q", line)
		}
		if strings.HasPrefix(f[1], "---") || len(f) > 5 && strings.HasPrefix(f[5], "[v") {
			continue
		}
		from, to, _ := strings.Cut(f[0], "-")
		a, aerr := strconv.ParseUint(from, 16, strconv.IntSize)
		b, berr := strconv.ParseUint(to, 16, strconv.IntSize)
		if aerr != nil || berr != nil || b < a {
			return nil, fmt.Errorf("a line of maps: %.80q", line)
		}
		spans = append(spans, span{uintptr(a), uintptr(b - a)})
	}
}

// batches are the spans in portions of at most iovMax spans and most bytes; larger
// spans are cut. A batch is good until the next one.
func batches(spans []span, most uintptr) iter.Seq[[]span] {
	return func(yield func([]span) bool) {
		batch, room := make([]span, 0, iovMax), most
		for _, s := range spans {
			for s.size > 0 {
				n := min(s.size, room)
				batch = append(batch, span{s.base, n})
				s, room = span{s.base + n, s.size - n}, room-n
				if room == 0 || len(batch) == iovMax {
					if !yield(batch) {
						return
					}
					batch, room = batch[:0], most
				}
			}
		}
		if len(batch) > 0 {
			yield(batch)
		}
	}
}

// rest is what is left of the spans after n bytes.
func rest(spans []span, n uintptr) []span {
	for i, s := range spans {
		if n < s.size {
			left := slices.Clone(spans[i:])
			left[0] = span{s.base + n, s.size - n}
			return left
		}
		n -= s.size
	}
	return nil
}

// madvise is process_madvise(2) with MADV_PAGEOUT: how many bytes it got through
// before something was in its way; an error if that was at the first of them.
func madvise(pidfd int, spans []span) (uintptr, error) {
	n, _, errno := unix.Syscall6(unix.SYS_PROCESS_MADVISE, uintptr(pidfd), uintptr(unsafe.Pointer(unsafe.SliceData(spans))), uintptr(len(spans)), unix.MADV_PAGEOUT, 0, 0)
	runtime.KeepAlive(spans)
	switch {
	case errno == unix.ENOSYS:
		return 0, errors.ErrUnsupported
	case errno != 0:
		return 0, errno
	case n == 0:
		return 0, errors.New("process_madvise went through nothing")
	}
	return n, nil
}
