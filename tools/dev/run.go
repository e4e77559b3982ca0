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
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		waitForOrphanhood(ctx)
		cancel()
	}()
	cmd := s.command(ctx, nil, host, append([]string{"run"}, args...)...)
	cmd.Stdin = s.stdin
	err := cmd.Run()
	cancel()
	<-watched
	if exit, ok := errors.AsType[*exec.ExitError](err); ok && exit.Exited() {
		return &exitError{exit.ExitCode()}
	}
	// A host that was interrupted and ended cleanly is a success, although
	// the context has ended.
	if errors.Is(err, context.Canceled) && cmd.ProcessState != nil && cmd.ProcessState.Success() {
		return nil
	}
	return named(err, nil, host, args)
}

// waitForOrphanhood returns when the process that started us is gone, or ctx
// ends. "go run" dies of a SIGTERM without passing it on; the host must not
// outlive it.
func waitForOrphanhood(ctx context.Context) {
	parent := os.Getppid()
	tick := time.NewTicker(500 * time.Millisecond)
	defer tick.Stop()
	for os.Getppid() == parent {
		select {
		case <-ctx.Done():
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
