// Package websocket is the transport that peers reach over WebSocket, on TCP
// and unix sockets.
package websocket

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"runtime/debug"
	"sync"

	"golang.org/x/sync/errgroup"

	pluginsdk "github.com/transporthost/transporthost/plugin-sdk"
)

// A Transport is the WebSocket transport.
type Transport struct {
	mu      sync.Mutex // guards what follows
	server  *server    // nil before Serve
	entries []*entry
}

// An entry is one listener and what serves it.
type entry struct {
	lobby  *lobby
	http   *http.Server
	closed chan struct{} // nobody is accepted any more
}

var (
	_ pluginsdk.Transport = (*Transport)(nil)
	_ pluginsdk.Drainer   = (*Transport)(nil)
)

// New makes the transport.
func New() *Transport { return &Transport{} }

// Describe implements [pluginsdk.Transport].
func (t *Transport) Describe() pluginsdk.Description {
	version := "unknown"
	if info, ok := debug.ReadBuildInfo(); ok {
		version = info.Main.Version
	}
	return pluginsdk.Description{Name: "websocket", Version: version, Locality: pluginsdk.Local, Config: configKeys()}
}

// Serve implements [pluginsdk.Transport].
func (t *Transport) Serve(ctx context.Context, host *pluginsdk.Host) error {
	limit := host.Params().MaxMessageBytes
	var cfg config
	if err := host.DecodeConfig(&cfg); err != nil {
		return err
	}
	cfg = cfg.withDefaults(limit)
	if err := cfg.validate(limit); err != nil {
		return err
	}
	auth, err := newAuthenticator(cfg.Auth)
	if err != nil {
		return err
	}
	s := newServer(ctx, cfg, auth, host)
	defer s.die()
	var certificate *certificate
	if cfg.TLS != nil {
		if certificate, err = loadCertificate(*cfg.TLS); err != nil {
			return err
		}
	}

	g, gctx := errgroup.WithContext(ctx)
	var addresses []string
	var entries []*entry
	stop := func() {
		for _, e := range entries {
			_ = e.http.Close()
		}
	}
	for i, text := range cfg.Listen {
		addr, err := parseListen(text)
		if err == nil && addr.tls && certificate == nil {
			err = fmt.Errorf("%w: %s needs tls = { cert_file = …, key_file = … } %s", pluginsdk.ErrInvalidConfig, text, inConfigFile)
		}
		if err == nil {
			err = checkExposure(addr, text, auth != nil)
		}
		if err != nil {
			stop()
			return errors.Join(err, g.Wait())
		}
		l, bound, err := host.Listen(ctx, i, text)
		if err != nil {
			stop()
			return errors.Join(fmt.Errorf("listening on %s: %w", text, err), g.Wait())
		}
		addr.url = bound
		room := newLobby(l)
		l = room
		if addr.tls {
			l = certificate.listener(l)
		}
		e := &entry{lobby: room, http: s.httpServer(addr, room), closed: make(chan struct{})}
		entries = append(entries, e)
		g.Go(func() error {
			defer close(e.closed)
			if err := s.accept(e.http, l); err != nil {
				return fmt.Errorf("accepting on %s: %w", bound, err)
			}
			return nil
		})
		addresses = append(addresses, bound)
	}
	t.mu.Lock()
	t.server, t.entries = s, entries
	t.mu.Unlock()

	g.Go(func() error {
		s.tick(gctx)
		stop()
		return context.Cause(gctx)
	})
	for _, a := range addresses {
		host.Logger().Info("listening", "address", a)
	}
	host.Ready(addresses...)
	err = g.Wait()
	s.endAll(pluginsdk.CloseReason{Code: pluginsdk.CloseGoingAway, Text: "the transport is stopping"})
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// Drain implements [pluginsdk.Drainer]: nothing new is accepted. The sockets
// that the host passed stay bound, and the next process accepts from them. Who
// was accepted before is still greeted, until ctx ends.
func (t *Transport) Drain(ctx context.Context) error {
	t.mu.Lock()
	server, entries := t.server, t.entries
	t.mu.Unlock()
	if server == nil {
		return nil
	}
	// Not Shutdown: it would close sockets that have not said their request.
	for _, e := range entries {
		_ = e.lobby.Close()
	}
	for _, e := range entries {
		<-e.closed // at once: its listener is closed
		e.lobby.clear(ctx)
	}
	server.draining.Store(true)
	var errs []error
	for _, e := range entries {
		// Close would cut requests under way; Shutdown only keeps sockets from
		// being used again, and would then wait, which its ended context keeps it
		// from.
		ended, cancel := context.WithCancel(ctx)
		cancel()
		if err := e.http.Shutdown(ended); err != nil && !errors.Is(err, context.Canceled) && !errors.Is(err, net.ErrClosed) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}
