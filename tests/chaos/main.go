//go:build linux

// Command chaos runs the real host with all three transports on one
// application under load, and does to it at random whatever goes wrong in
// production. It fails if a message is lost, doubled, reordered or torn, if a
// connect is refused, if who is not touched notices, if a plugin does not come
// back in time, if anything leaks, or if the status says what is not so.
//
//	go run ./tools/dev chaos -for 3m -seed 1
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// options are the flags.
type options struct {
	chaos, calm time.Duration
	seed        uint64
	host        string
	actions     []action
}

// errUsage is returned when the flags are wrong and the user has been told.
var errUsage = errors.New("wrong use")

// run is main without globals. The program starts itself as the application of
// the host.
func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	if len(args) == 1 && args[0] == applicationCommand {
		if err := serveApplication(stdin, stdout); err != nil {
			fmt.Fprintf(stderr, "chaos application: %v\n", err)
			return 1
		}
		return 0
	}
	o, err := parse(args, stdout, stderr)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return 0
	case err != nil:
		return 2
	}
	if err := experiment(ctx, o, stdout, stderr); err != nil {
		fmt.Fprintf(stderr, "chaos: seed %d: %v\n", o.seed, err)
		return 1
	}
	return 0
}

func parse(args []string, stdout, stderr io.Writer) (options, error) {
	flags := flag.NewFlagSet("chaos", flag.ContinueOnError)
	flags.SetOutput(stderr)
	var o options
	flags.DurationVar(&o.chaos, "for", 3*time.Minute, "how long the chaos lasts")
	flags.DurationVar(&o.calm, "calm", 20*time.Second, "how long the calm run before it lasts")
	flags.Uint64Var(&o.seed, "seed", 0, "of everything random; 0 draws one")
	flags.StringVar(&o.host, "host", defaultHost(), "the `program` under test, with its plugins beside it")
	only := flags.String("only", "", "do only actions whose name matches this `regexp`")
	list := flags.Bool("list", false, "print the names of the actions, and do nothing")
	if err := flags.Parse(args); err != nil {
		return o, err
	}
	pattern, err := regexp.Compile(*only)
	if err == nil {
		o.actions = slices.DeleteFunc(allActions(), func(a action) bool { return !pattern.MatchString(a.name) })
	}
	if err != nil || len(o.actions) == 0 || flags.NArg() > 0 || o.chaos <= 0 || o.calm <= 0 {
		fmt.Fprintf(stderr, "chaos: want times above 0, a regexp in -only that matches an action (-list shows them), and no further arguments (%v)\n", err)
		return o, errUsage
	}
	if *list {
		for _, a := range o.actions {
			fmt.Fprintln(stdout, a.name)
		}
		return o, flag.ErrHelp
	}
	if o.seed == 0 {
		o.seed = rand.Uint64()
	}
	return o, nil
}

// defaultHost is where the developer program builds the host: beside us.
func defaultHost() string {
	self, err := os.Executable()
	if err != nil {
		return "transporthost"
	}
	return filepath.Join(filepath.Dir(self), "transporthost")
}

// experiment is one run.
func experiment(ctx context.Context, o options, stdout, stderr io.Writer) error {
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("finding this program: %w", err)
	}
	fmt.Fprintf(stdout, "%s/%s, %d CPUs, %s, seed %d\n", runtime.GOOS, runtime.GOARCH, runtime.NumCPU(), runtime.Version(), o.seed)
	ctx, abort := context.WithCancelCause(ctx)
	defer abort(nil)
	r := newRecord(abort)
	l := &laboratory{record: r, known: &knowledge{plugins: map[part]fact{}}, census: newCensus()}
	p := report{seed: o.seed, calmFor: o.calm, chaosFor: o.chaos}
	err = l.open(ctx, o.host, self)
	if err == nil {
		err = l.experience(ctx, o, &p, stderr)
	}
	failures, trace := r.told()
	if err != nil && !errors.Is(err, errFailed) {
		failures = append(failures, err.Error())
	}
	said := ""
	if len(failures) > 0 && l.host != nil {
		said = l.host.said()
	}
	if err := l.close(); err != nil {
		failures = append(failures, err.Error())
	}
	if len(failures) == 0 {
		failures = p.print(stdout, r)
	}
	if len(failures) == 0 {
		return nil
	}
	if said != "" {
		fmt.Fprintf(stderr, "the host's last words:\n%s\n", said)
	}
	fmt.Fprintf(stderr, "\nthe last events:\n%s\n", strings.Join(trace, "\n"))
	return fmt.Errorf("%d failures:\n  %s\nagain: go run ./tools/dev chaos -for %v -seed %d", len(failures), strings.Join(failures, "\n  "), o.chaos, o.seed)
}

// experience is what the host goes through. It fills in the report.
func (l *laboratory) experience(ctx context.Context, o options, p *report, stderr io.Writer) (err error) {
	if err := l.people(ctx, o.seed); err != nil {
		return err
	}
	audit := newAuditor(l)
	auditing, stop := context.WithCancel(ctx)
	audited := make(chan struct{})
	go func() {
		defer close(audited)
		var neighbours sync.WaitGroup
		defer neighbours.Wait()
		neighbours.Go(func() { watchNeighbours(auditing, l.record) })
		audit.run(auditing)
	}()
	defer func() {
		stop()
		<-audited
		p.history = audit.history()
	}()
	fmt.Fprintf(stderr, "    calm for %v\n", o.calm)
	if !pause(ctx, o.calm) {
		return context.Cause(ctx)
	}
	if p.before, err = l.rest(ctx); err != nil {
		return fmt.Errorf("looking at the host at rest: %w", err)
	}
	l.quiet.open()
	l.record.beginChaos()
	p.began = time.Now()
	fmt.Fprintf(stderr, "    chaos for %v\n", o.chaos)
	newMonkey(l, o.actions, o.seed).run(ctx, o.chaos)
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	var more []string
	if p.after, more, err = l.leaked(ctx, p.before); err != nil {
		return fmt.Errorf("looking for leaks: %w", err)
	}
	if len(more) > 0 {
		return fmt.Errorf("%v after the end it leaks: %s", leakTimeout, strings.Join(more, "; "))
	}
	stop()
	<-audited
	return l.end(audit.everSeen())
}

// end stops the host, and looks for what it leaves.
func (l *laboratory) end(seen []process) error {
	l.silence()
	if err := l.host.stop(); err != nil {
		return err
	}
	if broken := l.relay.Violations(); len(broken) > 0 {
		return fmt.Errorf("the host broke the relay's protocol %d times, first: %v", len(broken), broken[0])
	}
	for _, link := range l.relay.Connects() {
		if link.Restarts > 0 || link.Lost {
			return fmt.Errorf("link %d of the relay began %d streams anew, and missed messages: %v; want that all are resumed", link.N, link.Restarts, link.Lost)
		}
	}
	return remains(l, seen)
}
