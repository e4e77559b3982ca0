// Package supervisor runs plugin processes: it launches them, watches that they
// live, replaces those that die, and ends them so that nothing remains.
package supervisor

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/transporthost/transporthost/host/internal/backoff"
	"github.com/transporthost/transporthost/host/internal/childproc"
	"github.com/transporthost/transporthost/host/internal/sandbox"
	"github.com/transporthost/transporthost/shared/rpc"
	"github.com/transporthost/transporthost/shared/transport"
)

// A Spec says what one plugin instance is.
type Spec struct {
	Instance string            // the name of the transport block
	Plugin   string            // the name of the plugin, as the catalog has it
	Path     string            // of the executable
	SHA256   string            // pinned checksum in hexadecimal; empty: none
	Env      map[string]string // beside the allow-list
	Config   json.RawMessage   // for the plugin
	Disabled bool              // has no process before [Plugin.SetEnabled]

	// Listeners are the sockets that the plugin accepts from. They are the
	// host's, and outlive the process.
	Listeners *Listeners
	// Terminal is the user's stdin and stdout, for the one plugin that is
	// granted it; nil for all others.
	Terminal *Terminal

	MaxMessageBytes int

	// Origin is the caller's own, for the functions of [Options]: what of its
	// configuration this spec was made of.
	Origin any

	// Sandbox says what its processes may do beyond the default.
	Sandbox sandbox.Request
}

// An Attachment takes the events of one process; see package router.
type Attachment interface {
	rpc.Events
	// Started says that the process is ready, and which connections of an
	// earlier one it goes on with.
	Started(adopted []transport.ConnID)
	// Delivered says that the terminal got so many messages from the process,
	// whatever that has acknowledged: all of its one connection, in order.
	Delivered(messages int)
	// Connections is how many the process carries now.
	Connections() int
	// CloseAll closes them, each after what is queued on it. It does not wait.
	CloseAll(reason transport.CloseReason)
	// Detach says that the process is gone.
	Detach(reason transport.CloseReason, resume bool)
}

// Sessions is what the supervisor needs of the router.
type Sessions interface {
	Attach(instance string, incarnation int, link *rpc.Link) Attachment
	Resumable(instance string) []transport.Resume
	Abandon(instance string, reason transport.CloseReason)
}

// Defaults of [Options].
const (
	DefaultProbeInterval = 5 * time.Second
	DefaultProbeTimeout  = 15 * time.Second // three probes: a busy machine is not a dead plugin
	DefaultLaunchTimeout = 20 * time.Second // a cold start on a loaded machine
	DefaultDrainTimeout  = 1 * time.Second
	// DefaultRetireTimeout is longer than most requests take, and short enough
	// for a person who replaced a plugin to see the end of the old one.
	DefaultRetireTimeout = 30 * time.Second
)

// The stop ladder: 1 s to drain, 1 s to stop, then these; 5 s in all.
const (
	lifelineGrace = 1 * time.Second // after the lifeline is cut
	termGrace     = 1 * time.Second // after SIGTERM
	killGrace     = 1 * time.Second // after SIGKILL: the kernel's part
)

// Options are what all plugins of a host share. Sessions, Starter, RuntimeDir
// and HostCalls are required.
type Options struct {
	Sessions   Sessions
	Starter    *childproc.Starter
	HostCalls  func(spec Spec, incarnation int, report func(transport.Status)) rpc.HostCalls
	RuntimeDir string       // private to this host; short, for socket paths
	Logger     hclog.Logger // nil: discard

	// Strictness is asked for every process, between Describe and Start, and may
	// wait until ctx ends; nil: always [transport.AllowRecoverable].
	Strictness func(ctx context.Context, instance string, incarnation int, locality transport.Locality) transport.AuthStrictness
	// Check looks at what a plugin says of itself, and makes the configuration
	// that it gets. An error is final. nil: Spec.Config is used as it is.
	Check func(spec Spec, d transport.Description) (json.RawMessage, error)
	// Prepare is called before every process, to make what that needs and to fill
	// in spec, which is a copy. An error counts as a failed start. May be nil.
	Prepare func(ctx context.Context, spec *Spec) error
	// Launching is called before a process is made, and what it returns when that
	// has shaken hands, or is gone: see host.Config. Neither may block. May be nil.
	Launching func() (done func())
	// Changed is called after every change of a plugin's state, or of what it
	// says of itself. It must not block. May be nil.
	Changed func(instance string)

	ProbeInterval time.Duration
	ProbeTimeout  time.Duration
	LaunchTimeout time.Duration
	DrainTimeout  time.Duration
	RetireTimeout time.Duration // that the open connections of a replaced process get
	Restart       backoff.Policy
	Random        *rand.Rand // of the restart's jitter; nil: seeded by the system
}

func (o Options) withDefaults() (Options, error) {
	var errs []error
	if o.Sessions == nil {
		errs = append(errs, errors.New("option Sessions is required"))
	}
	if o.Starter == nil {
		errs = append(errs, errors.New("option Starter is required"))
	}
	if o.HostCalls == nil {
		errs = append(errs, errors.New("option HostCalls is required"))
	}
	if o.RuntimeDir == "" {
		errs = append(errs, errors.New("option RuntimeDir is required"))
	}
	// 108 bytes less what go-plugin appends: /plugin-dirNNNNNNNNNN/pluginNNNNNNNNNN.
	if n := len(o.RuntimeDir); n > 60 {
		errs = append(errs, fmt.Errorf("RuntimeDir %q has %d bytes, want at most 60: the path of a socket in it may have 108", o.RuntimeDir, n))
	}
	if o.Logger == nil {
		o.Logger = hclog.NewNullLogger()
	}
	if o.Strictness == nil {
		o.Strictness = func(context.Context, string, int, transport.Locality) transport.AuthStrictness {
			return transport.AllowRecoverable
		}
	}
	if o.Check == nil {
		o.Check = func(s Spec, _ transport.Description) (json.RawMessage, error) { return s.Config, nil }
	}
	if o.Prepare == nil {
		o.Prepare = func(context.Context, *Spec) error { return nil }
	}
	if o.Changed == nil {
		o.Changed = func(string) {}
	}
	o.ProbeInterval = cmp.Or(o.ProbeInterval, DefaultProbeInterval)
	o.ProbeTimeout = cmp.Or(o.ProbeTimeout, DefaultProbeTimeout)
	o.LaunchTimeout = cmp.Or(o.LaunchTimeout, DefaultLaunchTimeout)
	o.DrainTimeout = cmp.Or(o.DrainTimeout, DefaultDrainTimeout)
	o.RetireTimeout = cmp.Or(o.RetireTimeout, DefaultRetireTimeout)
	if o.Restart == (backoff.Policy{}) {
		o.Restart = backoff.Default()
	}
	if err := o.Restart.Validate(); err != nil {
		errs = append(errs, fmt.Errorf("option Restart: %w", err))
	}
	if o.Random == nil {
		o.Random = rand.New(rand.NewPCG(rand.Uint64(), rand.Uint64()))
	}
	return o, errors.Join(errs...)
}
