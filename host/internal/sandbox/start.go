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

// An errConfined says that a program could not be executed because of its
// sandbox.
type errConfined struct {
	hint string
	err  error
}

func (e *errConfined) Error() string {
	return fmt.Sprintf(`%v; %s; name it in sandbox = { read = ["/DIR"] } of the transport`, e.err, e.hint)
}

func (e *errConfined) Unwrap() error { return e.err }
