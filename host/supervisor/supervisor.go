package supervisor

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/transporthost/transporthost/host/catalog"
	"github.com/transporthost/transporthost/host/internal/backoff"
	"github.com/transporthost/transporthost/shared/rpc"
	"github.com/transporthost/transporthost/shared/transport"
)

// A Plugin is one plugin instance: a series of processes, one at a time. Its
// methods may be called from any goroutine.
type Plugin struct {
	spec     Spec
	opts     Options
	log      hclog.Logger
	restarts chan restartRequest
	revived  chan struct{} // one slot
	ended    chan struct{} // closed when Run returns
	turn     chan struct{} // one slot, full while somebody switches it on or off

	mu      sync.Mutex // guards what follows
	status  Status
	link    *rpc.Link // of the ready process; nil while there is none
	caps    transport.Capabilities
	known   bool  // caps are: some process has described itself
	enabled bool  // what a person wants, and every process is told
	asleep  bool  // disabled by the configuration, and never enabled: no process
	noted   bool  // the cause is a note of a plugin that is ready
	refusal error // why it is failed, if the plugin itself refused
}

type restartRequest struct {
	done   chan error
	enable bool // also wakes a plugin that the configuration disables
}

var errRestartRequested = errors.New("restart requested")

// New makes a plugin instance; no process runs before Run.
func New(spec Spec, opts Options) (*Plugin, error) {
	opts, err := opts.withDefaults()
	if err != nil {
		return nil, fmt.Errorf("supervising %q: %w", spec.Instance, err)
	}
	p := &Plugin{
		spec: spec, opts: opts, log: opts.Logger.Named(spec.Instance),
		restarts: make(chan restartRequest), revived: make(chan struct{}, 1), ended: make(chan struct{}), turn: make(chan struct{}, 1),
		enabled: !spec.Disabled, asleep: spec.Disabled,
		status: Status{Instance: spec.Instance, Plugin: spec.Plugin, Path: spec.Path, State: Stopped, Since: time.Now()},
	}
	if p.asleep {
		p.status.State, p.status.Cause, p.status.Remedy = Disabled, ErrDisabled.Error(), p.enableRemedy()
	}
	return p, nil
}

// Run keeps a process of the plugin running until ctx ends, and returns when
// nothing of it is left. It is called once, and returns the cause of ctx.
func (p *Plugin) Run(ctx context.Context) error {
	defer close(p.ended)
	b := backoff.New(p.opts.Restart, p.opts.Random)
	waiting, err := p.sleep(ctx) // answered by the next process's fate
	if err != nil {
		return err
	}
	answer := func(err error) {
		for _, r := range waiting {
			r.done <- err
		}
		waiting = nil
	}
	for incarnation := 1; ; incarnation++ {
		p.update(func(s *Status) {
			s.State, s.Incarnation, s.NextAttempt, s.Remedy = Starting, incarnation, nil, ""
			s.PID, s.Addresses, s.Reported = 0, nil, nil
			if incarnation > 1 {
				s.Restarts++
			}
		})
		var readySince time.Time
		request, err := p.incarnation(ctx, incarnation, func() {
			readySince = time.Now()
			answer(nil)
		})
		if ctx.Err() != nil {
			answer(transport.ErrStopping)
			return p.stopped(ctx)
		}
		answer(err)
		if errors.Is(err, errRestartRequested) {
			b.Reset()
			waiting = append(waiting, request)
			p.update(func(s *Status) { s.Cause, s.Remedy = "restarted by a person", "" })
			continue
		}
		var uptime time.Duration
		if !readySince.IsZero() {
			uptime = time.Since(readySince)
			if hung, ok := errors.AsType[*hangError](err); ok {
				uptime -= hung.silent // it was not well in that time
			}
		}
		wait, giveUp := b.Failed(time.Now(), uptime)
		p.mu.Lock()
		p.refusal = nil
		if refused(err) {
			p.refusal = err
			giveUp = true
		}
		p.mu.Unlock()
		requests, again := p.pause(ctx, err, wait, giveUp)
		if ctx.Err() != nil {
			for _, r := range requests {
				r.done <- transport.ErrStopping
			}
			return p.stopped(ctx)
		}
		if again {
			b.Reset()
		}
		waiting = append(waiting, requests...)
	}
}

// stopped is the end of Run.
func (p *Plugin) stopped(ctx context.Context) error {
	p.opts.Sessions.Abandon(p.spec.Instance, transport.CloseReason{Code: transport.CloseGoingAway})
	p.update(func(s *Status) { s.State, s.PID, s.Addresses, s.NextAttempt = Stopped, 0, nil, nil })
	return context.Cause(ctx)
}

// refused reports whether a plugin said itself that it will not start, or may
// not: trying again would change nothing.
func refused(err error) bool {
	return errors.Is(err, transport.ErrInvalidConfig) || errors.Is(err, transport.ErrPermissionDenied) ||
		errors.Is(err, catalog.ErrChecksum)
}

// pause waits before the next process: for wait, or if it is given up, until a
// person asks or it is revived. again says that its failures are forgiven.
func (p *Plugin) pause(ctx context.Context, cause error, wait time.Duration, giveUp bool) (requests []restartRequest, again bool) {
	var timer <-chan time.Time
	var revived <-chan struct{}
	if giveUp {
		select {
		case <-p.revived: // meant for an earlier failure
		default:
		}
		revived = p.revived
		p.opts.Sessions.Abandon(p.spec.Instance, transport.Because(transport.ClosePluginLost, "plugin %q failed: %v", p.spec.Instance, cause))
		p.update(func(s *Status) {
			s.State, s.PID, s.Addresses = Failed, 0, nil
			s.Cause = cause.Error()
			s.Remedy = fmt.Sprintf("mend the cause, then: transporthost plugins restart %s", p.spec.Instance)
		})
	} else {
		t := time.NewTimer(wait)
		defer t.Stop()
		timer = t.C
		next := time.Now().Add(wait)
		p.update(func(s *Status) {
			s.State, s.PID, s.Addresses, s.Cause, s.Remedy = BackingOff, 0, nil, cause.Error(), ""
			s.NextAttempt = &next
		})
	}
	select {
	case <-timer:
	case <-revived:
		return nil, true
	case r := <-p.restarts:
		return []restartRequest{r}, true
	case <-ctx.Done():
	}
	return nil, false
}

// Restart replaces the process, also of a failed plugin, and returns when the
// new one is ready, or with why it is not.
func (p *Plugin) Restart(ctx context.Context) error {
	return p.ask(ctx, restartRequest{})
}

// ask brings r to Run, and returns the answer.
func (p *Plugin) ask(ctx context.Context, r restartRequest) error {
	r.done = make(chan error, 1)
	select {
	case p.restarts <- r:
	case <-p.ended:
		return transport.ErrStopping
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	select {
	case err := <-r.done: // Run answers before it ends
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// Revive tries a plugin that has failed again, because what it failed for may
// have gone. It waits for nothing; of a plugin that has not failed it does
// nothing.
func (p *Plugin) Revive() {
	if p.Status().State != Failed {
		return
	}
	select {
	case p.revived <- struct{}{}:
	default:
	}
}

// Refusal returns why the plugin refused to start, or nil. It is final until a
// restart.
func (p *Plugin) Refusal() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.status.State != Failed {
		return nil
	}
	return p.refusal
}

// incarnation runs one process from launch to end. It returns why that ended;
// with errRestartRequested comes the request.
func (p *Plugin) incarnation(ctx context.Context, n int, ready func()) (restartRequest, error) {
	if ctx.Err() != nil {
		return restartRequest{}, context.Cause(ctx)
	}
	spec := p.spec
	if err := p.opts.Prepare(ctx, &spec); err != nil {
		return restartRequest{}, err
	}
	p.update(func(s *Status) { s.Path = spec.Path })
	listening, err := spec.Listeners.files()
	if err != nil {
		return restartRequest{}, err
	}
	files := listening
	var pipes *terminalPipes
	if p.spec.Terminal != nil {
		if pipes, err = p.spec.Terminal.connect(ctx); err != nil {
			closeAll(listening)
			return restartRequest{}, err
		}
		defer pipes.disconnect()
		files = append(files, pipes.stdin, pipes.stdout)
	}
	proc, err := launch(ctx, spec, p.opts, p.log, files)
	closeAll(listening)
	if pipes != nil {
		pipes.given()
	}
	if err != nil {
		return restartRequest{}, fmt.Errorf("launching plugin %q: %w", p.spec.Plugin, err)
	}
	defer proc.release()
	p.update(func(s *Status) { s.PID = proc.runner.pid() })

	attachment := p.opts.Sessions.Attach(p.spec.Instance, n, proc.link)
	linkCtx, cutLink := context.WithCancel(context.WithoutCancel(ctx))
	linkEnd := make(chan error, 1)
	go func() {
		linkEnd <- proc.link.Run(linkCtx, attachment, p.opts.HostCalls(p.spec.Instance, p.reported))
	}()

	request, err := p.live(ctx, n, proc, attachment, listening, linkEnd, ready)

	p.mu.Lock()
	p.link = nil
	p.mu.Unlock()
	stopping := ctx.Err() != nil || errors.Is(err, errRestartRequested)
	if stopping {
		p.update(func(s *Status) { s.State = Stopping })
		if report := proc.end(ctx, p.opts.DrainTimeout, p.caps); report != "" {
			p.log.Warn("the plugin did not stop when asked", "incarnation", n, "outcome", report)
		}
	}
	_ = proc.runner.Kill(ctx)
	cutLink()
	<-linkEnd
	if pipes != nil {
		// What has reached the user counts, also if the process died before it
		// could say so: the next one must not say it again.
		attachment.Delivered(pipes.disconnect())
	}
	reason := transport.CloseReason{Code: transport.CloseGoingAway, Text: "the transport is stopping"}
	if !stopping {
		reason = transport.Because(transport.ClosePluginLost, "plugin %q: %v", p.spec.Instance, err)
	}
	attachment.Detach(reason, ctx.Err() == nil)
	return request, err
}

// live takes a process from its handshake through its life. It returns why
// that should end, or has ended.
func (p *Plugin) live(ctx context.Context, n int, proc *process, attachment Attachment, listening []*os.File, linkEnd chan error, ready func()) (restartRequest, error) {
	late, err := p.start(ctx, n, proc, listening, attachment)
	if err != nil {
		return restartRequest{}, err
	}
	ready()
	ctx, cancel := context.WithCancelCause(ctx)
	var telling sync.WaitGroup
	defer telling.Wait()
	defer cancel(errProcessEnded)
	if late {
		telling.Go(func() { p.tellEnabledAgain(ctx) })
	}
	return p.watch(ctx, proc, linkEnd)
}

// errProcessEnded ends what is still being told to a process.
var errProcessEnded = errors.New("the process has ended")

// watch returns when the process is gone, hangs, or should be ended.
func (p *Plugin) watch(ctx context.Context, proc *process, linkEnd chan error) (restartRequest, error) {
	tick := time.NewTicker(p.opts.ProbeInterval)
	defer tick.Stop()
	probeCtx, cancel := context.WithCancel(ctx)
	var probes sync.WaitGroup
	defer probes.Wait()
	defer cancel()
	probed := make(chan error, 1)
	probing := false
	answered := time.Now()
	for {
		select {
		case <-ctx.Done():
			return restartRequest{}, context.Cause(ctx)
		case r := <-p.restarts:
			return r, errRestartRequested
		case <-proc.runner.exited:
			if err := proc.runner.exitError(); err != nil {
				return restartRequest{}, err
			}
			return restartRequest{}, errors.New("exited with status 0")
		case err := <-linkEnd:
			linkEnd <- err // for whoever waits for the link's end
			return restartRequest{}, proc.whyGone(err)
		case err := <-probed:
			if probing = false; err == nil {
				answered = time.Now()
			} else {
				p.log.Debug("probing", "error", err)
			}
		case <-tick.C:
			if silent := time.Since(answered); silent > p.opts.ProbeTimeout {
				return restartRequest{}, &hangError{silent}
			}
			if !probing {
				probing = true
				probes.Go(func() {
					c, cancel := context.WithTimeout(probeCtx, p.opts.ProbeTimeout)
					defer cancel()
					probed <- proc.link.Probe(c)
				})
			}
		}
	}
}

// A hangError says that a process lives and does not answer.
type hangError struct{ silent time.Duration }

func (e *hangError) Error() string {
	return fmt.Sprintf("hangs: no answer to a probe for %v", e.silent.Round(100*time.Millisecond))
}
