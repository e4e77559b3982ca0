package application

import (
	"fmt"
	"os"
)

// describeExit says in words how a process ended.
func describeExit(s *os.ProcessState) string {
	if s == nil {
		return "ended"
	}
	return fmt.Sprintf("exited with status %d", s.ExitCode())
}
