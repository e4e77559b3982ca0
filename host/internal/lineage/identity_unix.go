//go:build unix && !linux

package lineage

import (
	"errors"
	"syscall"
)

// Of returns the identity of a process that runs, as far as it is told here.
func Of(pid int) (Identity, bool) {
	return Identity{PID: pid}, pid > 0 && !errors.Is(syscall.Kill(pid, 0), syscall.ESRCH)
}

// Namespace has nothing to name here.
func Namespace() string { return "" }
