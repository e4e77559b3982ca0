// Command load drives a JSON-RPC server over WebSocket and prints what it
// measured.
//
//	go run ./tests/load/cmd/load -url ws://127.0.0.1:4500 -connections 50 -window 16
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"time"

	"github.com/transporthost/transporthost/tests/load"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	var o load.Options
	flags := flag.NewFlagSet("load", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.StringVar(&o.URL, "url", "ws://127.0.0.1:4500/", "`server`: ws://HOST:PORT/PATH or unix://PATH")
	flags.IntVar(&o.Connections, "connections", 50, "connections")
	flags.IntVar(&o.Window, "window", 16, "requests outstanding per connection")
	flags.IntVar(&o.Size, "size", 100, "bytes of a request")
	flags.StringVar(&o.Method, "method", "echo", "method of the requests")
	flags.Float64Var(&o.Rate, "rate", 0, "requests a second in all, in an open loop (0: closed loop)")
	flags.DurationVar(&o.Warmup, "warmup", time.Second, "time before the measured time")
	flags.DurationVar(&o.Duration, "duration", 5*time.Second, "measured time")
	flags.BoolVar(&o.Verify, "verify", false, "check that every answer carries the padding of its request")
	flags.IntVar(&o.Stalled, "stalled", 0, "further connections that send and never read")
	flags.IntVar(&o.StalledMax, "stalled-bytes", 8<<20, "bytes that each of them sends at most")
	hold := flags.Bool("idle", false, "only open the connections, wait for -duration, and print the memory they cost")
	processes := flags.String("pid", "", "`processes` of the server, comma-separated, accounted with their descendants")
	if err := flags.Parse(args); err != nil {
		return 2
	}
	for pid := range strings.SplitSeq(*processes, ",") {
		if pid == "" {
			continue
		}
		n, err := strconv.Atoi(pid)
		if err != nil {
			fmt.Fprintf(stderr, "load: -pid: %v\n", err)
			return 2
		}
		o.Processes = append(o.Processes, n)
	}
	var err error
	if *hold {
		err = holdIdle(ctx, o, stdout)
	} else {
		var result load.Result
		result, err = load.Run(ctx, o)
		report(stdout, o, result)
	}
	if err != nil {
		fmt.Fprintf(stderr, "load: %v\n", err)
		return 1
	}
	return 0
}

func report(w io.Writer, o load.Options, r load.Result) {
	fmt.Fprintf(w, "%d x %d x %d B: %.0f answers/s (%d in %.2fs), %d errors, %d corrupt, %d unexpected, %d unanswered\n",
		o.Connections, o.Window, o.Size, r.Throughput, r.Answers, r.Elapsed.Seconds(), r.Errors, r.Corrupt, r.Unexpected, r.Unanswered)
	h := &r.Latency
	fmt.Fprintf(w, "latency: p50 %v, p90 %v, p99 %v, p99.9 %v, max %v\n",
		h.Quantile(0.5), h.Quantile(0.9), h.Quantile(0.99), h.Quantile(0.999), h.Max())
	fmt.Fprintf(w, "CPU: server %.2fs, load %.2fs, others %.2fs; server memory: RSS %.1f MiB, PSS %.1f MiB in %d processes\n",
		r.ServerCPU.Seconds(), r.LoadCPU.Seconds(), r.OtherCPU.Seconds(), mib(r.Memory.RSS), mib(r.Memory.PSS), r.Memory.Processes)
	if o.Stalled > 0 {
		fmt.Fprintf(w, "stalled: %d peers sent %.1f MiB, the server closed %d of them\n", o.Stalled, mib(r.StalledBytes), r.StalledClosed)
	}
}

func mib(n int64) float64 { return float64(n) / (1 << 20) }

func holdIdle(ctx context.Context, o load.Options, w io.Writer) error {
	before, err := load.ReadMemory(o.Processes...)
	if err != nil {
		return err
	}
	idle, err := load.OpenIdle(ctx, o.URL, o.Connections)
	if err != nil {
		return err
	}
	defer idle.Close()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(o.Duration):
	}
	after, err := load.ReadMemory(o.Processes...)
	if err != nil {
		return err
	}
	fmt.Fprintf(w, "%d of %d connections alive; PSS %.1f MiB before, %.1f MiB after: %.2f KiB a connection\n", idle.Alive(), o.Connections,
		mib(before.PSS), mib(after.PSS), float64(after.PSS-before.PSS)/1024/float64(o.Connections))
	return nil
}
