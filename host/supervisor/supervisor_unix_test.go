//go:build unix

package supervisor

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"go.uber.org/goleak"

	"github.com/transporthost/transporthost/host/internal/backoff"
	"github.com/transporthost/transporthost/host/internal/childproc"
	pluginsdk "github.com/transporthost/transporthost/plugin-sdk"
	"github.com/transporthost/transporthost/shared/rpc"
	"github.com/transporthost/transporthost/shared/transport"
)

// behaviour is in the environment of a test process that is to be a plugin.
const behaviour = "TEST_PLUGIN_BEHAVIOUR"

func TestMain(m *testing.M) {
	if b := os.Getenv(behaviour); b != "" {
		os.Exit(actAsPlugin(b))
	}
	goleak.VerifyTestMain(m)
}

// testPlugin is a transport with, at most, one defect.
type testPlugin struct{ behaviour string }

func (p testPlugin) Describe() pluginsdk.Description {
	if p.behaviour == "hangs in Describe" {
		select {}
	}
	return pluginsdk.Description{Name: "test", Version: "1.2.3", Locality: pluginsdk.Local}
}

func (p testPlugin) Serve(ctx context.Context, h *pluginsdk.Host) error {
	switch p.behaviour {
	case "refuses its config":
		return fmt.Errorf("%w: colour is %q, want red", pluginsdk.ErrInvalidConfig, "blue")
	case "hangs in Start":
		<-ctx.Done()
		return nil
	case "ends after Ready":
		h.Ready()
		return errors.New("the moon is full")
	case "has a grandchild", "has a daemon":
		c := exec.Command("sleep", "1000")
		if p.behaviour == "has a daemon" {
			c.Env, c.SysProcAttr = []string{}, &syscall.SysProcAttr{Setsid: true}
		}
		if err := c.Start(); err != nil {
			return err
		}
		h.Ready(fmt.Sprintf("pid:%d", c.Process.Pid))
		<-ctx.Done()
		return nil
	}
	h.Ready("test:")
	switch p.behaviour {
	case "leaks":
		leak()
	case "panics":
		panic("the moon is full")
	case "makes a temporary file":
		f, err := os.CreateTemp("", "")
		if err != nil {
			return err
		}
		h.ReportStatus(transport.Status{State: f.Name(), Ready: true})
		_ = f.Close()
	}
	if p.behaviour == "reports" {
		awaitFile(ctx, os.Getenv(gate)) // the host must have seen that it is ready
		for _, s := range reports() {
			h.ReportStatus(s)
		}
	}
	<-ctx.Done()
	if p.behaviour == "hangs in Stop" {
		select {}
	}
	return nil
}

// leak takes memory until there is none.
func leak() {
	const step = 16 << 20
	for kept := [][]byte{}; ; {
		b := make([]byte, step)
		for i := 0; i < len(b); i += 4096 {
			b[i] = 1
		}
		kept = append(kept, b)
		if len(kept) > 1<<20 { // it must not be seen that they are for nobody
			return
		}
	}
}

// gate is in the environment of a plugin that waits for a file.
const gate = "TEST_PLUGIN_GATE"

func awaitFile(ctx context.Context, path string) {
	look := time.NewTicker(time.Millisecond)
	defer look.Stop()
	for {
		if _, err := os.Stat(path); err == nil {
			return
		}
		select {
		case <-look.C:
		case <-ctx.Done():
			return
		}
	}
}

func (p testPlugin) Drain(ctx context.Context) error {
	if p.behaviour == "hangs in Drain" {
		<-ctx.Done()
	}
	return nil
}

// reports is a relay's day: each is a change but the second of two equal ones,
// and the one that differs in its details only.
func reports() []transport.Status {
	return []transport.Status{
		{State: "connecting"},
		{State: "connecting"},
		{State: "retrying", Cause: "HTTP 503"},
		{State: "retrying", Cause: "HTTP 503", Details: map[string]string{"attempts": "2"}},
		{State: "retrying", Cause: "HTTP 502"},
		{State: "disabled", Cause: "switched off"},
		{State: "connected", Ready: true, Cause: "the backend gives no token"},
		{State: "connected", Ready: true},
		{State: "last", Ready: true},
	}
}

func actAsPlugin(b string) int {
	switch b {
	case "listens", "listens once its gate is open", "stops in Drain", "never ends its Drain":
		return pluginsdk.Main(&listeningPlugin{behaviour: b})
	case "prints rubbish":
		fmt.Println("hello, I am a web server")
		select {}
	case "exits at once":
		return 3
	case "hangs before the handshake":
		select {}
	case "ignores SIGTERM and its lifeline":
		return pluginsdk.Main(testPlugin{"hangs in Stop"})
	}
	return pluginsdk.Main(testPlugin{b})
}

// sessions is the router's part, as far as these tests need it.
type sessions struct {
	mu      sync.Mutex
	reasons []transport.CloseReason
	abandon int // how often it was asked for
	waiting []transport.Resume
}

func (s *sessions) Attach(_ string, _ int, l *rpc.Link) Attachment {
	return &attachment{s: s, link: l, conns: map[transport.ConnID]bool{}}
}

func (s *sessions) Resumable(string) []transport.Resume {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.waiting
}

// wait makes connections wait for the next process.
func (s *sessions) wait(r []transport.Resume) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.waiting = r
}

func (s *sessions) Abandon(string, transport.CloseReason) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.abandon++
}

func (s *sessions) abandoned() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.abandon
}

type attachment struct {
	rpc.Events
	s    *sessions
	link *rpc.Link

	mu    sync.Mutex
	conns map[transport.ConnID]bool
}

func (a *attachment) EndBatch() error            { return nil }
func (a *attachment) Started([]transport.ConnID) {}
func (a *attachment) Delivered(int)              {}

func (a *attachment) Opened(conn transport.ConnID, _ transport.Opened) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.conns[conn] = true
}

func (a *attachment) Closed(conn transport.ConnID, _ transport.CloseReason) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.conns, conn)
}

func (a *attachment) Connections() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.conns)
}

func (a *attachment) CloseAll(reason transport.CloseReason) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for conn := range a.conns {
		a.link.Close(conn, reason)
	}
}

func (a *attachment) Detach(r transport.CloseReason, _ bool) {
	a.s.mu.Lock()
	defer a.s.mu.Unlock()
	a.s.reasons = append(a.s.reasons, r)
}

type hostCalls struct {
	rpc.HostCalls
	report func(transport.Status)
}

func (c hostCalls) ReportStatus(s transport.Status) { c.report(s) }

type rig struct {
	t        *testing.T
	plugin   *Plugin
	sessions *sessions
	changed  chan struct{}
	stop     func()
	dir      string
}

// start runs a plugin instance that behaves so until the test ends.
func start(t *testing.T, b string, change func(*Spec, *Options)) *rig {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "sup")
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{t: t, sessions: &sessions{}, changed: make(chan struct{}, 1), dir: dir}
	starter := childproc.NewStarter()
	spec := Spec{Instance: "test", Plugin: "test", Path: exe, Env: map[string]string{behaviour: b}}
	opts := Options{
		Sessions: r.sessions, Starter: starter, RuntimeDir: dir,
		HostCalls: func(_ Spec, _ int, report func(transport.Status)) rpc.HostCalls { return hostCalls{report: report} },
		Logger:    hclog.New(&hclog.LoggerOptions{Level: hclog.Info, Output: t.Output()}),
		Changed: func(string) {
			select {
			case r.changed <- struct{}{}:
			default:
			}
		},
		Restart: backoff.Policy{Min: time.Millisecond, Max: 5 * time.Millisecond, ResetAfter: time.Minute, GiveUpAfter: 3, GiveUpWindow: time.Minute},
	}
	if change != nil {
		change(&spec, &opts)
	}
	if r.plugin, err = New(spec, opts); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	starterCtx, stopStarter := context.WithCancel(context.Background())
	wg.Go(func() { _ = starter.Run(starterCtx) })
	done := make(chan struct{})
	wg.Go(func() {
		defer close(done)
		_ = r.plugin.Run(ctx)
	})
	r.stop = sync.OnceFunc(func() {
		cancel()
		<-done
		stopStarter()
		wg.Wait()
	})
	t.Cleanup(func() {
		r.stop()
		left, err := os.ReadDir(dir)
		if err != nil || len(left) > 0 {
			t.Errorf("left in the runtime directory: %v, %v", left, err)
		}
		_ = os.RemoveAll(dir)
	})
	return r
}

// await waits for a status that ok accepts.
func (r *rig) await(what string, ok func(Status) bool) Status {
	r.t.Helper()
	deadline := time.After(30 * time.Second)
	for {
		s := r.plugin.Status()
		if ok(s) {
			return s
		}
		select {
		case <-r.changed:
		case <-time.After(10 * time.Millisecond): // a change that is not of state is not told
		case <-deadline:
			r.t.Fatalf("never %s; status is %+v", what, s)
		}
	}
}

func isReady(s Status) bool { return s.State == Ready }

func gone(pid int) bool { return errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) }

func TestHealthyPluginStartsAndStops(t *testing.T) {
	r := start(t, "healthy", nil)
	s := r.await("ready", isReady)
	if s.Version != "1.2.3" || s.Incarnation != 1 || s.PID == 0 || fmt.Sprint(s.Addresses) != "[test:]" || fmt.Sprint(s.Capabilities) != "[drain]" {
		t.Errorf("status %+v", s)
	}
	began := time.Now()
	r.stop()
	if d := time.Since(began); d > 5*time.Second {
		t.Errorf("stopping took %v", d)
	}
	if !gone(s.PID) {
		t.Errorf("process %d is still there", s.PID)
	}
	if s := r.plugin.Status(); s.State != Stopped {
		t.Errorf("state %q after Run", s.State)
	}
}

func TestKilledPluginIsReplaced(t *testing.T) {
	r := start(t, "healthy", nil)
	first := r.await("ready", isReady)
	if err := syscall.Kill(first.PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	second := r.await("ready again", func(s Status) bool { return s.State == Ready && s.Incarnation == 2 })
	if second.PID == first.PID || second.Restarts != 1 || !strings.Contains(second.Cause, "killed by signal 9") {
		t.Errorf("status %+v, want the cause", second)
	}
	if !gone(first.PID) {
		t.Errorf("process %d is still there", first.PID)
	}
	r.sessions.mu.Lock()
	defer r.sessions.mu.Unlock()
	if len(r.sessions.reasons) != 1 || r.sessions.reasons[0].Code != transport.ClosePluginLost {
		t.Errorf("the router heard %v", r.sessions.reasons)
	}
}

func TestStoppedPluginIsFoundAndReplaced(t *testing.T) {
	r := start(t, "healthy", func(_ *Spec, o *Options) {
		o.ProbeInterval, o.ProbeTimeout = 50*time.Millisecond, 300*time.Millisecond
	})
	first := r.await("ready", isReady)
	if err := syscall.Kill(first.PID, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	second := r.await("ready again", func(s Status) bool { return s.State == Ready && s.Incarnation == 2 })
	if !strings.Contains(second.Cause, "hangs") {
		t.Errorf("cause %q, want that it hangs", second.Cause)
	}
	if !gone(first.PID) {
		t.Errorf("process %d is still there", first.PID)
	}
}

func TestDefectivePlugins(t *testing.T) {
	for _, tt := range []struct {
		behaviour string
		cause     string // part of it, once given up
	}{
		{"prints rubbish", `not a plugin: its first line on stdout is "hello, I am a web server"`},
		{"exits at once", "it ended before the handshake: exited with status 3"},
		{"hangs before the handshake", "no handshake in time"},
		{"refuses its config", `invalid configuration: colour is "blue", want red`},
		{"ends after Ready", "exited with status 1"},
	} {
		t.Run(tt.behaviour, func(t *testing.T) {
			t.Parallel()
			r := start(t, tt.behaviour, func(_ *Spec, o *Options) {
				if strings.HasPrefix(tt.behaviour, "hangs") {
					o.LaunchTimeout = 300 * time.Millisecond
				}
			})
			s := r.await("failed", func(s Status) bool { return s.State == Failed })
			if !strings.Contains(s.Cause, tt.cause) || s.Remedy == "" {
				t.Errorf("cause %q, remedy %q; want a cause with %q", s.Cause, s.Remedy, tt.cause)
			}
			if want := tt.behaviour == "refuses its config"; errors.Is(r.plugin.Refusal(), transport.ErrInvalidConfig) != want {
				t.Errorf("Refusal() = %v", r.plugin.Refusal())
			}
		})
	}
}

func TestStubbornPluginsAreStoppedInTime(t *testing.T) {
	for _, b := range []string{"hangs in Drain", "hangs in Stop", "hangs in Start", "hangs in Describe"} {
		t.Run(b, func(t *testing.T) {
			t.Parallel()
			r := start(t, b, nil)
			s := r.await("running", func(s Status) bool {
				return s.PID != 0 && (s.State == Ready || strings.HasSuffix(b, "Start") || strings.HasSuffix(b, "Describe"))
			})
			began := time.Now()
			r.stop()
			if d := time.Since(began); d > 6*time.Second {
				t.Errorf("stopping took %v, want at most 5 s and the machine's part", d)
			}
			if !gone(s.PID) {
				t.Errorf("process %d is still there", s.PID)
			}
		})
	}
}

func TestGrandchildrenEndWithTheirPlugin(t *testing.T) {
	t.Run("in its group", func(t *testing.T) { endWithTheirPlugin(t, "has a grandchild") })
	t.Run("in a session of its own", func(t *testing.T) {
		if runtime.GOOS != "linux" {
			t.Skip("it is not known for a descendant here")
		}
		endWithTheirPlugin(t, "has a daemon")
	})
}

func endWithTheirPlugin(t *testing.T, behaviour string) {
	r := start(t, behaviour, func(s *Spec, _ *Options) {
		// Confined, it could have no session of its own.
		s.Sandbox.Processes, s.Sandbox.Off = true, behaviour == "has a daemon"
	})
	s := r.await("ready", isReady)
	var grandchild int
	if _, err := fmt.Sscanf(s.Addresses[0], "pid:%d", &grandchild); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(s.PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	r.await("ready again", func(s Status) bool { return s.State == Ready && s.Incarnation == 2 })
	for deadline := time.Now().Add(2 * time.Second); !zombieOrGone(grandchild); { // the kernel takes a moment
		if time.Now().After(deadline) {
			t.Fatalf("grandchild %d outlived its plugin", grandchild)
		}
	}
}

// zombieOrGone reports whether a process that is not ours to wait for is dead.
func zombieOrGone(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err != nil || strings.Contains(string(stat), ") Z ")
}

func TestRestartByAPerson(t *testing.T) {
	r := start(t, "healthy", nil)
	r.await("ready", isReady)
	if err := r.plugin.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	if s := r.plugin.Status(); s.State != Ready || s.Incarnation != 2 {
		t.Errorf("status after Restart: %+v", s)
	}
}

func TestFailedPluginCanBeRestarted(t *testing.T) {
	r := start(t, "exits at once", nil)
	r.await("failed", func(s Status) bool { return s.State == Failed })
	if err := r.plugin.Restart(t.Context()); err == nil || !strings.Contains(err.Error(), "status 3") {
		t.Errorf("Restart of a plugin that still fails: %v", err)
	}
}

// TestWhatAPluginReports is shown, and logged once per change.
func TestWhatAPluginReports(t *testing.T) {
	var log lockedBuffer
	open := filepath.Join(t.TempDir(), "open")
	r := start(t, "reports", func(s *Spec, o *Options) {
		s.Env[gate] = open
		o.Logger = hclog.New(&hclog.LoggerOptions{Level: hclog.Info, Output: &log, DisableTime: true})
	})
	r.await("ready", isReady)
	if err := os.WriteFile(open, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	s := r.await("reporting the last", func(s Status) bool { return s.Reported != nil && s.Reported.State == "last" })
	if s.State != Ready || s.Cause != "" {
		t.Errorf("status is %+v, want ready without a cause", s)
	}
	r.stop()
	var got []string
	for line := range strings.Lines(log.String()) {
		level, rest, _ := strings.Cut(strings.TrimSpace(line), "test: plugin: state=")
		if state, said, ok := strings.Cut(rest, " incarnation=1 reported="); ok {
			got = append(got, strings.Trim(level, "[ ]")+" "+state+" "+said)
		}
	}
	want := []string{
		"INFO degraded connecting",
		`WARN degraded retrying cause="HTTP 503"`,
		`WARN degraded retrying cause="HTTP 502"`,
		`INFO disabled disabled cause="switched off"`,
		`INFO ready connected cause="the backend gives no token"`,
		"INFO ready connected",
		"INFO ready last",
	}
	if i := slices.Index(got, want[len(want)-1]); i < 0 || !slices.Equal(got[max(0, i+1-len(want)):i+1], want) {
		t.Errorf("the log says\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// A lockedBuffer is what a log is written to.
type lockedBuffer struct {
	mu sync.Mutex
	b  strings.Builder
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// TestAPluginThatWasNotPrepared is tried again.
func TestAPluginThatWasNotPrepared(t *testing.T) {
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	attempts := 0
	r := start(t, "healthy", func(s *Spec, o *Options) {
		s.Path = ""
		o.Prepare = func(_ context.Context, s *Spec) error {
			if attempts++; attempts == 1 {
				return errors.New("the moon is new")
			}
			s.Path = exe
			return nil
		}
	})
	s := r.await("ready", isReady)
	if s.Incarnation != 2 || s.Cause != "the moon is new" || s.Path != exe {
		t.Errorf("status is %+v, want a second attempt", s)
	}
}

// TestSwitchingOffTooEarly: nobody knows yet whether it can be.
func TestSwitchingOffTooEarly(t *testing.T) {
	prepared := make(chan struct{})
	r := start(t, "healthy", func(_ *Spec, o *Options) {
		o.Prepare = func(ctx context.Context, _ *Spec) error {
			select {
			case <-prepared:
			case <-ctx.Done():
			}
			return nil
		}
	})
	if err := r.plugin.SetEnabled(t.Context(), false); !errors.Is(err, transport.ErrNotSupported) || !strings.Contains(err.Error(), "has not started yet") {
		t.Errorf("before it started: got %v", err)
	}
	close(prepared)
	r.await("ready", isReady)
	if err := r.plugin.SetEnabled(t.Context(), false); !errors.Is(err, transport.ErrNotSupported) || !strings.Contains(err.Error(), "while it runs") {
		t.Errorf("once it has: got %v", err)
	}
	r.stop()
	if err := r.plugin.Restart(t.Context()); !errors.Is(err, transport.ErrStopping) {
		t.Errorf("restarting what has ended: got %v, want ErrStopping", err)
	}
}

// TestADisabledPluginEnds without ever having had a process.
func TestADisabledPluginEnds(t *testing.T) {
	r := start(t, "healthy", func(s *Spec, _ *Options) { s.Disabled = true })
	if err := r.plugin.Restart(t.Context()); !errors.Is(err, ErrDisabled) {
		t.Errorf("restarting it: got %v, want ErrDisabled", err)
	}
	r.stop()
	if s := r.plugin.Status(); s.State != Disabled || s.Incarnation != 0 {
		t.Errorf("status is %+v, want disabled, without a process", s)
	}
	if err := r.plugin.SetEnabled(t.Context(), true); !errors.Is(err, transport.ErrStopping) {
		t.Errorf("enabling it then: got %v, want ErrStopping", err)
	}
}

func TestPinnedChecksum(t *testing.T) {
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	sum := strings.Repeat("0", 64)
	r := start(t, "healthy", func(s *Spec, _ *Options) { s.SHA256 = sum })
	s := r.await("failed", func(s Status) bool { return s.State == Failed })
	if !strings.Contains(s.Cause, filepath.Base(exe)) || !strings.Contains(s.Cause, "is pinned") {
		t.Errorf("cause %q", s.Cause)
	}
	out, err := exec.Command("sha256sum", exe).Output()
	if err != nil {
		t.Skip("no sha256sum to compare with")
	}
	r = start(t, "healthy", func(s *Spec, _ *Options) { s.SHA256 = strings.Fields(string(out))[0] })
	r.await("ready", isReady)
}

func TestProbe(t *testing.T) {
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	starter := childproc.NewStarter()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = starter.Run(ctx)
	}()
	defer func() {
		cancel()
		<-done
	}()
	dir, err := os.MkdirTemp("", "sup")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	opts := Options{Starter: starter, RuntimeDir: dir}
	d, err := Probe(t.Context(), Spec{Path: exe, Env: map[string]string{behaviour: "healthy"}}, opts)
	if err != nil || d.Version != "1.2.3" {
		t.Errorf("Probe = %+v, %v", d, err)
	}
	_, err = Probe(t.Context(), Spec{Path: "/bin/true"}, opts)
	if err == nil || !strings.Contains(err.Error(), "it ended before the handshake") {
		t.Errorf("Probe of /bin/true: %v", err)
	}
}
