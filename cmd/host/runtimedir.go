package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
)

// runtimeDirHelp is the rule of resolveRuntimeDir, for help texts.
const runtimeDirHelp = `The runtime directory holds the host's sockets. It is --runtime-dir, or
$TRANSPORTHOST_RUNTIME_DIR, or $XDG_RUNTIME_DIR/transporthost, or
transporthost-UID in the temporary directory. Each host needs its own: give
the second one of a user another --runtime-dir.`

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
