package devcluster

import (
	"bytes"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// unmount detaches a mount; one that is in use goes when its last user does.
func unmount(path string) { unix.Unmount(path, unix.MNT_DETACH) }

const (
	strayRounds = 20 // of killStrays
	strayPause  = 100 * time.Millisecond
)

// killStrays kills the processes that bear a stack's mark, and all that they
// started. There are some only if an agent was killed: Nomad's helpers outlive
// it on purpose, for its next start.
func killStrays(mark string) {
	for range strayRounds { // one that is killed may just have started another
		pids := strays(mark)
		if len(pids) == 0 {
			return
		}
		for _, pid := range pids {
			thaw(pid)
			syscall.Kill(pid, syscall.SIGKILL)
		}
		time.Sleep(strayPause)
	}
}

// strays lists the processes with the mark in their environment, and their descendants.
func strays(mark string) (pids []int) {
	children := map[int][]int{}
	var queue []int
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	for _, d := range dirs {
		pid, err := strconv.Atoi(filepath.Base(d))
		if err != nil || pid == os.Getpid() {
			continue
		}
		stat, _ := os.ReadFile(filepath.Join(d, "stat"))
		// pid (name) state ppid …; a name may hold anything, brackets too.
		f := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
		if len(f) < 2 || f[0] == "Z" {
			continue
		}
		if ppid, err := strconv.Atoi(f[1]); err == nil {
			children[ppid] = append(children[ppid], pid)
		}
		env, _ := os.ReadFile(filepath.Join(d, "environ"))
		if bytes.Contains(append([]byte{0}, env...), []byte("\x00"+mark+"\x00")) {
			queue = append(queue, pid)
		}
	}
	seen := map[int]bool{}
	for len(queue) > 0 {
		pid := queue[0]
		queue = queue[1:]
		if !seen[pid] {
			seen[pid] = true
			pids = append(pids, pid)
			queue = append(queue, children[pid]...)
		}
	}
	return pids
}

// nomadRuns tells whether any Nomad agent runs on this machine.
func nomadRuns() bool {
	files, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, f := range files {
		b, _ := os.ReadFile(f)
		args := strings.Split(string(b), "\x00")
		if len(args) > 1 && filepath.Base(args[0]) == "nomad" && args[1] == "agent" {
			return true
		}
	}
	return false
}

// thaw lets a process die that was frozen for a snapshot: where the freezer is of
// cgroup v1, a frozen process does not even take SIGKILL.
func thaw(pid int) {
	b, _ := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "cgroup"))
	for line := range strings.Lines(string(b)) {
		if f := strings.SplitN(strings.TrimSpace(line), ":", 3); len(f) == 3 && f[1] == "freezer" && f[2] != "/" {
			os.WriteFile(filepath.Join("/sys/fs/cgroup/freezer", f[2], "freezer.state"), []byte("THAWED"), 0)
		}
	}
}
