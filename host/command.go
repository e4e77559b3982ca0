package host

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"

	"github.com/hashicorp/go-hclog"

	"github.com/transporthost/transporthost/host/admin"
	"github.com/transporthost/transporthost/host/application"
	"github.com/transporthost/transporthost/host/catalog"
	"github.com/transporthost/transporthost/host/config"
	"github.com/transporthost/transporthost/host/credentials"
	"github.com/transporthost/transporthost/host/internal/childproc"
	"github.com/transporthost/transporthost/host/internal/rundir"
	"github.com/transporthost/transporthost/host/internal/sandbox"
	"github.com/transporthost/transporthost/host/supervisor"
	"github.com/transporthost/transporthost/shared/transport"
)

// What the command transporthost needs beyond a Host.

// Flags are what a command line says instead of a file.
type Flags = config.Flags

// ErrInvalidConfig is returned by Run for a configuration that a plugin cannot
// use.
var ErrInvalidConfig = transport.ErrInvalidConfig

// ErrStopping is returned for what is asked of a host that is ending.
var ErrStopping = transport.ErrStopping

// ErrPluginNotFound is returned by Run for a plugin that no directory has.
var ErrPluginNotFound = catalog.ErrNotFound

// A FileConfig is a configuration in the form of a file.
type FileConfig struct{ c *config.Config }

// LoadConfig reads a file in HCL. The error has everything that is wrong with
// it, a line each, with file, line and column.
func LoadConfig(path string) (*FileConfig, error) {
	c, err := config.Load(path)
	if c == nil {
		return nil, err
	}
	if err = config.Also(err, checkAuthorities(c.Credentials)); err != nil {
		return nil, err
	}
	return &FileConfig{c}, nil
}

// checkAuthorities looks into the file of authorities, if one is named.
func checkAuthorities(c config.Credentials) error {
	if c.CAFile == "" {
		return nil
	}
	if _, err := credentials.Authorities(c.CAFile); err != nil {
		return c.AtCAFile(err)
	}
	return nil
}

// ConfigFromFlags makes the same of a command line.
func ConfigFromFlags(f Flags) (*FileConfig, error) {
	c, err := config.FromFlags(f)
	if err != nil {
		return nil, err
	}
	return &FileConfig{c}, nil
}

// AdminListen returns the address of the health checks, or "".
func (f *FileConfig) AdminListen() string { return f.c.Admin.Listen }

// HostConfig returns the Config that the file stands for.
func (f *FileConfig) HostConfig() Config {
	a := f.c.Application
	cfg := Config{
		Application: Application{
			Echo: a.Builtin == config.BuiltinEcho, Dial: application.Endpoint{URL: a.Dial, Framing: a.Framing, StopGrace: a.StopGrace}, Shared: a.Mode == config.ModeShared,
			Command: application.Command{Args: a.Command, Env: a.Env, Dir: a.Dir, Framing: a.Framing, StopGrace: a.StopGrace},
		},
		MaxMessageBytes: f.c.Limits.MaxMessageBytes, MaxConnections: f.c.Limits.MaxConnections, SlowAfter: f.c.Limits.SlowAfter, DrainTimeout: f.c.Limits.DrainTimeout,
		RetireTimeout: f.c.Limits.RetireTimeout,
	}
	cfg.ProbeInterval, cfg.ProbeTimeout, cfg.Restart = f.c.Supervision.ProbeInterval, f.c.Supervision.ProbeTimeout, f.c.Supervision.Restart
	account := f.c.Credentials
	cfg.Credentials = Credentials{File: account.File, TokenURL: account.TokenURL, ClientID: account.ClientID, Proxy: account.Proxy, CAFile: account.CAFile}
	cfg.StateDir = f.c.State.Dir
	for _, t := range f.c.Transports {
		cfg.Transports = append(cfg.Transports, Transport{
			Name: t.Name, Plugin: t.Plugin, Listen: t.Listen, SHA256: t.SHA256, Env: t.Env, Disabled: !t.Enabled,
			Grant: t.Grant, Framing: t.Framing(), Config: t.PluginConfig, Sandbox: t.Sandbox, Paths: t.Paths(),
		})
	}
	return cfg
}

// CheckConfig reads a file as [LoadConfig] does, and starts each plugin that it
// names to ask which keys it knows. The error has everything that is wrong, in
// the order of the file. dirs are as in Config.
func CheckConfig(ctx context.Context, path string, dirs []string) error {
	c, mistakes := config.Load(path)
	if c == nil {
		return mistakes
	}
	errs := []error{mistakes, checkAuthorities(c.Credentials)}
	err := withProbe(ctx, dirs, func(dirs []string, opts supervisor.Options) error {
		for _, t := range c.Transports {
			errs = append(errs, checkPlugin(ctx, t, dirs, opts))
		}
		return nil
	})
	return config.Also(append(errs, err)...)
}

func checkPlugin(ctx context.Context, t config.Transport, dirs []string, opts supervisor.Options) error {
	if !t.Launchable() {
		return nil
	}
	entry, err := catalog.Find(dirs, t.Plugin)
	if err != nil {
		return t.At(err)
	}
	d, err := supervisor.Probe(ctx, supervisor.Spec{
		Path: entry.Path, SHA256: t.SHA256, Env: t.Env, Sandbox: sandbox.Request{Exceptions: t.Sandbox, Named: t.Paths()},
	}, opts)
	if err != nil {
		return t.At(err)
	}
	_, err = t.PluginConfig(d)
	return err
}

// withProbe calls f with what is needed to start plugins for a question.
func withProbe(ctx context.Context, dirs []string, f func([]string, supervisor.Options) error) error {
	if len(dirs) == 0 {
		var err error
		if dirs, err = defaultPluginDirs(); err != nil {
			return err
		}
	}
	starter := childproc.NewStarter()
	var p premises
	dir, err := p.open(ctx, "", starter, nil, hclog.NewNullLogger())
	if err != nil {
		return err
	}
	defer p.close()
	var g group
	g.start(ctx, starter.Run)
	defer g.stop(nil)
	return f(dirs, supervisor.Options{Starter: starter, RuntimeDir: dir})
}

// A PluginInfo is one file of a plugin directory.
type PluginInfo struct {
	catalog.Entry
	Version      string   `json:"version,omitempty"`
	Locality     string   `json:"locality,omitempty"`
	Capabilities []string `json:"capabilities,omitempty"`
}

// ListPlugins says of every file in the directories whether it is a plugin.
// Those that may be are started and asked. dirs are as in Config; of the
// default ones, those that are not there are left out.
func ListPlugins(ctx context.Context, dirs []string) ([]PluginInfo, error) {
	list := []PluginInfo{}
	err := withEntries(ctx, dirs, func(e catalog.Entry, opts supervisor.Options) {
		list = append(list, ask(ctx, e, opts))
	})
	return list, err
}

// withEntries calls f with every file of the directories, and what to start it
// with. Of the default directories those that are not there are left out.
func withEntries(ctx context.Context, dirs []string, f func(catalog.Entry, supervisor.Options)) error {
	explicit := len(dirs) > 0
	return withProbe(ctx, dirs, func(dirs []string, opts supervisor.Options) error {
		for _, dir := range dirs {
			entries, err := catalog.Scan(dir)
			if !explicit && errors.Is(err, fs.ErrNotExist) {
				continue
			}
			if err != nil {
				return err
			}
			for _, e := range entries {
				f(e, opts)
			}
		}
		return nil
	})
}

func ask(ctx context.Context, e catalog.Entry, opts supervisor.Options) PluginInfo {
	info := PluginInfo{Entry: e}
	if !e.OK() {
		return info
	}
	d, err := supervisor.Probe(ctx, supervisor.Spec{Path: e.Path}, opts)
	if err != nil {
		info.Problem = err.Error()
		return info
	}
	info.Version, info.Locality, info.Capabilities = d.Version, d.Locality.String(), d.Capabilities.Names()
	if d.Name != e.Name {
		info.Problem = fmt.Sprintf("it calls itself %q, its file %q", d.Name, e.Name)
	}
	return info
}

// A RunningHost is where to ask a host that runs.
type RunningHost struct {
	PID int
	dir string
}

// FindHost returns the host that uses a runtime directory. If several do, pid
// says which; 0 is the only one. Those of other pid namespaces, which a volume of
// containers may have, count only if none of this one is meant.
func FindHost(runtimeDir string, pid int) (RunningHost, error) {
	var found, elsewhere []RunningHost
	for _, r := range rundir.Runs(runtimeDir) {
		h := RunningHost{PID: r.PID, dir: r.Path}
		switch {
		case pid != 0 && pid != r.PID:
		case r.Here():
			found = append(found, h)
		case r.Running():
			elsewhere = append(elsewhere, h)
		}
	}
	if len(found) == 0 {
		found = elsewhere
	}
	switch len(found) {
	case 0:
		if pid != 0 {
			return RunningHost{}, fmt.Errorf("%w: none with pid %d in %s", admin.ErrNoHost, pid, runtimeDir)
		}
		return RunningHost{}, fmt.Errorf("%w: none in %s; start one with: transporthost run", admin.ErrNoHost, runtimeDir)
	case 1:
		return found[0], nil
	}
	if pid != 0 {
		return RunningHost{}, fmt.Errorf("several hosts in %s have pid %d, in pid namespaces other than this; ask from within theirs", runtimeDir, pid)
	}
	var pids []string
	for _, r := range found {
		pids = append(pids, strconv.Itoa(r.PID))
	}
	return RunningHost{}, fmt.Errorf("several hosts run in %s; choose one with --pid: %s", runtimeDir, strings.Join(pids, ", "))
}

// Status asks the host for its status.
func (r RunningHost) Status(ctx context.Context) (Status, error) {
	var s Status
	err := admin.NewClient(r.dir).Status(ctx, &s)
	return s, err
}

// RestartPlugin asks the host to replace a process.
func (r RunningHost) RestartPlugin(ctx context.Context, instance string) error {
	return admin.NewClient(r.dir).RestartPlugin(ctx, instance)
}

// SetTransportEnabled asks the host to switch a transport on or off.
func (r RunningHost) SetTransportEnabled(ctx context.Context, instance string, on bool) error {
	return admin.NewClient(r.dir).SetTransportEnabled(ctx, instance, on)
}

// Credentials asks the host what a person may know of its credentials.
func (r RunningHost) Credentials(ctx context.Context) (CredentialsStatus, error) {
	var s CredentialsStatus
	err := admin.NewClient(r.dir).Credentials(ctx, &s)
	return s, err
}

// ReloadCredentials makes the host read its credentials again, and reports
// whether they have changed.
func (r RunningHost) ReloadCredentials(ctx context.Context) (changed bool, err error) {
	return admin.NewClient(r.dir).ReloadCredentials(ctx)
}

// A TransportStatus is what is known of one transport.
type TransportStatus = supervisor.Status

// Transport returns the transport called name. For "" it is the one that is
// remote; the error says why there is no such one.
func (s Status) Transport(name string) (TransportStatus, error) {
	var names []string
	if name != "" {
		for _, p := range s.Plugins {
			if p.Instance == name {
				return p, nil
			}
			names = append(names, p.Instance)
		}
		return TransportStatus{}, fmt.Errorf("there is no transport %q; there are %s", name, strings.Join(names, ", "))
	}
	remote := s.Remote()
	switch len(remote) {
	case 0:
		return TransportStatus{}, errors.New("this host has no remote transport; start one with: transporthost run --remote")
	case 1:
		return remote[0], nil
	}
	for _, p := range remote {
		names = append(names, p.Instance)
	}
	return TransportStatus{}, fmt.Errorf("several transports are remote; name one of %s", strings.Join(names, ", "))
}

// Remote returns the transports whose peers are behind a relay, those too whose
// plugin has not said so yet.
func (s Status) Remote() []TransportStatus {
	remote := []TransportStatus{}
	for _, p := range s.Plugins {
		if p.Locality == transport.Remote.String() || p.Locality == "" && p.Plugin == config.RemotePlugin {
			remote = append(remote, p)
		}
	}
	return remote
}

// VersionLine is what `transporthost version` prints.
func VersionLine() string {
	revision := ""
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" && len(s.Value) >= 12 {
				revision = " (" + s.Value[:12] + ")"
			}
		}
	}
	return fmt.Sprintf("transporthost %s%s %s %s/%s", Version(), revision, runtime.Version(), runtime.GOOS, runtime.GOARCH)
}

var _ admin.Host = (*Host)(nil)
