package host

import (
	"context"
	"errors"
	"fmt"

	"github.com/transporthost/transporthost/host/supervisor"
	"github.com/transporthost/transporthost/shared/transport"
)

// A RefusalError says that a transport refused to start, and that nothing else
// can serve.
type RefusalError struct {
	Transport string
	Err       error // in the plugin's own words
}

func (e *RefusalError) Error() string { return fmt.Sprintf("transport %q: %v", e.Transport, e.Err) }
func (e *RefusalError) Unwrap() error { return e.Err }

// serve runs the plugins until there is a reason to end.
func (h *Host) serve(ctx context.Context) error {
	for _, m := range h.everyMember() {
		if err := h.run(ctx, m); err != nil {
			return err
		}
	}
	told := false
	for {
		n := h.count()
		switch {
		case n.mistake != nil && !told:
			return n.mistake // in the configuration, seen at the start
		case n.serving == 0 && n.hoping == 0:
			return n.cause()
		case n.serving > 0 && n.starting == 0 && !told:
			told = true
			h.setState(StateServing)
			h.cfg.Ready(h.Status())
		}
		h.tellChange()
		if gone, err := h.deserted(); gone {
			return err
		}
		select {
		case <-h.changed:
		case answered := <-h.probes:
			_ = h.Status()
			close(answered)
		case <-ctx.Done():
			return nil
		}
	}
}

// A tally is how many plugins are how far.
type tally struct {
	serving  int // have a process that is ready, be it that nobody can reach it now
	hoping   int // may get one by themselves
	starting int // of them, those that try for the first time
	failures []error
	mistake  error // the first in the configuration
	refusal  error // the first for credentials
}

func (h *Host) count() tally {
	var n tally
	for _, p := range h.supervised() {
		s := p.Status()
		switch {
		case up(s):
			n.serving++
		case s.State == supervisor.Disabled:
		case s.State == supervisor.Failed:
			n.failed(s, p.Refusal())
		default:
			n.hoping++
			// Stopped is what a plugin is before its first process.
			if s.State == supervisor.Stopped || s.State == supervisor.Starting && s.Incarnation == 1 {
				n.starting++
			}
		}
	}
	return n
}

func (n *tally) failed(s supervisor.Status, refusal error) {
	cause := refusal
	if cause == nil {
		cause = errors.New(s.Cause)
	}
	err := fmt.Errorf("transport %q: %w", s.Instance, cause)
	n.failures = append(n.failures, err)
	if errors.Is(refusal, transport.ErrInvalidConfig) && n.mistake == nil {
		n.mistake = err
	}
	if errors.Is(refusal, transport.ErrPermissionDenied) && n.refusal == nil {
		n.refusal = &RefusalError{Transport: s.Instance, Err: refusal}
	}
}

// cause is why nothing can serve: what a person can mend by signing in, and else
// what failed first.
func (n *tally) cause() error {
	switch {
	case n.refusal != nil:
		return n.refusal
	case len(n.failures) > 0:
		return n.failures[0]
	}
	return errors.New("every transport is disabled")
}

// deserted reports whether the only peer that there could be has gone: that of
// a host whose only local transport is the terminal (spec 8.2). The error is why
// that happened, if it was no goodbye.
func (h *Host) deserted() (bool, error) {
	h.mu.Lock()
	left := h.left
	h.mu.Unlock()
	if h.router.Len() > 0 {
		return false, nil
	}
	var failure error
	for _, p := range h.supervised() {
		s := p.Status()
		switch {
		case s.Plugin == terminalPlugin:
			if s.State == supervisor.Failed {
				left = true
				failure = fmt.Errorf("transport %q: %s", s.Instance, s.Cause)
			}
		case s.Locality == transport.Remote.String():
		case s.State == supervisor.Failed || s.State == supervisor.Disabled && s.PID == 0:
			// Nobody can reach it before a person does something.
		default:
			return false, nil
		}
	}
	return left, failure
}

func (h *Host) connClosed(instance string, reason transport.CloseReason, remaining int) {
	// Whom a process lost on its way, the next one serves.
	lost := reason.Code == transport.ClosePluginLost
	if h.terminal != nil && instance == h.terminalName && !lost {
		h.mu.Lock()
		h.left = true
		h.mu.Unlock()
	}
	if remaining == 0 {
		h.signal()
	}
}

func (h *Host) accepted(instance string, _ transport.ResumeKey, cursor transport.Cursor) {
	// Another plugin's cursor is no offset in the terminal's input, whatever it
	// calls its connections.
	if h.terminal != nil && instance == h.terminalName {
		h.terminal.Accepted(cursor)
	}
}
