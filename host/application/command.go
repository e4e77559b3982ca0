package application

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/transporthost/transporthost/host/internal/childproc"
	"github.com/transporthost/transporthost/shared/transport"
)

// A Command is how a program that speaks JSON-RPC on stdin and stdout is run.
type Command struct {
	Args            []string // the program and its arguments
	Env             map[string]string
	Dir             string
	Framing         transport.Framing // empty: ndjson
	MaxMessageBytes int               // 0: 64 MiB
	StopGrace       time.Duration     // from the end of its input to SIGTERM; 0: 2 s
}

// DefaultStopGrace is what a program gets to end by itself once its input has:
// MCP's clients give the same.
const DefaultStopGrace = 2 * time.Second

// termGrace is the time from SIGTERM to SIGKILL.
const termGrace = time.Second

func (c Command) withDefaults() Command {
	c.Framing = cmp.Or(c.Framing, transport.NDJSON)
	c.MaxMessageBytes = cmp.Or(c.MaxMessageBytes, transport.DefaultMaxMessageBytes)
	c.StopGrace = cmp.Or(c.StopGrace, DefaultStopGrace)
	return c
}

// name is the program without its directory, for errors and status: arguments
// may hold secrets.
func (c Command) name() string {
	if len(c.Args) == 0 {
		return ""
	}
	return filepath.Base(c.Args[0])
}

// check says what keeps the command from being run at all.
func (c Command) check() error {
	if len(c.Args) == 0 || c.Args[0] == "" {
		return errors.New("the application has no command; give one behind --, or in application { command = […] }")
	}
	if _, err := exec.LookPath(c.Args[0]); err != nil {
		return fmt.Errorf("the application %q cannot be run: %w; is it installed, and on the PATH?", c.Args[0], err)
	}
	if c.Dir != "" {
		if info, err := os.Stat(c.Dir); err != nil || !info.IsDir() {
			return fmt.Errorf("the directory %q of the application is not there", c.Dir)
		}
	}
	return nil
}

// A child is one running process of a command.
type child struct {
	command Command
	starter *childproc.Starter
	proc    *exec.Cmd
	stdin   *os.File
	stdout  *os.File
	stderr  *os.File
	exited  chan struct{} // closed when the process is gone
	state   *os.ProcessState
	log     hclog.Logger
}

// startChild starts a process. Its owner calls wait.
func startChild(ctx context.Context, s *childproc.Starter, c Command, log hclog.Logger) (*child, error) {
	if err := c.check(); err != nil {
		return nil, err
	}
	ch := &child{command: c, starter: s, exited: make(chan struct{})}
	ch.proc = exec.Command(c.Args[0], c.Args[1:]...)
	ch.proc.Env, ch.proc.Dir = childproc.Environ(c.Env), c.Dir
	var theirs []*os.File
	var err error
	pipe := func(read bool) (ours, child *os.File) {
		if err != nil {
			return nil, nil
		}
		var r, w *os.File
		if r, w, err = os.Pipe(); err != nil {
			return nil, nil
		}
		ours, child = w, r
		if read {
			ours, child = r, w
		}
		theirs = append(theirs, child)
		return ours, child
	}
	var in, out, errOut *os.File
	ch.stdin, in = pipe(false)
	ch.stdout, out = pipe(true)
	ch.stderr, errOut = pipe(true)
	if err == nil {
		ch.proc.Stdin, ch.proc.Stdout, ch.proc.Stderr = in, out, errOut
		err = s.Start(ctx, ch.proc)
	}
	for _, f := range theirs {
		_ = f.Close()
	}
	if err != nil {
		ch.closePipes()
		return nil, fmt.Errorf("starting the application %q: %w", c.name(), err)
	}
	ch.log = log.With("application", c.name(), "pid", ch.proc.Process.Pid)
	return ch, nil
}

func (ch *child) closePipes() {
	for _, f := range []*os.File{ch.stdin, ch.stdout, ch.stderr} {
		if f != nil {
			_ = f.Close()
		}
	}
}

// wait blocks until the process is gone, and with it what it started; exited is
// closed before the latter.
func (ch *child) wait() {
	ch.state, _ = ch.proc.Process.Wait() // an error means that it is gone
	left := ch.starter.End(ch.proc)      // its descendants
	close(ch.exited)
	// What a descendant outside the group keeps open is not waited for.
	deadline := time.Now().Add(lastWords)
	_ = ch.stdout.SetReadDeadline(deadline)
	_ = ch.stderr.SetReadDeadline(deadline)
	if n := <-left; n > 0 {
		ch.log.Warn("processes that the application started cannot be ended", "processes", n)
	}
}

// lastWords is how long the output of a dead process is read on.
const lastWords = 500 * time.Millisecond

// stop climbs the ladder: end of input, SIGTERM, SIGKILL. It returns when the
// process is gone.
func (ch *child) stop() {
	_ = ch.stdin.Close()
	pid := ch.proc.Process.Pid
	if ch.gone(ch.command.StopGrace) {
		return
	}
	childproc.Terminate(pid)
	if ch.gone(termGrace) {
		return
	}
	childproc.Kill(pid)
	<-ch.exited
}

func (ch *child) gone(within time.Duration) bool {
	t := time.NewTimer(within)
	defer t.Stop()
	select {
	case <-ch.exited:
		return true
	case <-t.C:
		return false
	}
}

// ending says how the process ended, for people. It is called after exited.
func (ch *child) ending() string {
	return fmt.Sprintf("application %q %s", ch.command.name(), describeExit(ch.state))
}

// clean reports whether the process ended with status 0.
func (ch *child) clean() bool { return ch.state != nil && ch.state.Success() }

const (
	maxLogLine    = 8 << 10
	logLinesBurst = 100 // a second; a program that floods its stderr does not flood the log
)

// logStderr passes the program's words on to the log until their end.
func (ch *child) logStderr() {
	r := transport.NewFrameReader(ch.stderr, transport.NDJSON, maxLogLine)
	var window time.Time
	n, dropped := 0, 0
	for {
		line, err := r.Next()
		if tooLong, ok := errors.AsType[*transport.OversizeError](err); ok {
			line, err = append(tooLong.Head, "…"...), nil
		}
		if err != nil {
			_, _ = io.Copy(io.Discard, ch.stderr)
			return
		}
		if now := time.Now(); now.Sub(window) >= time.Second {
			if dropped > 0 {
				ch.log.Warn("lines of stderr were left out", "lines", dropped)
			}
			window, n, dropped = now, 0, 0
		}
		if n++; n > logLinesBurst {
			dropped++
			continue
		}
		ch.log.Info("stderr: " + string(line))
	}
}
