// Command relay tries remote control out on one machine, without an account
// anywhere: it is the backend that a host connects to, and a terminal client
// that controls a host through it.
//
//	go run ./tests/relay serve --auth-file auth.json
//	go run ./tests/relay talk --client phone
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
)

const usage = `usage: relay serve [--listen HOST:PORT] [--protocol 2|3] [--no-token] [--auth-file PATH] [--log-level LEVEL]
       relay talk [--url ws://HOST:PORT/controller] [--client NAME] [--wait DURATION]

serve is a backend for remote control; talk controls the host that is connected
to it: lines of stdin are JSON-RPC messages, and so are those of stdout.
`

const defaultListen = "127.0.0.1:4600"

// errUsage says that the flags are wrong, and that a person has been told.
var errUsage = errors.New("wrong use")

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// run is main without globals.
func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	name := ""
	if len(args) > 0 {
		name, args = args[0], args[1:]
	}
	var err error
	switch name {
	case "serve":
		err = serve(ctx, args, stdout, stderr)
	case "talk":
		err = talk(ctx, args, stdin, stdout, stderr)
	case "help", "-h", "--help":
		fmt.Fprint(stdout, usage)
	default:
		fmt.Fprint(stderr, usage)
		err = errUsage
	}
	switch {
	case errors.Is(err, errUsage):
		return 2
	case err != nil && !errors.Is(err, context.Canceled):
		fmt.Fprintf(stderr, "relay: %v\n", err)
		return 1
	}
	return 0
}
