//go:build unix

package host

import (
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/hashicorp/go-hclog"

	"github.com/transporthost/transporthost/host/internal/childproc"
	"github.com/transporthost/transporthost/host/supervisor"
	"github.com/transporthost/transporthost/shared/transport"
)

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
	if !strings.Contains(s.Plugins[0].Cause, "status 3") || s.Plugins[1].State != supervisor.Ready {
		t.Errorf("status is %+v", s.Plugins)
	}
	r.await("a", "failed", func(s supervisor.Status) bool { return s.State == supervisor.Failed })
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

// TestWhatAKilledHostLeft is removed, and what a running one has is not.
func TestWhatAKilledHostLeft(t *testing.T) {
	dead := exec.Command("true")
	if err := dead.Run(); err != nil {
		t.Fatal(err)
	}
	dir := shortDir(t)
	left := filepath.Join(dir, "r"+strconv.Itoa(dead.Process.Pid))
	other := filepath.Join(dir, "notes")
	for _, d := range []string{left, other} {
		if err := os.Mkdir(d, 0o700); err != nil {
			t.Fatal(err)
		}
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
			var p premises
			dir, err := p.open(t.Context(), tt.dir, childproc.NewStarter(), nil, hclog.NewNullLogger())
			if err == nil {
				p.close()
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
	h, err := FindHost(dir, 0)
	if err != nil {
		t.Fatal(err)
	}
	s, err := h.Status(t.Context())
	if err != nil || s.PID != os.Getpid() || s.State != StateServing || len(s.Plugins) != 1 || s.Plugins[0].Version != "1.2.3" {
		t.Errorf("Status: got %+v, %v", s, err)
	}
	if err := h.RestartPlugin(t.Context(), "a"); err != nil {
		t.Errorf("RestartPlugin: %v", err)
	}
	if p := r.plugin("a"); p.Incarnation != 2 || p.State != supervisor.Ready {
		t.Errorf("after the restart the status is %+v", p)
	}
	if err := h.RestartPlugin(t.Context(), "b"); err == nil || err.Error() != `there is no transport "b"; there are a` {
		t.Errorf("restarting what is not there: got %v", err)
	}
}
