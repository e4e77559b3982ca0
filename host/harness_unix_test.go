//go:build unix

package host

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"go.uber.org/goleak"

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
	fileAt    = "TEST_PLUGIN_FILE"
)

func TestMain(m *testing.M) {
	switch b := os.Getenv(behaviour); b {
	case "":
		goleak.VerifyTestMain(m)
	case "stdio":
		os.Exit(pluginsdk.Main(stdio.New()))
	case "embeds a host":
		os.Exit(embed())
	case "exits at once":
		os.Exit(3)
	case "exits without a file":
		if _, err := os.Stat(os.Getenv(fileAt)); err != nil {
			os.Exit(3)
		}
		os.Exit(pluginsdk.Main(&testPlugin{behaviour: b}))
	case "account", "account at a gate", "account, deaf":
		os.Exit(pluginsdk.Main(newAccountPlugin(b)))
	case "asks for everything", "claims the terminal", "has a peer":
		os.Exit(pluginsdk.Main(&curiousPlugin{behaviour: b}))
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
