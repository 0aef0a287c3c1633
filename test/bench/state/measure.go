package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"time"
)

// usage is what an operation took.
type usage struct {
	Wall, CPU time.Duration
	RSS       int64 // bytes, at most
}

// measured runs a command and says what it took, with the start of its process and
// all that it started.
func measured(ctx context.Context, env []string, dir string, argv ...string) (usage, error) {
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	var out bytes.Buffer
	cmd.Env, cmd.Dir, cmd.Stdout, cmd.Stderr = env, dir, &out, &out
	begin := time.Now()
	err := cmd.Run()
	wall := time.Since(begin)
	if err != nil {
		return usage{}, fmt.Errorf("%.300s: %w\n%s", argv, err, tail(out.Bytes()))
	}
	u := usageOf(cmd.ProcessState.SysUsage().(*syscall.Rusage))
	u.Wall = wall
	return u, nil
}

func tail(b []byte) []byte { return b[max(0, len(b)-2000):] }

func usageOf(r *syscall.Rusage) usage {
	const kib = 1 << 10 // the unit of Maxrss on Linux
	return usage{CPU: time.Duration(r.Utime.Nano() + r.Stime.Nano()), RSS: r.Maxrss * kib}
}

// own is what this process used so far.
func own() (usage, error) {
	var r syscall.Rusage
	err := syscall.Getrusage(syscall.RUSAGE_SELF, &r)
	return usageOf(&r), err
}

// settle writes out what others left in the page cache, so that nobody pays for it.
func settle() { syscall.Sync() }

// emptied removes folders and what is in them, and makes them anew.
func emptied(dirs ...string) error {
	for _, d := range dirs {
		if err := os.RemoveAll(d); err != nil {
			return err
		}
		if err := os.MkdirAll(d, 0o755); err != nil {
			return err
		}
	}
	return nil
}
