package host

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/transporthost/transporthost/host/application"
	"github.com/transporthost/transporthost/host/config"
	"github.com/transporthost/transporthost/host/credentials"
	"github.com/transporthost/transporthost/host/internal/backoff"
	"github.com/transporthost/transporthost/host/supervisor"
	"github.com/transporthost/transporthost/shared/transport"
)

// Config is what a host is made of. Application and Transports are required;
// the zero value of everything else works.
type Config struct {
	Application Application
	Transports  []Transport

	// PluginDirs are searched for the executables transport-NAME, in this
	// order. Empty: plugins/ beside this program.
	PluginDirs []string
	// RuntimeDir is a directory that only this user can enter, for sockets; hosts
	// may share it. It is made if it is not there. Empty: one under the system's
	// temporary directory, removed at the end.
	RuntimeDir string
	// Credentials are the account's. They are read only if a transport is granted
	// them.
	Credentials Credentials
	// StateDir holds what transports store that are granted that. Empty:
	// $XDG_STATE_HOME/transporthost, or the system's usual place.
	StateDir string

	// Admin opens an admin socket below RuntimeDir, for `transporthost status`.
	Admin bool
	// AdminListen is a HOST:PORT for health checks; empty: none.
	AdminListen string

	Logger hclog.Logger // nil: discard
	Stdin  io.Reader    // of the stdio transport; nil: none
	Stdout io.Writer

	// Sockets are listening sockets that somebody bound before, such as a service
	// manager. One that is bound to an address of a transport's Listen is used
	// instead of binding that; one that no transport listens on is a mistake, which
	// Run returns. The files are Run's, and closed by it; a unix socket keeps its
	// name in the file system.
	Sockets []*os.File

	MaxMessageBytes int           // 0: 64 MiB
	MaxConnections  int           // of all transports together; 0: 65,536
	SlowAfter       time.Duration // 0: 30 s
	DrainTimeout    time.Duration // that requests in flight get at the end; 0: 10 s
	RetireTimeout   time.Duration // that open connections of a replaced process get; 0: 30 s
	ProbeInterval   time.Duration // 0: 5 s
	ProbeTimeout    time.Duration // 0: 15 s
	Restart         RestartPolicy // zero: 250 ms doubling to 30 s, given up after 5 failures in 10 min

	// SoleParent says that nothing but the host starts processes in this program.
	// Then they bear their mark from their first instruction on, because this
	// process bears it while it starts one. Else it takes up to a millisecond, in
	// which a program can start another that is not known for its descendant, if
	// that one leaves its session, its parent and its environment behind.
	SoleParent bool

	// Launching is called before a plugin's process is made, and what it returns
	// when that has shaken hands, or is gone. Between the two the host computes keys
	// and starts a process, which holds a processor for milliseconds at a time: a
	// program that keeps the Go runtime to one processor may give it another one
	// for so long. Both are called by any goroutine, several launches may be under
	// way, and neither may block. May be nil.
	Launching func() (done func())
	// Ready is called once: as soon as a transport is ready, and every other one
	// is too, or has failed, be it that it is tried again. It must not block. May
	// be nil.
	Ready func(Status)
	// Changed is called, by one goroutine, whenever the state of the host or of a
	// transport has changed, from the start until the host has stopped; several
	// changes may be one call. It must not block. May be nil.
	Changed func(Status)
}

// A RestartPolicy says how a process that died is started again.
type RestartPolicy = backoff.Policy

// DefaultDrainTimeout is long enough for a usual request, and short enough for
// a service manager's patience.
const DefaultDrainTimeout = 10 * time.Second

// An Application is what the peers reach: exactly one of Handler, Command,
// Dial and Echo.
type Application struct {
	Handler application.Handler
	Command application.Command
	Shared  bool                 // one process of Command for all peers, instead of one each
	Dial    application.Endpoint // a server that is dialled for every peer
	Echo    bool                 // the built-in application that answers requests with their params
}

// Credentials say where the account's are. The zero value is the usual place.
type Credentials struct {
	File     string // auth.json; empty: $CODEX_HOME/auth.json, or ~/.codex/auth.json
	TokenURL string // where tokens are refreshed; empty: $CODEX_REFRESH_TOKEN_URL_OVERRIDE, or the usual one
	ClientID string // of this program at TokenURL; empty: the usual one

	// Proxy is that on the way to TokenURL, unless that is an http:// of this
	// machine: an http://, https:// or socks5:// URL, or "direct". Empty: the
	// environment's.
	Proxy transport.Secret
	// CAFile holds authorities in PEM that are trusted beside the system's, by
	// TokenURL and an https:// proxy. It is read at the start. Empty: none.
	CAFile string
}

// A Grant is something of the host's that a transport may ask for.
type Grant = config.Grant

// The grants. Whatever a transport is not granted is refused to it.
const (
	GrantCredentials = config.GrantCredentials // the account's short-lived token
	GrantState       = config.GrantState       // values that outlive the host
	GrantClientName  = config.GrantClientName  // what the program at the terminal calls itself
)

// A Transport is one instance of a plugin.
type Transport struct {
	Name     string
	Plugin   string   // empty: Name
	Listen   []string // addresses that the host binds and passes
	SHA256   string   // pinned checksum of the plugin, in hexadecimal
	Env      map[string]string
	Disabled bool              // no process and no socket, until [Host.SetTransportEnabled]
	Grant    []Grant           // nil: all of them for the plugin remotecontrol, none for others
	Framing  transport.Framing // of the terminal, for the plugin stdio; empty: ndjson
	Sandbox  Sandbox           // what its processes may do beyond the default
	Paths    []string          // files and directories that Config names: its processes may read them

	// Config makes the plugin's configuration once the plugin has said what it
	// knows. nil: the addresses of Listen under "listen", if there are any.
	Config func(d transport.Description) (json.RawMessage, error)
}

// A Sandbox says what a transport's processes may do beyond the default; see
// docs/sandbox.md. On other systems than Linux nothing is confined.
type Sandbox = config.Sandbox

// terminalPlugin is the plugin that is granted the user's stdin and stdout.
const terminalPlugin = "stdio"

func (c Config) withDefaults() Config {
	if c.Logger == nil {
		c.Logger = hclog.NewNullLogger()
	}
	if c.Ready == nil {
		c.Ready = func(Status) {}
	}
	c.MaxMessageBytes = cmp.Or(c.MaxMessageBytes, transport.DefaultMaxMessageBytes)
	c.DrainTimeout = cmp.Or(c.DrainTimeout, DefaultDrainTimeout)
	c.Credentials.TokenURL = cmp.Or(c.Credentials.TokenURL, config.TokenURL(os.Getenv))
	transports := make([]Transport, len(c.Transports))
	for i, t := range c.Transports {
		t.Plugin = cmp.Or(t.Plugin, t.Name)
		t.Framing = cmp.Or(t.Framing, transport.NDJSON)
		if t.Grant == nil {
			t.Grant = config.DefaultGrants(t.Plugin)
		}
		if t.Config == nil {
			t.Config = listenOnly(t.Listen)
		}
		transports[i] = t
	}
	c.Transports = transports
	return c
}

func (c Config) names() []string {
	names := make([]string, 0, len(c.Transports))
	for _, t := range c.Transports {
		names = append(names, t.Name)
	}
	return names
}

func listenOnly(addresses []string) func(transport.Description) (json.RawMessage, error) {
	return func(transport.Description) (json.RawMessage, error) {
		if len(addresses) == 0 {
			return json.RawMessage("{}"), nil
		}
		return json.Marshal(map[string]any{"listen": addresses})
	}
}

func (c Config) validate() error {
	var errs []error
	kinds := 0
	for _, set := range []bool{c.Application.Handler != nil, len(c.Application.Command.Args) > 0, c.Application.Dial.URL != "", c.Application.Echo} {
		if set {
			kinds++
		}
	}
	if kinds != 1 {
		errs = append(errs, fmt.Errorf("Application has %d of Handler, Command, Dial and Echo, want one", kinds))
	}
	if len(c.Transports) == 0 {
		errs = append(errs, errors.New("no transport configured; use --listen or a transport block"))
	}
	if c.Admin && c.RuntimeDir == "" {
		errs = append(errs, errors.New("the option Admin needs RuntimeDir: that is where its socket is looked for"))
	}
	if !c.Admin && c.AdminListen != "" {
		errs = append(errs, errors.New("the option AdminListen needs Admin"))
	}
	names, terminals, disabled := map[string]bool{}, 0, 0
	for _, t := range c.Transports {
		if err := t.Sandbox.Validate(); err != nil {
			errs = append(errs, fmt.Errorf("transport %q: %w", t.Name, err))
		}
		if t.Name == "" {
			errs = append(errs, errors.New("a transport has no name"))
		}
		if names[t.Name] {
			errs = append(errs, fmt.Errorf("two transports are called %q", t.Name))
		}
		names[t.Name] = true
		for _, g := range t.Grant {
			if !slices.Contains(config.Grants(), g) {
				errs = append(errs, fmt.Errorf("transport %q is granted %q, which there is not", t.Name, g))
			}
		}
		if t.Disabled {
			disabled++
			continue
		}
		if t.Plugin == terminalPlugin {
			if terminals++; terminals == 2 {
				errs = append(errs, errors.New("two transports use the plugin stdio; there is one stdin"))
			}
			if c.Stdin == nil || c.Stdout == nil {
				errs = append(errs, fmt.Errorf("transport %q needs Stdin and Stdout", t.Name))
			}
		}
	}
	if u := c.Credentials.TokenURL; u != "" && config.BadTokenURL(u) != "" {
		errs = append(errs, fmt.Errorf("the address where tokens are refreshed is %q; %s", config.WithoutPassword(u), config.BadTokenURL(u)))
	}
	if p := c.Credentials.Proxy; p != "" && config.BadProxy(string(p)) != "" {
		errs = append(errs, fmt.Errorf("the proxy of the credentials is not the address of one; %s", config.BadProxy(string(p))))
	}
	if file := c.Credentials.CAFile; file != "" {
		if _, err := credentials.Authorities(file); err != nil {
			errs = append(errs, fmt.Errorf("the credentials: %w", err))
		}
	}
	if disabled > 0 && disabled == len(c.Transports) {
		errs = append(errs, errors.New("every transport is disabled"))
	}
	for _, d := range []struct {
		name  string
		value time.Duration
	}{{"SlowAfter", c.SlowAfter}, {"DrainTimeout", c.DrainTimeout}, {"RetireTimeout", c.RetireTimeout}, {"ProbeInterval", c.ProbeInterval}, {"ProbeTimeout", c.ProbeTimeout}} {
		if d.value < 0 {
			errs = append(errs, fmt.Errorf("%s is %v, want 0 or more", d.name, d.value))
		}
	}
	if c.Restart != (RestartPolicy{}) {
		if err := c.Restart.Validate(); err != nil {
			errs = append(errs, fmt.Errorf("the restart policy: %w", err))
		}
	}
	interval, silence := cmp.Or(c.ProbeInterval, supervisor.DefaultProbeInterval), cmp.Or(c.ProbeTimeout, supervisor.DefaultProbeTimeout)
	if silence <= interval {
		errs = append(errs, fmt.Errorf("ProbeTimeout is %v, want more than ProbeInterval, which is %v", silence, interval))
	}
	if c.MaxConnections < 0 {
		errs = append(errs, fmt.Errorf("MaxConnections is %d, want 0 or more", c.MaxConnections))
	}
	if c.MaxMessageBytes < 1 {
		errs = append(errs, fmt.Errorf("MaxMessageBytes is %d, want 1 or more", c.MaxMessageBytes))
	}
	return errors.Join(errs...)
}
