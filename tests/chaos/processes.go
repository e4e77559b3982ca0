//go:build linux

package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/transporthost/transporthost/tests/load"
)

// A process is one by its pid and the time of its start: pids are used again.
type process struct {
	pid   int
	start string
}

// family lists the processes below pid.
func family(pid int) []process {
	var all []process
	for _, p := range load.Descendants(pid) {
		if fields := statOf(p); p != pid && len(fields) > 19 {
			all = append(all, process{p, fields[19]})
		}
	}
	return all
}

// statOf returns the fields of /proc/PID/stat behind the name: state, parent, …
func statOf(pid int) []string {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return nil // it has ended
	}
	return strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
}

// alive reports whether the process runs, or has ended and nobody looked.
func (p process) alive() bool {
	fields := statOf(p.pid)
	return len(fields) > 19 && fields[19] == p.start
}

// String names the process as a person knows it.
func (p process) String() string {
	line, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", p.pid))
	if err != nil || len(line) == 0 {
		return fmt.Sprintf("process %d", p.pid)
	}
	return fmt.Sprintf("process %d (%s)", p.pid, bytes.ReplaceAll(bytes.TrimRight(line, "\x00"), []byte{0}, []byte(" ")))
}

// openFiles counts the descriptors of a process.
func openFiles(pid int) (int, error) {
	entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil {
		return 0, fmt.Errorf("counting the open files of process %d: %w", pid, err)
	}
	return len(entries), nil
}

// residentBytes is what a process has in memory.
func residentBytes(pid int) (int64, error) {
	statm, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	if err != nil {
		return 0, fmt.Errorf("reading the memory of process %d: %w", pid, err)
	}
	fields := strings.Fields(string(statm))
	if len(fields) < 2 {
		return 0, fmt.Errorf("reading the memory of process %d: %q", pid, statm)
	}
	pages, err := strconv.ParseInt(fields[1], 10, 64)
	return pages * int64(os.Getpagesize()), err
}

// tree lists what is below a folder, sorted; a folder that is not there is
// empty.
func tree(dir string) []string {
	var all []string
	_ = filepath.WalkDir(dir, func(path string, _ os.DirEntry, err error) error {
		if err == nil && path != dir {
			all = append(all, strings.TrimPrefix(path, dir+"/"))
		}
		return nil // what goes away meanwhile is none of ours
	})
	slices.Sort(all)
	return all
}

// sendSignal sends a signal to a process that may be gone.
func sendSignal(pid int, s syscall.Signal) error {
	if err := syscall.Kill(pid, s); err != nil && !errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("sending %v to process %d: %w", s, pid, err)
	}
	return nil
}
