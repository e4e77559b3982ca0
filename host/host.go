// Package host is the embeddable host: it runs one JSON-RPC application and
// lets peers reach it over transports that are processes of their own.
package host

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/transporthost/transporthost/host/admin"
	"github.com/transporthost/transporthost/host/application"
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

	mu         sync.Mutex // guards what follows
	state      State
	since      time.Time
	transports []Transport                            // of the configuration, in its order
	members    []*member                              // those of them that have, or may get, a process
	turn       chan struct{}                          // closed and replaced by signal
	told       map[processID]transport.AuthStrictness // to each process, last
	known      map[processID]*knowledge               // by each process
	change     transport.CredentialsChange            // the last one
	named      string                                 // by the peer at the terminal: itself
	left       bool                                   // the peer at the terminal has gone
	admin      string                                 // address of the health checks, if there are any

	reloading chan struct{} // one slot, full while a reload is under way

	// Set before a plugin runs.
	options      supervisor.Options
	dirs         []string // of plugins
	passed       *supervisor.Sockets
	terminal     *supervisor.Terminal // nil: none
	terminalName string               // of the instance that serves it
	front        group                // the members
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
		told: map[processID]transport.AuthStrictness{}, known: map[processID]*knowledge{},
		transports: cfg.Transports, reloading: make(chan struct{}, 1),
	}
	h.starter.SoleParent = cfg.SoleParent
	h.vault = &vault{cfg: cfg, log: cfg.Logger, changed: h.credentialsChanged}
	var err error
	if h.app, err = h.newApplication(); err != nil {
		return nil, err
	}
	h.router = router.New(router.Config{
		App: h.app, Logger: cfg.Logger.Named("router"), MaxMessageBytes: cfg.MaxMessageBytes,
		MaxConnections: cfg.MaxConnections, SlowAfter: cfg.SlowAfter, Transports: cfg.names(),
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
	members := slices.Clone(h.members)
	h.mu.Unlock()
	for _, m := range members {
		m.courier.call()
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
	dir, err := h.premises.open(ctx, h.cfg.RuntimeDir, h.starter, h.cfg.unixSockets(), h.cfg.Logger)
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

	defer h.front.stop(transport.ErrStopping)
	passed, err := h.passedSockets()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, passed.Close()) }()
	defer func() {
		for _, m := range h.everyMember() {
			err = errors.Join(err, m.plugin.Listeners().Close())
		}
	}()
	if err := h.makeMembers(ctx, dir, passed); err != nil {
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
	err = h.serve(ctx)
	close(h.served)
	if h.terminal != nil && err == nil {
		_ = h.terminal.Flush(ctx) // a user who still reads gets everything; ctx's end is one who does not wait
	}
	h.setState(StateDraining)
	h.drain(ctx)
	h.front.stop(transport.ErrStopping)
	h.setState(StateStopped)
	return err
}

// listened returns all addresses of transports.
func listened(transports []Transport) (addresses []string) {
	for _, t := range transports {
		addresses = append(addresses, t.Listen...)
	}
	return addresses
}

// passedSockets takes what was bound before. An error is a mistake in the
// configuration: of this host, or of who started it.
func (h *Host) passedSockets() (*supervisor.Sockets, error) {
	passed, err := supervisor.NewSockets(h.cfg.Sockets)
	if err == nil {
		if err = passed.Unused(listened(h.cfg.Transports)); err != nil {
			err = errors.Join(err, passed.Close())
		}
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrInvalidConfig, err)
	}
	return passed, nil
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
	for _, m := range h.everyMember() {
		p := m.plugin
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
