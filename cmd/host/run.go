package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"sync"

	"github.com/hashicorp/go-hclog"
	"github.com/spf13/cobra"

	"github.com/transporthost/transporthost/host"
)

type runFlags struct {
	config     string
	flags      host.Flags
	pluginDirs []string
	runtimeDir string
	logLevel   string
	logJSON    bool
}

func newRun(io streams) *cobra.Command {
	var f runFlags
	c := &cobra.Command{
		Use:   "run [flags] [-- PROGRAM [ARGUMENT]...]",
		Short: "Run an application and its transports",
		Long: `Runs an application and its transports until SIGINT or SIGTERM: then requests
in flight are finished, peers are told, and everything ends. A second signal
ends at once. SIGHUP reads the account's credentials and the file of --config
again, and replaces the plugins whose file or configuration has changed; when
the terminal has gone, it ends the host like SIGTERM. A host that serves stdin
only, or beside remote control, ends with its input.

Without --config, the transports are those of --listen (default: stdio://), and
the application is the program behind --.`,
		Example: `  # an MCP server for one peer on stdin, and for any number over WebSocket
  transporthost run --listen stdio:// --listen ws://127.0.0.1:4500 -- npx -y @modelcontextprotocol/server-everything

  # one process for all peers
  transporthost run --listen ws://127.0.0.1:4500 --mode shared -- codex app-server

  # a language server
  transporthost run --listen ws://127.0.0.1:4500 --framing content-length -- gopls

  # one process for the terminal and, behind a relay, for the account's devices
  transporthost run --remote --mode shared -- codex app-server

  # everything from a file
  transporthost run --config /etc/transporthost/host.hcl`,
		Args: func(c *cobra.Command, args []string) error {
			if len(args) > 0 && c.ArgsLenAtDash() != 0 {
				return usageError{fmt.Errorf("unexpected argument %q; the program goes behind --", args[0])}
			}
			return nil
		},
		RunE: func(c *cobra.Command, args []string) error {
			f.flags.Command = args
			return runHost(c.Context(), c, f, io)
		},
	}
	fl := c.Flags()
	fl.StringVar(&f.config, "config", "", "configuration `FILE` (HCL); excludes the flags that it stands for")
	fl.StringArrayVar(&f.flags.Listen, "listen", nil, "`URL` to serve: stdio://, ws://IP:PORT, unix:///PATH; may be repeated; off: none")
	fl.StringVar(&f.flags.Builtin, "builtin", "", "built-in `APPLICATION` instead of a program: echo")
	fl.StringVar(&f.flags.Mode, "mode", "", "per-connection (one process each, the default) or shared (one for all peers)")
	fl.StringVar(&f.flags.Framing, "framing", "", "how the program's messages are told apart: ndjson (default) or content-length")
	fl.BoolVar(&f.flags.Remote, "remote", false, "also serve peers behind a relay (plugin remotecontrol)")
	fl.StringVar(&f.flags.RemoteURL, "remote-url", "", "`URL` of the relay's backend; default: the plugin's")
	fl.StringVar(&f.flags.AuthFile, "auth-file", "", "`FILE` with the account's credentials; default: $CODEX_HOME/auth.json, else ~/.codex/auth.json")
	fl.StringVar(&f.flags.StateDir, "state-dir", "", "`DIR` for what transports store; default: $XDG_STATE_HOME/transporthost, or the system's usual place")
	fl.StringArrayVar(&f.pluginDirs, "plugin-dir", nil, "`DIR` with the plugins; default: plugins/ beside this program; may be repeated")
	fl.StringVar(&f.runtimeDir, "runtime-dir", "", "`DIR` for sockets; default: see transporthost status --help")
	fl.StringVar(&f.logLevel, "log-level", "info", "trace, debug, info, warn or error")
	fl.BoolVar(&f.logJSON, "log-json", false, "log lines as JSON")
	_ = c.RegisterFlagCompletionFunc("listen", cobra.FixedCompletions([]string{"stdio://", "ws://127.0.0.1:", "unix:///", "off"}, cobra.ShellCompDirectiveNoSpace))
	_ = c.MarkFlagFilename("config", "hcl")
	_ = c.MarkFlagFilename("auth-file", "json")
	_ = c.MarkFlagDirname("state-dir")
	_ = c.MarkFlagDirname("plugin-dir")
	_ = c.MarkFlagDirname("runtime-dir")
	_ = c.RegisterFlagCompletionFunc("mode", cobra.FixedCompletions([]string{"per-connection", "shared"}, cobra.ShellCompDirectiveNoFileComp))
	_ = c.RegisterFlagCompletionFunc("framing", cobra.FixedCompletions([]string{"ndjson", "content-length"}, cobra.ShellCompDirectiveNoFileComp))
	_ = c.RegisterFlagCompletionFunc("builtin", cobra.FixedCompletions([]string{"echo"}, cobra.ShellCompDirectiveNoFileComp))
	_ = c.RegisterFlagCompletionFunc("log-level", cobra.FixedCompletions([]string{"trace", "debug", "info", "warn", "error"}, cobra.ShellCompDirectiveNoFileComp))
	return c
}

// loadConfig reads the file, or makes the same of the flags.
func (f runFlags) loadConfig(c *cobra.Command) (*host.FileConfig, error) {
	if f.config == "" {
		cfg, err := host.ConfigFromFlags(f.flags)
		if err != nil {
			return nil, usageError{err}
		}
		return cfg, nil
	}
	for _, name := range []string{"listen", "builtin", "mode", "framing", "remote", "remote-url", "auth-file", "state-dir"} {
		if c.Flags().Changed(name) {
			return nil, usageError{fmt.Errorf("--%s and --config exclude each other; the file says it", name)}
		}
	}
	if len(f.flags.Command) > 0 {
		return nil, usageError{errors.New("a program behind -- and --config exclude each other; the file says it")}
	}
	cfg, err := host.LoadConfig(f.config)
	if err != nil {
		return nil, usageError{err}
	}
	return cfg, nil
}

func newLogger(f runFlags, io streams) (hclog.Logger, error) {
	level := hclog.LevelFromString(f.logLevel)
	if level == hclog.NoLevel {
		return nil, usageError{fmt.Errorf("--log-level is %q, want trace, debug, info, warn or error", f.logLevel)}
	}
	return hclog.New(&hclog.LoggerOptions{Name: "transporthost", Level: level, Output: io.err, JSONFormat: f.logJSON}), nil
}

func runHost(ctx context.Context, c *cobra.Command, f runFlags, io streams) error {
	log, err := newLogger(f, io)
	if err != nil {
		return err
	}
	file, err := f.loadConfig(c)
	if err != nil {
		return err
	}
	dir, err := resolveRuntimeDir(f.runtimeDir)
	if err != nil {
		return err
	}
	sockets, err := passedSockets(log)
	if err != nil {
		return err
	}
	manager := newNotifier(log)
	configure := func(file *host.FileConfig) host.Config {
		cfg := file.HostConfig()
		cfg.PluginDirs, cfg.RuntimeDir, cfg.Logger = f.pluginDirs, dir, log
		cfg.Stdin, cfg.Stdout = io.in, io.out
		cfg.AdminListen = file.AdminListen()
		cfg.Admin, cfg.SoleParent = true, true
		return cfg
	}
	cfg := configure(file)
	cfg.Sockets = sockets
	var h *host.Host
	cfg.Ready = func(s host.Status) {
		announce(io, s)
		manager.serving(h, s)
	}
	if os.Getenv("GOMAXPROCS") == "" {
		cfg.Launching = shareProcessors().launching
	}
	if manager.listens() {
		cfg.Changed = manager.changed
	}
	if h, err = host.New(cfg); err != nil {
		return usageError{err}
	}

	telling, told := context.WithCancel(context.WithoutCancel(ctx))
	var teller sync.WaitGroup
	teller.Go(func() { manager.run(telling) })
	defer teller.Wait()
	defer told()
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	signals := listenForSignals()
	defer signals.end()
	again := reloader{host: h, log: log, manager: manager, read: func() (host.Config, error) {
		file, err := f.loadConfig(c)
		if err != nil {
			return host.Config{}, err
		}
		return configure(file), nil
	}}
	signals.start(h, log, func() { again.reload(ctx) }, stop)
	err = h.Run(ctx)
	if errors.Is(err, host.ErrInvalidConfig) || errors.Is(err, host.ErrPluginNotFound) {
		return usageError{err}
	}
	return err
}

// announce tells people, and programs that read stderr, what is served. Every
// address has a line "  NAME  ADDRESS"; the last line is "transporthost: ready".
func announce(io streams, s host.Status) {
	for _, p := range s.Plugins {
		for _, a := range p.Addresses {
			fmt.Fprintf(io.err, "  %-12s %s\n", p.Instance, a)
		}
		if p.Cause != "" && len(p.Addresses) == 0 {
			fmt.Fprintf(io.err, "  %-12s %s: %s\n", p.Instance, p.State, p.Cause)
		}
	}
	if s.Admin != "" {
		fmt.Fprintf(io.err, "  %-12s %s\n", "admin", s.Admin)
	}
	fmt.Fprintln(io.err, "transporthost: ready")
}

// writeJSON prints v, indented.
func writeJSON(io streams, v any) error {
	e := json.NewEncoder(io.out)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	return e.Encode(v)
}
