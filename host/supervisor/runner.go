package supervisor

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-plugin/runner"

	"github.com/transporthost/transporthost/host/internal/childproc"
	"github.com/transporthost/transporthost/host/internal/sandbox"
)

// outputGrace is how long a dead process's last words are waited for. A
// grandchild may hold its stdout and stderr open for ever.
const outputGrace = 500 * time.Millisecond

// A processRunner is one plugin process, as go-plugin's runner. go-plugin's own
// one gives the child the host's stdin and waits for the child's output before
// it notices the child's death.
type processRunner struct {
	starter *childproc.Starter
	owner   string // the plugin instance
	cmd     *exec.Cmd
	name    string // its argv[0]
	policy  sandbox.Policy
	gate    *sandbox.Start
	report  sandbox.Report // what is enforced, once Start has returned

	stdout, stderr *os.File   // our ends
	theirs         []*os.File // the child's ends, closed here once it runs
	lifeline       *os.File   // the write end of the child's stdin; its end is ours
	stray          strayLine
	words          lastWords
	sockets        string // directory that the process's socket is to be in

	started atomic.Int64  // its pid; 0 before Start has succeeded
	killed  atomic.Bool   // Kill was called, perhaps before there was a process
	exited  chan struct{} // closed when the process is gone
	once    sync.Once
	waitMu  sync.Mutex // guards state
	state   *os.ProcessState
}

var _ runner.Runner = (*processRunner)(nil)

// newProcessRunner prepares the process that cmd says under a policy. verified is
// its program, if that is not the file at cmd.Path.
func newProcessRunner(s *childproc.Starter, owner string, cmd *exec.Cmd, policy sandbox.Policy, verified *os.File) (r *processRunner, err error) {
	r = &processRunner{starter: s, owner: owner, cmd: cmd, name: cmd.Args[0], policy: policy, exited: make(chan struct{})}
	pipe := func() (ours, theirs *os.File) {
		if err != nil {
			return nil, nil
		}
		ours, theirs, err = os.Pipe()
		return ours, theirs
	}
	var out, errOut, in *os.File
	r.stdout, out = pipe()
	r.stderr, errOut = pipe()
	in, r.lifeline = pipe()
	r.theirs = []*os.File{out, errOut, in}
	if err == nil {
		r.gate, err = sandbox.Prepare(cmd, policy, verified)
	}
	if err != nil {
		r.close()
		return nil, fmt.Errorf("making the pipes of a plugin: %w", err)
	}
	r.cmd.Stdin, r.cmd.Stdout, r.cmd.Stderr = in, out, errOut
	r.stray.r = r.stdout
	r.words = lastWords{r: r.stderr, ended: make(chan struct{})}
	return r, nil
}

// close releases everything, running or not.
func (r *processRunner) close() {
	for _, f := range append(r.theirs, r.stdout, r.stderr, r.lifeline) {
		if f != nil {
			_ = f.Close() // closed twice: an error that says so
		}
	}
	if r.gate != nil {
		r.gate.Close()
	}
}

// Start implements [runner.Runner].
func (r *processRunner) Start(ctx context.Context) error {
	if err := r.starter.StartFor(ctx, r.owner, r.cmd); err != nil {
		r.once.Do(func() { close(r.exited) })
		r.close()
		return fmt.Errorf("executing %s: %w", r.name, err)
	}
	r.gate.Started()
	for _, f := range r.theirs {
		_ = f.Close()
	}
	r.started.Store(int64(r.cmd.Process.Pid))
	if r.killed.Load() {
		childproc.Kill(r.pid())
	}
	// It ends with the process, which its owner ends.
	go func() {
		state, _ := r.cmd.Process.Wait() // an error means that it is gone
		r.waitMu.Lock()
		r.state = state
		r.waitMu.Unlock()
		r.starter.End(r.cmd) // what it started; the starter sees to it
		r.once.Do(func() { close(r.exited) })
		deadline := time.Now().Add(outputGrace)
		_ = r.stdout.SetReadDeadline(deadline)
		_ = r.stderr.SetReadDeadline(deadline)
	}()
	var err error
	if r.report, err = r.gate.Await(); err != nil { // Kill frees it
		_ = r.Kill(ctx)
		<-r.exited
		return fmt.Errorf("executing %s: %w", r.name, err)
	}
	return nil
}

// Wait implements [runner.Runner].
func (r *processRunner) Wait(ctx context.Context) error {
	select {
	case <-r.exited:
		return r.exitError()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// exitError says how the process ended, and why as far as it said so itself;
// nil means with status 0. It waits a moment for what the process still says.
func (r *processRunner) exitError() error {
	r.waitMu.Lock()
	state := r.state
	r.waitMu.Unlock()
	if state == nil || state.Success() {
		return nil
	}
	text := describeExit(state)
	if endedByItself(state) {
		text += r.words.cause(r.policy)
	}
	return errors.New(text)
}

// Kill implements [runner.Runner]. It does not wait.
func (r *processRunner) Kill(context.Context) error {
	r.killed.Store(true)
	select {
	case <-r.exited: // its number may be somebody else's by now
		return nil
	default:
	}
	if pid := r.pid(); pid != 0 {
		childproc.Kill(pid)
	}
	return nil
}

func (r *processRunner) pid() int { return int(r.started.Load()) }

// Stdout implements [runner.Runner].
func (r *processRunner) Stdout() io.ReadCloser { return &r.stray }

// Stderr implements [runner.Runner].
func (r *processRunner) Stderr() io.ReadCloser { return &r.words }

// Name implements [runner.Runner].
func (r *processRunner) Name() string { return r.name }

// ID implements [runner.Runner].
func (r *processRunner) ID() string { return strconv.Itoa(r.pid()) }

// Diagnose implements [runner.Runner]. The causes are told by [describeLaunch].
func (r *processRunner) Diagnose(context.Context) string { return "" }

// PluginToHost implements [runner.Runner].
func (r *processRunner) PluginToHost(network, addr string) (string, string, error) {
	return network, addr, ownAddress(network, addr, r.sockets)
}

// HostToPlugin implements [runner.Runner].
func (r *processRunner) HostToPlugin(network, addr string) (string, string, error) {
	return network, addr, nil
}

// strayBytes is what is kept of a first line on stdout.
const strayBytes = 200

// A strayLine passes a process's stdout on and remembers how it began: a
// program that is no plugin shows there what it is.
type strayLine struct {
	r *os.File

	mu   sync.Mutex // guards head
	head []byte
}

func (s *strayLine) Read(p []byte) (int, error) {
	n, err := s.r.Read(p)
	s.mu.Lock()
	if room := strayBytes - len(s.head); room > 0 {
		s.head = append(s.head, p[:min(n, room)]...)
	}
	s.mu.Unlock()
	return n, err
}

func (s *strayLine) Close() error { return s.r.Close() }

// first returns the first line so far.
func (s *strayLine) first() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	line, _, _ := bytes.Cut(s.head, []byte("\n"))
	return string(bytes.TrimSpace(line))
}
