package host

import (
	"context"
	"fmt"
	"os"
	"runtime/debug"
	"time"

	"github.com/transporthost/transporthost/host/application"
	"github.com/transporthost/transporthost/host/router"
	"github.com/transporthost/transporthost/host/supervisor"
)

// A State is where a host is in its life.
type State string

// The states of a host.
const (
	StateNew      State = "new"
	StateStarting State = "starting"
	StateServing  State = "serving"
	StateDraining State = "draining"
	StateStopped  State = "stopped"
)

// A Status is everything that `transporthost status` shows. It holds no secret
// and no payload.
type Status struct {
	Version     string              `json:"version"`
	PID         int                 `json:"pid"`
	State       State               `json:"state"`
	Since       time.Time           `json:"since"` // the host was made
	Application application.Status  `json:"application"`
	Plugins     []supervisor.Status `json:"plugins"`
	Connections int                 `json:"connections"`
	Counters    router.Counters     `json:"counters"`
}

// Version returns the version of this module in the running program.
func Version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok || info.Main.Version == "" {
		return "(devel)"
	}
	return info.Main.Version
}

// Status returns what is known now. It waits for nobody.
func (h *Host) Status() Status {
	h.mu.Lock()
	s := Status{Version: Version(), PID: os.Getpid(), State: h.state, Since: h.since}
	plugins := h.plugins
	h.mu.Unlock()
	s.Application = h.app.Status()
	s.Connections = h.router.Len()
	s.Counters = h.router.Counters()
	s.Plugins = make([]supervisor.Status, 0, len(plugins))
	for _, p := range plugins {
		s.Plugins = append(s.Plugins, p.Status())
	}
	return s
}

// Connections lists the connections, oldest first.
func (h *Host) Connections() []router.ConnInfo { return h.router.Connections() }

func (h *Host) setState(s State) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.state = s
}

// RestartPlugin replaces the process of a transport instance, also of one that
// has failed, and returns when the new one is ready, or with why it is not.
func (h *Host) RestartPlugin(ctx context.Context, instance string) error {
	h.mu.Lock()
	plugins := h.plugins
	h.mu.Unlock()
	for _, p := range plugins {
		if p.Status().Instance == instance {
			return p.Restart(ctx)
		}
	}
	return fmt.Errorf("there is no transport %q", instance)
}

// What follows is for the admin socket.

// AdminStatus implements [admin.Host].
func (h *Host) AdminStatus() any { return h.Status() }

// AdminConnections implements [admin.Host].
func (h *Host) AdminConnections() any { return h.Connections() }

// Serving implements [admin.Host].
func (h *Host) Serving() bool {
	s := h.Status()
	if s.State != StateServing {
		return false
	}
	for _, p := range s.Plugins {
		if p.State == supervisor.Ready {
			return true
		}
	}
	return false
}
