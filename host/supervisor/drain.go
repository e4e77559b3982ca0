package supervisor

import (
	"context"
	"errors"
	"sync"

	"github.com/transporthost/transporthost/shared/transport"
)

// The host drains once, at its end. From then on a plugin accepts nothing new,
// whichever its process is:
//
//   - The process that serves is told. So is one that becomes ready later,
//     because its start was under way: it may have accepted peers already, who
//     are to get their answers.
//   - What has not been started is not started any more: a replacement is given
//     up, and a process that is lost stays lost. The exception are connections
//     that wait for the next process: only that can deliver what peers are owed.

// Drain makes the plugin accept nothing new for good, as far as its processes
// can. It returns when the present one has been told, and what was being made
// has been told too or is given up, but after DrainTimeout at the latest. Whoever
// asks for another process from then on gets [transport.ErrStopping].
func (p *Plugin) Drain(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, p.opts.DrainTimeout)
	defer cancel()
	p.mu.Lock()
	if !p.drains() {
		close(p.draining)
	}
	making := p.making
	p.mu.Unlock()
	err := p.drainCurrent(ctx)
	if making == nil {
		return err
	}
	select {
	case <-making:
	case <-ctx.Done():
		return errors.Join(err, context.Cause(ctx))
	}
	return errors.Join(err, p.drainCurrent(ctx))
}

func (p *Plugin) drainCurrent(ctx context.Context) error {
	p.mu.Lock()
	in, ready := p.current, p.link != nil
	p.mu.Unlock()
	if in == nil || !ready {
		return nil
	}
	return in.drain(ctx, p.opts.DrainTimeout)
}

// drainLate drains a process that became ready when the others had been told.
func (in *incarnation) drainLate() {
	if err := in.drain(in.life, in.plugin.opts.DrainTimeout); err != nil {
		in.plugin.log.Debug("draining", "incarnation", in.n, "error", err)
	}
}

// drains reports whether the host drains. What holds mu when it asks is seen by
// Drain, or sees it.
func (p *Plugin) drains() bool {
	select {
	case <-p.draining:
		return true
	default:
		return false
	}
}

// unwanted reports whether no further process is to be started.
func (p *Plugin) unwanted() bool {
	return p.drains() && len(p.opts.Sessions.Resumable(p.instance)) == 0
}

// whileWanted is ctx until a process is unwanted, or giveUp is called, which must
// be.
func (p *Plugin) whileWanted(ctx context.Context) (wanted context.Context, giveUp context.CancelCauseFunc) {
	wanted, cancel := context.WithCancelCause(ctx)
	var watch sync.WaitGroup
	watch.Go(func() {
		select {
		case <-p.draining:
			if p.unwanted() {
				cancel(transport.ErrStopping)
			}
		case <-wanted.Done():
		}
	})
	return wanted, func(cause error) {
		cancel(cause)
		watch.Wait()
	}
}

// beginMaking makes Drain wait for what is being made, until made is called.
func (p *Plugin) beginMaking() (made func()) {
	done := make(chan struct{})
	p.mu.Lock()
	p.making = done
	p.mu.Unlock()
	return func() {
		p.mu.Lock()
		p.making = nil
		p.mu.Unlock()
		close(done)
	}
}

// rest is the end of Run for a plugin that has no process, because of err, and
// gets none before the host ends.
func (p *Plugin) rest(ctx context.Context, err error) error {
	p.update(func(s *Status) {
		s.State, s.PID, s.Addresses, s.NextAttempt, s.Successor = Stopping, 0, nil, nil, nil
		if !errors.Is(err, transport.ErrStopping) { // else what is known already says more
			s.Cause, s.Remedy = err.Error(), ""
		}
	})
	for {
		select {
		case r := <-p.restarts:
			if r.leave {
				p.left(r)
				return p.stopped(ctx, true)
			}
			r.done <- transport.ErrStopping
		case <-ctx.Done():
			return p.stopped(ctx, false)
		}
	}
}
