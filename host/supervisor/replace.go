package supervisor

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/transporthost/transporthost/host/internal/backoff"
	"github.com/transporthost/transporthost/shared/transport"
)

// How a process that is ready is replaced by another one. The successor is
// launched, and has said that it understands its configuration, before the old
// process hears of it. Then there are two ways:
//
//   - Connections that end with their socket: the successor accepts from the
//     same listeners, and once it is ready the old process accepts no more and
//     retires with the connections that it has.
//   - Connections that are resumed, a terminal, or something that only one
//     process can have: the old process is ended, and the successor started with
//     what it left. Peers wait for that long, and lose nothing.

// causeReplaced is why a process runs that somebody asked for.
const causeReplaced = "replaced by a person"

// reign serves with a process, and with those that replace it, until the last
// of them is gone: that one, of which nothing is left, and why.
func (p *Plugin) reign(ctx context.Context, in *incarnation, b *backoff.Backoff) (*incarnation, error) {
	for {
		select {
		case <-ctx.Done():
			p.update(func(s *Status) { s.State = Stopping })
			in.stop(ctx, false)
			return in, context.Cause(ctx)
		case <-in.over:
			in.lost(ctx)
			return in, in.fate
		case r := <-p.restarts:
			if r.leave {
				p.leave(ctx, in)
				p.left(r)
				return in, errLeft
			}
			if r.enable {
				// It was failed when somebody switched it on, and was revived before
				// that came here: this process started with the wish.
				r.done <- nil
				continue
			}
			if p.drains() {
				r.done <- transport.ErrStopping
				continue
			}
			b.Reset()
			made := p.beginMaking()
			next, err := p.replace(ctx, in, r)
			made()
			if ctx.Err() != nil {
				err = transport.ErrStopping
			}
			if next == nil {
				r.done <- err
				return in, err
			}
			in = next
			r.done <- err
		}
	}
}

// A raising is how the attempt to make a successor went. The zero value is that
// of one that is under way.
type raising struct {
	in  *incarnation
	err error
}

// replace returns the process that serves now; nil if there is none. The error
// says why it is not the one that was asked for.
func (p *Plugin) replace(ctx context.Context, old *incarnation, r restartRequest) (*incarnation, error) {
	p.last++
	n, spec := p.last, p.specNow()
	if r.spec != nil {
		spec = *r.spec
	}
	p.update(func(s *Status) { s.Successor = &Successor{Incarnation: n, Since: time.Now()} })
	raised := make(chan raising, 1)
	go func() { raised <- p.raiseSuccessor(ctx, old, spec, n) }() // received below, whatever happens
	var next raising
	present := true // old is
	select {
	case next = <-raised:
	case <-old.over:
		// What was to be its successor is its successor.
		present = false
		p.appearStarting(old.fate.Error())
		old.lost(ctx)
		next = <-raised
	case <-ctx.Done():
	}
	if ctx.Err() != nil {
		p.stopBoth(ctx, old, present, next, raised)
		return nil, context.Cause(ctx)
	}
	switch {
	case present && errors.Is(next.err, transport.ErrStopping):
		p.update(func(s *Status) { s.Successor = nil })
		return old, next.err
	case next.err != nil && present:
		p.note(fmt.Errorf("not replaced: %w", next.err))
		return old, next.err
	case next.err != nil:
		return p.fallBack(ctx, r, next.err)
	case next.in.started:
		p.adopt(r.spec)
		p.crown(next.in, causeReplaced)
		if present {
			p.retire(ctx, old)
		}
		return next.in, nil
	}
	if present {
		p.appearStarting(causeReplaced)
		old.stop(ctx, true)
	}
	p.mu.Lock()
	p.current = next.in
	p.mu.Unlock()
	p.update(func(s *Status) {
		next.in.show(s)
		s.Restarts++
		s.Reported = next.in.report
	})
	if err := next.in.start(ctx); err != nil {
		next.in.abort(ctx, err)
		return p.fallBack(ctx, r, err)
	}
	p.adopt(r.spec)
	p.crown(next.in, causeReplaced)
	return next.in, nil
}

// raiseSuccessor makes a process that could replace old, and starts it if both
// can serve at the same time.
func (p *Plugin) raiseSuccessor(ctx context.Context, old *incarnation, spec Spec, n int) raising {
	in, err := p.raise(ctx, spec, n, func(in *incarnation) {
		p.update(func(s *Status) {
			s.Successor = &Successor{Incarnation: n, PID: in.proc.runner.pid(), Since: time.Now()}
		})
	}, func(*incarnation) {})
	if err != nil {
		return raising{err: err}
	}
	if overlap(old, in) {
		if err := in.start(ctx); err != nil {
			in.abort(ctx, err)
			return raising{err: err}
		}
	}
	return raising{in: in}
}

// overlap reports whether two processes can serve at the same time.
func overlap(old, next *incarnation) bool {
	b := next.description.Capabilities
	// Without listeners of the host's it binds its own, and its successor could
	// not.
	return old.canRetire() && !b.Resume && next.pipes == nil && len(old.listening) > 0 && len(next.listening) > 0
}

// stopBoth ends the old process, if it is present, and its successor, if it came
// so far, within one stop ladder.
func (p *Plugin) stopBoth(ctx context.Context, old *incarnation, present bool, next raising, raised <-chan raising) {
	p.update(func(s *Status) { s.State, s.Successor = Stopping, nil })
	var stopping sync.WaitGroup
	if present {
		stopping.Go(func() { old.stop(ctx, false) })
	}
	if next == (raising{}) {
		next = <-raised // ctx ends it
	}
	if next.in != nil {
		next.in.stop(ctx, false)
	}
	stopping.Wait()
}

// appearStarting shows a plugin whose old process has gone, or is about to, and
// whose successor is not there yet.
func (p *Plugin) appearStarting(cause string) {
	p.update(func(s *Status) {
		s.State, s.PID, s.Addresses, s.Reported = Starting, 0, nil, nil
		s.Cause, s.Remedy = cause, ""
	})
}

// fallBack is after a successor that did not become ready, where the old process
// is gone. If it was made of another spec, the one before is tried again.
func (p *Plugin) fallBack(ctx context.Context, r restartRequest, cause error) (*incarnation, error) {
	if r.spec == nil || ctx.Err() != nil || p.unwanted() {
		p.update(func(s *Status) { s.Successor = nil })
		return nil, cause
	}
	p.log.Warn("the plugin could not be replaced; it is started as it was", "error", cause)
	in, err := p.begin(ctx, p.specNow())
	if err != nil {
		return nil, err
	}
	p.note(fmt.Errorf("not replaced: %w", cause))
	return in, cause
}

// note shows, and logs, what went wrong with a plugin that goes on.
func (p *Plugin) note(err error) {
	p.mu.Lock()
	p.status.Successor = nil
	if p.status.State == Ready { // else its own cause is the worse one
		p.status.Cause = err.Error()
		p.status.Remedy = "mend the cause, then: transporthost plugins restart " + p.instance
	}
	s := p.status
	p.mu.Unlock()
	p.log.Warn("plugin", "state", string(s.State), "incarnation", s.Incarnation, "cause", err)
	p.opts.Changed(p.instance)
}
