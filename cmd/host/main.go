// Command transporthost runs one JSON-RPC application and lets peers reach it
// over many transports at once.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/transporthost/transporthost/host"
)

// The exit statuses of the command.
const (
	statusOK      = 0
	statusFailure = 1 // at run time
	statusUsage   = 2 // wrong use or configuration
)

func main() {
	os.Exit(run(context.Background(), os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

// A usageError is a mistake of the person who typed the command or wrote the
// configuration.
type usageError struct{ err error }

func (e usageError) Error() string { return e.err.Error() }
func (e usageError) Unwrap() error { return e.err }

// streams are what the commands read and write. Stdout carries what was asked
// for, or the protocol; words go to stderr.
type streams struct {
	in  io.Reader
	out io.Writer
	err io.Writer
}

// run is main without globals.
func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	io := streams{stdin, stdout, stderr}
	root := newRoot(io)
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return statusOK
	}
	if refusal, ok := errors.AsType[*host.RefusalError](err); ok {
		// The last line is the transport's own, and nothing else: programs that
		// start a host look for it.
		fmt.Fprintf(stderr, "transporthost: the transport %q refuses to start, and nothing else can serve\n%v\n", refusal.Transport, refusal.Err)
		return statusFailure
	}
	fmt.Fprintf(stderr, "transporthost: %v\n", err)
	if _, ok := errors.AsType[usageError](err); ok {
		return statusUsage
	}
	return statusFailure
}

func newRoot(io streams) *cobra.Command {
	root := &cobra.Command{
		Use:   "transporthost",
		Short: "Serve one JSON-RPC application over many transports at once",
		Long: `transporthost runs one JSON-RPC application (an MCP server, a language server,
any program that speaks JSON-RPC on stdin and stdout) and lets peers reach it
over many transports at once. Every transport is a process of its own.`,
		Example: `  transporthost run --listen ws://127.0.0.1:4500 -- npx -y @modelcontextprotocol/server-everything
  transporthost run --listen stdio:// --listen ws://127.0.0.1:4500 --mode shared -- codex app-server
  transporthost status`,
		SilenceUsage:  true,
		SilenceErrors: true,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usageError{fmt.Errorf("unknown command %q; see transporthost help", args[0])}
			}
			return nil
		},
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		return usageError{fmt.Errorf("%w; see %s --help", err, c.CommandPath())}
	})
	root.AddCommand(newRun(io), newStatus(io), newPlugins(io), newRemote(io), newCredentials(io), newConfig(io), newVersion(io))
	return root
}

// noArgs refuses arguments, as wrong use.
func noArgs(c *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usageError{fmt.Errorf("unexpected argument %q; see %s --help", args[0], c.CommandPath())}
	}
	return nil
}
