// Package host is the embeddable host: it runs one JSON-RPC application and
// lets peers reach it over transports that are processes of their own.
package host

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/transporthost/transporthost/host/admin"
	"github.com/transporthost/transporthost/host/application"
	"github.com/transporthost/transporthost/host/catalog"
	"github.com/transporthost/transporthost/host/internal/childproc"
	"github.com/transporthost/transporthost/host/router"
	"github.com/transporthost/transporthost/host/supervisor"
	"github.com/transporthost/transporthost/shared/transport"
)

// A Host runs the application and its transports. Its methods may be called
// from any goroutine.
type Host struct {
	cfg      Config
	starter  *childproc.Starter
	premises premises
	app      application.App
	router   *router.Router
	vault    *vault
	changed  chan struct{} // one slot: a plugin's state, or the number of connections
	probes   chan chan struct{}
	served   chan struct{} // closed when serve has returned
	aborted  chan struct{} // closed by Abort
	abort    sync.Once

	mu       sync.Mutex // guards what follows
	state    State
	since    time.Time
	plugins  []*supervisor.Plugin
	couriers []*courier
	turn     chan struct{}                       // closed and replaced by signal
	told     map[string]transport.AuthStrictness // to each plugin, last
	known    map[string]*knowledge               // by the process of each plugin
	change   transport.CredentialsChange         // the last one
	named    string                              // by the peer at the terminal: itself
	left     bool                                // the peer at the terminal has gone
	admin    string                              // address of the health checks, if there are any

	// Set before a plugin runs.
	terminal     *supervisor.Terminal // nil: none
	terminalName string               // of the instance that serves it
	middle       group                // outlives the plugins
}

// ErrAborted is returned by Run after Abort.
var ErrAborted = errors.New("aborted")

// New makes a host; nothing runs before [Host.Run]. The error has all
// complaints about cfg.
func New(cfg Config) (*Host, error) {
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	h := &Host{
		cfg: cfg, starter: childproc.NewStarter(), since: time.Now(), state: StateNew,
		changed: make(chan struct{}, 1), probes: make(chan chan struct{}), served: make(chan struct{}),
		aborted: make(chan struct{}), turn: make(chan struct{}),
		told: map[string]transport.AuthStrictness{}, known: map[string]*knowledge{},
	}
	h.starter.SoleParent = cfg.SoleParent
	h.vault = &vault{cfg: cfg, log: cfg.Logger, changed: h.credentialsChanged}
	var err error
	if h.app, err = h.newApplication(); err != nil {
		return nil, err
	}
	h.router = router.New(router.Config{
		App: h.app, Logger: cfg.Logger.Named("router"), MaxMessageBytes: cfg.MaxMessageBytes,
		MaxConnections: cfg.MaxConnections, SlowAfter: cfg.SlowAfter,
		ConnClosed: h.connClosed, Accepted: h.accepted, ClientNamed: h.clientNamed,
	})
	return h, nil
}

func (h *Host) newApplication() (application.App, error) {
	a, log := h.cfg.Application, h.cfg.Logger.Named("application")
	switch {
	case a.Handler != nil:
		return application.NewHandlerApp(a.Handler, log), nil
	case a.Echo:
		return application.NewEcho(), nil
	case a.Dial.URL != "":
		a.Dial.MaxMessageBytes = h.cfg.MaxMessageBytes
		return application.NewDial(a.Dial, log)
	}
	a.Command.MaxMessageBytes = h.cfg.MaxMessageBytes
	if a.Shared {
		return application.NewShared(a.Command, h.starter, log, h.cfg.Restart)
	}
	return application.NewExec(a.Command, h.starter, log)
}

// Abort ends a drain that is under way: what is in flight is lost.
func (h *Host) Abort() { h.abort.Do(func() { close(h.aborted) }) }

func (h *Host) signal() {
	h.mu.Lock()
	close(h.turn)
	h.turn = make(chan struct{})
	couriers := h.couriers
	h.mu.Unlock()
	for _, c := range couriers {
		c.call()
	}
	select {
	case h.changed <- struct{}{}:
	default:
	}
}

// Run runs everything until ctx ends, the peer of a host that has only the
// stdio transport leaves, or no transport can serve. Then it drains: nothing
// new is accepted, requests in flight get DrainTimeout, peers are told, the
// plugins and the application end. When it returns, nothing that it started
// remains.
//
// It returns nil after ctx's end, and otherwise why it ended. It is called
// once.
func (h *Host) Run(ctx context.Context) (err error) {
	dir, err := h.premises.open(ctx, h.cfg.RuntimeDir, h.starter.Lineage(), h.cfg.unixSockets(), h.cfg.Logger)
	if err != nil {
		return err
	}
	defer h.premises.close()

	// Three lifetimes, ended in this order: plugins, application, starter. None
	// is ctx's: its end begins the drain.
	var rest group
	defer rest.stop(errors.New("the host has ended"))
	rest.start(ctx, h.starter.Run)
	defer func() { err = errors.Join(err, h.vault.close()) }()
	defer h.middle.stop(errors.New("the host is stopping"))
	h.middle.start(ctx, h.app.Run)
	h.middle.start(ctx, h.router.Run)

	var front group
	defer front.stop(transport.ErrStopping)
	passed, err := h.passedSockets()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, passed.Close()) }()
	listeners, err := h.makePlugins(ctx, dir, passed)
	defer func() {
		for _, l := range listeners {
			err = errors.Join(err, l.Close())
		}
	}()
	if err != nil {
		return err
	}
	if h.terminal != nil {
		h.middle.start(ctx, h.terminal.Run)
	}
	if h.cfg.Admin {
		socket, err := admin.Listen(ctx, dir, h.cfg.AdminListen, h, h.cfg.Logger)
		if err != nil {
			return err
		}
		h.mu.Lock()
		h.admin = socket.Address()
		h.mu.Unlock()
		h.middle.start(ctx, socket.Run)
	}
	h.setState(StateStarting)
	err = h.serve(ctx, &front)
	close(h.served)
	if h.terminal != nil && err == nil {
		_ = h.terminal.Flush(ctx) // a user who still reads gets everything; ctx's end is one who does not wait
	}
	h.setState(StateDraining)
	h.drain(ctx)
	front.stop(transport.ErrStopping)
	h.setState(StateStopped)
	return err
}

// passedSockets takes what was bound before. An error is a mistake in the
// configuration: of this host, or of who started it.
func (h *Host) passedSockets() (*supervisor.Sockets, error) {
	passed, err := supervisor.NewSockets(h.cfg.Sockets)
	if err == nil {
		var addresses []string
		for _, t := range h.cfg.Transports {
			addresses = append(addresses, t.Listen...)
		}
		if err = passed.Unused(addresses); err != nil {
			err = errors.Join(err, passed.Close())
		}
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrInvalidConfig, err)
	}
	return passed, nil
}

// makePlugins finds the plugins and binds their sockets, as far as they are not
// among passed.
func (h *Host) makePlugins(ctx context.Context, dir string, passed *supervisor.Sockets) (bound []*supervisor.Listeners, err error) {
	dirs := h.cfg.PluginDirs
	if len(dirs) == 0 {
		if dirs, err = defaultPluginDirs(); err != nil {
			return nil, err
		}
	}
	opts := supervisor.Options{
		Sessions: sessions{h.router}, Starter: h.starter, RuntimeDir: dir, Logger: h.cfg.Logger,
		HostCalls:     h.hostCalls,
		Strictness:    h.strictness,
		Prepare:       func(ctx context.Context, spec *supervisor.Spec) error { return h.prepare(ctx, dirs, spec) },
		Check:         h.check,
		Changed:       func(string) { h.signal() },
		ProbeInterval: h.cfg.ProbeInterval, ProbeTimeout: h.cfg.ProbeTimeout, Restart: h.cfg.Restart,
	}
	var errs []error
	for _, t := range h.cfg.Transports {
		if t.Disabled && t.Plugin == terminalPlugin {
			continue // what the terminal is for is settled at the start
		}
		spec := supervisor.Spec{
			Instance: t.Name, Plugin: t.Plugin, SHA256: t.SHA256, Env: t.Env, Disabled: t.Disabled,
			Listeners: supervisor.NewListeners(t.Listen, passed), MaxMessageBytes: h.cfg.MaxMessageBytes,
		}
		bound = append(bound, spec.Listeners)
		if !t.Disabled {
			// What is wrong with these is told before anything runs.
			err := findPlugin(dirs, &spec)
			if err == nil {
				err = spec.Listeners.Bind(ctx)
			}
			if err != nil {
				errs = append(errs, fmt.Errorf("transport %q: %w", t.Name, err))
				continue
			}
		}
		if t.Plugin == terminalPlugin {
			h.terminal = supervisor.NewTerminal(h.cfg.Stdin, h.cfg.Stdout, t.Framing, h.cfg.MaxMessageBytes)
			h.terminalName = t.Name
			spec.Terminal = h.terminal
		}
		p, err := supervisor.New(spec, opts)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		h.mu.Lock()
		h.plugins = append(h.plugins, p)
		h.couriers = append(h.couriers, newCourier(h, p))
		h.mu.Unlock()
	}
	return bound, errors.Join(errs...)
}

func findPlugin(dirs []string, spec *supervisor.Spec) error {
	entry, err := catalog.Find(dirs, spec.Plugin)
	if err == nil {
		spec.Path = entry.Path
	}
	return err
}

// prepare makes what the next process of a plugin needs, as far as it is not
// there: its file, its sockets, what it is granted.
func (h *Host) prepare(ctx context.Context, dirs []string, spec *supervisor.Spec) error {
	if spec.Path == "" {
		if err := findPlugin(dirs, spec); err != nil {
			return err
		}
	}
	if err := spec.Listeners.Bind(ctx); err != nil {
		return err
	}
	return h.vault.open(h.transport(spec.Instance).Grant, func(run func(context.Context) error) { h.middle.start(ctx, run) })
}

// transport returns the configuration of an instance.
func (h *Host) transport(instance string) Transport {
	i := slices.IndexFunc(h.cfg.Transports, func(t Transport) bool { return t.Name == instance })
	return h.cfg.Transports[i]
}

func (h *Host) granted(instance string, g Grant) bool {
	return slices.Contains(h.transport(instance).Grant, g)
}

// check makes the configuration of a plugin that has described itself.
func (h *Host) check(spec supervisor.Spec, d transport.Description) (json.RawMessage, error) {
	return h.transport(spec.Instance).Config(d)
}

func defaultPluginDirs() ([]string, error) {
	exe, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("finding the plugin directory: %w", err)
	}
	if exe, err = filepath.EvalSymlinks(exe); err != nil {
		return nil, fmt.Errorf("finding the plugin directory: %w", err)
	}
	return append([]string{filepath.Join(filepath.Dir(exe), "plugins")}, systemPluginDirs()...), nil
}

// DefaultPluginDirs are the directories that are searched for plugins if none
// are configured.
func DefaultPluginDirs() ([]string, error) { return defaultPluginDirs() }

// closeGrace is what peers get to take their leave.
const closeGrace = 3 * time.Second

// drain lets what is in flight finish, and tells the peers.
func (h *Host) drain(ctx context.Context) {
	// ctx's end is usually what brought us here; Abort is what cuts it short.
	ctx, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	defer cancel(nil)
	done := make(chan struct{})
	defer close(done)
	go func() {
		select {
		case <-h.aborted:
			cancel(ErrAborted)
		case <-done:
		}
	}()
	var drains sync.WaitGroup
	for _, p := range h.plugins {
		drains.Go(func() {
			if err := p.Drain(ctx); err != nil {
				h.cfg.Logger.Debug("draining", "transport", p.Status().Instance, "error", err)
			}
		})
	}
	drains.Wait()
	if n := h.router.Counters().InFlight; n > 0 {
		h.cfg.Logger.Info("draining: waiting for requests in flight", "requests", n, "limit", h.cfg.DrainTimeout.String())
	}
	limit, stop := context.WithTimeout(ctx, h.cfg.DrainTimeout)
	if h.router.Drain(limit) != nil {
		h.cfg.Logger.Warn("requests without an answer are given up", "requests", h.router.Counters().InFlight)
	}
	stop()
	limit, stop = context.WithTimeout(ctx, closeGrace)
	defer stop()
	if h.router.CloseAll(limit, transport.CloseReason{Code: transport.CloseGoingAway, Text: "the host is stopping"}) != nil {
		h.cfg.Logger.Debug("not every connection was closed in time")
	}
}
