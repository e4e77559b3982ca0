package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/transporthost/transporthost/tests/load"
)

// Deadlines of a server's life: a host that takes longer is broken, not slow.
const (
	startTimeout = 20 * time.Second
	stopTimeout  = 15 * time.Second
)

// A server is one running process that answers echo requests on a WebSocket.
type server struct {
	url   string
	pid   int
	began time.Time // just before the process was started

	cmd     *exec.Cmd
	life    io.Closer  // its stdin: a baseline ends with it, and so with us
	printed chan error // the reader of its output has ended
	state   string     // a folder of its own, removed at its end
	tail    *tail
}

// printedURL finds where a server listens in what it prints.
var printedURL = regexp.MustCompile(`ws://[0-9.]+:[0-9]+`)

// startServer starts a program and waits until it has printed its address and
// "ready". It takes over the folder state, which is removed with the server.
func startServer(ctx context.Context, state, program string, args ...string) (*server, error) {
	out, in, err := os.Pipe()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("making a pipe for a server: %w", err), os.RemoveAll(state))
	}
	s := &server{state: state, tail: &tail{}, printed: make(chan error, 1), began: time.Now()}
	s.cmd = exec.Command(program, args...)
	s.cmd.Env = append(os.Environ(), "XDG_STATE_HOME="+state)
	s.cmd.Stdout, s.cmd.Stderr = in, in
	if s.life, err = s.cmd.StdinPipe(); err == nil {
		err = s.cmd.Start()
	}
	_ = in.Close() // the child has its own
	if err != nil {
		return nil, errors.Join(fmt.Errorf("starting %s: %w", program, err), out.Close(), os.RemoveAll(state))
	}
	s.pid = s.cmd.Process.Pid
	ready := make(chan string, 1)
	go func() {
		defer out.Close()
		s.printed <- s.read(out, ready)
	}()
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	select {
	case s.url = <-ready:
		return s, nil
	case <-ctx.Done():
		err = fmt.Errorf("waiting for %s to be ready: %w", program, context.Cause(ctx))
	case err = <-s.printed:
		s.printed <- err
		err = fmt.Errorf("%s ended before it was ready", program)
	}
	return nil, errors.Join(fmt.Errorf("%w; it printed:\n%s", err, s.tail), s.kill())
}

// read reads what the server prints until its end, and sends its address when
// it is ready.
func (s *server) read(out io.Reader, ready chan<- string) error {
	url := ""
	lines := bufio.NewReader(out)
	for {
		line, err := lines.ReadBytes('\n')
		s.tail.add(line)
		if found := printedURL.Find(line); found != nil && url == "" {
			url = string(found)
		}
		if url != "" && isReady(line) {
			select {
			case ready <- url:
			default: // said already
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("reading the output of a server: %w", err)
		}
	}
}

// isReady recognises the line "transporthost: ready" and the baselines' own.
func isReady(line []byte) bool {
	line = bytes.TrimPrefix(bytes.TrimSpace(line), []byte("transporthost: "))
	return bytes.HasPrefix(line, []byte("ready"))
}

// stop ends the server politely, and fails if it does not end in time or with
// status 0.
func (s *server) stop() error {
	if err := s.cmd.Process.Signal(os.Interrupt); err != nil {
		return errors.Join(fmt.Errorf("interrupting a server: %w", err), s.kill())
	}
	late := time.AfterFunc(stopTimeout, func() { _ = s.cmd.Process.Kill() })
	defer late.Stop()
	if err := s.end(); err != nil {
		return fmt.Errorf("stopping a server: %w; it printed:\n%s", err, s.tail)
	}
	return nil
}

func (s *server) kill() error {
	_ = s.cmd.Process.Kill() // it may have ended
	_ = s.end()              // the status of what we killed
	return nil
}

func (s *server) end() error {
	err := s.cmd.Wait()
	return errors.Join(err, <-s.printed, os.RemoveAll(s.state))
}

// plugins returns the processes below the server.
func (s *server) plugins() []int {
	return slices.DeleteFunc(load.Descendants(s.pid), func(pid int) bool { return pid == s.pid })
}

// tail keeps the last few KiB of what a server printed.
type tail struct {
	mu   sync.Mutex // guards kept: it is read for an error while the server still prints
	kept []byte
}

func (t *tail) add(line []byte) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.kept = append(t.kept, line...)
	if extra := len(t.kept) - 8<<10; extra > 0 {
		t.kept = slices.Delete(t.kept, 0, extra)
	}
}

func (t *tail) lastLine() string {
	lines := strings.Split(strings.TrimSpace(t.String()), "\n")
	return lines[len(lines)-1]
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(t.kept)
}
