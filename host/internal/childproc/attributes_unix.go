//go:build unix && !linux

package childproc

import (
	"os/exec"
	"syscall"
)

// setAttributes cannot ask for the child's death with its parent here: the
// lifeline on its stdin is what tells it.
func setAttributes(cmd *exec.Cmd) {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Setpgid = true
}
