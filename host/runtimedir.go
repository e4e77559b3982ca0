package host

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/transporthost/transporthost/host/admin"
)

// longestRuntimeDir leaves room for what stands behind it: the path of a socket
// has at most about 107 bytes, and go-plugin's own part of it is long.
const longestRuntimeDir = 46

// runtimeDir makes the private directory of a host's sockets, and returns what
// removes it at the end: everything, if the directory was made here. One host
// has a configured directory at a time; what a killed one left is removed now.
func runtimeDir(ctx context.Context, configured string) (dir string, remove func(), err error) {
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
	unlock, err := lock(configured)
	if errors.Is(err, errLocked) {
		return "", nil, admin.InUse(ctx, configured)
	}
	if err != nil {
		return "", nil, fmt.Errorf("locking the runtime directory %s: %w", configured, err)
	}
	sweep(configured)
	dir = filepath.Join(configured, runPrefix+strconv.Itoa(os.Getpid()))
	_ = os.RemoveAll(dir) // of a dead host with this pid
	if err := os.Mkdir(dir, 0o700); err != nil {
		unlock()
		return "", nil, fmt.Errorf("making the runtime directory: %w", err)
	}
	return dir, func() {
		_ = os.RemoveAll(dir)
		unlock()
	}, nil
}

// errLocked is returned by lock while another host has the directory.
var errLocked = errors.New("locked")

// runPrefix and the pid of a host name the directory of one run.
const runPrefix = "r"

// sweep removes the directories of hosts that are gone.
func sweep(dir string) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return
	}
	for _, e := range entries {
		pid, err := strconv.Atoi(strings.TrimPrefix(e.Name(), runPrefix))
		if err == nil && strings.HasPrefix(e.Name(), runPrefix) && e.IsDir() && !running(pid) {
			_ = os.RemoveAll(filepath.Join(dir, e.Name()))
		}
	}
}
