package childproc

import (
	"os"
	"os/exec"
	"syscall"
)

// setAttributes keeps console events of the host away from the child.
func setAttributes(cmd *exec.Cmd) {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.CreationFlags |= syscall.CREATE_NEW_PROCESS_GROUP
}

// Terminate ends the process: there is no polite way for a process without a
// window. Its descendants are not reached here.
func Terminate(pid int) { Kill(pid) }

// Kill ends the process at once. Its descendants are not reached here.
func Kill(pid int) {
	if p, err := os.FindProcess(pid); err == nil {
		_ = p.Kill()
		_ = p.Release()
	}
}
