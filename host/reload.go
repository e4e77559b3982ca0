package host

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"

	"github.com/transporthost/transporthost/host/supervisor"
	"github.com/transporthost/transporthost/shared/transport"
)

// A Reloaded says what a reload has done.
type Reloaded struct {
	Replaced []string // transports that have another process
	Added    []string // transports that were not there
	Removed  []string // transports that are not there any more
	// NeedRestart names what has changed and takes effect only in another host.
	NeedRestart []string
}

// Reload makes a host that runs what cfg says, as far as that can be done while
// it runs: a transport whose plugin is another file than the one that runs, or
// whose configuration has changed, gets another process as by
// [Host.RestartPlugin]; what else it listens on is bound, and what it does not
// any more is closed; transports are added, and removed once they have drained.
// All others notice nothing. One that is failed, or backs off, is tried again.
//
// An error in cfg itself changes nothing. The error of a transport names it:
// that one goes on as it was, and the others change. A reload that has begun is
// not interrupted by ctx; there is one at a time.
func (h *Host) Reload(ctx context.Context, cfg Config) (r Reloaded, err error) {
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return r, err
	}
	select {
	case h.reloading <- struct{}{}:
	case <-ctx.Done():
		return r, context.Cause(ctx)
	}
	defer func() { <-h.reloading }()
	ctx = context.WithoutCancel(ctx) // the end of the host ends its steps
	h.mu.Lock()
	running := h.state == StateStarting || h.state == StateServing
	h.mu.Unlock()
	if !running {
		return r, transport.ErrStopping
	}
	if err := h.passed.Unused(listened(cfg.Transports)); err != nil {
		return r, err
	}
	// Before one is bound: this process may be killed at any time.
	if err := h.premises.add(cfg.unixSockets()); err != nil {
		return r, err
	}

	var errs []error
	r.NeedRestart = h.cfg.fixed(cfg)
	before := h.configured()
	after := h.withoutTerminal(before, cfg.Transports, &r)
	// What may free an address goes before what may need it.
	for _, was := range before {
		if stays(was, after) || was.Plugin == terminalPlugin {
			continue
		}
		if err := h.remove(ctx, was.Name); err != nil {
			errs = append(errs, fmt.Errorf("transport %q: %w", was.Name, err))
			continue
		}
		r.Removed = append(r.Removed, was.Name)
	}
	h.adoptTransports(after)
	for _, onlyFile := range []bool{true, false} {
		for _, t := range after {
			was, there := find(before, t.Name)
			if !there || !stays(was, after) || alike(was, t) != onlyFile {
				continue
			}
			replaced, err := h.replace(ctx, was, t)
			if err != nil {
				errs = append(errs, fmt.Errorf("transport %q: %w", t.Name, err))
			} else if replaced {
				r.Replaced = append(r.Replaced, t.Name)
			}
		}
	}
	for _, t := range after {
		if was, there := find(before, t.Name); there && stays(was, after) || t.Plugin == terminalPlugin {
			continue
		}
		if err := h.add(ctx, t); err != nil {
			errs = append(errs, fmt.Errorf("transport %q: %w", t.Name, err))
			continue
		}
		r.Added = append(r.Added, t.Name)
	}
	h.signal()
	return r, errors.Join(errs...)
}

// fixed names what differs between c and other that a host cannot change while
// it runs.
func (c Config) fixed(other Config) (names []string) {
	for _, part := range []struct {
		name string
		of   func(Config) any
	}{
		{"application", func(c Config) any {
			a := c.Application
			handler := a.Handler != nil // two values of one program are not told apart
			a.Handler = nil
			return []any{a, handler}
		}},
		{"credentials", func(c Config) any { return c.Credentials }},
		{"state", func(c Config) any { return c.StateDir }},
		{"admin", func(c Config) any { return []any{c.Admin, c.AdminListen} }},
		{"limits", func(c Config) any {
			return []any{c.MaxMessageBytes, c.MaxConnections, c.SlowAfter, c.DrainTimeout, c.RetireTimeout}
		}},
		{"supervision", func(c Config) any { return []any{c.ProbeInterval, c.ProbeTimeout, c.Restart} }},
		{"plugin directories", func(c Config) any { return slices.Clone(c.PluginDirs) }},
		{"runtime directory", func(c Config) any { return c.RuntimeDir }},
	} {
		if !reflect.DeepEqual(part.of(c), part.of(other)) {
			names = append(names, part.name)
		}
	}
	return names
}

// withoutTerminal returns the transports that are to be, with what is at the
// terminal as it is: that is given away at the start only.
func (h *Host) withoutTerminal(before, after []Transport, r *Reloaded) []Transport {
	var next []Transport
	for _, t := range after {
		was, there := find(before, t.Name)
		if atTerminal(t) && (!there || !atTerminal(was) || was.Framing != t.Framing) || there && atTerminal(was) && !atTerminal(t) {
			r.NeedRestart = append(r.NeedRestart, fmt.Sprintf("transport %q", t.Name))
			if !there {
				continue
			}
			t = was
		}
		next = append(next, t)
	}
	for _, was := range before {
		if _, there := find(after, was.Name); !there && atTerminal(was) {
			r.NeedRestart = append(r.NeedRestart, fmt.Sprintf("transport %q", was.Name))
			next = append(next, was)
		}
	}
	return next
}

func find(list []Transport, name string) (Transport, bool) {
	i := slices.IndexFunc(list, func(t Transport) bool { return t.Name == name })
	if i < 0 {
		return Transport{}, false
	}
	return list[i], true
}

// stays reports whether a transport goes on as the same member.
func stays(was Transport, after []Transport) bool {
	t, there := find(after, was.Name)
	return there && t.Disabled == was.Disabled
}

// alike reports whether two blocks say the same, but for the plugin's own keys.
func alike(a, b Transport) bool {
	a.Config, b.Config = nil, nil
	return reflect.DeepEqual(a, b)
}

func (h *Host) adoptTransports(list []Transport) {
	h.router.SetTransports(Config{Transports: list}.names())
	h.mu.Lock()
	defer h.mu.Unlock()
	h.transports = list
}

// adoptTransport puts t in the place of the one of its name.
func (h *Host) adoptTransport(t Transport) {
	h.mu.Lock()
	defer h.mu.Unlock()
	list := slices.Clone(h.transports)
	for i := range list {
		if list[i].Name == t.Name {
			list[i] = t
		}
	}
	h.transports = list
}

func (h *Host) member(instance string) *member {
	for _, m := range h.everyMember() {
		if m.plugin.Status().Instance == instance && !h.isLeaving(m) {
			return m
		}
	}
	return nil
}

// replace makes a transport what t says, if that is something else than it was.
func (h *Host) replace(ctx context.Context, was, t Transport) (replaced bool, err error) {
	m := h.member(t.Name)
	if m == nil {
		return false, nil // disabled, and at the terminal
	}
	spec := h.spec(t)
	if err := findPlugin(h.dirs, &spec); err != nil && !t.Disabled {
		h.adoptTransport(was)
		return false, err
	}
	status := m.plugin.Status()
	asleep := status.State == supervisor.Disabled && status.PID == 0
	if !asleep && !changed(m.plugin, was, t, spec.Path) {
		return false, nil
	}
	before := m.plugin.Listeners()
	if spec.Listeners, err = before.Reshape(ctx, t.Listen); err == nil {
		err = m.plugin.Replace(ctx, spec)
		if m.plugin.Listeners() == spec.Listeners {
			err = errors.Join(err, before.CloseUnless(spec.Listeners))
			return !asleep && err == nil, err
		}
		err = errors.Join(err, spec.Listeners.CloseUnless(before))
	}
	h.adoptTransport(was)
	return false, err
}

// changed reports whether a process must be replaced for a transport to be what
// t says; path is where its plugin is now. A plugin without a process is tried
// again.
func changed(p *supervisor.Plugin, was, t Transport, path string) bool {
	now, ready := p.Presence()
	if !ready || now.Changed || !alike(was, t) || path != p.Status().Path {
		return true
	}
	config, err := t.Config(now.Description)
	return err != nil || !sameJSON(config, now.Config)
}

func sameJSON(a, b json.RawMessage) bool {
	if bytes.Equal(a, b) {
		return true
	}
	var x, y any
	return json.Unmarshal(a, &x) == nil && json.Unmarshal(b, &y) == nil && reflect.DeepEqual(x, y)
}

// remove ends a member. When it returns, nothing of it accepts anything.
func (h *Host) remove(ctx context.Context, instance string) error {
	m := h.member(instance)
	if m == nil {
		return nil
	}
	h.mu.Lock()
	m.leaving = true
	h.mu.Unlock()
	err := m.plugin.Leave(ctx)
	return errors.Join(err, m.plugin.Listeners().Close())
}

// discard takes back a member that was made while the host began to end, after
// which it cannot run.
func (h *Host) discard(ctx context.Context, m *member) error {
	name := m.plugin.Status().Instance
	h.mu.Lock()
	h.members = slices.DeleteFunc(h.members, func(other *member) bool { return other == m })
	h.transports = slices.DeleteFunc(slices.Clone(h.transports), func(t Transport) bool { return t.Name == name })
	h.mu.Unlock()
	// Who has found it before waits for its answer: a run that ends at once gives it.
	ended, end := context.WithCancelCause(ctx)
	end(transport.ErrStopping)
	_ = m.plugin.Run(ended) // the cause
	return m.plugin.Listeners().Close()
}

// add makes a member, and returns when it is ready, or has failed: then it is
// tried again, as others are.
func (h *Host) add(ctx context.Context, t Transport) error {
	m, err := h.makeMember(ctx, t)
	if err != nil {
		h.mu.Lock()
		h.transports = slices.DeleteFunc(slices.Clone(h.transports), func(other Transport) bool { return other.Name == t.Name })
		h.mu.Unlock()
		return err
	}
	if err := h.run(ctx, m); err != nil {
		return errors.Join(err, h.discard(ctx, m))
	}
	for {
		h.mu.Lock()
		turn := h.turn
		h.mu.Unlock()
		switch s := m.plugin.Status(); s.State {
		case supervisor.Failed, supervisor.BackingOff:
			return errors.New(s.Cause)
		case supervisor.Stopped, supervisor.Starting:
			select {
			case <-turn: // every state but these two is reached in time
				continue
			case <-h.served:
				return transport.ErrStopping
			}
		}
		return nil
	}
}
