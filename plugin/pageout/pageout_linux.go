package pageout

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// step is how much is pushed out at a time, in bytes: ctx is looked at in between.
const step = 32 << 20

// Out pushes the processes' memory out, until ctx ends; what went before that counts.
// cgroup is the folder of a cgroup v2 that holds these processes and no others, or
// empty. It returns errors.ErrUnsupported if the kernel can do none of it (Linux 5.10
// can), and ctx's error.
//
// A pid that meanwhile belongs to another process does no harm: its memory comes
// back when it is used.
func Out(ctx context.Context, cgroup string, pids []int) (Result, error) {
	before, err := resident(pids)
	if err != nil {
		return Result{}, err
	}
	err = errors.ErrUnsupported
	if cgroup != "" {
		err = reclaim(ctx, cgroup)
	}
	if errors.Is(err, errors.ErrUnsupported) {
		err = advise(ctx, pids)
	}
	after, rerr := resident(pids)
	if rerr != nil {
		after = before
	}
	return Result{Before: before, After: after}, errors.Join(err, rerr)
}

// reclaim asks the kernel to free all of a cgroup's memory. It gives up at what is
// in use or has no place to go.
func reclaim(ctx context.Context, cgroup string) error {
	text, err := os.ReadFile(filepath.Join(cgroup, "memory.current"))
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("the cgroup has no memory controller: %w", errors.ErrUnsupported)
	} else if err != nil {
		return err
	}
	left, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
	if err != nil {
		return fmt.Errorf("memory.current: %w", err)
	}
	f, err := os.OpenFile(filepath.Join(cgroup, "memory.reclaim"), os.O_WRONLY, 0)
	if errors.Is(err, fs.ErrNotExist) { // before Linux 5.19
		return fmt.Errorf("the cgroup has no memory.reclaim: %w", errors.ErrUnsupported)
	} else if err != nil {
		return err
	}
	defer f.Close()
	for ; left > 0; left -= step {
		if err := ctx.Err(); err != nil {
			return err
		}
		_, err := f.WriteString(strconv.FormatInt(min(left, step), 10))
		if errors.Is(err, unix.EAGAIN) { // less went than asked for
			return nil
		}
		if err != nil {
			return fmt.Errorf("reclaim: %w", err)
		}
	}
	return nil
}

// advise does it process by process, see process_madvise(2) and MADV_PAGEOUT in
// madvise(2). Pages that other processes use too stay.
func advise(ctx context.Context, pids []int) error {
	for _, pid := range pids {
		if err := adviseOne(ctx, pid); err != nil && !gone(err) {
			return fmt.Errorf("push process %d out: %w", pid, err)
		}
	}
	return nil
}

// gone tells whether the error is that of a process that has ended.
func gone(err error) bool { return errors.Is(err, unix.ESRCH) || errors.Is(err, fs.ErrNotExist) }

func adviseOne(ctx context.Context, pid int) error {
	fd, err := unix.PidfdOpen(pid, 0)
	if errors.Is(err, unix.ENOSYS) {
		return errors.ErrUnsupported
	} else if err != nil {
		return err
	}
	defer unix.Close(fd)
	ranges, err := mappings(pid)
	if err != nil {
		return err
	}
	for batch := range batches(ranges, step) {
		for len(batch) > 0 {
			if err := ctx.Err(); err != nil {
				return err
			}
			n, err := madvise(fd, batch)
			switch {
			case errors.Is(err, unix.EINVAL), errors.Is(err, unix.ENOMEM):
				batch = batch[1:] // locked, or a device's, or no longer there
			case err != nil:
				return err
			default:
				batch = rest(batch, n)
			}
		}
	}
	return nil
}

// resident is how much of the processes' memory is in RAM, in bytes.
func resident(pids []int) (int64, error) {
	var sum int64
	for _, pid := range pids {
		text, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "smaps_rollup"))
		if gone(err) {
			continue
		} else if err != nil {
			return 0, err
		}
		for line := range strings.Lines(string(text)) {
			if f := strings.Fields(line); len(f) == 3 && f[0] == "Pss:" {
				kb, err := strconv.ParseInt(f[1], 10, 64)
				if err != nil {
					return 0, fmt.Errorf("smaps_rollup: %w", err)
				}
				sum += kb << 10
			}
		}
	}
	return sum, nil
}
