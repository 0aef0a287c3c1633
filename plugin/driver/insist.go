package driver

import (
	"errors"
	"fmt"
	"syscall"
	"time"

	"github.com/hashicorp/nomad/plugins/drivers"
	"github.com/hashicorp/nomad/plugins/shared/structs"
)

// stopMargin is what the inner driver gets over a stop's own timeout: Nomad's
// executor waits up to 15 s for a killed process.
const stopMargin = 20 * time.Second

// processes are what a task consists of on the node.
type processes struct {
	pid      int // the sandbox's first process, which leads a process group
	executor int // Nomad's subprocess that watches it; 0 if unknown
}

// executorOf reads the executor's process from the inner driver's handle: exec
// and raw_exec both keep it as ReattachConfig.
func executorOf(inner *drivers.TaskHandle) (int, error) {
	var s struct{ ReattachConfig *structs.ReattachConfig }
	if err := inner.GetDriverState(&s); err != nil {
		return 0, fmt.Errorf("read the inner driver's handle: %w", err)
	}
	if s.ReattachConfig == nil {
		return 0, errors.New("the inner driver's handle names no executor")
	}
	return s.ReattachConfig.Pid, nil
}

// insist gives the inner driver an order, and returns its answer. An executor
// that does not carry it out within limit hangs: libcontainer holds the
// container's lock for as long as an exec's start waits, for ever in the worst
// case. Then the sandbox's processes are killed, and the executor after them.
func (t *task) insist(limit time.Duration, order func() error) error {
	answer := make(chan error, 1)
	go func() { answer <- order() }() // ends with the order, or with the executor
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case err := <-answer:
		return err
	case <-timer.C:
	}
	t.d.log.Error("the executor does not answer, killing it and the sandbox", "alloc", t.cfg.AllocID, "pid", t.procs.pid, "executor", t.procs.executor, "after", limit)
	select {
	case <-t.exited:
	default:
		if err := killGroup(t.procs.pid); err != nil {
			return fmt.Errorf("the executor hangs, and so does the kill of its process: %w", err)
		}
	}
	if t.procs.executor > 0 {
		if err := syscall.Kill(t.procs.executor, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
			return fmt.Errorf("kill an executor that hangs: %w", err)
		}
	}
	<-answer // its connection to the executor is gone
	return nil
}

// killGroup kills a process group. A sandbox's first process leads one in every
// runtime; in a process namespace, the rest ends with it.
func killGroup(pid int) error {
	if pid <= 1 {
		return nil
	}
	if err := syscall.Kill(-pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
		return err
	}
	return nil
}
