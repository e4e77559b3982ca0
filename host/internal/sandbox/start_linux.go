package sandbox

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"syscall"

	"github.com/transporthost/transporthost/host/internal/reexec"
)

// Prepare makes cmd, which is complete, start its program under p. verified is
// the program if it is not the file at cmd.Path; it stays the caller's, which
// keeps it open until the process is started. After the start come
// [Start.Started] and [Start.Await].
func Prepare(cmd *exec.Cmd, p Policy, verified *os.File) (*Start, error) {
	s := &Start{path: cmd.Path, report: Report{Off: p.Off, Enforced: []string{}}}
	if p.Off {
		return s, nil
	}
	ours, theirs, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("making the pipe of a sandbox: %w", err)
	}
	s.answer, s.theirs = ours, theirs
	const firstExtra = 3
	o := order{Policy: p, Path: cmd.Path, Name: cmd.Args[0]}
	// Behind those of the plugin, whose numbers it is told.
	if verified != nil {
		o.File = firstExtra + len(cmd.ExtraFiles)
		cmd.ExtraFiles = append(cmd.ExtraFiles, verified)
	}
	o.Answer = firstExtra + len(cmd.ExtraFiles)
	cmd.ExtraFiles = append(cmd.ExtraFiles, theirs)
	text, err := json.Marshal(o)
	if err == nil {
		cmd.Path, cmd.Args[0], err = reexec.Command(role)
	}
	if err != nil {
		s.Close()
		return nil, fmt.Errorf("preparing a sandbox: %w", err)
	}
	cmd.Args = append(cmd.Args[:1], string(text))
	return s, nil
}

// Await returns what is enforced, once the program runs, or why it does not. It
// waits as long as the process lives.
func (s *Start) Await() (Report, error) {
	if s.answer == nil {
		return s.report, nil
	}
	confined := false
	for d := json.NewDecoder(s.answer); ; {
		var a answer
		err := d.Decode(&a)
		switch {
		case err == nil && a.Report != nil:
			s.report, confined = *a.Report, true
		case err == nil && a.Hint != "":
			return s.report, &errConfined{a.Hint, syscall.Errno(a.Errno)}
		case err == nil: // as package os says it
			return s.report, &fs.PathError{Op: "fork/exec", Path: s.path, Err: syscall.Errno(a.Errno)}
		case errors.Is(err, io.EOF) && confined:
			return s.report, nil
		case errors.Is(err, io.EOF):
			return s.report, errNoShim
		default:
			return s.report, fmt.Errorf("%w: %w", errNoShim, err)
		}
	}
}
