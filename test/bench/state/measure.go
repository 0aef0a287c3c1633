package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

// usage is what an operation took.
type usage struct {
	Wall, CPU time.Duration
	RSS       int64 // bytes, at most
}

// measured runs a command and says what it took, with the start of its process and
// all that it started. Not how much memory: the kernel counts ours at the fork in.
func measured(ctx context.Context, env []string, dir string, argv ...string) (usage, error) {
	u, _, err := output(ctx, env, dir, argv...)
	return u, err
}

// output is measured, and returns what the command printed.
func output(ctx context.Context, env []string, dir string, argv ...string) (usage, []byte, error) {
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	var out bytes.Buffer
	cmd.Env, cmd.Dir, cmd.Stdout, cmd.Stderr = env, dir, &out, &out
	begin := time.Now()
	err := cmd.Run()
	wall := time.Since(begin)
	if err != nil {
		return usage{}, nil, fmt.Errorf("%.300s: %w\n%s", argv, err, tail(out.Bytes()))
	}
	u := usageOf(cmd.ProcessState.SysUsage().(*syscall.Rusage))
	u.Wall = wall
	return u, out.Bytes(), nil
}

func tail(b []byte) []byte { return b[max(0, len(b)-2000):] }

func usageOf(r *syscall.Rusage) usage {
	return usage{CPU: time.Duration(r.Utime.Nano() + r.Stime.Nano())}
}

// own is what this process used so far.
func own() (usage, error) {
	var r syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &r); err != nil {
		return usage{}, err
	}
	u := usageOf(&r)
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return u, err
	}
	for line := range strings.Lines(string(status)) {
		if value, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			_, err = fmt.Sscanf(value, "%d kB", &u.RSS)
			u.RSS <<= 10
		}
	}
	return u, err
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
