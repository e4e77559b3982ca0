package supervisor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/transporthost/transporthost/host/catalog"
	"github.com/transporthost/transporthost/host/internal/backoff"
	"github.com/transporthost/transporthost/shared/rpc"
	"github.com/transporthost/transporthost/shared/transport"
)

// A Plugin is one plugin instance: a series of processes, one at a time but for
// the moments of a replacement, and for those that retire. Its methods may be
// called from any goroutine.
type Plugin struct {
	instance string
	opts     Options
	log      hclog.Logger
	restarts chan restartRequest
	revived  chan struct{} // one slot
	ended    chan struct{} // closed when Run returns
	draining chan struct{} // closed, under mu, when the host begins to drain
	turn     chan struct{} // one slot, full while somebody switches it on or off
	reports  *budget       // of log lines about what the plugin says of itself

	last       int            // of Run: number of the latest incarnation
	retirement sync.WaitGroup // of Run: processes that retire

	mu       sync.Mutex // guards what follows
	spec     Spec       // of the next process
	status   Status
	current  *incarnation // the process that the status is about; nil while there is none
	link     *rpc.Link    // of the ready process; nil while there is none
	caps     transport.Capabilities
	known    bool           // caps are: some process has described itself
	enabled  bool           // what a person wants, and every process is told
	asleep   bool           // disabled by the configuration, and never enabled: no process
	noted    bool           // the cause is a note of a plugin that is ready
	refusal  error          // why it is failed, if the plugin itself refused
	retiring []*incarnation // oldest first
	making   chan struct{}  // closed when what is being made serves or is given up; nil: nothing is
}

type restartRequest struct {
	done   chan error
	enable bool  // also wakes a plugin that the configuration disables
	spec   *Spec // of the processes from now on; nil: as before
	leave  bool  // instead: no more processes
}

// errLeft ends Run because somebody asked for it.
var errLeft = errors.New("removed from the configuration")

// New makes a plugin instance; no process runs before Run.
func New(spec Spec, opts Options) (*Plugin, error) {
	opts, err := opts.withDefaults()
	if err != nil {
		return nil, fmt.Errorf("supervising %q: %w", spec.Instance, err)
	}
	p := &Plugin{
		instance: spec.Instance, spec: spec, opts: opts, log: opts.Logger.Named(spec.Instance),
		restarts: make(chan restartRequest), revived: make(chan struct{}, 1), ended: make(chan struct{}), turn: make(chan struct{}, 1),
		draining: make(chan struct{}),
		enabled:  !spec.Disabled, asleep: spec.Disabled, reports: &budget{most: mostReports, perSecond: reportsPerSecond},
		status: Status{Instance: spec.Instance, Plugin: spec.Plugin, Path: spec.Path, State: Stopped, Since: time.Now()},
	}
	if p.asleep {
		p.status.State, p.status.Cause, p.status.Remedy = Disabled, ErrDisabled.Error(), p.enableRemedy()
	}
	return p, nil
}

// Run keeps a process of the plugin running until ctx ends, or Leave is called,
// and returns when nothing of it is left. It is called once, and returns the
// cause of ctx.
func (p *Plugin) Run(ctx context.Context) error {
	defer close(p.ended)
	b := backoff.New(p.opts.Restart, p.opts.Random)
	waiting, err := p.sleep(ctx) // answered by the next process's fate
	if errors.Is(err, errLeft) {
		return p.stopped(ctx, true)
	}
	if err != nil {
		return err
	}
	answer := func(err error) {
		for _, r := range waiting {
			r.done <- err
		}
		waiting = nil
	}
	for {
		made := p.beginMaking()
		in, err := p.begin(ctx, p.specNow())
		made()
		if err == nil {
			answer(nil)
			in, err = p.reign(ctx, in, b)
		}
		if errors.Is(err, errLeft) {
			return p.stopped(ctx, true)
		}
		if ctx.Err() != nil {
			answer(transport.ErrStopping)
			return p.stopped(ctx, false)
		}
		answer(err)
		if p.unwanted() {
			return p.rest(ctx, err)
		}
		var uptime time.Duration
		if in != nil {
			uptime = time.Since(in.readySince)
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
			return p.stopped(ctx, false)
		}
		if again {
			b.Reset()
		}
		for _, r := range requests {
			if r.leave {
				p.left(r)
				return p.stopped(ctx, true)
			}
			p.adopt(r.spec)
		}
		waiting = append(waiting, requests...)
	}
}

// specNow returns what the next process is made of.
func (p *Plugin) specNow() Spec {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.spec
}

// adopt makes spec, unless it is nil, what the processes are made of.
func (p *Plugin) adopt(spec *Spec) {
	if spec == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.spec = *spec
	p.status.Plugin, p.status.Path = spec.Plugin, spec.Path
}

// left answers who has asked the plugin to leave, once no process will resume
// what it has. From then on another plugin may have its name.
func (p *Plugin) left(r restartRequest) {
	p.abandon()
	r.done <- nil
}

// abandon ends the connections that wait for a process. Those of processes that
// retire are not among them: they end with their process.
func (p *Plugin) abandon() {
	p.opts.Sessions.Abandon(p.instance, transport.CloseReason{Code: transport.CloseGoingAway})
}

// stopped is the end of Run. One that has left has abandoned before.
func (p *Plugin) stopped(ctx context.Context, left bool) error {
	p.retirement.Wait()
	if !left {
		p.abandon()
	}
	p.update(func(s *Status) { s.State, s.PID, s.Addresses, s.NextAttempt = Stopped, 0, nil, nil })
	return context.Cause(ctx)
}

// refused reports whether a plugin said itself that it will not start, or may
// not: trying again would change nothing.
func refused(err error) bool {
	return errors.Is(err, transport.ErrInvalidConfig) || errors.Is(err, transport.ErrPermissionDenied) ||
		errors.Is(err, catalog.ErrChecksum) || errors.Is(err, catalog.ErrUntrusted) || errors.Is(err, errOtherLink)
}

// pause waits before the next process: for wait, or if it is given up, until a
// person asks or it is revived. again says that its failures are forgiven.
func (p *Plugin) pause(ctx context.Context, cause error, wait time.Duration, giveUp bool) (requests []restartRequest, again bool) {
	var timer <-chan time.Time
	var revived, draining <-chan struct{}
	if giveUp {
		select {
		case <-p.revived: // meant for an earlier failure
		default:
		}
		revived = p.revived
		p.opts.Sessions.Abandon(p.instance, transport.Because(transport.ClosePluginLost, "plugin %q failed: %v", p.instance, cause))
		p.update(func(s *Status) {
			s.State, s.PID, s.Addresses = Failed, 0, nil
			s.Cause = cause.Error()
			s.Remedy = fmt.Sprintf("mend the cause, then: transporthost plugins restart %s", p.instance)
		})
	} else {
		t := time.NewTimer(wait)
		defer t.Stop()
		timer = t.C
		if !p.drains() {
			draining = p.draining
		}
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
	case <-draining: // for what has to be delivered there is no other time
	case r := <-p.restarts:
		return []restartRequest{r}, true
	case <-ctx.Done():
	}
	return nil, false
}

// Restart replaces the process, also of a failed plugin, and returns when the
// new one is ready, or with why it is not. The process of a plugin that is ready
// serves until its successor can: if that cannot be launched, or refuses, the
// old one goes on.
func (p *Plugin) Restart(ctx context.Context) error {
	return p.ask(ctx, restartRequest{})
}

// Replace is Restart with another spec, of the same instance, which holds for
// the successors too. An error of a plugin that was ready means that the old
// spec stays. A plugin that is disabled and has no process gets none.
func (p *Plugin) Replace(ctx context.Context, spec Spec) error {
	return p.ask(ctx, restartRequest{spec: &spec})
}

// Leave ends the plugin: when it returns nil, nothing new is accepted, and Run
// returns once the connections that there are have ended, or their time is over.
// It must be the last call.
func (p *Plugin) Leave(ctx context.Context) error {
	return p.ask(ctx, restartRequest{leave: true})
}

// Listeners returns the sockets that the next process gets.
func (p *Plugin) Listeners() *Listeners {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.spec.Listeners
}

// A Presence is what the ready process of a plugin was started from.
type Presence struct {
	Description transport.Description
	Config      json.RawMessage // that it was given
	Changed     bool            // its file is another one now, or not there
}

// Presence returns what is known of the ready process; false if there is none.
func (p *Plugin) Presence() (Presence, bool) {
	p.mu.Lock()
	in, ready := p.current, p.link != nil
	p.mu.Unlock()
	if !ready || in == nil {
		return Presence{}, false
	}
	return Presence{Description: in.description, Config: in.config, Changed: in.stamp.changed(in.spec.Path)}, true
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
