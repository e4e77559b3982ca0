//go:build linux

package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/transporthost/transporthost/host"
)

const (
	startTimeout = 20 * time.Second
	stopTimeout  = 20 * time.Second
	// wordsKept is how many lines of the host's stderr are kept for a failure.
	wordsKept = 120
)

// A hostProcess is the program under test.
type hostProcess struct {
	cmd    *exec.Cmd
	dirs   dirs
	asked  host.RunningHost
	stdin  io.WriteCloser
	stdout io.ReadCloser
	exited chan struct{} // closed at its end
	err    error         // how it ended, after exited

	mu     sync.Mutex // guards what follows
	words  []string
	url    string // of the websocket
	ready  chan struct{}
	spoken bool // ready is closed
}

// dirs are the folders of one run, all below one that is removed at its end.
type dirs struct{ root string }

func (d dirs) plugins() string { return filepath.Join(d.root, "plugins") }
func (d dirs) runtime() string { return filepath.Join(d.root, "run") }
func (d dirs) state() string   { return filepath.Join(d.root, "state") }
func (d dirs) temp() string    { return filepath.Join(d.root, "tmp") }
func (d dirs) login() string   { return filepath.Join(d.root, "auth.json") }
func (d dirs) config() string  { return filepath.Join(d.root, "host.hcl") }

// startHost starts the host and waits until it is ready.
func startHost(ctx context.Context, program string, d dirs) (*hostProcess, error) {
	h := &hostProcess{dirs: d, exited: make(chan struct{}), ready: make(chan struct{})}
	h.cmd = exec.Command(program, "run", "--config", d.config(), "--runtime-dir", d.runtime(), "--plugin-dir", d.plugins())
	// What it leaves in the temporary directory is seen there. Nothing that
	// the person who runs us has set makes a difference.
	h.cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + d.root, "TMPDIR=" + d.temp()}
	var err error
	var words io.ReadCloser
	if h.stdin, err = h.cmd.StdinPipe(); err == nil {
		h.stdout, err = h.cmd.StdoutPipe()
	}
	if err == nil {
		words, err = h.cmd.StderrPipe()
	}
	if err != nil {
		return nil, fmt.Errorf("starting the host: %w", err)
	}
	// A host must not outlive whoever kills us. The signal for that comes when
	// the thread ends that started it: this one stays until the host's end.
	h.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	started := make(chan error)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := h.cmd.Start()
		if started <- err; err != nil {
			return
		}
		h.listen(words)
		state, err := h.cmd.Process.Wait()
		if err == nil && !state.Success() {
			err = fmt.Errorf("it ended: %s", state)
		}
		h.err = err
		close(h.exited)
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("starting the host: %w", err)
	}
	select {
	case <-h.ready:
	case <-h.exited:
		return nil, fmt.Errorf("the host ended before it was ready (%v); it said:\n%s", h.err, h.said())
	case <-time.After(startTimeout):
		err = errors.New("the host is not ready in time")
	case <-ctx.Done():
		err = context.Cause(ctx)
	}
	if err == nil {
		h.asked, err = host.FindHost(d.runtime(), h.cmd.Process.Pid)
	}
	if err != nil {
		h.kill()
		return nil, fmt.Errorf("%w; it said:\n%s", err, h.said())
	}
	return h, nil
}

func (h *hostProcess) pid() int { return h.cmd.Process.Pid }

// listen reads what the host says until its end.
func (h *hostProcess) listen(words io.Reader) {
	lines := bufio.NewScanner(words)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		line := lines.Text()
		h.mu.Lock()
		if h.words = append(h.words, line); len(h.words) > wordsKept {
			h.words = h.words[1:]
		}
		if f := strings.Fields(line); len(f) == 2 && f[0] == string(websocket) && !h.spoken {
			h.url = f[1]
		}
		if line == "transporthost: ready" && !h.spoken {
			h.spoken = true
			close(h.ready)
		}
		h.mu.Unlock()
	}
}

// said returns the last lines of the host's stderr.
func (h *hostProcess) said() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return strings.Join(h.words, "\n")
}

// address is where the websocket listens.
func (h *hostProcess) address() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.url
}

// stop ends the host politely. The error says that it did not end well.
func (h *hostProcess) stop() error {
	if err := h.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("stopping the host: %w", err)
	}
	select {
	case <-h.exited:
	case <-time.After(stopTimeout):
		h.kill()
		return fmt.Errorf("the host does not end within %v of SIGTERM", stopTimeout)
	}
	if h.err != nil {
		return fmt.Errorf("the host, after SIGTERM: %w", h.err)
	}
	return nil
}

func (h *hostProcess) kill() {
	_ = h.cmd.Process.Kill() // it may have ended
	<-h.exited
}
