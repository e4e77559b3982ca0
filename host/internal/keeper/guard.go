package keeper

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/transporthost/transporthost/host/internal/backoff"
	"github.com/transporthost/transporthost/host/internal/childproc"
	"github.com/transporthost/transporthost/host/internal/lineage"
	"github.com/transporthost/transporthost/host/internal/reexec"
)

// A Guard sees to it that a host has a keeper. Where processes are not known by
// their lineage there is none, and its methods do nothing.
type Guard struct {
	parent *childproc.Starter
	log    hclog.Logger

	mu      sync.Mutex // guards what follows, and writing the will
	will    string     // as the keeper is told it
	current *ward
}

// A ward is one process that keeps.
type ward struct {
	cmd    *exec.Cmd
	pipe   *os.File      // our end; no other process has it
	exited chan struct{} // closed when the process is gone
	since  time.Time
	told   int // bytes of the will; guarded by Guard.mu
}

// NewGuard makes the guard of parent's run; nothing runs before Start. dirs and
// sockets are what is to be removed when the host is gone: directories of the
// run, and socket files on which nobody listens then.
func NewGuard(parent *childproc.Starter, dirs, sockets []string, log hclog.Logger) *Guard {
	g := &Guard{parent: parent, log: log}
	var b strings.Builder
	for _, dir := range dirs {
		fmt.Fprintf(&b, "%s %s\n", sayDir, strconv.Quote(dir))
	}
	g.will = b.String() + bequeath(sockets)
	return g
}

func bequeath(sockets []string) string {
	var b strings.Builder
	for _, path := range sockets {
		fmt.Fprintf(&b, "%s %s\n", saySocket, strconv.Quote(path))
	}
	return b.String()
}

// Add has further socket files removed when the host is gone. It is called
// before they are there, and not after the end of Run.
func (g *Guard) Add(sockets []string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.will += bequeath(sockets)
	w := g.current
	if w == nil {
		return // the next keeper is told all
	}
	if err := g.tellLocked(w); err != nil {
		g.log.Debug("telling the keeper more; another one is started", "error", err)
		_ = w.cmd.Process.Kill() // if it is not gone already
	}
}

// tellLocked tells a keeper what it has not heard yet.
func (g *Guard) tellLocked(w *ward) error {
	_ = w.pipe.SetWriteDeadline(time.Now().Add(writeLimit))
	n, err := w.pipe.WriteString(g.will[w.told:])
	w.told += n
	return err
}

const supported = runtime.GOOS == "linux"

// Start starts a keeper. From its return on, whatever becomes of this process,
// what the run leaves is cleared away. It is called before Run, and before
// anything of the run is there. That it fails is logged; Run tries it again.
func (g *Guard) Start() {
	if !supported {
		return
	}
	if err := g.start(); err != nil {
		g.log.Warn("starting the keeper: what a killed host leaves stays until its next start", "error", err)
	}
}

// writeLimit is what a keeper gets to take what it is told: a pipe holds it all.
const writeLimit = time.Second

// start makes a keeper, tells it the will, and makes it the current one.
func (g *Guard) start() error {
	host, ok := lineage.Of(os.Getpid())
	if !ok {
		return errors.New("this system does not tell when a process was started; is /proc there?")
	}
	path, name, err := reexec.Command(role)
	if err != nil {
		return err
	}
	theirs, ours, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("making its pipe: %w", err)
	}
	defer theirs.Close()
	w := &ward{pipe: ours, exited: make(chan struct{}), since: time.Now()}
	w.cmd = &exec.Cmd{
		Path: path, Args: append([]string{name}, arguments(g.parent.Lineage(), host)...),
		Env: environment(),
		Dir: "/", Stdin: theirs,
	}
	setSession(w.cmd)
	if err := g.parent.StartApart(w.cmd); err != nil {
		_ = ours.Close()
		return err
	}
	// In one step: what is added later finds this one.
	g.mu.Lock()
	if err = g.tellLocked(w); err == nil {
		g.current = w
	}
	g.mu.Unlock()
	if err != nil {
		_ = w.cmd.Process.Kill()
		_ = w.cmd.Wait()
		_ = ours.Close()
		return fmt.Errorf("telling it what to keep: %w", err)
	}
	return nil
}

// environment has no mark above all, as the keeper has none otherwise: a host
// above this one, which ends this one with all that descends from it, leaves its
// keeper to its work.
func environment() []string {
	return []string{"GOMAXPROCS=1", "GORACE=atexit_sleep_ms=0"} // the latter is for tests, which wait for keepers
}

func (g *Guard) forget() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.current = nil
}

func (g *Guard) ward() *ward {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.current
}

// PID returns that of the keeper, 0 if there is none.
func (g *Guard) PID() int {
	if w := g.ward(); w != nil {
		return w.cmd.Process.Pid
	}
	return 0
}

// Run replaces a keeper that ends, until ctx ends: then, when everything of the
// run is gone, it ends the keeper. It is called once, behind Start.
func (g *Guard) Run(ctx context.Context) error {
	if !supported {
		<-ctx.Done()
		return context.Cause(ctx)
	}
	policy := backoff.Default()
	policy.GiveUpAfter = 0
	b := backoff.New(policy, rand.New(rand.NewPCG(rand.Uint64(), rand.Uint64())))
	for {
		var uptime time.Duration
		if w := g.ward(); w != nil {
			state := w.watch(ctx)
			g.forget()
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			uptime = time.Since(w.since)
			g.log.Warn("the keeper has ended; another one is started", "pid", w.cmd.Process.Pid, "state", state)
		}
		wait, _ := b.Failed(time.Now(), uptime)
		t := time.NewTimer(wait)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return context.Cause(ctx)
		}
		if err := g.start(); err != nil {
			g.log.Debug("starting the keeper", "error", err)
		}
	}
}

// doneLimit is what a keeper gets to end when there is nothing to keep.
const doneLimit = 2 * time.Second

// watch returns when the process is gone, and how it ended. At ctx's end it is
// told that it may go.
func (w *ward) watch(ctx context.Context) (state string) {
	go func() {
		_ = w.cmd.Wait()
		close(w.exited)
	}()
	select {
	case <-w.exited:
	case <-ctx.Done():
		_ = w.pipe.SetWriteDeadline(time.Now().Add(writeLimit))
		_, _ = w.pipe.WriteString(sayDone + "\n") // it is gone, or will be killed
		t := time.AfterFunc(doneLimit, func() { _ = w.cmd.Process.Kill() })
		<-w.exited
		t.Stop()
	}
	_ = w.pipe.Close()
	return w.cmd.ProcessState.String()
}
