package host

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// longestRuntimeDir leaves room for what stands behind it: the path of a socket
// has at most about 107 bytes, and go-plugin's own part of it is long.
const longestRuntimeDir = 46

// runtimeDir makes the private directory of a host's sockets, and returns what
// removes it at the end: everything, if the directory was made here. What a
// killed host left is removed now.
func runtimeDir(configured string) (dir string, remove func(), err error) {
	if configured == "" {
		dir, err = os.MkdirTemp("", "transporthost-")
		if err != nil {
			return "", nil, fmt.Errorf("making the runtime directory: %w", err)
		}
		return dir, func() { _ = os.RemoveAll(dir) }, nil
	}
	if len(configured) > longestRuntimeDir {
		return "", nil, fmt.Errorf("the runtime directory %s has %d bytes, and at most %d leave room for the paths of sockets; choose a shorter one (--runtime-dir)",
			configured, len(configured), longestRuntimeDir)
	}
	if err := os.MkdirAll(configured, 0o700); err != nil {
		return "", nil, fmt.Errorf("making the runtime directory: %w", err)
	}
	if err := private(configured); err != nil {
		return "", nil, err
	}
	sweep(configured)
	dir = filepath.Join(configured, runPrefix+strconv.Itoa(os.Getpid()))
	_ = os.RemoveAll(dir) // of a dead host with this pid
	if err := os.Mkdir(dir, 0o700); err != nil {
		return "", nil, fmt.Errorf("making the runtime directory: %w", err)
	}
	return dir, func() { _ = os.RemoveAll(dir) }, nil
}

// runPrefix and the pid of a host name the directory of one run.
const runPrefix = "r"

// runs lists the directories of runs below a runtime directory.
func runs(dir string) []RunningHost {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil // nobody has run here yet
	}
	var list []RunningHost
	for _, e := range entries {
		text, ok := strings.CutPrefix(e.Name(), runPrefix)
		pid, err := strconv.Atoi(text)
		if ok && err == nil && pid > 0 && e.IsDir() {
			list = append(list, RunningHost{PID: pid, dir: filepath.Join(dir, e.Name())})
		}
	}
	return list
}

// sweep removes the directories of hosts that are gone.
func sweep(dir string) {
	for _, r := range runs(dir) {
		if !running(r.PID) {
			_ = os.RemoveAll(r.dir)
		}
	}
}
