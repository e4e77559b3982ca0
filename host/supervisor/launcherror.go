package supervisor

import (
	"bytes"
	"debug/elf"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime"
	"strconv"
	"strings"
	"syscall"

	"github.com/hashicorp/go-plugin"

	"github.com/transporthost/transporthost/host/internal/childproc"
	"github.com/transporthost/transporthost/shared/rpc"
)

// errOtherLink is the reason of a plugin that this host cannot talk to, and
// will not be able to.
var errOtherLink = errors.New("host and plugin do not fit together")

// strayHint is why a program that means to be a plugin may be none.
const strayHint = "a plugin's stdout carries the handshake alone; this is another program, or it prints something first " +
	"(a print that was left in, the greeting of a script or shell that starts it): words belong on stderr"

// describeLaunch says why a handshake failed, in terms of what a person sees.
// killed is set if it was this side that ended the process. What go-plugin says
// depends on its release; what the process printed does not.
func (p *process) describeLaunch(err error, killed bool) error {
	if p.runner == nil {
		return err
	}
	if strings.HasPrefix(err.Error(), "executing ") { // by the runner
		return describeExec(p.runner.Name(), err)
	}
	if first := p.runner.stray.first(); first != "" {
		if reason := describeHandshake(first); reason != nil {
			return reason
		}
	}
	// go-plugin kills what it does not understand: only of what went first is its
	// exit the cause.
	text := err.Error()
	wentFirst := strings.Contains(text, "exited before") || strings.Contains(text, "Failed to read any lines")
	switch {
	case killed:
		return err
	case !wentFirst || !p.wait(deathGrace):
		return errors.New(line(text, maxReportText))
	}
	if exit := p.runner.exitError(); exit != nil {
		return fmt.Errorf("it ended before the handshake: %w; its own words are in the log", exit)
	}
	return errors.New("it ended before the handshake, with status 0: it may be another program than a plugin")
}

// describeHandshake says what is wrong with a first line on stdout, or returns
// nil. A handshake is CORE|LINK|NETWORK|ADDRESS|KIND|…
func describeHandshake(first string) error {
	fields := strings.Split(first, "|")
	core, err := strconv.Atoi(fields[0])
	if len(fields) < 4 || err != nil {
		return fmt.Errorf("not a plugin: its first line on stdout is %q instead of a handshake; %s", first, strayHint)
	}
	if core != plugin.CoreProtocolVersion {
		return fmt.Errorf("%w: it shakes hands as version %d of go-plugin does, and this host as version %d; build it again with the present SDK",
			errOtherLink, core, plugin.CoreProtocolVersion)
	}
	link, err := strconv.Atoi(fields[1])
	switch {
	case err != nil:
		return fmt.Errorf("not a plugin: its first line on stdout is %q, and names no version of the link; %s", first, strayHint)
	case link > rpc.ProtocolVersion:
		return fmt.Errorf("%w: it speaks version %d of the link, and this host version %d; update transporthost, or install an older plugin",
			errOtherLink, link, rpc.ProtocolVersion)
	case link < rpc.ProtocolVersion:
		return fmt.Errorf("%w: it speaks version %d of the link, and this host version %d; update the plugin", errOtherLink, link, rpc.ProtocolVersion)
	case len(fields) < 5 || fields[4] != string(plugin.ProtocolGRPC):
		return fmt.Errorf("%w: it does not speak gRPC; build it with the SDK, or as the page on the link protocol says", errOtherLink)
	}
	return nil
}

// describeExec says why the system did not execute the file at path, which was
// there a moment ago.
func describeExec(path string, err error) error {
	if double, ok := errors.AsType[*fs.PathError](err); ok { // it has the path once more
		err = fmt.Errorf("executing %s: %w", path, double.Err)
	}
	switch {
	case errors.Is(err, syscall.ENOEXEC):
		return fmt.Errorf("%w; %s", err, foreign(path))
	case errors.Is(err, syscall.ETXTBSY):
		return fmt.Errorf("%w: somebody is still writing it; write a new file beside it, and rename that", err)
	case errors.Is(err, fs.ErrNotExist):
		if helper, what := neededBy(path); helper != "" {
			if _, gone := os.Stat(helper); gone != nil {
				return fmt.Errorf("executing %s: it needs %s %q, which is not there; %s", path, what, helper, helperRemedy(what, helper))
			}
		}
	case errors.Is(err, fs.ErrPermission) && strings.HasSuffix(err.Error(), syscall.EACCES.Error()): // and nobody knows more
		text := "its file system may be mounted with noexec"
		if helper, what := neededBy(path); helper != "" {
			text += fmt.Sprintf(", or %s %s may not be executable", what, helper)
		}
		return fmt.Errorf("%w; %s", err, text)
	}
	return err
}

// What executes a file in the system's place.
const (
	theInterpreter = "the interpreter"
	theLoader      = "the loader"
)

func helperRemedy(what, helper string) string {
	switch {
	case what == theLoader:
		return "it was built for another distribution (musl and glibc are usual ones): build it here, or without cgo (CGO_ENABLED=0)"
	case strings.HasSuffix(helper, "\r"):
		return "its first line ends as on Windows: convert the script to plain line feeds"
	}
	return "install it, or correct the first line of the script"
}

// neededBy returns what the system starts to run the file at path: the
// interpreter of a script, the loader of a program that is linked dynamically.
func neededBy(path string) (helper, what string) {
	if by := childproc.Interpreter(path); by != "" {
		return by, theInterpreter
	}
	program, err := elf.Open(path)
	if err != nil {
		return "", ""
	}
	defer program.Close()
	for _, s := range program.Progs {
		if s.Type != elf.PT_INTERP || s.Filesz > 4096 { // a path
			continue
		}
		b := make([]byte, s.Filesz)
		if _, err := s.ReadAt(b, 0); err == nil {
			return string(bytes.TrimRight(b, "\x00")), theLoader
		}
	}
	return "", ""
}

// foreign says what a file is that the system does not know how to run.
func foreign(path string) string {
	here := runtime.GOOS + "/" + runtime.GOARCH
	if program, err := elf.Open(path); err == nil {
		defer program.Close()
		return fmt.Sprintf("it is a program for %v, %v; build it for this machine, %s", program.Machine, program.Class, here)
	}
	return "it is no program for this machine (" + here + "): built for another system, or a script without #! and an interpreter in its first line"
}
