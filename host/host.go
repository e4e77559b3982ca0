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
	"github.com/transporthost/transporthost/shared/rpc"
	"github.com/transporthost/transporthost/shared/transport"
)

// A Host runs the application and its transports. Its methods may be called
// from any goroutine.
type Host struct {
	cfg     Config
	starter *childproc.Starter
	app     application.App
	router  *router.Router
	changed chan struct{} // one slot: a plugin's state, or the number of connections
	aborted chan struct{} // closed by Abort
	abort   sync.Once

	mu       sync.Mutex // guards what follows
	state    State
	since    time.Time
	plugins  []*supervisor.Plugin
	terminal *supervisor.Terminal
	turn     chan struct{}                       // closed and replaced by signal
	told     map[string]transport.AuthStrictness // to each plugin, last
	left     bool                                // the peer at the terminal has gone
	admin    string                              // address of the health checks, if there are any
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
		changed: make(chan struct{}, 1), aborted: make(chan struct{}), turn: make(chan struct{}),
		told: map[string]transport.AuthStrictness{},
	}
	var err error
	if h.app, err = h.newApplication(); err != nil {
		return nil, err
	}
	h.router = router.New(router.Config{
		App: h.app, Logger: cfg.Logger.Named("router"), MaxMessageBytes: cfg.MaxMessageBytes,
		MaxConnections: cfg.MaxConnections, SlowAfter: cfg.SlowAfter,
		ConnClosed: h.connClosed, Accepted: h.accepted,
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
	h.mu.Unlock()
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
	dir, remove, err := runtimeDir(h.cfg.RuntimeDir)
	if err != nil {
		return err
	}
	defer remove()

	// Three lifetimes, ended in this order: plugins, application, starter. None
	// is ctx's: its end begins the drain.
	var rest group
	defer rest.stop(errors.New("the host has ended"))
	rest.start(ctx, h.starter.Run)
	var middle group
	defer middle.stop(errors.New("the host is stopping"))
	middle.start(ctx, h.app.Run)
	middle.start(ctx, h.router.Run)

	var front group
	defer front.stop(transport.ErrStopping)
	listeners, err := h.makePlugins(ctx, dir)
	defer func() {
		for _, l := range listeners {
			err = errors.Join(err, l.Close())
		}
	}()
	if err != nil {
		return err
	}
	if h.terminal != nil {
		middle.start(ctx, h.terminal.Run)
	}
	if h.cfg.Admin {
		socket, err := admin.Listen(ctx, dir, h.cfg.AdminListen, h, h.cfg.Logger)
		if err != nil {
			return err
		}
		h.mu.Lock()
		h.admin = socket.Address()
		h.mu.Unlock()
		middle.start(ctx, socket.Run)
	}
	h.setState(StateStarting)
	err = h.serve(ctx, &front)
	if h.terminal != nil && err == nil {
		_ = h.terminal.Flush(ctx) // a user who still reads gets everything; ctx's end is one who does not wait
	}
	h.setState(StateDraining)
	h.drain(ctx)
	front.stop(transport.ErrStopping)
	h.setState(StateStopped)
	return err
}

// makePlugins finds the plugins and binds their sockets.
func (h *Host) makePlugins(ctx context.Context, dir string) (bound []*supervisor.Listeners, err error) {
	dirs := h.cfg.PluginDirs
	if len(dirs) == 0 {
		if dirs, err = defaultPluginDirs(); err != nil {
			return nil, err
		}
	}
	opts := supervisor.Options{
		Sessions: sessions{h.router}, Starter: h.starter, RuntimeDir: dir, Logger: h.cfg.Logger,
		HostCalls:     func(_ string, report func(transport.Status)) rpc.HostCalls { return hostCalls{report} },
		Strictness:    h.strictness,
		Check:         h.check,
		Changed:       func(string) { h.signal() },
		ProbeInterval: h.cfg.ProbeInterval, ProbeTimeout: h.cfg.ProbeTimeout, Restart: h.cfg.Restart,
	}
	var errs []error
	for _, t := range h.cfg.Transports {
		if t.Disabled {
			continue
		}
		entry, err := catalog.Find(dirs, t.Plugin)
		if err != nil {
			errs = append(errs, fmt.Errorf("transport %q: %w", t.Name, err))
			continue
		}
		listeners, err := supervisor.Bind(ctx, t.Listen)
		if err != nil {
			errs = append(errs, fmt.Errorf("transport %q: %w", t.Name, err))
			continue
		}
		bound = append(bound, listeners)
		spec := supervisor.Spec{
			Instance: t.Name, Plugin: t.Plugin, Path: entry.Path, SHA256: t.SHA256, Env: t.Env,
			Listeners: listeners, MaxMessageBytes: h.cfg.MaxMessageBytes,
		}
		if t.Plugin == terminalPlugin {
			h.terminal = supervisor.NewTerminal(h.cfg.Stdin, h.cfg.Stdout, t.Framing, h.cfg.MaxMessageBytes)
			spec.Terminal = h.terminal
		}
		p, err := supervisor.New(spec, opts)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		h.mu.Lock()
		h.plugins = append(h.plugins, p)
		h.mu.Unlock()
	}
	return bound, errors.Join(errs...)
}

// check makes the configuration of a plugin that has described itself.
func (h *Host) check(spec supervisor.Spec, d transport.Description) (json.RawMessage, error) {
	i := slices.IndexFunc(h.cfg.Transports, func(t Transport) bool { return t.Name == spec.Instance })
	return h.cfg.Transports[i].Config(d)
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

// serve runs the plugins until there is a reason to end.
func (h *Host) serve(ctx context.Context, front *group) error {
	for _, p := range h.plugins {
		front.start(ctx, p.Run)
	}
	told := false
	for {
		settled, serving := true, 0
		var refusal, failure error
		for _, p := range h.plugins {
			s := p.Status()
			switch s.State {
			case supervisor.Ready, supervisor.Degraded:
				serving++
			case supervisor.Failed:
				cause := p.Refusal()
				if cause == nil {
					cause = errors.New(s.Cause)
				}
				cause = fmt.Errorf("transport %q: %w", s.Instance, cause)
				if failure == nil {
					failure = cause
				}
				if errors.Is(cause, transport.ErrInvalidConfig) && refusal == nil {
					refusal = cause
				}
			default:
				settled = false
			}
		}
		switch {
		case refusal != nil && !told:
			return refusal // a mistake in the configuration, seen at the start
		case settled && serving == 0:
			return failure
		case settled && !told:
			told = true
			h.setState(StateServing)
			h.cfg.Ready(h.Status())
		}
		if h.deserted() {
			return nil
		}
		h.tellStrictness(ctx)
		select {
		case <-h.changed:
		case <-ctx.Done():
			return nil
		}
	}
}

// deserted reports whether the only peer that there could be has gone: that of
// a host whose only local transport is the terminal (spec 8.2).
func (h *Host) deserted() bool {
	h.mu.Lock()
	left := h.left
	h.mu.Unlock()
	if !left || h.router.Len() > 0 {
		return false
	}
	for _, p := range h.plugins {
		s := p.Status()
		if s.Plugin != terminalPlugin && s.Locality != transport.Remote.String() {
			return false
		}
	}
	return true
}

func (h *Host) connClosed(instance string, reason transport.CloseReason, remaining int) {
	lost := reason.Code == transport.ClosePluginLost // the next process opens another one
	for _, t := range h.cfg.Transports {
		if t.Name == instance && t.Plugin == terminalPlugin && !lost {
			h.mu.Lock()
			h.left = true
			h.mu.Unlock()
		}
	}
	if remaining == 0 {
		h.signal()
	}
}

func (h *Host) accepted(_ string, key transport.ResumeKey, cursor transport.Cursor) {
	if h.terminal != nil && key == terminalPlugin {
		h.terminal.Accepted(cursor)
	}
}

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
