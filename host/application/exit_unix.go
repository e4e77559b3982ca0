//go:build unix

package application

import (
	"fmt"
	"os"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// describeExit says in words how a process ended.
func describeExit(s *os.ProcessState) string {
	if s == nil {
		return "ended"
	}
	if ws, ok := s.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		return "was killed by " + strings.ToUpper(unix.SignalName(ws.Signal()))
	}
	return fmt.Sprintf("exited with status %d", s.ExitCode())
}
