// Package childproc starts child processes that do not outlive the host, and
// ends them with everything that they started.
package childproc

import (
	"context"
	"errors"
	"os/exec"
	"runtime"
)

// ErrNotRunning is returned by Start before Run is called or after it returned.
var ErrNotRunning = errors.New("no starter is running: the host is stopping")

// A Starter starts children from one thread that lives as long as Run does. On
// Linux a child asks to be killed when its parent dies, and the kernel means
// the thread that created it (golang/go#27505): a thread that Go happens to
// retire would take the children with it.
type Starter struct {
	requests chan request
	running  chan struct{} // closed when Run begins
	done     chan struct{} // closed when Run has ended
}

type request struct {
	cmd   *exec.Cmd // nil: a probe
	reply chan error
}

// NewStarter makes a starter; nothing runs before Run.
func NewStarter() *Starter {
	return &Starter{requests: make(chan request), running: make(chan struct{}), done: make(chan struct{})}
}

// Run serves Start until ctx ends. It is called once. Children that still run
// then go on; their owners end them.
func (s *Starter) Run(ctx context.Context) error {
	runtime.LockOSThread()
	// Unlocked at the end, the thread goes back to Go's pool instead of ending.
	defer runtime.UnlockOSThread()
	defer close(s.done)
	close(s.running)
	for {
		select {
		case r := <-s.requests:
			if r.cmd == nil {
				r.reply <- nil
				continue
			}
			r.reply <- r.cmd.Start()
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// Start starts cmd in a process group of its own, as a child that dies with the
// host where the system can do that. It blocks until the process is there.
func (s *Starter) Start(ctx context.Context, cmd *exec.Cmd) error {
	setAttributes(cmd)
	return s.ask(ctx, cmd)
}

// Probe returns nil if Run answers, and could start a child. It blocks until
// ctx ends if Run does not.
func (s *Starter) Probe(ctx context.Context) error { return s.ask(ctx, nil) }

func (s *Starter) ask(ctx context.Context, cmd *exec.Cmd) error {
	r := request{cmd: cmd, reply: make(chan error, 1)}
	select {
	case s.requests <- r:
		return <-r.reply
	case <-s.done:
		return ErrNotRunning
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
