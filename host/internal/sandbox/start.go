package sandbox

import (
	"errors"
	"fmt"
	"os"
)

// A Start is one start of a program under a policy. Prepare makes it.
type Start struct {
	report Report // what is known before
	answer *os.File
	theirs *os.File // the other end, until the process has it
	path   string
}

// Started is called once the process is there, or is not; it lets go of what
// was the process's.
func (s *Start) Started() {
	if s.theirs != nil {
		_ = s.theirs.Close()
		s.theirs = nil
	}
}

// Close frees what is left.
func (s *Start) Close() {
	s.Started()
	if s.answer != nil {
		_ = s.answer.Close()
		s.answer = nil
	}
}

// errNoShim is what a shim that says nothing has done.
var errNoShim = errors.New("its sandbox did not come up")

// An ExecError says why a program could not be executed.
type ExecError struct {
	Path string
	Hint string // may be empty
	Err  error
}

func (e *ExecError) Error() string {
	text := fmt.Sprintf("fork/exec %s: %v", e.Path, e.Err)
	if e.Hint != "" {
		text += "; " + e.Hint + `; name it in sandbox = { read = ["/DIR"] } of the transport`
	}
	return text
}

// Unwrap returns the cause.
func (e *ExecError) Unwrap() error { return e.Err }
