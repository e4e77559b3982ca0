// Command dev does what a developer of this project does: it builds, runs,
// tests and measures. It needs nothing but Go and a clone, and is the same on
// every machine and in CI; the Makefile only calls it.
//
//	go run ./tools/dev COMMAND
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
)

const usage = `Usage: go run ./tools/dev COMMAND [ARG...]

  run [ARG...]   build everything and run the host: WebSocket on
                 ws://127.0.0.1:4500 and the terminal, each peer with its own
                 example MCP server. With ARGs: "transporthost run ARG..."
  test [STEP...] everything that CI checks, or only the steps that are named
  build          bin/transporthost, bin/plugins/transport-*, bin/mcp-server
  generate       shared/transportpb from shared/proto
  bench [ARG...] measure the host beside its baselines (-help lists the options)
  chaos [ARG...] let the host suffer whatever goes wrong in production, and
                 check what its peers notice (-help lists the options; Linux)
  fuzz [TIME]    run every fuzz test for TIME (default 10s)
  clean          remove what build made
`

func main() {
	ctx, cancel := context.WithCancelCause(context.Background())
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	go func() { cancel(&signalError{<-signals}) }() // ends with the program
	os.Exit(run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

// A signalError is the cause of a context that a signal ended.
type signalError struct{ signal os.Signal }

func (e *signalError) Error() string { return e.signal.String() }

// run is main without globals. Progress goes to stderr: with "run", stdout
// belongs to the peer at the terminal.
func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	if len(args) == 0 {
		fmt.Fprint(stderr, usage)
		return 2
	}
	root, err := moduleRoot()
	if err != nil {
		fmt.Fprintf(stderr, "dev: %v\n", err)
		return 1
	}
	s := shop{root: root, stdin: stdin, stdout: stdout, stderr: stderr}
	command, args := args[0], args[1:]
	switch command {
	case "run":
		err = s.runHost(ctx, args)
	case "test":
		err = s.test(ctx, args)
	case "build":
		err = s.steps(ctx, s.buildSteps())
	case "generate":
		err = s.steps(ctx, []step{{"generate", s.generate}})
	case "bench":
		err = s.bench(ctx, args)
	case "chaos":
		err = s.steps(ctx, s.chaosSteps(args))
	case "fuzz":
		err = s.fuzz(ctx, args)
	case "clean":
		err = os.RemoveAll(filepath.Join(root, "bin"))
	case "help", "-h", "-help", "--help":
		fmt.Fprint(stdout, usage)
		return 0
	default:
		fmt.Fprintf(stderr, "dev: there is no command %q\n\n%s", command, usage)
		return 2
	}
	switch exit, isExit := errors.AsType[*exitError](err); {
	case err == nil:
		return 0
	case isExit:
		return exit.code // the program has said why itself
	}
	fmt.Fprintf(stderr, "dev: %v\n", err)
	return 1
}

// An exitError is the status of a program whose status becomes ours.
type exitError struct{ code int }

func (e *exitError) Error() string { return fmt.Sprintf("exit status %d", e.code) }

// moduleRoot returns the folder of the go.mod at or above the working folder.
func moduleRoot() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", fmt.Errorf("finding the working folder: %w", err)
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return "", errors.New("no go.mod here or above: run this inside a clone of the repository")
		}
		dir = parent
	}
}
