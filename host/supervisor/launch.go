package supervisor

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/go-plugin"
	"github.com/hashicorp/go-plugin/runner"

	"github.com/transporthost/transporthost/host/catalog"
	"github.com/transporthost/transporthost/host/internal/childproc"
	"github.com/transporthost/transporthost/host/internal/sandbox"
	"github.com/transporthost/transporthost/shared/rpc"
	"github.com/transporthost/transporthost/shared/transport"
)

// logLevelVariable is what the SDK reads its log level from.
const logLevelVariable = "TRANSPORTHOST_LOG_LEVEL"

// A process is one running incarnation of a plugin.
type process struct {
	runner *processRunner
	client *plugin.Client // go-plugin's name for the handle; used once per process
	link   *rpc.Link
	exe    catalog.Executable
	dir    string // of its socket
	log    hclog.Logger
}

// launch starts a process and shakes hands with it. On an error nothing of it
// is left.
func launch(ctx context.Context, spec Spec, opts Options, log hclog.Logger, files []*os.File) (*process, error) {
	if opts.Launching != nil {
		defer opts.Launching()()
	}
	exe, err := catalog.Open(spec.Path, spec.SHA256)
	if err != nil {
		return nil, err
	}
	p := &process{exe: exe, log: log}
	dir, err := os.MkdirTemp(opts.RuntimeDir, "p")
	if err != nil {
		_ = exe.Close()
		return nil, fmt.Errorf("making the socket directory of a plugin: %w", err)
	}
	p.dir = dir

	made := make(chan *processRunner, 1)
	policy := spec.Sandbox.Policy(sandbox.HerePlace(spec.Path, dir, len(files) > 0))
	env := confinedEnviron(policy, dir)
	env[logLevelVariable] = logLevel(log)
	for k, v := range spec.Env {
		env[k] = v
	}
	p.client = plugin.NewClient(&plugin.ClientConfig{
		HandshakeConfig:  rpc.Handshake(),
		VersionedPlugins: rpc.HostPlugins(),
		AllowedProtocols: []plugin.Protocol{plugin.ProtocolGRPC},
		AutoMTLS:         true,
		SkipHostEnv:      true,
		StartTimeout:     opts.LaunchTimeout,
		GRPCDialOptions:  rpc.DialOptions(),
		UnixSocketConfig: &plugin.UnixSocketConfig{TempDir: dir},
		Logger:           pluginLogger{log, &budget{most: mostWords, perSecond: wordsPerSecond}},
		SyncStdout:       io.Discard, // what a plugin prints behind the handshake is nobody's
		SyncStderr:       io.Discard,
		RunnerFunc: func(_ hclog.Logger, cmd *exec.Cmd, sockets string) (runner.Runner, error) {
			program := &exec.Cmd{Path: spec.Path, Args: []string{spec.Path}, Env: append(childproc.Environ(env), cmd.Env...), ExtraFiles: slices.Clone(files)}
			if policy.Off {
				program.Path = exe.Path
			}
			r, err := newProcessRunner(opts.Starter, cmp.Or(spec.Instance, spec.Path), program, policy, exe.File)
			if err == nil {
				r.sockets = sockets
				made <- r
			}
			return r, err
		},
	})

	ctx, cancel := context.WithTimeoutCause(ctx, opts.LaunchTimeout, errors.New("no handshake in time"))
	defer cancel()
	// go-plugin's calls know no context. Killing the process frees them.
	shaken := make(chan error, 1)
	go func() { shaken <- p.shakeHands() }()
	select {
	case p.runner = <-made:
		select {
		case err = <-shaken:
		case <-ctx.Done():
			_ = p.runner.Kill(ctx)
			<-shaken
			err = context.Cause(ctx)
		}
	case err = <-shaken:
		select { // a process that failed at once came with it
		case p.runner = <-made:
		default:
		}
	}
	if err != nil {
		err = p.describeLaunch(err, ctx.Err() != nil)
		p.release()
		return nil, err
	}
	return p, nil
}

func (p *process) shakeHands() error {
	protocol, err := p.client.Client()
	if err != nil {
		return err
	}
	raw, err := protocol.Dispense(rpc.PluginName)
	if err != nil {
		return err
	}
	link, ok := raw.(*rpc.Link)
	if !ok {
		return fmt.Errorf("dispensed a %T", raw)
	}
	p.link = link
	return nil
}

// release frees what is left of a process; it kills one that still runs.
func (p *process) release() {
	if p.runner != nil {
		_ = p.runner.Kill(context.Background()) // it does not wait
		if p.runner.pid() != 0 {
			<-p.runner.exited // SIGKILL
		}
		// Kill knows no deadline, but has nothing to wait for: the process is gone.
		p.client.Kill()
		p.runner.close()
	}
	_ = p.exe.Close()
	_ = os.RemoveAll(p.dir)
}

// wait reports whether the process is gone within d.
func (p *process) wait(d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-p.runner.exited:
		return true
	case <-t.C:
		return false
	}
}

// end climbs the stop ladder and returns when the process is gone. It reports
// what had to be done beyond asking.
func (p *process) end(ctx context.Context, drain time.Duration, caps transport.Capabilities) string {
	ctx = context.WithoutCancel(ctx) // its end is usually why we are here
	if caps.Drain {
		c, cancel := context.WithTimeout(ctx, drain)
		if err := p.link.Drain(c); err != nil {
			p.log.Debug("draining", "error", err)
		}
		cancel()
	}
	c, cancel := context.WithTimeout(ctx, transport.StopTimeout)
	if err := p.link.Stop(c); err != nil {
		p.log.Debug("stopping", "error", err)
	}
	cancel()
	_ = p.runner.lifeline.Close()
	if p.wait(lifelineGrace) {
		return ""
	}
	childproc.Terminate(p.runner.pid())
	if p.wait(termGrace) {
		return "it ended only after SIGTERM"
	}
	childproc.Kill(p.runner.pid())
	if p.wait(killGrace) {
		return "it ended only after SIGKILL"
	}
	return "it did not end after SIGKILL"
}

func logLevel(l hclog.Logger) string {
	switch {
	case l.IsTrace():
		return "trace"
	case l.IsDebug():
		return "debug"
	case l.IsInfo():
		return "info"
	case l.IsWarn():
		return "warn"
	}
	return "error"
}

// A pluginLogger is what go-plugin logs to. Its own words are for debugging: the
// supervisor says what happened. The plugin's lines come through Named.
type pluginLogger struct {
	hclog.Logger
	words *budget
}

func (l pluginLogger) Info(msg string, args ...any)  { l.Logger.Debug(msg, args...) }
func (l pluginLogger) Warn(msg string, args ...any)  { l.Logger.Debug(msg, args...) }
func (l pluginLogger) Error(msg string, args ...any) { l.Logger.Debug(msg, args...) }
func (l pluginLogger) Named(string) hclog.Logger     { return wordLogger{l.Logger, l.words} }

// StandardLogger implements [hclog.Logger].
func (l pluginLogger) StandardLogger(o *hclog.StandardLoggerOptions) *log.Logger {
	return l.Logger.StandardLogger(o)
}

// Probe launches the plugin at spec.Path, asks who it is, and ends it.
func Probe(ctx context.Context, spec Spec, opts Options) (transport.Description, error) {
	logger := opts.Logger
	if logger == nil {
		logger = hclog.NewNullLogger()
	}
	if opts.LaunchTimeout == 0 {
		opts.LaunchTimeout = DefaultLaunchTimeout
	}
	if spec.Sandbox.Network == nil { // whoever answers a question needs none
		spec.Sandbox.Network = new(bool)
	}
	p, err := launch(ctx, spec, opts, logger, nil)
	if err != nil {
		return transport.Description{}, fmt.Errorf("asking %s: %w", filepath.Base(spec.Path), err)
	}
	defer p.release()
	c, cancel := context.WithTimeout(ctx, transport.DescribeTimeout)
	defer cancel()
	d, err := p.link.Describe(c)
	if err != nil {
		return d, fmt.Errorf("asking %s: %w", filepath.Base(spec.Path), err)
	}
	if err := checkDescription(d); err != nil {
		return transport.Description{}, fmt.Errorf("asking %s: %w", filepath.Base(spec.Path), err)
	}
	return d, nil
}
