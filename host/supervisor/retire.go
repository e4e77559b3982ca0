package supervisor

import (
	"context"
	"slices"
	"time"

	"github.com/transporthost/transporthost/shared/transport"
)

const (
	// maxRetiring bounds the processes that retire at the same time: with more,
	// the oldest has had its time.
	maxRetiring = 2
	// retireLook is how often it is seen whether a retiring process still has
	// connections.
	retireLook = 100 * time.Millisecond
	// retireQuiet is how long it must have had none: a peer that it accepted just
	// before it was told not to is announced on another stream than the answer
	// to that.
	retireQuiet = time.Second
	// farewellGrace is what peers get to take their leave when the limit is over.
	farewellGrace = 3 * time.Second
)

// canRetire reports whether the process can serve the connections that it has,
// and accept no other.
func (in *incarnation) canRetire() bool {
	caps := in.description.Capabilities
	return caps.Drain && !caps.Resume && in.pipes == nil
}

// leave ends the last process of a plugin. When it returns, nothing new is
// accepted.
func (p *Plugin) leave(ctx context.Context, in *incarnation) {
	p.update(func(s *Status) { s.State, s.Cause, s.Remedy = Stopping, errLeft.Error(), "" })
	if !in.canRetire() {
		in.stop(ctx, false)
		return
	}
	if err := in.drain(ctx, p.opts.DrainTimeout); err != nil {
		p.log.Debug("draining", "error", err)
	}
	p.retire(ctx, in)
	p.update(func(s *Status) { s.PID, s.Addresses = 0, nil })
}

// retire lets a process that was replaced serve the connections that it has. It
// does not wait; Run does, before it returns.
func (p *Plugin) retire(ctx context.Context, in *incarnation) {
	in.unlink()
	in.since = time.Now()
	in.until = in.since.Add(p.opts.RetireTimeout)
	limited, expire := context.WithDeadline(ctx, in.until)
	in.expire = expire
	p.mu.Lock()
	p.retiring = append(p.retiring, in)
	for _, older := range p.retiring[:max(0, len(p.retiring)-maxRetiring)] {
		older.expire()
	}
	p.mu.Unlock()
	p.opts.Changed(p.instance)
	p.retirement.Go(func() {
		defer expire()
		in.serveOut(ctx, limited)
		p.mu.Lock()
		p.retiring = slices.DeleteFunc(p.retiring, func(other *incarnation) bool { return other == in })
		p.mu.Unlock()
		p.opts.Changed(p.instance)
	})
}

// serveOut returns when nothing of the process is left: after its connections
// have ended, or were closed because limited had. ctx's end ends it at once.
func (in *incarnation) serveOut(ctx, limited context.Context) {
	log := in.plugin.log.With("incarnation", in.n, "pid", in.proc.runner.pid())
	log.Info("the process retires", "connections", in.attachment.Connections(), "until", in.until.Format(time.RFC3339))
	if err := in.drainAlive(limited); err != nil && limited.Err() == nil {
		log.Debug("draining", "error", err)
	}
	if !in.empty(limited, retireQuiet) && ctx.Err() == nil && !in.gone() {
		log.Info("the time of the process is over", "connections", in.attachment.Connections())
		in.attachment.CloseAll(transport.CloseReason{Code: transport.CloseGoingAway, Text: "the transport was replaced; connect again"})
		farewell, cancel := context.WithTimeout(ctx, farewellGrace)
		defer cancel()
		_ = in.empty(farewell, 0)
	}
	if in.gone() && ctx.Err() == nil {
		log.Warn("the retiring process is lost", "cause", in.fate)
		in.lost(ctx)
		return
	}
	in.stop(ctx, false)
	log.Info("the process has retired")
}

// drainAlive drains the process for as long as it is there, and does not hang.
func (in *incarnation) drainAlive(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	go func() { // cancel ends it
		select {
		case <-in.over:
			cancel(errProcessEnded)
		case <-ctx.Done():
		}
	}()
	return in.drain(ctx, in.plugin.opts.DrainTimeout)
}

// gone reports whether there is nothing left to wait for.
func (in *incarnation) gone() bool {
	select {
	case <-in.over:
		return true
	default:
		return false
	}
}

// empty waits until the process has had no connection for quiet. It is false if
// ctx ended before, or the process.
func (in *incarnation) empty(ctx context.Context, quiet time.Duration) bool {
	look := time.NewTicker(retireLook)
	defer look.Stop()
	since := time.Now()
	for {
		if in.attachment.Connections() > 0 {
			since = time.Now()
		} else if time.Since(since) >= quiet {
			return true
		}
		select {
		case <-look.C:
		case <-in.over:
			return false
		case <-ctx.Done():
			return false
		}
	}
}

// retiringStatus is the process as the status shows it.
func (in *incarnation) retiringStatus() Retiring {
	return Retiring{
		Incarnation: in.n, PID: in.proc.runner.pid(), Connections: in.attachment.Connections(), Since: in.since, Until: in.until,
	}
}
