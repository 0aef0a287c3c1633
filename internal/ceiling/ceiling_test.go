package ceiling

import (
	"bytes"
	"log/slog"
	"math"
	"runtime/debug"
	"strings"
	"syscall"
	"testing"
)

func TestRaise(t *testing.T) {
	var before syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &before); err != nil {
		t.Fatal(err)
	}
	memory := debug.SetMemoryLimit(-1)
	t.Cleanup(func() { syscall.Setrlimit(syscall.RLIMIT_NOFILE, &before); debug.SetMemoryLimit(memory) })
	lower := syscall.Rlimit{Cur: before.Max / 2, Max: before.Max}
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &lower); err != nil {
		t.Fatal(err)
	}
	for need, warns := range map[int]bool{0: false, 10: false, math.MaxInt: true} {
		var out bytes.Buffer
		Raise(slog.New(slog.NewTextHandler(&out, nil)), need)
		if got := strings.Contains(out.String(), "LimitNOFILE"); got != warns {
			t.Errorf("need %d: %s", need, &out)
		}
		if !strings.Contains(out.String(), "memory") {
			t.Errorf("nothing is said of memory: %s", &out)
		}
	}
	var after syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &after); err != nil || after.Cur != before.Max {
		t.Errorf("the soft limit is %d, want %d: %v", after.Cur, before.Max, err)
	}
}

// GOMEMLIMIT is somebody's wish.
func TestMemoryOfTheEnvironmentStays(t *testing.T) {
	memory := debug.SetMemoryLimit(12345 << 20)
	t.Cleanup(func() { debug.SetMemoryLimit(memory) })
	t.Setenv("GOMEMLIMIT", "12345MiB")
	Raise(slog.New(slog.DiscardHandler), 0)
	if got := debug.SetMemoryLimit(-1); got != 12345<<20 {
		t.Errorf("the limit is %d", got)
	}
}
