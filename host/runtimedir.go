package host

import (
	"fmt"
	"os"
)

// runtimeDir makes the private directory of a host's sockets, and returns what
// removes it at the end: everything, if the directory was made here.
func runtimeDir(configured string) (dir string, remove func(), err error) {
	if configured == "" {
		dir, err = os.MkdirTemp("", "transporthost-")
		if err != nil {
			return "", nil, fmt.Errorf("making the runtime directory: %w", err)
		}
		return dir, func() { _ = os.RemoveAll(dir) }, nil
	}
	if err := os.MkdirAll(configured, 0o700); err != nil {
		return "", nil, fmt.Errorf("making the runtime directory: %w", err)
	}
	if err := private(configured); err != nil {
		return "", nil, err
	}
	dir, err = os.MkdirTemp(configured, "run-")
	if err != nil {
		return "", nil, fmt.Errorf("making the runtime directory: %w", err)
	}
	return dir, func() { _ = os.RemoveAll(dir) }, nil
}
