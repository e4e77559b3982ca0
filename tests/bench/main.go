// Command bench measures the host beside echo servers without plugins, started
// and loaded in turn in one run, and prints the ratios. Absolute numbers depend
// on the machine; ratios of neighbours in time hardly do.
//
//	go run ./tools/dev bench -rounds 5
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"syscall"
	"time"

	"github.com/transporthost/transporthost/tests/bench/servers"
	"github.com/transporthost/transporthost/tests/relay/backend"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// run is main without globals. The program starts itself as "serve STYLE" for
// a baseline server, as "child" for an application of the host, and as "relay
// PROTOCOL FILE" for a relay, which writes the login of its account to FILE.
func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	err := error(nil)
	switch {
	case len(args) == 2 && args[0] == "serve":
		err = untilEOF(ctx, stdin, func(ctx context.Context) error { return serve(ctx, servers.Style(args[1]), stdout) })
	case len(args) == 3 && args[0] == "relay":
		err = untilEOF(ctx, stdin, func(ctx context.Context) error { return relay(ctx, args[1], args[2], stdout) })
	case len(args) == 1 && args[0] == "child":
		err = servers.Child(stdin, stdout)
	default:
		err = bench(ctx, args, stdout, stderr)
	}
	switch {
	case errors.Is(err, errUsage):
		return 2
	case err != nil:
		fmt.Fprintf(stderr, "bench: %v\n", err)
		return 1
	}
	return 0
}

// errUsage is returned when the flags are wrong and the user has been told.
var errUsage = errors.New("wrong use")

// untilEOF runs a server until ctx or stdin ends: it must not outlive a bench
// that was killed.
func untilEOF(ctx context.Context, stdin io.Reader, serve func(context.Context) error) error {
	ctx, cancel := context.WithCancel(ctx)
	go func() { // waits for nothing but the end of this process
		defer cancel()
		_, _ = io.Copy(io.Discard, stdin)
	}()
	return serve(ctx)
}

// relay runs a relay until ctx ends.
func relay(ctx context.Context, protocol, authFile string, stdout io.Writer) error {
	n, err := strconv.ParseUint(protocol, 10, 8)
	if err != nil {
		return fmt.Errorf("reading the protocol of a relay: %w", err)
	}
	return serveRelay(ctx, backend.Profile(n), authFile, stdout)
}

// serve runs a baseline server until ctx ends.
func serve(ctx context.Context, style servers.Style, stdout io.Writer) error {
	if style == websocketdStyle {
		return serveWebsocketd(ctx, stdout)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return fmt.Errorf("listening: %w", err)
	}
	fmt.Fprintf(stdout, "listening on ws://%s\nready\n", l.Addr())
	return servers.Serve(ctx, l, style)
}

func bench(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.SetOutput(stderr)
	b := &laboratory{log: stderr}
	flags.IntVar(&b.rounds, "rounds", 5, "measurements of every row; the median counts")
	flags.DurationVar(&b.duration, "duration", 2*time.Second, "length of one measurement")
	flags.IntVar(&b.idle, "idle", 10_000, "connections of the row about idle peers")
	flags.DurationVar(&b.pause, "pause", 5*time.Second, "how long they are left alone before memory is read")
	flags.StringVar(&b.host, "host", defaultHost(), "the `program` that is measured")
	only := flags.String("only", "", "measure only rows whose name matches this `regexp`")
	check := flags.Bool("check", false, "fail if a row is below its floor")
	if err := flags.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return nil
		}
		return errUsage
	}
	pattern, err := regexp.Compile(*only)
	if err != nil || b.rounds < 1 || flags.NArg() > 0 {
		fmt.Fprintf(stderr, "bench: want -rounds of at least 1, a regexp in -only, and no further arguments (%v)\n", err)
		return errUsage
	}
	if b.self, err = os.Executable(); err != nil {
		return fmt.Errorf("finding this program: %w", err)
	}
	if _, err := os.Stat(b.host); err != nil {
		return fmt.Errorf("the host is not built (go run ./tools/dev build): %w", err)
	}
	fmt.Fprintf(stdout, "%s/%s, %d CPUs, %s; medians of %d rounds of %v\n\n",
		runtime.GOOS, runtime.GOARCH, runtime.NumCPU(), runtime.Version(), b.rounds, b.duration)
	below := 0
	head := true
	for _, r := range rows {
		if !pattern.MatchString(r.name) {
			continue
		}
		began := time.Now()
		lines, err := b.measure(ctx, r)
		if err != nil {
			return fmt.Errorf("measuring %q: %w", r.name, err)
		}
		fmt.Fprintf(stderr, "    %s: %.0fs\n", r.name, time.Since(began).Seconds())
		if head {
			printHead(stdout)
			head = false
		}
		for _, l := range lines {
			l.print(stdout)
			if l.verdict() == belowFloor {
				below++
			}
		}
	}
	if below > 0 && *check {
		return fmt.Errorf("%d numbers are below their floor", below)
	}
	return nil
}

// defaultHost is where the developer program builds the host: beside us.
func defaultHost() string {
	self, err := os.Executable()
	if err != nil {
		return "transporthost"
	}
	return filepath.Join(filepath.Dir(self), "transporthost"+filepath.Ext(self))
}
