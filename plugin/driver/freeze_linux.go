package driver

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/opencontainers/cgroups"
	"github.com/opencontainers/cgroups/fs"
	"github.com/opencontainers/cgroups/fs2"

	"openclaw-sandbox/plugin/pageout"
)

// freezerOf finds how to freeze the task whose first process is pid. A cgroup is
// used only if it is the task's own: its name bears the allocation's id.
func freezerOf(pid int, allocID string) (freezer, error) {
	lines, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "cgroup"))
	if err != nil {
		return nil, fmt.Errorf("find the task's cgroup: %w", err)
	}
	// hierarchy:controllers:path, see cgroups(7).
	for line := range strings.Lines(string(lines)) {
		f := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(f) != 3 || !strings.Contains(f[2], allocID) {
			continue
		}
		cg := &cgroups.Cgroup{Resources: &cgroups.Resources{}}
		switch {
		case f[1] == "freezer":
			dir := filepath.Join("/sys/fs/cgroup/freezer", f[2])
			m, err := fs.NewManager(cg, map[string]string{"freezer": dir})
			return cgroupFreezer{m: m, dir: dir}, err
		case f[1] == "" && f[0] == "0":
			dir := filepath.Join("/sys/fs/cgroup", f[2])
			if _, err := os.Stat(filepath.Join(dir, "cgroup.freeze")); err != nil {
				continue // a hybrid machine's v2 side
			}
			m, err := fs2.NewManager(cg, dir)
			return cgroupFreezer{m: m, dir: dir, reclaims: dir}, err
		}
	}
	return treeFreezer(pid), nil
}

type cgroupFreezer struct {
	m        cgroups.Manager
	dir      string // the cgroup's folder
	reclaims string // likewise; empty for v1, which has no memory.reclaim
}

func (c cgroupFreezer) freeze() error { return c.m.Freeze(cgroups.Frozen) }
func (c cgroupFreezer) thaw() error   { return c.m.Freeze(cgroups.Thawed) }

func (c cgroupFreezer) pageOut(ctx context.Context) (pageout.Result, error) {
	pids, err := cgroups.GetAllPids(c.dir)
	if err != nil {
		return pageout.Result{}, err
	}
	return pageout.Out(ctx, c.reclaims, pids)
}

// treeFreezer stops a process and its descendants one by one, for tasks without
// a cgroup of their own.
type treeFreezer int

func (p treeFreezer) freeze() error { return p.signal(syscall.SIGSTOP) }
func (p treeFreezer) thaw() error   { return p.signal(syscall.SIGCONT) }

func (p treeFreezer) pageOut(ctx context.Context) (pageout.Result, error) {
	var pids []int
	err := p.walk(func(pid int) error {
		pids = append(pids, pid)
		return nil
	})
	if err != nil {
		return pageout.Result{}, err
	}
	return pageout.Out(ctx, "", pids)
}

func (p treeFreezer) signal(s syscall.Signal) error {
	return p.walk(func(pid int) error { return syscall.Kill(pid, s) })
}

// walk calls do for the process, then for its descendants.
func (p treeFreezer) walk(do func(pid int) error) error {
	if err := do(int(p)); err != nil {
		return err
	}
	// Parents first: a stopped parent makes no more children.
	tasks, err := filepath.Glob(filepath.Join("/proc", strconv.Itoa(int(p)), "task", "*", "children"))
	if err != nil {
		return err
	}
	for _, t := range tasks {
		children, err := os.ReadFile(t)
		if err != nil {
			continue // the thread is gone
		}
		for c := range strings.FieldsSeq(string(children)) {
			pid, err := strconv.Atoi(c)
			if err != nil {
				return err
			}
			if err := treeFreezer(pid).walk(do); err != nil && !errors.Is(err, syscall.ESRCH) {
				return err
			}
		}
	}
	return nil
}
