// Package admin is how a person asks a running host: JSON over HTTP on a unix
// socket that only the host's user can reach, and its client half.
package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/hashicorp/go-hclog"
)

// SocketName is the socket's file in the runtime directory.
const SocketName = "admin.sock"

const (
	headerTimeout = 5 * time.Second
	idleTimeout   = time.Minute // more than the interval of usual health checks
	dialTimeout   = 2 * time.Second
	dialPause     = time.Millisecond
	stopTimeout   = time.Second

	maxHeaderBytes = 16 << 10
)

// A Host is what the admin socket shows and does. The methods may be called
// concurrently.
type Host interface {
	AdminStatus() any
	AdminPlugins() any
	AdminConnections() any
	// AdminAdmits returns why who has connected to the socket may not ask, or nil.
	AdminAdmits(c *net.UnixConn) error
	Serving() bool // every transport is ready or has failed, and some are ready
	RestartPlugin(ctx context.Context, name string) error
	SetTransportEnabled(ctx context.Context, name string, on bool) error
	AdminCredentials() (any, error)
	ReloadCredentials(reason string) (changed bool, err error)
}

// A Reload is the answer to a reload of the credentials.
type Reload struct {
	Changed bool `json:"changed"`
}

// A Server is the admin socket and, if there is an address, the health checks
// and the status on TCP, for whoever can reach that.
type Server struct {
	host    Host
	log     hclog.Logger
	level   hclog.Logger // whose level can be set
	socket  *net.UnixListener
	path    string
	network net.Listener // nil: none
}

// ErrInUse is returned when another host answers on the socket.
var ErrInUse = errors.New("another host uses this runtime directory")

// Listen binds the socket in dir, and address if it is not empty. A socket that
// a dead host left is replaced.
func Listen(ctx context.Context, dir, address string, h Host, log hclog.Logger) (*Server, error) {
	path := filepath.Join(dir, SocketName)
	d := net.Dialer{Timeout: dialTimeout}
	if c, err := d.DialContext(ctx, "unix", path); err == nil {
		_ = c.Close()
		return nil, fmt.Errorf("%w: %s answers; it is another host's", ErrInUse, path)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("removing the socket of a dead host: %w", err)
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Net: "unix", Name: path})
	if err != nil {
		return nil, fmt.Errorf("listening on the admin socket: %w", err)
	}
	s := &Server{host: h, log: log, level: log, socket: l, path: path}
	if err := os.Chmod(path, 0o600); err != nil {
		_ = l.Close()
		return nil, fmt.Errorf("listening on the admin socket: %w", err)
	}
	if address != "" {
		if s.network, err = (&net.ListenConfig{}).Listen(ctx, "tcp", address); err != nil {
			_ = l.Close()
			return nil, fmt.Errorf("listening on admin address %s: %w", address, err)
		}
	}
	return s, nil
}

// Address returns where the health checks are, or "".
func (s *Server) Address() string {
	if s.network == nil {
		return ""
	}
	return s.network.Addr().String()
}

// Run answers until ctx ends.
func (s *Server) Run(ctx context.Context) error {
	servers := []*http.Server{s.server(admitted(s.everything()))}
	servers[0].ConnContext = remember
	listeners := []net.Listener{newGate(s.socket, s.host.AdminAdmits)}
	if s.network != nil {
		servers = append(servers, s.server(s.readable(http.NewServeMux())))
		listeners = append(listeners, s.network)
	}
	done := make(chan error, len(servers))
	for i := range servers {
		go func() { done <- servers[i].Serve(listeners[i]) }()
	}
	<-ctx.Done()
	c, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
	defer cancel()
	for _, srv := range servers {
		if srv.Shutdown(c) != nil {
			_ = srv.Close()
		}
	}
	for range servers {
		<-done
	}
	_ = os.Remove(s.path) // gone with the listener, usually
	return context.Cause(ctx)
}

func (s *Server) server(h http.Handler) *http.Server {
	return &http.Server{
		Handler: h, ReadHeaderTimeout: headerTimeout, ReadTimeout: headerTimeout, IdleTimeout: idleTimeout,
		MaxHeaderBytes: maxHeaderBytes,
		ErrorLog:       s.log.StandardLogger(&hclog.StandardLoggerOptions{ForceLevel: hclog.Debug}),
	}
}

// readable is what also the network may see: it changes nothing.
func (s *Server) readable(mux *http.ServeMux) *http.ServeMux {
	mux.HandleFunc("GET /v1/status", func(w http.ResponseWriter, _ *http.Request) { s.reply(w, s.host.AdminStatus()) })
	mux.HandleFunc("GET /healthz", func(http.ResponseWriter, *http.Request) {})
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if !s.host.Serving() {
			http.Error(w, "not ready", http.StatusServiceUnavailable)
		}
	})
	return mux
}

func (s *Server) everything() *http.ServeMux {
	mux := s.readable(http.NewServeMux())
	mux.HandleFunc("GET /v1/plugins", func(w http.ResponseWriter, _ *http.Request) { s.reply(w, s.host.AdminPlugins()) })
	mux.HandleFunc("GET /v1/connections", func(w http.ResponseWriter, _ *http.Request) { s.reply(w, s.host.AdminConnections()) })
	mux.HandleFunc("POST /v1/plugins/{name}/restart", func(w http.ResponseWriter, r *http.Request) {
		s.outcome(w, struct{}{}, s.host.RestartPlugin(r.Context(), r.PathValue("name")))
	})
	mux.HandleFunc("POST /v1/plugins/{name}/enable", func(w http.ResponseWriter, r *http.Request) {
		s.outcome(w, struct{}{}, s.host.SetTransportEnabled(r.Context(), r.PathValue("name"), true))
	})
	mux.HandleFunc("POST /v1/plugins/{name}/disable", func(w http.ResponseWriter, r *http.Request) {
		s.outcome(w, struct{}{}, s.host.SetTransportEnabled(r.Context(), r.PathValue("name"), false))
	})
	mux.HandleFunc("GET /v1/credentials", func(w http.ResponseWriter, _ *http.Request) {
		v, err := s.host.AdminCredentials()
		s.outcome(w, v, err)
	})
	mux.HandleFunc("POST /v1/credentials/reload", func(w http.ResponseWriter, _ *http.Request) {
		changed, err := s.host.ReloadCredentials("transporthost credentials reload")
		s.outcome(w, Reload{Changed: changed}, err)
	})
	mux.HandleFunc("PUT /v1/log-level/{level}", func(w http.ResponseWriter, r *http.Request) {
		level := hclog.LevelFromString(r.PathValue("level"))
		if level == hclog.NoLevel {
			http.Error(w, "the level is one of trace, debug, info, warn, error", http.StatusBadRequest)
			return
		}
		s.level.SetLevel(level)
		s.reply(w, struct{}{})
	})
	return mux
}

// outcome answers with v, or with why there is none.
func (s *Server) outcome(w http.ResponseWriter, v any, err error) {
	if err != nil {
		http.Error(w, err.Error(), http.StatusConflict)
		return
	}
	s.reply(w, v)
}

func (s *Server) reply(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	if err := json.NewEncoder(w).Encode(v); err != nil {
		s.log.Debug("answering on the admin socket", "error", err)
	}
}
