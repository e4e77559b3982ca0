//go:build unix

package host

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"go.uber.org/goleak"

	"github.com/transporthost/transporthost/host/admin"
	"github.com/transporthost/transporthost/host/supervisor"
	pluginsdk "github.com/transporthost/transporthost/plugin-sdk"
	"github.com/transporthost/transporthost/plugins/stdio"
	"github.com/transporthost/transporthost/shared/transport"
)

// limit bounds every wait: long, because it only passes when a test fails.
const limit = 30 * time.Second

// What is in the environment of a test process that is to be a plugin.
const (
	behaviour = "TEST_PLUGIN_BEHAVIOUR"
	gateAt    = "TEST_PLUGIN_GATE" // address that is dialled, and read from
)

func TestMain(m *testing.M) {
	switch b := os.Getenv(behaviour); b {
	case "":
		goleak.VerifyTestMain(m)
	case "stdio":
		os.Exit(pluginsdk.Main(stdio.New()))
	case "exits at once":
		os.Exit(3)
	default:
		os.Exit(pluginsdk.Main(&testPlugin{behaviour: b}))
	}
}

// testPlugin is a transport without peers.
type testPlugin struct {
	behaviour string
	host      chan *pluginsdk.Host // set by Serve
}

func (p *testPlugin) Describe() pluginsdk.Description {
	p.host = make(chan *pluginsdk.Host, 1)
	d := pluginsdk.Description{Name: "test", Version: "1.2.3", Locality: pluginsdk.Local}
	if strings.HasPrefix(p.behaviour, "remote") {
		d.Locality = pluginsdk.Remote
	}
	d.Config = []pluginsdk.ConfigKey{{Name: "listen", Type: pluginsdk.TypeStrings}}
	return d
}

func (p *testPlugin) Serve(ctx context.Context, h *pluginsdk.Host) error {
	p.host <- h
	switch p.behaviour {
	case "behind a gate":
		if err := passGate(ctx); err != nil {
			return err
		}
	case "ends at the gate":
		h.Ready()
		if err := passGate(ctx); err != nil {
			return err
		}
		return errors.New("the gate is open")
	case "remote that needs credentials":
		if h.Params().AuthStrictness == pluginsdk.RequireReady {
			return fmt.Errorf("%w: there is no auth.json", pluginsdk.ErrPermissionDenied)
		}
	}
	h.ReportStatus(strictnessReport(h.Params().AuthStrictness))
	h.Ready()
	<-ctx.Done()
	return nil
}

// SetAuthStrictness implements [pluginsdk.StrictnessSetter].
func (p *testPlugin) SetAuthStrictness(_ context.Context, s pluginsdk.AuthStrictness) error {
	h := <-p.host
	p.host <- h
	h.ReportStatus(strictnessReport(s))
	return nil
}

func strictnessReport(s pluginsdk.AuthStrictness) pluginsdk.Status {
	return pluginsdk.Status{State: fmt.Sprint("strictness ", s), Ready: true}
}

func passGate(ctx context.Context) error {
	d := net.Dialer{Timeout: limit}
	c, err := d.DialContext(ctx, "tcp", os.Getenv(gateAt))
	if err != nil {
		return err
	}
	defer c.Close()
	_, err = c.Read(make([]byte, 1))
	return err
}

// A gate is where a plugin waits until the test opens it.
type gate struct {
	t *testing.T
	l net.Listener
}

func newGate(t *testing.T) gate {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return gate{t, l}
}

// awaitPlugin returns when the plugin stands at the gate.
func (g gate) awaitPlugin() net.Conn {
	g.t.Helper()
	_ = g.l.(*net.TCPListener).SetDeadline(time.Now().Add(limit))
	c, err := g.l.Accept()
	if err != nil {
		g.t.Fatalf("no plugin at the gate: %v", err)
	}
	g.t.Cleanup(func() { _ = c.Close() })
	return c
}

func open(t *testing.T, c net.Conn) {
	t.Helper()
	if _, err := c.Write([]byte{1}); err != nil {
		t.Fatal(err)
	}
}

// pluginDir makes a directory with this program as the plugins "test" and
// "stdio".
func pluginDir(t *testing.T) string {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for _, name := range []string{"transport-test", "transport-stdio"} {
		path := filepath.Join(dir, name)
		if os.Link(exe, path) == nil {
			continue
		}
		b, err := os.ReadFile(exe)
		if err == nil {
			err = os.WriteFile(path, b, 0o700)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// shortDir makes a directory for sockets; t.TempDir's paths are too long.
func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "th")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// behaves is a transport with the plugin "test".
func behaves(name, b string) Transport {
	return Transport{Name: name, Plugin: "test", Env: map[string]string{behaviour: b}}
}

func at(t Transport, g gate) Transport {
	t.Env[gateAt] = g.l.Addr().String()
	return t
}

// A hosted is a running host, and how it ended.
type hosted struct {
	*Host
	t     *testing.T
	ready chan Status
	ended chan struct{}
	err   error // after ended
	stop  context.CancelFunc
}

// start runs a host with the built-in echo until the test ends.
func start(t *testing.T, change func(*Config), transports ...Transport) *hosted {
	t.Helper()
	r := &hosted{t: t, ready: make(chan Status, 1), ended: make(chan struct{})}
	cfg := Config{
		Application: Application{Echo: true}, Transports: transports, PluginDirs: []string{pluginDir(t)}, RuntimeDir: shortDir(t),
		Logger: hclog.New(&hclog.LoggerOptions{Level: hclog.Info, Output: t.Output()}),
		Ready:  func(s Status) { r.ready <- s },
		Restart: RestartPolicy{
			Min: time.Millisecond, Max: 5 * time.Millisecond, ResetAfter: time.Minute, GiveUpAfter: 3, GiveUpWindow: time.Minute,
		},
	}
	if change != nil {
		change(&cfg)
	}
	var err error
	if r.Host, err = New(cfg); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	r.stop = cancel
	go func() {
		r.err = r.Run(ctx)
		close(r.ended)
	}()
	t.Cleanup(func() {
		cancel()
		r.wait()
		if left, err := os.ReadDir(cfg.RuntimeDir); err != nil || len(left) > 0 {
			t.Errorf("left in the runtime directory: %v, %v", left, err)
		}
	})
	return r
}

func (r *hosted) wait() error {
	r.t.Helper()
	select {
	case <-r.ended:
		return r.err
	case <-time.After(limit):
		r.t.Fatalf("the host does not end; status is %+v", r.Status())
		return nil
	}
}

func (r *hosted) awaitReady() Status {
	r.t.Helper()
	select {
	case s := <-r.ready:
		return s
	case <-r.ended:
		r.t.Fatalf("the host ended: %v", r.err)
	case <-time.After(limit):
		r.t.Fatalf("the host is not ready; status is %+v", r.Status())
	}
	return Status{}
}

// await waits for a status of one plugin that ok accepts.
func (r *hosted) await(instance, what string, ok func(supervisor.Status) bool) {
	r.t.Helper()
	deadline := time.Now().Add(limit)
	for {
		r.mu.Lock()
		turn := r.turn
		r.mu.Unlock()
		s := r.plugin(instance)
		if ok(s) {
			return
		}
		// What a plugin reports of itself is no change of its state: look again.
		select {
		case <-turn:
		case <-time.After(5 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			r.t.Fatalf("%s is never %s; its status is %+v", instance, what, s)
		}
	}
}

func (r *hosted) plugin(instance string) supervisor.Status {
	r.t.Helper()
	for _, s := range r.Status().Plugins {
		if s.Instance == instance {
			return s
		}
	}
	return supervisor.Status{}
}

func (r *hosted) awaitStrictness(instance string, want transport.AuthStrictness) {
	r.t.Helper()
	r.await(instance, fmt.Sprint("told ", want), func(s supervisor.Status) bool {
		return s.Reported != nil && s.Reported.State == fmt.Sprint("strictness ", want)
	})
}

func TestHostServesUntilItsContextEnds(t *testing.T) {
	r := start(t, nil, behaves("a", "plain"), behaves("b", "plain"))
	s := r.awaitReady()
	if s.State != StateServing || s.PID != os.Getpid() || len(s.Plugins) != 2 ||
		s.Plugins[0].State != supervisor.Ready || s.Plugins[1].State != supervisor.Ready {
		t.Errorf("status at the start is %+v", s)
	}
	if !r.Serving() {
		t.Error("the host does not call itself serving")
	}
	r.stop()
	if err := r.wait(); err != nil {
		t.Errorf("Run: got %v, want nil", err)
	}
	if s := r.Status(); s.State != StateStopped || s.Plugins[0].State != supervisor.Stopped || r.Serving() {
		t.Errorf("status at the end is %+v", s)
	}
}

// TestRemoteWaitsForTheOthers: how strict it is depends on them.
func TestRemoteWaitsForTheOthers(t *testing.T) {
	g := newGate(t)
	r := start(t, nil, behaves("phone", "remote that needs credentials"), at(behaves("local", "behind a gate"), g))
	c := g.awaitPlugin()
	r.await("phone", "described", func(s supervisor.Status) bool { return s.Locality == "remote" })
	if s := r.plugin("phone"); s.State != supervisor.Starting {
		t.Errorf("the remote plugin is %s before the other is ready, want starting", s.State)
	}
	open(t, c)
	if s := r.awaitReady(); s.Plugins[0].State != supervisor.Ready || s.Plugins[1].State != supervisor.Ready {
		t.Errorf("status is %+v, want both ready", s.Plugins)
	}
	r.awaitStrictness("phone", transport.AllowRecoverable)
}

// TestRemoteDoesNotWaitForAFailure, nor for another remote one.
func TestRemoteDoesNotWaitForAFailure(t *testing.T) {
	r := start(t, nil, behaves("phone", "remote"), behaves("tablet", "remote"), behaves("local", "exits at once"))
	r.awaitReady()
	r.awaitStrictness("phone", transport.RequireReady)
	r.awaitStrictness("tablet", transport.RequireReady)
}

func TestRemoteAloneMustBeReady(t *testing.T) {
	r := start(t, nil, behaves("phone", "remote that needs credentials"))
	err := r.wait()
	if !errors.Is(err, transport.ErrPermissionDenied) || !strings.Contains(err.Error(), "there is no auth.json") {
		t.Errorf("Run: got %v, want the plugin's refusal", err)
	}
}

// TestRemoteIsToldWhenTheCountChanges, in both directions.
func TestRemoteIsToldWhenTheCountChanges(t *testing.T) {
	g := newGate(t)
	r := start(t, func(c *Config) { c.Restart.GiveUpAfter = 1 },
		behaves("phone", "remote"), at(behaves("local", "ends at the gate"), g))
	r.awaitReady()
	r.awaitStrictness("phone", transport.AllowRecoverable)
	open(t, g.awaitPlugin())
	r.await("local", "failed", func(s supervisor.Status) bool { return s.State == supervisor.Failed })
	r.awaitStrictness("phone", transport.RequireReady)
	if err := r.RestartPlugin(t.Context(), "local"); err != nil {
		t.Fatal(err)
	}
	r.awaitStrictness("phone", transport.AllowRecoverable)
}

func TestDisabledTransport(t *testing.T) {
	socket := filepath.Join(shortDir(t), "s")
	off := behaves("off", "plain")
	off.Disabled, off.Listen = true, []string{"unix://" + socket}
	r := start(t, nil, off, behaves("on", "plain"))
	s := r.awaitReady()
	if p := s.Plugins[0]; p.Instance != "off" || p.State != supervisor.Disabled || p.PID != 0 || p.Cause == "" || p.Remedy == "" {
		t.Errorf("status is %+v, want disabled, with the reason", p)
	}
	if _, err := os.Lstat(socket); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a disabled transport listens: %v", err)
	}
	if err := r.RestartPlugin(t.Context(), "off"); err == nil || !strings.Contains(err.Error(), "disabled") {
		t.Errorf("restarting it: got %v", err)
	}
	if err := r.RestartPlugin(t.Context(), "of"); err == nil || err.Error() != `there is no transport "of"; there are off, on` {
		t.Errorf("restarting what is not there: got %v", err)
	}
}

// TestTheFirstCauseEndsAHostThatCannotServe.
func TestTheFirstCauseEndsAHostThatCannotServe(t *testing.T) {
	r := start(t, nil, behaves("a", "exits at once"), behaves("b", "exits at once"))
	err := r.wait()
	if err == nil || !strings.Contains(err.Error(), `transport "a"`) || !strings.Contains(err.Error(), "status 3") {
		t.Errorf("Run: got %v, want the exit status of transport a", err)
	}
}

func TestOneFailureDoesNotEndAHost(t *testing.T) {
	r := start(t, nil, behaves("a", "exits at once"), behaves("b", "plain"))
	s := r.awaitReady()
	if s.Plugins[0].State != supervisor.Failed || !strings.Contains(s.Plugins[0].Cause, "status 3") || s.Plugins[1].State != supervisor.Ready {
		t.Errorf("status is %+v", s.Plugins)
	}
}

// TestAPluginWithBadConfigurationEndsTheStart, although another could serve.
func TestAPluginWithBadConfigurationEndsTheStart(t *testing.T) {
	bad := behaves("bad", "plain")
	bad.Config = func(transport.Description) (json.RawMessage, error) { return nil, errors.New("colour is blue") }
	r := start(t, nil, behaves("good", "plain"), bad)
	if err := r.wait(); !errors.Is(err, ErrInvalidConfig) || !strings.Contains(err.Error(), "colour is blue") {
		t.Errorf("Run: got %v, want the mistake", err)
	}
}

func TestAPluginThatIsNotThere(t *testing.T) {
	r := start(t, nil, Transport{Name: "pigeon"}, Transport{Name: "owl"})
	err := r.wait()
	if !errors.Is(err, ErrPluginNotFound) {
		t.Fatalf("Run: got %v, want ErrPluginNotFound", err)
	}
	for _, want := range []string{`transport "pigeon"`, `transport "owl"`} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("Run: got %v, want also %s", err, want)
		}
	}
}

// TestTheTerminalEndsTheHost: when its input ends, and all is answered.
func TestTheTerminalEndsTheHost(t *testing.T) {
	in, out := io.Pipe()
	answers, answered := io.Pipe()
	r := start(t, func(c *Config) { c.Stdin, c.Stdout = in, answered },
		Transport{Name: "stdio", Env: map[string]string{behaviour: "stdio"}})
	r.awaitReady()
	go func() {
		_, _ = io.WriteString(out, `{"jsonrpc":"2.0","id":1,"method":"m","params":[1]}`+"\n")
		_ = out.Close()
	}()
	got := make([]byte, 100)
	n, err := answers.Read(got)
	if want := `{"jsonrpc":"2.0","id":1,"result":[1]}` + "\n"; err != nil || string(got[:n]) != want {
		t.Errorf("read %q, %v; want %q", got[:n], err, want)
	}
	if err := r.wait(); err != nil {
		t.Errorf("Run: got %v, want nil", err)
	}
}

func TestOneHostPerRuntimeDirectory(t *testing.T) {
	dir := shortDir(t)
	first := start(t, func(c *Config) { c.RuntimeDir, c.Admin = dir, true }, behaves("a", "plain"))
	first.awaitReady()
	second := start(t, func(c *Config) { c.RuntimeDir, c.Admin = dir, true }, behaves("a", "plain"))
	<-second.ended // also its look at what is left in the directory would find the first
	if !errors.Is(second.err, admin.ErrInUse) || !strings.Contains(second.err.Error(), "pid "+strconv.Itoa(os.Getpid())) {
		t.Errorf("the second: got %v, want ErrInUse with the pid", second.err)
	}
	if s := first.Status(); s.State != StateServing {
		t.Errorf("the first is %s now", s.State)
	}
	first.stop()
	if err := first.wait(); err != nil {
		t.Fatal(err)
	}
	third := start(t, func(c *Config) { c.RuntimeDir, c.Admin = dir, true }, behaves("a", "plain"))
	third.awaitReady()
}

// TestWhatAKilledHostLeft is removed, and what a running one has is not.
func TestWhatAKilledHostLeft(t *testing.T) {
	dead := exec.Command("true")
	if err := dead.Run(); err != nil {
		t.Fatal(err)
	}
	dir := shortDir(t)
	left := filepath.Join(dir, runPrefix+strconv.Itoa(dead.Process.Pid))
	other := filepath.Join(dir, "notes")
	for _, d := range []string{left, other} {
		if err := os.Mkdir(d, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, admin.SocketName), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	r := start(t, func(c *Config) { c.RuntimeDir, c.Admin = dir, true }, behaves("a", "plain"))
	r.awaitReady()
	if _, err := os.Stat(left); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the directory of a dead host is still there: %v", err)
	}
	if err := os.Remove(other); err != nil {
		t.Errorf("what is not a host's is gone: %v", err)
	}
}

func TestRuntimeDirectoriesThatAreRefused(t *testing.T) {
	open := shortDir(t)
	if err := os.Chmod(open, 0o755); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(shortDir(t), "f")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(shortDir(t), "l")
	if err := os.Symlink(shortDir(t), link); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ name, dir, want string }{
		{"open to others", open, "is open to others (mode -rwxr-xr-x); chmod 700 " + open},
		{"a file", file, "not a directory"},
		{"a symbolic link", link, "is not a directory"},
		{"too long", "/tmp/" + strings.Repeat("x", 60), "has 65 bytes, and at most 46"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir, remove, err := runtimeDir(t.Context(), tt.dir)
			if err == nil {
				remove()
				t.Fatalf("got %s, want an error", dir)
			}
			if !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %s", err, tt.want)
			}
		})
	}
}

// TestAdmin asks a running host through its socket.
func TestAdmin(t *testing.T) {
	dir := shortDir(t)
	r := start(t, func(c *Config) { c.RuntimeDir, c.Admin, c.AdminListen = dir, true, "127.0.0.1:0" }, behaves("a", "plain"))
	if s := r.awaitReady(); !strings.HasPrefix(s.Admin, "http://127.0.0.1:") {
		t.Errorf("the address of the health checks is %q", s.Admin)
	}
	s, err := AskStatus(t.Context(), dir)
	if err != nil || s.PID != os.Getpid() || s.State != StateServing || len(s.Plugins) != 1 || s.Plugins[0].Version != "1.2.3" {
		t.Errorf("AskStatus: got %+v, %v", s, err)
	}
	if err := AskRestart(t.Context(), dir, "a"); err != nil {
		t.Errorf("AskRestart: %v", err)
	}
	if p := r.plugin("a"); p.Incarnation != 2 || p.State != supervisor.Ready {
		t.Errorf("after the restart the status is %+v", p)
	}
	if err := AskRestart(t.Context(), dir, "b"); err == nil || err.Error() != `there is no transport "b"; there are a` {
		t.Errorf("restarting what is not there: got %v", err)
	}
}
