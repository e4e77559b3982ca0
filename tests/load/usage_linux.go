package load

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// tick is the unit of CPU times in /proc: USER_HZ, which is 100 on every
// architecture that Go runs on.
const tick = 10 * time.Millisecond

// readUsage reads the CPU time of roots with their descendants.
func readUsage(roots []int) (usage, error) {
	var u usage
	for _, pid := range Descendants(roots...) {
		u.server += cpuOf(pid)
	}
	u.load = cpuOf(os.Getpid())
	stat, err := os.ReadFile("/proc/stat")
	if err != nil {
		return u, fmt.Errorf("reading the CPU time of the machine: %w", err)
	}
	line, _, _ := strings.Cut(string(stat), "\n")
	for i, field := range strings.Fields(line) { // cpu user nice system idle iowait irq softirq …
		if n, err := strconv.ParseInt(field, 10, 64); err == nil && i != 4 && i != 5 && i < 8 {
			u.machine += time.Duration(n) * tick
		}
	}
	return u, nil
}

// cpuOf returns what a process has used; 0 if it is gone.
func cpuOf(pid int) time.Duration {
	fields := statOf(pid)
	if len(fields) < 13 {
		return 0
	}
	user, errU := strconv.ParseInt(fields[11], 10, 64)
	system, errS := strconv.ParseInt(fields[12], 10, 64)
	if errU != nil || errS != nil {
		return 0
	}
	return time.Duration(user+system) * tick
}

// statOf returns the fields of /proc/PID/stat behind the name: state, parent, …
func statOf(pid int) []string {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return nil // it has ended
	}
	return strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
}

// Descendants returns roots and all processes below them that run now.
func Descendants(roots ...int) []int {
	entries, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return roots
	}
	children := map[int][]int{}
	for _, e := range entries {
		pid, err := strconv.Atoi(filepath.Base(e))
		if err != nil {
			continue
		}
		if fields := statOf(pid); len(fields) > 1 {
			if parent, err := strconv.Atoi(fields[1]); err == nil {
				children[parent] = append(children[parent], pid)
			}
		}
	}
	all := slices.Clone(roots)
	for i := 0; i < len(all); i++ {
		all = append(all, children[all[i]]...)
	}
	return all
}

// ReadMemory reads the memory of roots with their descendants. Processes that
// end meanwhile are left out.
func ReadMemory(roots ...int) (Memory, error) {
	var m Memory
	for _, pid := range Descendants(roots...) {
		rollup, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ESRCH) {
			continue
		}
		if err != nil {
			return m, fmt.Errorf("reading the memory of process %d: %w", pid, err)
		}
		m.Processes++
		for line := range strings.Lines(string(rollup)) {
			fields := strings.Fields(line)
			if len(fields) != 3 {
				continue
			}
			kib, err := strconv.ParseInt(fields[1], 10, 64)
			if err != nil {
				continue
			}
			switch fields[0] {
			case "Rss:":
				m.RSS += kib << 10
			case "Pss:":
				m.PSS += kib << 10
			}
		}
	}
	return m, nil
}
