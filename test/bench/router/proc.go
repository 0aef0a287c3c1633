package main

import (
	"bytes"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// tick is the unit of CPU times in /proc: USER_HZ, 100 a second on every Linux.
const tick = 10 * time.Millisecond

// cpu is the user and system time of a process and its children.
func cpu(pid int) (time.Duration, error) {
	times, err := tree(pid)
	if err != nil {
		return 0, err
	}
	var sum time.Duration
	for _, t := range times {
		sum += t
	}
	return sum, nil
}

// held is what a process and its children hold: memory as proportional set size in
// bytes, in which pages that they share count once, and descriptors.
func held(pid int) (memory, descriptors int, err error) {
	all, err := tree(pid)
	if err != nil {
		return 0, 0, err
	}
	for p := range all {
		dir := filepath.Join("/proc", strconv.Itoa(p))
		fds, err := os.ReadDir(filepath.Join(dir, "fd"))
		if err != nil {
			return 0, 0, err
		}
		m, err := pss(filepath.Join(dir, "smaps_rollup"))
		if err != nil {
			return 0, 0, err
		}
		memory, descriptors = memory+m, descriptors+len(fds)
	}
	return memory, descriptors, nil
}

// tree is the CPU time of pid and of each process below it.
func tree(pid int) (map[int]time.Duration, error) {
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return nil, err
	}
	parents, times := map[int]int{}, map[int]time.Duration{}
	for _, file := range stats {
		b, err := os.ReadFile(file)
		if err != nil {
			continue // it ended meanwhile
		}
		p, _ := strconv.Atoi(filepath.Base(filepath.Dir(file)))
		// The name is in parentheses and may have any byte in it (proc(5)).
		f := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
		parents[p], _ = strconv.Atoi(f[1])
		user, _ := strconv.Atoi(f[11])
		system, _ := strconv.Atoi(f[12])
		times[p] = time.Duration(user+system) * tick
	}
	if _, ok := times[pid]; !ok {
		return nil, fmt.Errorf("process %d has ended", pid)
	}
	maps.DeleteFunc(times, func(p int, _ time.Duration) bool { return !below(parents, p, pid) })
	return times, nil
}

func below(parents map[int]int, p, top int) bool {
	for ; p > 1; p = parents[p] {
		if p == top {
			return true
		}
	}
	return false
}

func pss(file string) (int, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(line, "Pss:"); ok {
			kb, err := strconv.Atoi(strings.TrimSuffix(strings.TrimSpace(rest), " kB"))
			return kb << 10, err
		}
	}
	return 0, fmt.Errorf("%s has no Pss", file)
}
