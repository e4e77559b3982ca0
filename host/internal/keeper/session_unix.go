//go:build unix

package keeper

import (
	"os/exec"
	"syscall"
)

// setSession keeps the signals of a terminal away from the keeper.
func setSession(cmd *exec.Cmd) { cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} }
