package host

import (
	"context"
	"fmt"
	"os"
	"runtime/debug"
	"strings"
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
	Plugins     []supervisor.Status `json:"plugins"` // in the order of the configuration
	Connections int                 `json:"connections"`
	Admin       string              `json:"admin,omitempty"` // URL of the health checks
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
	if h.admin != "" {
		s.Admin = "http://" + h.admin
	}
	h.mu.Unlock()
	s.Application = h.app.Status()
	s.Connections = h.router.Len()
	s.Counters = h.router.Counters()
	s.Plugins = h.pluginStatus()
	return s
}

// pluginStatus is that of all transports, those that have no process too.
func (h *Host) pluginStatus() []supervisor.Status {
	plugins := h.supervised()
	all := make([]supervisor.Status, 0, len(h.cfg.Transports))
	for _, t := range h.cfg.Transports {
		if t.Disabled {
			all = append(all, supervisor.Status{
				Instance: t.Name, Plugin: t.Plugin, State: supervisor.Disabled, Since: h.since,
				Cause: "disabled by the configuration", Remedy: "remove enabled = false",
			})
			continue
		}
		for _, p := range plugins {
			if s := p.Status(); s.Instance == t.Name {
				all = append(all, s)
			}
		}
	}
	return all
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
	for _, p := range h.supervised() {
		if p.Status().Instance == instance {
			return p.Restart(ctx)
		}
	}
	var names []string
	for _, t := range h.cfg.Transports {
		if t.Name == instance {
			return fmt.Errorf("transport %q is disabled by the configuration", instance)
		}
		names = append(names, t.Name)
	}
	return fmt.Errorf("there is no transport %q; there are %s", instance, strings.Join(names, ", "))
}

// What follows is for the admin socket.

// AdminStatus implements [admin.Host].
func (h *Host) AdminStatus() any { return h.Status() }

// AdminPlugins implements [admin.Host].
func (h *Host) AdminPlugins() any { return h.pluginStatus() }

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
