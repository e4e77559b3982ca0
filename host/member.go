package host

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/transporthost/transporthost/host/catalog"
	"github.com/transporthost/transporthost/host/supervisor"
	"github.com/transporthost/transporthost/shared/transport"
)

// A member is one transport of a host: its plugin, and who tells that what
// changes.
type member struct {
	plugin  *supervisor.Plugin
	courier *courier
	leaving bool // the configuration has it no longer; guarded by Host.mu
}

// makeMembers finds the plugins and binds their sockets. What is wrong with
// those that are not disabled is told before anything runs. passed are sockets
// that were bound before.
func (h *Host) makeMembers(ctx context.Context, dir string, passed *supervisor.Sockets) (err error) {
	if h.dirs = h.cfg.PluginDirs; len(h.dirs) == 0 {
		if h.dirs, err = defaultPluginDirs(); err != nil {
			return err
		}
	}
	h.passed = passed
	h.options = supervisor.Options{
		Sessions: sessions{h.router}, Starter: h.starter, RuntimeDir: dir, Logger: h.cfg.Logger,
		HostCalls:  h.hostCalls,
		Strictness: h.strictness,
		Launching:  h.cfg.Launching,
		Prepare:    h.prepare,
		Check: func(s supervisor.Spec, d transport.Description) (json.RawMessage, error) {
			return originOf(s).Config(d)
		},
		Changed:       func(string) { h.signal() },
		ProbeInterval: h.cfg.ProbeInterval, ProbeTimeout: h.cfg.ProbeTimeout, Restart: h.cfg.Restart,
		RetireTimeout: h.cfg.RetireTimeout,
	}
	var errs []error
	for _, t := range h.cfg.Transports {
		if atTerminal(t) {
			h.terminal = supervisor.NewTerminal(h.cfg.Stdin, h.cfg.Stdout, t.Framing, h.cfg.MaxMessageBytes)
			h.terminalName = t.Name
		}
		if t.Disabled && t.Plugin == terminalPlugin {
			continue // what the terminal is for is settled at the start
		}
		if _, err := h.makeMember(ctx, t); err != nil {
			errs = append(errs, fmt.Errorf("transport %q: %w", t.Name, err))
		}
	}
	return errors.Join(errs...)
}

// atTerminal reports whether t serves the user's stdin and stdout.
func atTerminal(t Transport) bool { return !t.Disabled && t.Plugin == terminalPlugin }

// makeMember makes one that does not run yet.
func (h *Host) makeMember(ctx context.Context, t Transport) (*member, error) {
	spec := h.spec(t)
	spec.Listeners = supervisor.NewListeners(t.Listen, h.passed)
	if !t.Disabled {
		err := findPlugin(h.dirs, &spec)
		if err == nil {
			err = spec.Listeners.Bind(ctx)
		}
		if err != nil {
			return nil, err
		}
	}
	p, err := supervisor.New(spec, h.options)
	if err != nil {
		return nil, errors.Join(err, spec.Listeners.Close())
	}
	m := &member{plugin: p, courier: newCourier(h, p)}
	h.mu.Lock()
	h.members = append(h.members, m)
	h.mu.Unlock()
	return m, nil
}

// spec is t as the supervisor knows it, without path and sockets.
func (h *Host) spec(t Transport) supervisor.Spec {
	spec := supervisor.Spec{
		Instance: t.Name, Plugin: t.Plugin, SHA256: t.SHA256, Env: t.Env, Disabled: t.Disabled,
		MaxMessageBytes: h.cfg.MaxMessageBytes, Origin: t, Sandbox: h.confinement(t, h.options.RuntimeDir),
	}
	if atTerminal(t) {
		spec.Terminal = h.terminal
	}
	return spec
}

// originOf is the configuration that a spec was made of.
func originOf(spec supervisor.Spec) Transport { return spec.Origin.(Transport) }

// run starts the member, unless the host is ending.
func (h *Host) run(ctx context.Context, m *member) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.state == StateDraining || h.state == StateStopped {
		return transport.ErrStopping
	}
	h.front.start(ctx, func(ctx context.Context) error {
		var telling group
		telling.start(ctx, m.courier.run)
		err := m.plugin.Run(ctx)
		telling.stop(errLeft)
		h.mu.Lock()
		if m.leaving {
			h.members = slices.DeleteFunc(h.members, func(other *member) bool { return other == m })
		}
		h.mu.Unlock()
		return err
	})
	return nil
}

// errLeft ends what a member needed.
var errLeft = errors.New("the transport has ended")

func findPlugin(dirs []string, spec *supervisor.Spec) error {
	entry, err := catalog.Find(dirs, spec.Plugin)
	if err == nil {
		spec.Path = entry.Path
	}
	return err
}

// prepare makes what the next process of a plugin needs, as far as it is not
// there: its file, its sockets, what it is granted.
func (h *Host) prepare(ctx context.Context, spec *supervisor.Spec) error {
	if spec.Path == "" {
		if err := findPlugin(h.dirs, spec); err != nil {
			return err
		}
	}
	if err := spec.Listeners.Bind(ctx); err != nil {
		return err
	}
	return h.vault.open(originOf(*spec).Grant, func(run func(context.Context) error) { h.middle.start(ctx, run) })
}

// everyMember returns also those that are leaving.
func (h *Host) everyMember() []*member {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.members)
}

// supervised returns the plugins that have, or should have, a process.
func (h *Host) supervised() []*supervisor.Plugin {
	h.mu.Lock()
	defer h.mu.Unlock()
	plugins := make([]*supervisor.Plugin, 0, len(h.members))
	for _, m := range h.members {
		if !m.leaving {
			plugins = append(plugins, m.plugin)
		}
	}
	return plugins
}

// configured returns the transports of the configuration.
func (h *Host) configured() []Transport {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.transports)
}

func (h *Host) granted(instance string, g Grant) bool {
	return slices.ContainsFunc(h.configured(), func(t Transport) bool {
		return t.Name == instance && slices.Contains(t.Grant, g)
	})
}

func (h *Host) isLeaving(m *member) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return m.leaving
}
