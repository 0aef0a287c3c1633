// Package ceiling makes the most of what a process may have, descriptors and memory,
// and says where that is too little.
package ceiling

import (
	"fmt"
	"log/slog"
	"math"
	"syscall"

	"github.com/KimMachineGun/automemlimit/memlimit"
)

// memoryShare is how much of the control group's limit Go's heap and stacks may come
// near; the rest is for the kernel's buffers, which count, too.
const memoryShare = 0.9

// Raise lifts the soft limit of descriptors to the hard one and lets Go's collector
// know of the control group's memory limit (cgroup v1 and v2), unless GOMEMLIMIT is set.
// It logs both, and warns if less than need descriptors may be open; need 0 asks
// for nothing.
func Raise(log *slog.Logger, need int) {
	files, err := descriptors()
	switch {
	case err != nil:
		log.Warn("the limit of open descriptors is not known", "error", err)
	case files < uint64(need):
		log.Warn("too few descriptors may be open for max_connections", "limit", files, "need", need,
			"remedy", "raise the hard limit (LimitNOFILE of the unit that starts this, or ulimit -Hn), or lower limits.max_connections")
	default:
		log.Info("descriptors", "limit", files, "need", need)
	}
	memory, err := memlimit.Set(memlimit.WithRatio(memoryShare), memlimit.WithProvider(memlimit.FromCgroup))
	switch {
	case err != nil:
		log.Info("no memory limit is known", "reason", err)
	case memory == math.MaxInt64:
		log.Info("no memory limit")
	default:
		log.Info("memory", "limit", memory)
	}
}

// descriptors raises the soft limit, as Go does at its start unless somebody set it
// since, and returns it.
func descriptors() (uint64, error) {
	var l syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &l); err != nil {
		return 0, fmt.Errorf("get RLIMIT_NOFILE: %w", err)
	}
	if l.Cur < l.Max {
		raised := syscall.Rlimit{Cur: l.Max, Max: l.Max}
		if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &raised); err == nil {
			l = raised
		}
	}
	return uint64(l.Cur), nil
}
