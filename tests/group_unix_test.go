//go:build unix

package tests

import (
	"os/exec"
	"syscall"
)

// ownGroup gives cmd a process group, and makes the end of its context kill
// all of that.
func ownGroup(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
}

// interruptGroup sends what a terminal sends on Ctrl-C: an interrupt to all
// processes of the group.
func interruptGroup(cmd *exec.Cmd) error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGINT) }
