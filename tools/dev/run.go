package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// example is what "run" serves without arguments.
var example = []string{"--listen", "ws://127.0.0.1:4500", "--listen", "stdio://", "--", filepath.Join("bin", "mcp-server")}

// runHost builds everything and runs the host until it ends or ctx does.
func (s shop) runHost(ctx context.Context, args []string) error {
	if err := s.steps(ctx, s.buildSteps()); err != nil {
		return err
	}
	if len(args) == 0 {
		args = example
	}
	host := filepath.Join(s.root, "bin", "transporthost")
	fmt.Fprintf(s.stderr, "==> transporthost run %s\n", strings.Join(args, " "))
	hostCtx, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		waitForStop(ctx, hostCtx)
		stop()
	}()
	cmd := s.command(hostCtx, nil, host, append([]string{"run"}, args...)...)
	cmd.Stdin = s.stdin
	cmd.WaitDelay = interruptGrace // it may have requests to finish
	err := cmd.Run()
	stop()
	<-watched
	if cmd.ProcessState != nil && cmd.ProcessState.Success() {
		return nil // we may have stopped it, which makes an error of its clean end
	}
	if exit, ok := errors.AsType[*exec.ExitError](err); ok && exit.Exited() {
		return &exitError{exit.ExitCode()}
	}
	return named(err, nil, host, args)
}

// interruptGrace is how long the host has to end after an interrupt.
const interruptGrace = 60 * time.Second

// waitForStop returns when the host is to be told to stop, or has ended, which
// ends hostCtx. An interrupt comes from the terminal, which sends it to the host
// as well, and a second signal would cut its drain short: so it is only passed
// on to a host that does not end. And the host must not outlive whoever started
// us: "go run" dies of a SIGTERM without passing it on.
func waitForStop(ctx, hostCtx context.Context) {
	parent := os.Getppid()
	tick := time.NewTicker(500 * time.Millisecond)
	defer tick.Stop()
	for os.Getppid() == parent {
		select {
		case <-hostCtx.Done():
			return
		case <-ctx.Done():
			if cause, ok := errors.AsType[*signalError](context.Cause(ctx)); ok && cause.signal == os.Interrupt {
				select {
				case <-hostCtx.Done():
				case <-time.After(interruptGrace):
				}
			}
			return
		case <-tick.C:
		}
	}
}

// bench builds everything and runs the benchmark with args.
func (s shop) bench(ctx context.Context, args []string) error {
	program := filepath.Join(s.root, "bin", "bench")
	build := append(s.buildSteps(), step{"build-bench", func(ctx context.Context) error {
		return s.buildOne(ctx, "tests/bench", "bin/bench")
	}})
	if err := s.steps(ctx, build); err != nil {
		return err
	}
	return s.do(ctx, nil, program, args...)
}
