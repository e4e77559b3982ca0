package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/transporthost/transporthost/host"
)

// runtimeDirHelp is the rule of resolveRuntimeDir, for help texts.
const runtimeDirHelp = `The runtime directory holds the sockets of hosts. It is --runtime-dir, or
$TRANSPORTHOST_RUNTIME_DIR, or $XDG_RUNTIME_DIR/transporthost, or
transporthost-UID in the temporary directory. If several hosts run there,
--pid says which one is meant.`

// A target says which running host a command asks.
type target struct {
	runtimeDir string
	pid        int
}

func (t *target) flags(c *cobra.Command) {
	c.Flags().StringVar(&t.runtimeDir, "runtime-dir", "", "`DIR` of the host's sockets")
	c.Flags().IntVar(&t.pid, "pid", 0, "`PID` of the host, if several run")
}

func (t *target) find() (host.RunningHost, error) {
	dir, err := resolveRuntimeDir(t.runtimeDir)
	if err != nil {
		return host.RunningHost{}, err
	}
	return host.FindHost(dir, t.pid)
}

// resolveRuntimeDir returns the directory of a host's sockets.
func resolveRuntimeDir(flag string) (string, error) {
	dir := flag
	if dir == "" {
		dir = os.Getenv("TRANSPORTHOST_RUNTIME_DIR")
	}
	if dir == "" {
		if xdg := os.Getenv("XDG_RUNTIME_DIR"); xdg != "" {
			dir = filepath.Join(xdg, "transporthost")
		} else {
			dir = filepath.Join(os.TempDir(), "transporthost-"+strconv.Itoa(os.Getuid()))
		}
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return "", usageError{fmt.Errorf("the runtime directory: %w", err)}
	}
	return dir, nil
}
