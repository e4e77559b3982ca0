//go:build unix

package host

import (
	"bytes"
	"errors"
	"io"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/transporthost/transporthost/host/state"
	"github.com/transporthost/transporthost/host/supervisor"
	"github.com/transporthost/transporthost/shared/transport"
)

func TestGrants(t *testing.T) {
	all := map[string]string{
		"credentials": "acc-1", "recovery": "acc-1", "before": "not found", "save": "saved", "after": "phone", "delete": "deleted", "name": `name ""`,
	}
	refused := map[string]string{}
	for what := range all {
		refused[what] = "not granted"
	}
	with := func(names ...string) map[string]string {
		want := maps.Clone(refused)
		for _, n := range names {
			want[n] = all[n]
		}
		return want
	}
	for _, tt := range []struct {
		name  string
		grant []Grant
		want  map[string]string
	}{
		{"nothing", nil, refused},
		{"nothing on purpose", []Grant{}, refused},
		{"credentials", []Grant{GrantCredentials}, with("credentials", "recovery")},
		{"state", []Grant{GrantState}, with("before", "save", "after", "delete")},
		{"the client's name", []Grant{GrantClientName}, with("name")},
		{"everything", []Grant{GrantState, GrantCredentials, GrantClientName}, all},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := newAuthFile(t)
			f.write(chatGPTAuth("acc-1"))
			phone := behaves("phone", "asks for everything")
			phone.Grant = tt.grant
			r := start(t, withPlaces(t, f), phone)
			s := r.awaitReported("phone", "asked")
			if !maps.Equal(s.Reported.Details, tt.want) {
				t.Errorf("got %v, want %v", s.Reported.Details, tt.want)
			}
			if _, err := os.Stat(r.cfg.StateDir); (err == nil) != (tt.want["save"] == "saved") {
				t.Errorf("the state directory: %v; it is there if somebody is granted state", err)
			}
			if _, err := r.CredentialsStatus(); (err == nil) != (tt.want["credentials"] == "acc-1") {
				t.Errorf("the credentials: %v; they are read if somebody is granted them", err)
			}
		})
	}
}

// TestOnlyRemoteControlIsGrantedEverything without being asked.
func TestOnlyRemoteControlIsGrantedEverything(t *testing.T) {
	cfg := Config{Transports: []Transport{
		{Name: "phone", Plugin: "remotecontrol"}, {Name: "tablet", Plugin: "remotecontrol", Grant: []Grant{}}, {Name: "remotecontrol", Plugin: "websocket"},
	}}.withDefaults()
	for i, want := range []int{3, 0, 0} {
		if got := cfg.Transports[i].Grant; len(got) != want {
			t.Errorf("%s is granted %v, want %d grants", cfg.Transports[i].Name, got, want)
		}
	}
	_, err := New(Config{Application: Application{Echo: true}, Transports: []Transport{{Name: "a", Grant: []Grant{"tokens"}}}})
	if want := `transport "a" is granted "tokens", which there is not`; err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

// TestStateIsAnInstances: it outlives the process and the host, and two
// instances of one plugin do not meet.
func TestStateIsAnInstances(t *testing.T) {
	f := newAuthFile(t)
	places := withPlaces(t, f)
	run := func(want map[string]string) *hosted {
		r := start(t, places, withAccount("a", "asks for everything"), withAccount("b", "asks for everything"))
		for name, visits := range want {
			if s := r.awaitReported(name, "asked"); s.Reported.Details["after"] != visits {
				t.Errorf("%s finds %q, want %q", name, s.Reported.Details["after"], visits)
			}
		}
		return r
	}
	r := run(map[string]string{"a": "a", "b": "b"})
	if err := r.RestartPlugin(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	if s := r.awaitReported("a", "asked"); s.Reported.Details["after"] != "aa" {
		t.Errorf("the next process of a finds %q, want aa", s.Reported.Details["after"])
	}
	r.stop()
	if err := r.wait(); err != nil {
		t.Fatal(err)
	}
	run(map[string]string{"a": "aaa", "b": "bb"})
}

// TestStateThatAnotherHostHas keeps only those from starting who need it.
func TestStateThatAnotherHostHas(t *testing.T) {
	places := withPlaces(t, newAuthFile(t))
	var cfg Config
	places(&cfg)
	other, err := state.Open(cfg.StateDir)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	r := start(t, places, behaves("local", "plain"), withAccount("phone", "account"))
	r.awaitReady()
	r.await("phone", "failed for the state", func(s supervisor.Status) bool {
		return s.State == supervisor.Failed && strings.Contains(s.Cause, "in use by another host")
	})
	if err := other.Close(); err != nil {
		t.Fatal(err)
	}
	if err := r.RestartPlugin(t.Context(), "phone"); err != nil {
		t.Errorf("restarting it when the state is free: %v", err)
	}
}

// TestStrictness is the table of spec 3.5. Its rows are the counterparts of
// remote_control_auth_validation_treats_api_key_auth_as_recoverable_unless_only_transport
// and remote_control_auth_validation_treats_invalid_chatgpt_auth_as_recoverable,
// as far as they are the host's.
func TestStrictness(t *testing.T) {
	for _, tt := range []struct{ name, content, text string }{
		{"an API key", apiKeyAuth, apiKeyAuthText},
		{"ChatGPT without tokens", tokenlessAuth, tokenlessText},
		{"no file", "", noAuthText},
		{"no account id", chatGPTAuth(""), waitsForItsIDTxt},
	} {
		f := newAuthFile(t)
		if tt.content != "" {
			f.write(tt.content)
		}
		t.Run(tt.name+", alone", func(t *testing.T) {
			began := time.Now()
			r := start(t, withPlaces(t, f), withAccount("phone", "account"))
			err := r.wait()
			refusal, ok := errors.AsType[*RefusalError](err)
			if !ok || refusal.Transport != "phone" || refusal.Err.Error() != tt.text || !errors.Is(err, transport.ErrPermissionDenied) {
				t.Errorf("Run: got %v, want the refusal %q", err, tt.text)
			}
			if took := time.Since(began); took > 5*time.Second {
				t.Errorf("it took %v, want at most 5 s", took)
			}
		})
		t.Run(tt.name+", beside another", func(t *testing.T) {
			r := start(t, withPlaces(t, f), withAccount("phone", "account"), behaves("local", "plain"))
			r.awaitReady()
			r.await("phone", "waiting for auth", func(s supervisor.Status) bool {
				return s.State == supervisor.Degraded && s.Cause == tt.text && s.Reported.State == "waiting-for-auth" &&
					s.Reported.Details["strictness"] == "allow-recoverable"
			})
		})
	}
}

// TestARemoteTransportThatIsDisabledLooksAtNothing, however bad the credentials
// are (spec 3.5).
func TestARemoteTransportThatIsDisabledLooksAtNothing(t *testing.T) {
	f := newAuthFile(t)
	f.write(apiKeyAuth)
	off := withAccount("phone", "account")
	off.Disabled = true
	r := start(t, withPlaces(t, f), off, behaves("local", "plain"))
	r.awaitReady()
	if _, err := r.CredentialsStatus(); err == nil {
		t.Error("the credentials were read")
	}
	if _, err := r.ReloadCredentials("test"); !errors.Is(err, errNoAccount) {
		t.Errorf("reloading what nobody uses: got %v", err)
	}
}

// TestCredentialsThatBecomeGood, by each way of changing a file, reach the
// process that waits for them. Counterpart of
// remote_control_reloads_api_key_auth_until_chatgpt_auth_available, as far as
// it is the host's.
func TestCredentialsThatBecomeGood(t *testing.T) {
	f := newAuthFile(t)
	f.write(apiKeyAuth)
	r := start(t, withPlaces(t, f), withAccount("phone", "account"), behaves("local", "plain"))
	r.awaitReady()
	r.awaitReported("phone", "waiting-for-auth")

	f.write(chatGPTAuth("acc-1"))
	s := r.awaitDetail("phone", "account", "acc-1")
	if s.Reported.Details["notified"] != "1" || s.Incarnation != 1 {
		t.Errorf("status is %+v, want one notification and no restart", s)
	}
	r.await("phone", "ready", func(s supervisor.Status) bool { return s.State == supervisor.Ready && s.Cause == "" })

	if err := os.WriteFile(f.path, []byte(chatGPTAuth("acc-2")), 0o600); err != nil { // in place
		t.Fatal(err)
	}
	r.awaitDetail("phone", "account", "acc-2")
	if err := os.Remove(f.path); err != nil {
		t.Fatal(err)
	}
	if s := r.awaitReported("phone", "waiting-for-auth"); s.Cause != noAuthText {
		t.Errorf("after a logout the cause is %q, want %q", s.Cause, noAuthText)
	}
	f.write(chatGPTAuth("acc-3"))
	r.awaitDetail("phone", "account", "acc-3")
}

// TestAReloadThatChangedNothing is forwarded to nobody.
func TestAReloadThatChangedNothing(t *testing.T) {
	f := newAuthFile(t)
	content := chatGPTAuth("acc-1")
	f.write(content)
	r := start(t, withPlaces(t, f), withAccount("phone", "account"), behaves("local", "plain"))
	r.awaitReady()
	r.awaitDetail("phone", "account", "acc-1")
	for range 3 {
		f.write(content)
		if changed, err := r.ReloadCredentials("test"); err != nil || changed {
			t.Errorf("reloading the same: got %v, %v", changed, err)
		}
	}
	f.write(chatGPTAuth("acc-2"))
	s := r.awaitDetail("phone", "account", "acc-2")
	if s.Reported.Details["notified"] != "1" {
		t.Errorf("told %s times, want once", s.Reported.Details["notified"])
	}
	if c, err := r.CredentialsStatus(); err != nil || c.Mode != "chatgpt" || c.Generation < 2 || c.File != f.path {
		t.Errorf("status of the credentials: got %+v, %v", c, err)
	}
}

// TestAPluginThatHangsDelaysNobody, and hears only the latest when it is done.
func TestAPluginThatHangsDelaysNobody(t *testing.T) {
	f := newAuthFile(t)
	f.write(chatGPTAuth("acc-1"))
	r := start(t, withPlaces(t, f), withAccount("deaf", "account, deaf"), withAccount("phone", "account"), behaves("local", "plain"))
	r.awaitReady()
	r.awaitDetail("deaf", "account", "acc-1")
	r.awaitDetail("phone", "account", "acc-1")
	for _, account := range []string{"acc-2", "acc-3", "acc-4"} {
		f.write(chatGPTAuth(account))
		r.awaitDetail("phone", "account", account)
	}
	if s := r.plugin("deaf"); s.Reported.Details["deafness"] == "over" {
		t.Error("the others waited for the plugin that hangs")
	}
	// It is told of the last change then, and again if that could not be told,
	// unless it has asked by itself.
	if s := r.awaitDetail("deaf", "account", "acc-4"); s.Reported.Details["deafness"] != "over" {
		t.Errorf("it reports %v; want that it has the last account after it hung", s.Reported.Details)
	}
}

// A watchedLog tells when a line with a text was written.
type watchedLog struct {
	to   io.Writer
	text string
	once sync.Once
	seen chan struct{}
}

func (w *watchedLog) Write(p []byte) (int, error) {
	if bytes.Contains(p, []byte(w.text)) {
		w.once.Do(func() { close(w.seen) })
	}
	return w.to.Write(p)
}

// TestAMissedChangeIsToldAgain: the process was stopped for longer than a
// notification may take, and not for as long as a hang.
func TestAMissedChangeIsToldAgain(t *testing.T) {
	f := newAuthFile(t)
	f.write(chatGPTAuth("acc-1"))
	log := &watchedLog{to: t.Output(), text: "could not be told", seen: make(chan struct{})}
	r := start(t, func(c *Config) {
		withPlaces(t, f)(c)
		c.Logger = hclog.New(&hclog.LoggerOptions{Level: hclog.Info, Output: log})
	}, withAccount("phone", "account"), behaves("local", "plain"))
	r.awaitReady()
	s := r.awaitDetail("phone", "account", "acc-1")
	if err := syscall.Kill(s.PID, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	f.write(chatGPTAuth("acc-2"))
	<-log.seen
	if err := syscall.Kill(s.PID, syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	if s := r.awaitDetail("phone", "account", "acc-2"); s.Incarnation != 1 {
		t.Errorf("the process was replaced: %+v", s)
	}
}

// TestAChangeWhileAPluginStarts: it has asked before the change, and is told
// once it can be.
func TestAChangeWhileAPluginStarts(t *testing.T) {
	f := newAuthFile(t)
	f.write(chatGPTAuth("acc-1"))
	g := newGate(t)
	r := start(t, withPlaces(t, f), at(withAccount("phone", "account at a gate"), g), behaves("local", "plain"))
	c := g.awaitPlugin()
	f.write(chatGPTAuth("acc-2"))
	if changed, err := r.ReloadCredentials("test"); err != nil {
		t.Fatalf("reloading: %v, %v", changed, err)
	}
	r.awaitChange(2)
	open(t, c)
	if s := r.awaitDetail("phone", "account", "acc-2"); s.Reported.Details["notified"] != "1" {
		t.Errorf("it reports %v, want one notification", s.Reported.Details)
	}
}

// TestARefusalIsReconsidered when the transport may wait for better credentials
// after all, and when there are others.
func TestARefusalIsReconsidered(t *testing.T) {
	setUp := func(t *testing.T) (*hosted, authFile, string) {
		f := newAuthFile(t)
		f.write(apiKeyAuth)
		file := filepath.Join(t.TempDir(), "file")
		local := behaves("local", "exits without a file")
		local.Env[fileAt] = file
		r := start(t, func(c *Config) {
			withPlaces(t, f)(c)
			c.Restart.GiveUpAfter, c.Restart.Max = 1_000_000, 100*time.Millisecond
		}, withAccount("phone", "account"), local)
		r.await("phone", "failed", func(s supervisor.Status) bool { return s.State == supervisor.Failed && s.Cause == apiKeyAuthText })
		return r, f, file
	}
	t.Run("another transport is ready", func(t *testing.T) {
		r, _, file := setUp(t)
		if err := os.WriteFile(file, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		r.await("phone", "waiting for auth", func(s supervisor.Status) bool {
			return s.State == supervisor.Degraded && s.Reported.State == "waiting-for-auth" && s.Reported.Details["strictness"] == "allow-recoverable"
		})
	})
	t.Run("the credentials are others", func(t *testing.T) {
		r, f, _ := setUp(t)
		f.write(chatGPTAuth("acc-1"))
		r.awaitDetail("phone", "account", "acc-1")
		r.awaitReady() // although the other is still failing
	})
}

// TestARemoteTransportThatBacksOffDelaysNobody: the host is ready without it.
func TestARemoteTransportThatBacksOffDelaysNobody(t *testing.T) {
	r := start(t, func(c *Config) {
		c.Restart.Min, c.Restart.Max, c.Restart.GiveUpAfter = time.Hour, time.Hour, 100
	}, withAccount("phone", "exits at once"), behaves("local", "plain"))
	s := r.awaitReady()
	if s.Plugins[1].State != supervisor.Ready || !r.Serving() {
		t.Errorf("status is %+v", s.Plugins)
	}
	// It is tried once more at once, which may still be going on.
	r.await("phone", "backing off", func(s supervisor.Status) bool { return s.State == supervisor.BackingOff })
}

func TestSwitchingATransport(t *testing.T) {
	f := newAuthFile(t)
	f.write(chatGPTAuth("acc-1"))
	r := start(t, withPlaces(t, f), withAccount("phone", "account"), behaves("local", "plain"))
	r.awaitReady()
	r.awaitReported("phone", "connected")
	for range 2 { // the second time nothing changes
		if err := r.SetTransportEnabled(t.Context(), "phone", false); err != nil {
			t.Fatal(err)
		}
	}
	s := r.awaitDetail("phone", "enabled", "false")
	if s.State != supervisor.Disabled || s.PID == 0 || s.Cause != "switched off by a person" || s.Remedy != "transporthost remote enable phone" {
		t.Errorf("status is %+v, want disabled, with its process", s)
	}

	// Its successor begins as it ended.
	if err := syscall.Kill(s.PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	r.await("phone", "disabled again", func(s supervisor.Status) bool {
		return s.Incarnation == 2 && s.State == supervisor.Disabled && s.Reported != nil && s.Reported.Details["enabled"] == "false"
	})
	if err := r.SetTransportEnabled(t.Context(), "phone", true); err != nil {
		t.Fatal(err)
	}
	r.await("phone", "connected", func(s supervisor.Status) bool {
		return s.State == supervisor.Ready && s.Reported.State == "connected" && s.Cause == "" && s.Remedy == ""
	})

	err := r.SetTransportEnabled(t.Context(), "local", false)
	if want := `the plugin "test" cannot be switched off while it runs: not supported`; err == nil || err.Error() != want {
		t.Errorf("switching off one that cannot: got %v, want %s", err, want)
	}
	if err := r.SetTransportEnabled(t.Context(), "local", true); err != nil {
		t.Errorf("switching on what is on: %v", err)
	}
	if err := r.SetTransportEnabled(t.Context(), "fax", true); err == nil || err.Error() != `there is no transport "fax"; there are phone, local` {
		t.Errorf("switching what is not there: got %v", err)
	}
}

// TestSwitchingBetweenProcesses: the wish meets a process that has begun with
// another.
func TestSwitchingBetweenProcesses(t *testing.T) {
	f := newAuthFile(t)
	f.write(chatGPTAuth("acc-1"))
	g := newGate(t)
	r := start(t, withPlaces(t, f), at(withAccount("phone", "account at a gate"), g), behaves("local", "plain"))
	open(t, g.awaitPlugin())
	s := r.awaitReported("phone", "connected")
	if err := syscall.Kill(s.PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	c := g.awaitPlugin() // it was told to be enabled
	if err := r.SetTransportEnabled(t.Context(), "phone", false); err != nil {
		t.Fatal(err)
	}
	open(t, c)
	r.awaitDetail("phone", "enabled", "false")
	r.await("phone", "disabled", func(s supervisor.Status) bool { return s.State == supervisor.Disabled && s.Incarnation == 2 })
}

// TestEnablingWhatTheConfigurationDisables gives it its process, its sockets and
// what it is granted.
func TestEnablingWhatTheConfigurationDisables(t *testing.T) {
	f := newAuthFile(t)
	f.write(chatGPTAuth("acc-1"))
	socket := filepath.Join(shortDir(t), "s")
	phone := withAccount("phone", "account")
	phone.Disabled, phone.Listen = true, []string{"unix://" + socket}
	fax := Transport{Name: "fax", Disabled: true}
	stdio := Transport{Name: "stdio", Disabled: true}
	r := start(t, withPlaces(t, f), phone, fax, stdio, behaves("local", "plain"))
	r.awaitReady()
	if s := r.plugin("phone"); s.State != supervisor.Disabled || s.PID != 0 || s.Remedy != "transporthost remote enable phone" {
		t.Errorf("status is %+v, want disabled, with what to do", s)
	}
	if err := r.SetTransportEnabled(t.Context(), "phone", false); err != nil {
		t.Errorf("switching off what is off: %v", err)
	}
	if err := r.RestartPlugin(t.Context(), "phone"); !errors.Is(err, supervisor.ErrDisabled) || !strings.Contains(err.Error(), "transporthost remote enable phone") {
		t.Errorf("restarting it: got %v", err)
	}
	if _, err := os.Lstat(socket); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("it listens although it is disabled: %v", err)
	}

	if err := r.SetTransportEnabled(t.Context(), "phone", true); err != nil {
		t.Fatal(err)
	}
	r.awaitDetail("phone", "account", "acc-1")
	if info, err := os.Lstat(socket); err != nil || info.Mode()&os.ModeSocket == 0 {
		t.Errorf("it does not listen: %v", err)
	}
	if err := r.SetTransportEnabled(t.Context(), "fax", true); !errors.Is(err, ErrPluginNotFound) {
		t.Errorf("enabling what is not installed: got %v", err)
	}
	if err := r.SetTransportEnabled(t.Context(), "stdio", true); !errors.Is(err, supervisor.ErrDisabled) || !strings.Contains(err.Error(), "at the start only") {
		t.Errorf("enabling the terminal: got %v", err)
	}
	r.stop()
	if err := r.wait(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(socket); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket is left behind: %v", err)
	}
}

// withTerminal is a host with a terminal, and its two ends.
func withTerminal(t *testing.T) (change func(*Config), input *io.PipeWriter, output *io.PipeReader) {
	t.Helper()
	in, input := io.Pipe()
	output, out := io.Pipe()
	t.Cleanup(func() {
		_ = input.Close()
		_ = output.Close()
	})
	return func(c *Config) { c.Stdin, c.Stdout = in, out }, input, output
}

func terminal() Transport {
	return Transport{Name: "stdio", Env: map[string]string{behaviour: "stdio"}}
}

func named(name string, b string) Transport {
	t := behaves(name, b)
	t.Grant = []Grant{GrantClientName}
	return t
}

// TestTheNameOfTheClient is that of the first initialize request at the
// terminal, once. Counterpart of
// remote_control_stdio_mode_waits_for_client_name_before_connecting, as far as
// it is the host's.
func TestTheNameOfTheClient(t *testing.T) {
	change, in, out := withTerminal(t)
	r := start(t, change, terminal(), named("phone", "asks for everything"))
	r.awaitReady()
	r.awaitReported("phone", "waiting-for-client-name")
	go func() { _, _ = io.Copy(io.Discard, out) }()
	for _, line := range []string{
		`{"id":1,"method":"initialize","params":{"clientInfo":{"version":"1"}}}`,
		`{"id":2,"method":"initialize","params":{"clientInfo":{"name":"editor","version":"1"}}}`,
		`{"id":3,"method":"initialize","params":{"clientInfo":{"name":"another","version":"1"}}}`,
	} {
		if _, err := io.WriteString(in, line+"\n"); err != nil {
			t.Fatal(err)
		}
	}
	if s := r.awaitReported("phone", "asked"); s.Reported.Details["name"] != `name "editor"` {
		t.Errorf("got %v, want editor", s.Reported.Details["name"])
	}
	for len(r.Connections()) == 0 || r.Connections()[0].Peer.ClientName != "another" {
		time.Sleep(time.Millisecond) // until the last line is through
	}
	if err := r.RestartPlugin(t.Context(), "phone"); err != nil {
		t.Fatal(err)
	}
	if s := r.awaitReported("phone", "asked"); s.Reported.Details["name"] != `name "editor"` {
		t.Errorf("the next process got %v, want editor still", s.Reported.Details["name"])
	}
}

func TestTheClientLeavesWithoutAName(t *testing.T) {
	change, in, _ := withTerminal(t)
	r := start(t, change, terminal(), named("phone", "asks for everything"), behaves("local", "plain"))
	r.awaitReady()
	r.awaitReported("phone", "waiting-for-client-name")
	_ = in.Close()
	if s := r.awaitReported("phone", "asked"); s.Reported.Details["name"] != "not found" {
		t.Errorf("got %v, want not found", s.Reported.Details["name"])
	}
}

// TestTheHostEndsWithItsTerminal, whatever remote transports there are (spec
// 8.2): they have no peers.
func TestTheHostEndsWithItsTerminal(t *testing.T) {
	off := behaves("off", "plain")
	off.Disabled = true
	for _, tt := range []struct {
		name  string
		other Transport
	}{
		{"beside remote control", behaves("phone", "remote")},
		{"beside a remote transport that never came up", behaves("phone", "exits at once")},
		{"beside one that is disabled", off},
	} {
		t.Run(tt.name, func(t *testing.T) {
			change, in, _ := withTerminal(t)
			r := start(t, change, terminal(), tt.other)
			r.awaitReady()
			_ = in.Close()
			if err := r.wait(); err != nil {
				t.Errorf("Run: got %v, want nil", err)
			}
		})
	}
}

// TestAPeerBehindTheRelayKeepsTheHost, after the terminal's has left (spec 8.2).
func TestAPeerBehindTheRelayKeepsTheHost(t *testing.T) {
	change, in, _ := withTerminal(t)
	g := newGate(t)
	r := start(t, change, terminal(), at(behaves("phone", "has a peer"), g))
	r.awaitReady()
	c := g.awaitPlugin()
	for r.Status().Counters.Opened < 2 { // its event may be behind the plugin's call
		time.Sleep(time.Millisecond)
	}
	_ = in.Close()
	for r.Status().Counters.Closed == 0 { // the terminal's connection
		time.Sleep(time.Millisecond)
	}
	if gone, err := r.deserted(); gone || err != nil {
		t.Errorf("with a peer behind the relay: deserted is %v, %v; want false", gone, err)
	}
	select {
	case <-r.ended:
		t.Fatalf("the host ended: %v", r.err)
	default:
	}
	open(t, c)
	if err := r.wait(); err != nil {
		t.Errorf("Run: got %v, want nil", err)
	}
}

// TestOnlyTheTerminalMovesTheTerminal: a cursor of another plugin, whatever it
// calls its connection, forgets nothing of the input.
func TestOnlyTheTerminalMovesTheTerminal(t *testing.T) {
	change, in, out := withTerminal(t)
	g := newGate(t)
	r := start(t, change, terminal(), at(behaves("phone", "claims the terminal"), g))
	r.awaitReady()
	if _, err := io.WriteString(in, `{"jsonrpc":"2.0","id":1,`); err != nil {
		t.Fatal(err)
	}
	open(t, g.awaitPlugin())
	r.awaitReported("phone", "accepted")
	if err := r.RestartPlugin(t.Context(), "stdio"); err != nil { // it reads its input again
		t.Fatal(err)
	}
	if _, err := io.WriteString(in, `"method":"m","params":[1]}`+"\n"); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 200)
	n, err := out.Read(got)
	if want := `{"jsonrpc":"2.0","id":1,"result":[1]}` + "\n"; err != nil || string(got[:n]) != want {
		t.Errorf("read %q, %v; want %q", got[:n], err, want)
	}
}

// TestAdminOfRemoteControl asks a running host through its socket.
func TestAdminOfRemoteControl(t *testing.T) {
	dir := shortDir(t)
	f := newAuthFile(t)
	f.write(chatGPTAuth("acc-1"))
	r := start(t, func(c *Config) {
		withPlaces(t, f)(c)
		c.RuntimeDir, c.Admin = dir, true
	}, withAccount("phone", "account"), behaves("local", "plain"))
	r.awaitReady()
	h, err := FindHost(dir, 0)
	if err != nil {
		t.Fatal(err)
	}
	s, err := h.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if p, err := s.Transport(""); err != nil || p.Instance != "phone" {
		t.Errorf("the remote transport: got %+v, %v", p, err)
	}
	if err := h.SetTransportEnabled(t.Context(), "phone", false); err != nil {
		t.Fatal(err)
	}
	r.awaitReported("phone", "disabled")
	if c, err := h.Credentials(t.Context()); err != nil || c.Mode != "chatgpt" || c.Generation != 1 || c.Account == "" || strings.Contains(c.Account, "acc-1") {
		t.Errorf("Credentials: got %+v, %v; want the account shortened", c, err)
	}
	f.write(chatGPTAuth("acc-2"))
	if _, err := h.ReloadCredentials(t.Context()); err != nil { // the watcher may have been faster
		t.Errorf("ReloadCredentials: %v", err)
	}
	if c, err := h.Credentials(t.Context()); err != nil || c.Generation != 2 {
		t.Errorf("Credentials after the reload: got %+v, %v", c, err)
	}
}
