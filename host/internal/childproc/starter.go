// Package childproc starts child processes that do not outlive the host, and
// ends them with everything that they started.
package childproc

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"sync/atomic"

	"github.com/transporthost/transporthost/host/internal/lineage"
)

// ErrNotRunning is returned by Start before Run is called or after it returned.
var ErrNotRunning = errors.New("no starter is running: the host is stopping")

// A Starter starts children from one thread that lives as long as Run does. On
// Linux a child asks to be killed when its parent dies, and the kernel means
// the thread that created it (golang/go#27505): a thread that Go happens to
// retire would take the children with it. The descendants of a child do not ask
// for that: the starter knows them by the mark of its run, and ends them.
type Starter struct {
	// SoleParent says that nothing else in this process starts others. Then it
	// can bear the mark of a child while that is started. It is set before Run.
	SoleParent bool

	lending  sync.Mutex // held while this process may bear the mark of a child
	run      lineage.Run
	children atomic.Uint32
	owners   owners
	endings  endings
	requests chan request
	running  chan struct{} // closed when Run begins
	done     chan struct{} // closed when Run has ended
}

type request struct {
	cmd   *exec.Cmd // nil: a probe
	owner string
	mark  lineage.Mark
	reply chan error
}

// NewStarter makes a starter; nothing runs before Run.
func NewStarter() *Starter {
	s := &Starter{
		run: lineage.NewRun(), endings: endings{wake: make(chan struct{}, 1)},
		requests: make(chan request), running: make(chan struct{}), done: make(chan struct{}),
	}
	s.endings.over = s.owners.forget
	return s
}

// Lineage names the run whose marks the children bear.
func (s *Starter) Lineage() lineage.Run { return s.run }

// Run serves Start and End until ctx ends. It is called once. Owners of children
// end them before that; what is still there then, of children and of their
// descendants, is killed.
func (s *Starter) Run(ctx context.Context) error {
	var ends sync.WaitGroup
	defer ends.Wait()
	// Looking ends behind starting: nothing that is started is overlooked.
	looking, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	ends.Go(func() { s.endings.run(looking, s.run) })
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
			r.reply <- s.owners.start(r.owner, r.mark.Child, r.cmd, func() error { return s.start(r) })
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// Start starts cmd in a process group of its own, as a child that dies with the
// host where the system can do that. It blocks until the process is there.
func (s *Starter) Start(ctx context.Context, cmd *exec.Cmd) error { return s.StartFor(ctx, "", cmd) }

// StartFor is Start in the name of an owner, whom [Starter.PeerOwner] tells.
func (s *Starter) StartFor(ctx context.Context, owner string, cmd *exec.Cmd) error {
	setAttributes(cmd)
	if cmd.Env == nil {
		cmd.Env = os.Environ()
	}
	mark := lineage.Mark{Run: s.run, Child: s.children.Add(1)}
	cmd.Env = mark.Environ(cmd.Env)
	return s.ask(ctx, request{cmd: cmd, owner: owner, mark: mark})
}

// Probe returns nil if Run answers, and could start a child. It blocks until
// ctx ends if Run does not.
func (s *Starter) Probe(ctx context.Context) error { return s.ask(ctx, request{}) }

func (s *Starter) ask(ctx context.Context, r request) error {
	r.reply = make(chan error, 1)
	select {
	case s.requests <- r:
		return <-r.reply
	case <-s.done:
		return ErrNotRunning
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (s *Starter) start(r request) error {
	s.lending.Lock()
	defer s.lending.Unlock()
	if s.SoleParent {
		defer r.mark.Lend()()
	}
	err := r.cmd.Start()
	if err == nil && !s.SoleParent {
		r.mark.Bear(r.cmd.Process.Pid)
	}
	return err
}

// StartApart starts what does not belong to the run: a process that bears no
// mark, of a child or of a run above, and ends by itself. It needs no Run. cmd
// must have an environment, without marks.
func (s *Starter) StartApart(cmd *exec.Cmd) error {
	s.lending.Lock()
	defer s.lending.Unlock()
	err := cmd.Start()
	if err == nil {
		lineage.Shed(cmd.Process.Pid)
	}
	return err
}

// End kills what is left of a child that has ended: its process group, and on
// Linux everything that descends from it. It does not wait; the result comes
// when nothing of that is there any more, or with how many processes cannot be
// ended.
func (s *Starter) End(cmd *exec.Cmd) (left <-chan int) {
	Kill(cmd.Process.Pid)
	child, ok := s.run.Child(cmd.Env)
	if !ok { // it was not started here
		nothing := make(chan int, 1)
		nothing <- 0
		return nothing
	}
	return s.endings.add(child)
}
