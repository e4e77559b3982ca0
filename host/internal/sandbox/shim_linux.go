package sandbox

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/transporthost/transporthost/host/internal/childproc"
	"github.com/transporthost/transporthost/host/internal/reexec"
)

// role is that of the shim, see package reexec.
const role = "sandbox"

// It is on the first thread of the process here, which has what the host asked
// for (the signal at its death, above all): the thread that executes is the one
// that remains, with all that was taken from it.
func init() { reexec.As(role, shim) }

// An order is what the shim has to do. It is its only argument.
type order struct {
	Policy Policy `json:"policy"`
	Path   string `json:"path"`
	Name   string `json:"name"`           // its argv[0]
	File   int    `json:"file,omitempty"` // descriptor of the verified program, instead of Path
	Answer int    `json:"answer"`         // descriptor of the pipe for the answer
}

// An answer is what the shim says: once when it is confined, and once more if it
// could not become the plugin.
type answer struct {
	Report *Report `json:"report,omitempty"`
	Errno  int     `json:"errno,omitempty"`
	Hint   string  `json:"hint,omitempty"`
}

// statusOfShim is that of a process that did not become the plugin; env and
// shells use it for the same.
const statusOfShim = 126

// shim confines this process and turns it into the plugin. It returns only if
// that fails.
func shim() int {
	var o order
	if len(os.Args) != 2 || json.Unmarshal([]byte(os.Args[1]), &o) != nil {
		return statusOfShim
	}
	syscall.CloseOnExec(o.Answer)
	pipe := os.NewFile(uintptr(o.Answer), "answer")
	path := o.Path
	if o.File != 0 {
		path = fmt.Sprintf("/proc/self/fd/%d", o.File)
		if childproc.Interpreter(path) == "" { // an interpreter opens its script by this path
			syscall.CloseOnExec(o.File)
		}
	}
	say(pipe, answer{Report: confine(o.Policy)})
	err := syscall.Exec(path, []string{o.Name}, os.Environ())
	errno := syscall.EIO
	if e, ok := errors.AsType[syscall.Errno](err); ok {
		errno = e
	}
	a := answer{Errno: int(errno)}
	if errno == syscall.EACCES && unix.Access(path, unix.X_OK) == nil { // which Landlock does not answer
		a.Hint = "what executes it is outside of the directories that its sandbox opens"
		if by := childproc.Interpreter(path); by != "" {
			a.Hint = "its interpreter " + by + " is outside of the directories that its sandbox opens"
		}
	}
	say(pipe, a)
	return statusOfShim
}

// say writes an answer. A host that does not hear it is gone, and takes this
// process with it.
func say(pipe *os.File, a answer) {
	if b, err := json.Marshal(a); err == nil {
		_, _ = pipe.Write(b)
	}
}

// confine takes from this thread, and whatever it executes, what p does not
// leave it.
func confine(p Policy) *Report {
	r := &Report{Missing: slices.Clone(p.Notes)}
	// The filter's program is made while there is memory for it.
	filter, filterErr := newFilter(p, os.Getpid())
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		r.lack("no new privileges: %v", err)
	} else {
		r.Enforced = append(r.Enforced, "no new privileges")
	}
	dropCapabilities(p, r)
	restrictFiles(p, r)
	limit(p, r)
	if filterErr == nil {
		filterErr = filter.install()
	}
	if filterErr != nil {
		r.lack("system calls: %v", filterErr)
		return r
	}
	r.Enforced = append(r.Enforced, filter.says()...)
	return r
}

func (r *Report) lack(format string, args ...any) {
	r.Missing = append(r.Missing, fmt.Sprintf(format, args...))
}
