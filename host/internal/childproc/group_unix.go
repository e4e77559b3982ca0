//go:build unix

package childproc

import "syscall"

// Terminate asks the process group of pid to end. A group that is gone is no
// error.
func Terminate(pid int) { _ = syscall.Kill(-pid, syscall.SIGTERM) }

// Kill ends the process group of pid at once. A group that is gone is no error.
func Kill(pid int) { _ = syscall.Kill(-pid, syscall.SIGKILL) }
