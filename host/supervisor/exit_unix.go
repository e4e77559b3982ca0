//go:build unix

package supervisor

import (
	"fmt"
	"os"
	"syscall"
)

// describeExit says in words how a process ended.
func describeExit(s *os.ProcessState) string {
	if ws, ok := s.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		return fmt.Sprintf("killed by signal %d (%s)", int(ws.Signal()), ws.Signal())
	}
	return fmt.Sprintf("exited with status %d", s.ExitCode())
}

// endedByItself reports whether nobody else ended it, as far as the way that it
// ended tells.
func endedByItself(s *os.ProcessState) bool {
	ws, ok := s.Sys().(syscall.WaitStatus)
	return !ok || !ws.Signaled() || ws.Signal() != syscall.SIGKILL && ws.Signal() != syscall.SIGTERM
}
