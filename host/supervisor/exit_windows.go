package supervisor

import (
	"fmt"
	"os"
)

// describeExit says in words how a process ended.
func describeExit(s *os.ProcessState) string {
	return fmt.Sprintf("exited with status %d", s.ExitCode())
}

// endedByItself cannot be told here.
func endedByItself(*os.ProcessState) bool { return true }
