package supervisor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/transporthost/transporthost/shared/transport"
)

// An incarnation is one process of a plugin, and what the host holds for it,
// from launch to end.
type incarnation struct {
	plugin     *Plugin
	n          int
	spec       Spec // as it was prepared
	stamp      stamp
	proc       *process
	attachment Attachment
	pipes      *terminalPipes // nil: it is granted no terminal
	listening  []*os.File     // its sockets; closed here
	linkEnd    chan error     // one slot: why the link ended
	cutLink    context.CancelFunc

	// Of the goroutine that starts it.
	description transport.Description
	config      json.RawMessage
	strictness  transport.AuthStrictness
	toldEnabled bool
	addresses   []string
	started     bool
	readySince  time.Time

	life     context.Context // from launch to end
	die      context.CancelCauseFunc
	telling  sync.WaitGroup
	watching sync.WaitGroup
	over     chan struct{} // closed when it is gone, or hangs
	fate     error         // why; after over
	drained  atomic.Bool
	drains   chan struct{} // one slot, full while it is being drained

	// Of its retirement.
	since, until time.Time
	expire       context.CancelFunc // its time is over: others need its place

	report *transport.Status // what it said of itself last; guarded by plugin.mu
}

// errProcessEnded ends what is still being told to a process.
var errProcessEnded = errors.New("the process has ended")

// begin makes a process where there is none. On an error nothing of it is left.
func (p *Plugin) begin(ctx context.Context, spec Spec) (*incarnation, error) {
	if p.unwanted() {
		return nil, transport.ErrStopping
	}
	p.last++
	n := p.last
	p.update(func(s *Status) {
		s.State, s.Incarnation, s.NextAttempt, s.Successor, s.Remedy = Starting, n, nil, nil, ""
		s.PID, s.Addresses, s.Reported = 0, nil, nil
		if n > 1 {
			s.Restarts++
		}
	})
	in, err := p.raise(ctx, spec, n, func(in *incarnation) {
		p.mu.Lock()
		p.current = in
		p.mu.Unlock()
		p.update(in.show)
	}, func(in *incarnation) {
		// Before it is asked how strict a remote plugin is to be: others may wait
		// to hear that this is one.
		p.mu.Lock()
		p.caps, p.known = in.description.Capabilities, true
		p.mu.Unlock()
		p.update(in.show)
	})
	if err != nil {
		return nil, err
	}
	if err := in.start(ctx); err != nil {
		in.abort(ctx, err)
		return nil, err
	}
	p.crown(in, "")
	return in, nil
}

// raise launches a process, asks it who it is, and makes what it is started
// with. launched and described are called when it has got so far. On an error
// nothing of it is left; that is [transport.ErrStopping] if it was given up
// because the host drains.
func (p *Plugin) raise(ctx context.Context, spec Spec, n int, launched, described func(*incarnation)) (in *incarnation, err error) {
	ctx, giveUp := p.whileWanted(ctx)
	defer giveUp(nil)
	defer func() {
		if err != nil && errors.Is(context.Cause(ctx), transport.ErrStopping) {
			err = transport.ErrStopping
		}
	}()
	in, err = p.launch(ctx, spec, n)
	if err != nil {
		return nil, err
	}
	launched(in)
	if err = in.describe(ctx); err == nil {
		described(in)
		in.strictness = p.opts.Strictness(ctx, p.instance, n, in.description.Locality)
		if p.unwanted() { // the last moment: what is started may accept
			giveUp(transport.ErrStopping)
		}
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
	}
	if err != nil {
		in.abort(ctx, err)
		return nil, err
	}
	return in, nil
}

// launch makes a process with an open link.
func (p *Plugin) launch(ctx context.Context, spec Spec, n int) (*incarnation, error) {
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	if err := p.opts.Prepare(ctx, &spec); err != nil {
		return nil, err
	}
	in := &incarnation{
		plugin: p, n: n, spec: spec, stamp: stampOf(spec.Path), // of a file that changes now it is the older one
		over: make(chan struct{}), linkEnd: make(chan error, 1), drains: make(chan struct{}, 1),
	}
	var err error
	if in.listening, err = spec.Listeners.files(); err != nil {
		return nil, err
	}
	files := in.listening
	if spec.Terminal != nil {
		if in.pipes, err = spec.Terminal.pipes(); err != nil {
			closeAll(in.listening)
			return nil, err
		}
		files = append(files, in.pipes.stdin, in.pipes.stdout)
	}
	in.proc, err = launch(ctx, spec, p.opts, p.log, files)
	closeAll(in.listening)
	if in.pipes != nil {
		in.pipes.given()
	}
	if err != nil {
		if in.pipes != nil {
			in.pipes.disconnect()
		}
		return nil, fmt.Errorf("launching plugin %q: %w", spec.Plugin, err)
	}
	in.life, in.die = context.WithCancelCause(context.WithoutCancel(ctx))
	in.attachment = p.opts.Sessions.Attach(p.instance, n, in.proc.link)
	var linkCtx context.Context
	linkCtx, in.cutLink = context.WithCancel(in.life)
	calls := p.opts.HostCalls(spec, n, in.reported)
	go func() { in.linkEnd <- in.proc.link.Run(linkCtx, in.attachment, calls) }() // end waits for it
	return in, nil
}

// drain makes the process accept nothing new, if it can and has not been told.
func (in *incarnation) drain(ctx context.Context, limit time.Duration) error {
	if !in.description.Capabilities.Drain {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	select {
	case in.drains <- struct{}{}:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	defer func() { <-in.drains }()
	if in.drained.Load() {
		return nil
	}
	err := in.proc.link.Drain(ctx)
	if err == nil {
		in.drained.Store(true)
	}
	return err
}

// abort ends a process that did not become ready, because of err. One that ctx
// interrupts is asked to stop.
func (in *incarnation) abort(ctx context.Context, err error) {
	if ctx.Err() != nil {
		in.stop(ctx, false)
		return
	}
	in.bury(transport.Because(transport.ClosePluginLost, "plugin %q: %v", in.plugin.instance, err), true)
}

// lost ends what is left of a process that is gone, or hangs.
func (in *incarnation) lost(ctx context.Context) {
	in.bury(transport.Because(transport.ClosePluginLost, "plugin %q: %v", in.plugin.instance, in.fate), ctx.Err() == nil)
}

// stop climbs the stop ladder. resume says that a successor goes on with the
// connections that can be resumed.
func (in *incarnation) stop(ctx context.Context, resume bool) {
	in.unlink()
	caps := in.description.Capabilities
	caps.Drain = caps.Drain && !in.drained.Load()
	if report := in.proc.end(ctx, in.plugin.opts.DrainTimeout, caps); report != "" {
		in.plugin.log.Warn("the plugin did not stop when asked", "incarnation", in.n, "outcome", report)
	}
	in.bury(transport.CloseReason{Code: transport.CloseGoingAway, Text: "the transport is stopping"}, resume)
}

// unlink keeps others from telling the process something.
func (in *incarnation) unlink() {
	p := in.plugin
	p.mu.Lock()
	if p.link == in.proc.link {
		p.link = nil
	}
	p.mu.Unlock()
}

// bury ends the process at once, takes its connections from it, and frees
// everything. It returns when nothing is left.
func (in *incarnation) bury(reason transport.CloseReason, resume bool) {
	in.unlink()
	in.die(errProcessEnded)
	in.watching.Wait()
	in.telling.Wait()
	_ = in.proc.runner.Kill(in.life)
	in.cutLink()
	<-in.linkEnd
	if in.pipes != nil {
		// What has reached the user counts, also if the process died before it
		// could say so: the next one must not say it again.
		in.attachment.Delivered(in.pipes.disconnect())
	}
	in.attachment.Detach(reason, resume)
	in.proc.release()
	p := in.plugin
	p.mu.Lock()
	if p.current == in {
		p.current = nil
	}
	p.mu.Unlock()
}

// watch closes over when the process is gone or hangs, unless ctx ends before.
func (in *incarnation) watch(ctx context.Context) {
	if err := in.await(ctx); err != nil {
		in.fate = err
		close(in.over)
	}
}

// await returns why the process is not to be kept, or nil with ctx's end.
func (in *incarnation) await(ctx context.Context) error {
	opts := in.plugin.opts
	tick := time.NewTicker(opts.ProbeInterval)
	defer tick.Stop()
	probeCtx, cancel := context.WithCancel(ctx)
	var probes sync.WaitGroup
	defer probes.Wait()
	defer cancel()
	probed := make(chan error, 1)
	probing := false
	var lastProbe error
	answered := time.Now()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-in.proc.runner.exited:
			return in.proc.fate(in.linkEnd)
		case err := <-in.linkEnd:
			in.linkEnd <- err // for whoever waits for the link's end
			return in.proc.whyGone(err)
		case err := <-probed:
			probing, lastProbe = false, err
			if err == nil {
				answered = time.Now()
			} else {
				in.plugin.log.Debug("probing", "error", err)
			}
		case <-tick.C:
			if silent := time.Since(answered); silent > opts.ProbeTimeout {
				return &hangError{silent, lastProbe}
			}
			if !probing {
				probing = true
				probes.Go(func() {
					c, cancel := context.WithTimeout(probeCtx, opts.ProbeTimeout)
					defer cancel()
					probed <- in.proc.link.Probe(c)
				})
			}
		}
	}
}
