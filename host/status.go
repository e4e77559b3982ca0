package host

import (
	"context"
	"fmt"
	"net"
	"os"
	"runtime/debug"
	"strings"
	"time"

	"github.com/transporthost/transporthost/host/application"
	"github.com/transporthost/transporthost/host/credentials"
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
	Keeper      int                 `json:"keeper,omitempty"` // pid of the process that clears away after this one
	State       State               `json:"state"`
	Since       time.Time           `json:"since"` // the host was made
	Application application.Status  `json:"application"`
	Plugins     []supervisor.Status `json:"plugins"` // in the order of the configuration
	Connections int                 `json:"connections"`
	Admin       string              `json:"admin,omitempty"` // URL of the health checks
	Counters    router.Counters     `json:"counters"`
	Resources   Resources           `json:"resources"`
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
	s := Status{Version: Version(), PID: os.Getpid(), Keeper: h.premises.keeper(), State: h.state, Since: h.since}
	if h.admin != "" {
		s.Admin = "http://" + h.admin
	}
	h.mu.Unlock()
	s.Application = h.app.Status()
	s.Connections = h.router.Len()
	s.Counters = h.router.Counters()
	s.Plugins = h.pluginStatus()
	s.Resources = ownResources()
	return s
}

// pluginStatus is that of all transports, those that have no process too.
func (h *Host) pluginStatus() []supervisor.Status {
	transports, members := h.configured(), h.everyMember()
	all := make([]supervisor.Status, 0, len(transports))
	for _, t := range transports {
		if t.Disabled && t.Plugin == terminalPlugin {
			all = append(all, supervisor.Status{
				Instance: t.Name, Plugin: t.Plugin, State: supervisor.Disabled, Since: h.since,
				Cause: supervisor.ErrDisabled.Error(), Remedy: "remove enabled = false",
			})
			continue
		}
		for _, m := range members {
			if s := m.plugin.Status(); s.Instance == t.Name && !h.isLeaving(m) {
				s.Conduct = supervisor.Conduct(h.router.Conduct(t.Name))
				all = append(all, s)
			}
		}
	}
	for _, m := range members {
		if h.isLeaving(m) {
			all = append(all, m.plugin.Status())
		}
	}
	return all
}

// Connections lists the connections, oldest first.
func (h *Host) Connections() []router.ConnInfo { return h.router.Connections() }

func (h *Host) setState(s State) {
	h.mu.Lock()
	h.state = s
	h.mu.Unlock()
	h.tellChange()
}

func (h *Host) tellChange() {
	if h.cfg.Changed != nil {
		h.cfg.Changed(h.Status())
	}
}

// RestartPlugin replaces the process of a transport instance, also of one that
// has failed, and returns when the new one is ready, or with why it is not. The
// process of one that is ready serves until the new one can, and goes on if that
// cannot be.
func (h *Host) RestartPlugin(ctx context.Context, instance string) error {
	p, err := h.find(instance)
	if err != nil {
		return err
	}
	return p.Restart(ctx)
}

// SetTransportEnabled switches a transport on or off. A plugin that can be
// switched keeps its process; the wish holds for that process's successors, and
// ends with the host. A transport that the configuration disables gets its
// process when it is switched on, and SetTransportEnabled returns when that is
// ready, or with why it is not.
func (h *Host) SetTransportEnabled(ctx context.Context, instance string, on bool) error {
	p, err := h.find(instance)
	if err != nil {
		return err
	}
	return p.SetEnabled(ctx, on)
}

func (h *Host) find(instance string) (*supervisor.Plugin, error) {
	for _, p := range h.supervised() {
		if p.Status().Instance == instance {
			return p, nil
		}
	}
	var names []string
	for _, t := range h.configured() {
		if t.Name == instance {
			return nil, fmt.Errorf("transport %q is %w, and the terminal is given away at the start only", instance, supervisor.ErrDisabled)
		}
		names = append(names, t.Name)
	}
	return nil, fmt.Errorf("there is no transport %q; there are %s", instance, strings.Join(names, ", "))
}

// ReloadCredentials reads the credentials again, and reports whether they have
// changed; then the transports that are granted them are told. It is an error if
// no transport has needed them.
func (h *Host) ReloadCredentials(reason string) (changed bool, err error) {
	account, err := h.vault.credentials()
	if err != nil {
		return false, err
	}
	return account.Reload(reason), nil
}

// A CredentialsStatus says what a person may know of the credentials. It holds
// no secret.
type CredentialsStatus = credentials.Status

// CredentialsStatus returns what is known now, or an error if no transport has
// needed credentials.
func (h *Host) CredentialsStatus() (CredentialsStatus, error) {
	account, err := h.vault.credentials()
	if err != nil {
		return CredentialsStatus{}, err
	}
	return account.Status(), nil
}

// What follows is for the admin socket.

// AdminStatus implements [admin.Host].
func (h *Host) AdminStatus() any { return h.Status() }

// AdminPlugins implements [admin.Host].
func (h *Host) AdminPlugins() any { return h.pluginStatus() }

// AdminConnections implements [admin.Host].
func (h *Host) AdminConnections() any { return h.Connections() }

// AdminCredentials implements [admin.Host].
func (h *Host) AdminCredentials() (any, error) { return h.CredentialsStatus() }

// AdminAdmits implements [admin.Host]. Processes of plugins may not ask, nor what
// they have started; an application and what it has started may.
func (h *Host) AdminAdmits(c *net.UnixConn) error {
	instance, pid, err := h.starter.PeerOwner(c)
	if err != nil {
		return fmt.Errorf("the host does not answer: %w", err)
	}
	if instance == "" {
		return nil
	}
	h.router.Intruded(instance, pid)
	return fmt.Errorf("the host does not answer plugins: process %d belongs to transport %q", pid, instance)
}

// Serving implements [admin.Host].
func (h *Host) Serving() bool {
	s := h.Status()
	if s.State != StateServing {
		return false
	}
	for _, p := range s.Plugins {
		if p.Serves() {
			return true
		}
	}
	return false
}
