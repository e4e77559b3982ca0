package remotecontrol

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"
	"github.com/hashicorp/go-hclog"

	pluginsdk "github.com/transporthost/transporthost/plugin-sdk"
	"github.com/transporthost/transporthost/plugin-sdk/pluginsdktest"
)

// A plugin is the transport behind a real link, with fake virtual clients.
type plugin struct {
	*pluginsdktest.Host
	relay   *fakeRelay
	clients *fakeClients
	url     string
}

func newPlugin(t *testing.T) *plugin {
	t.Helper()
	t.Setenv("CODEX_HOME", t.TempDir())
	p := &plugin{relay: &fakeRelay{token: true, life: time.Hour}, clients: &fakeClients{}}
	s := httptest.NewServer(p.relay)
	t.Cleanup(s.Close)
	p.url = s.URL + "/backend-api/"
	tr := New()
	tr.clients = func(*pluginsdk.Host, config, string, hclog.Logger) relayClients { return p.clients }
	p.Host = pluginsdktest.Serve(t, tr)
	return p
}

func (p *plugin) start(t *testing.T, enabled bool, s pluginsdk.AuthStrictness, config map[string]any) error {
	t.Helper()
	c := map[string]any{"url": p.url, "proxy": "direct"}
	for k, v := range config {
		c[k] = v
	}
	b, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	return p.TryStart(pluginsdk.StartParams{Config: b, Enabled: enabled, AuthStrictness: s})
}

// await waits until the transport reports a state.
func (p *plugin) await(t *testing.T, want linkState) pluginsdk.Status {
	t.Helper()
	deadline := time.Now().Add(pluginsdktest.Timeout)
	for time.Now().Before(deadline) {
		if s := p.Statuses(); len(s) > 0 && s[len(s)-1].State == string(want) {
			return s[len(s)-1]
		}
		time.Sleep(time.Millisecond) // of real time: there is a real link between
	}
	t.Fatalf("no state %q; reported %+v", want, p.Statuses())
	return pluginsdk.Status{}
}

func granted(creds func() (pluginsdk.Credentials, error)) pluginsdktest.Answers {
	return pluginsdktest.Answers{Credentials: func(context.Context) (pluginsdk.Credentials, error) { return creds() }}
}

// TestRequireReady is
// remote_control_auth_validation_treats_api_key_auth_as_recoverable_unless_only_transport and
// remote_control_auth_validation_treats_invalid_chatgpt_auth_as_recoverable.
func TestRequireReady(t *testing.T) {
	for _, text := range []string{
		"remote control requires ChatGPT authentication; API key auth is not supported",
		"remote control cannot read ChatGPT authentication token: Token data is not available.",
	} {
		for _, strictness := range []pluginsdk.AuthStrictness{pluginsdk.AllowRecoverable, pluginsdk.RequireReady} {
			p := newPlugin(t)
			p.Answer(granted(func() (pluginsdk.Credentials, error) { return pluginsdk.Credentials{}, noCredentials(text) }))
			err := p.start(t, true, strictness, nil)
			if strictness == pluginsdk.RequireReady {
				if !errors.Is(err, pluginsdk.ErrPermissionDenied) || err.Error() != text {
					t.Errorf("%v: got %v, want permission denied with %q", strictness, err, text)
				}
				continue
			}
			if err != nil {
				t.Errorf("%v: got %v", strictness, err)
				continue
			}
			if s := p.await(t, stateWaitingForAuth); s.Cause != text || s.Ready {
				t.Errorf("%v: the status is %+v", strictness, s)
			}
			p.Stop()
		}
	}
}

// TestASlowTokenEndpointDoesNotEndTheStart: a refresh that fails leaves the
// credentials that were there (spec 3.3), so what takes long decides nothing.
func TestASlowTokenEndpointDoesNotEndTheStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &fakeHost{creds: goodCredentials(), slow: 30 * time.Second}
		if err := checkCredentials(t.Context(), h, pluginsdk.RequireReady); err != nil {
			t.Errorf("got %v, want a start", err)
		}
		ended, cancel := context.WithCancelCause(t.Context())
		cancel(pluginsdk.ErrStopping)
		if err := checkCredentials(ended, h, pluginsdk.RequireReady); !errors.Is(err, pluginsdk.ErrStopping) {
			t.Errorf("got %v, want the end of the process", err)
		}
	})
}

func TestStartsWithUsableCredentials(t *testing.T) {
	p := newPlugin(t)
	p.Answer(granted(func() (pluginsdk.Credentials, error) { return goodCredentials(), nil }))
	if err := p.start(t, true, pluginsdk.RequireReady, nil); err != nil {
		t.Fatal(err)
	}
	s := p.await(t, stateConnected)
	want := map[string]string{
		"profile": "3", "account": "acco…", "environment_id": "env_1", "server_id": "srv_e_1", "route": "direct",
		"token": "server token", "clients": "0", "strictness": "require-ready", "url": strings.Replace(p.url, "http", "ws", 1) + "wham/remote/control/server",
	}
	for k, v := range want {
		if s.Details[k] != v {
			t.Errorf("%s is %q, want %q", k, s.Details[k], v)
		}
	}
	if _, err := time.Parse(time.RFC3339, s.Details["since"]); err != nil || !s.Ready || s.Details["server_name"] == "" {
		t.Errorf("the status is %+v", s)
	}
	p.Stop()
	for _, s := range p.Statuses() {
		if b, _ := json.Marshal(s); strings.Contains(string(b), "seeded") {
			t.Errorf("a token is in a status: %s", b)
		}
	}
}

// TestInvalidURL is remote_control_start_allows_remote_control_invalid_url_when_disabled,
// and what happens when it is enabled.
func TestInvalidURL(t *testing.T) {
	const url = "https://internal.example.com/backend-api/"
	const text = "invalid remote control URL `" + url + "`; expected HTTPS URL for chatgpt.com or chatgpt-staging.com, or HTTP/HTTPS URL for localhost"
	p := newPlugin(t)
	p.Answer(granted(func() (pluginsdk.Credentials, error) { return goodCredentials(), nil }))
	if err := p.start(t, true, pluginsdk.AllowRecoverable, map[string]any{"url": url}); !errors.Is(err, pluginsdk.ErrInvalidConfig) || err.Error() != text {
		t.Errorf("enabled: got %v", err)
	}
	p = newPlugin(t)
	if err := p.start(t, false, pluginsdk.RequireReady, map[string]any{"url": url}); err != nil { // without credentials, too
		t.Fatalf("disabled: %v", err)
	}
	p.await(t, stateDisabled)
	if err := p.Link().SetEnabled(t.Context(), true); err != nil {
		t.Fatal(err)
	}
	if s := p.await(t, stateNeedsUser); s.Cause != text {
		t.Errorf("the status is %+v", s)
	}
	if err := p.Link().SetEnabled(t.Context(), false); err != nil {
		t.Fatal(err)
	}
	p.await(t, stateDisabled)
	begun := time.Now()
	p.Stop()
	if took := time.Since(begun); took > time.Second {
		t.Errorf("the stop took %v", took)
	}
}

func TestNeedsItsGrants(t *testing.T) {
	p := newPlugin(t) // a host that grants no credentials
	err := p.start(t, true, pluginsdk.AllowRecoverable, nil)
	if !errors.Is(err, pluginsdk.ErrNotGranted) || !strings.Contains(err.Error(), grantRemedy) {
		t.Errorf("got %v", err)
	}
}

// TestFollowsTheHost: credentials, switch and strictness over a real link.
func TestFollowsTheHost(t *testing.T) {
	p := newPlugin(t)
	none := noCredentials("remote control requires ChatGPT authentication")
	p.Answer(granted(func() (pluginsdk.Credentials, error) { return pluginsdk.Credentials{}, none }))
	if err := p.start(t, true, pluginsdk.AllowRecoverable, map[string]any{"protocol": 2}); err != nil {
		t.Fatal(err)
	}
	p.await(t, stateWaitingForAuth)
	p.Answer(granted(func() (pluginsdk.Credentials, error) { return goodCredentials(), nil }))
	if err := p.Link().NotifyCredentialsChanged(t.Context(), pluginsdk.CredentialsChange{Generation: 1, Reason: "file"}); err != nil {
		t.Fatal(err)
	}
	p.await(t, stateConnected)
	if err := p.Link().SetEnabled(t.Context(), false); err != nil {
		t.Fatal(err)
	}
	p.await(t, stateDisabled)
	if err := p.Link().SetEnabled(t.Context(), true); err != nil {
		t.Fatal(err)
	}
	p.await(t, stateConnected)
	if err := p.Link().SetAuthStrictness(t.Context(), pluginsdk.RequireReady); err != nil {
		t.Fatal(err)
	}
	p.Answer(granted(func() (pluginsdk.Credentials, error) { return pluginsdk.Credentials{}, none }))
	if err := p.Link().NotifyCredentialsChanged(t.Context(), pluginsdk.CredentialsChange{Generation: 2, Reason: "file"}); err != nil {
		t.Fatal(err)
	}
	p.await(t, stateWaitingForAuth)
	p.Stop()
	var strict bool
	for _, s := range p.Statuses() {
		strict = strict || s.State == string(stateConnected) && !s.Ready && s.Cause == none.Error()
	}
	if !strict {
		t.Errorf("no status says that the link runs and is not ready: %+v", p.Statuses())
	}
	if n := p.clients.closed; n != 0 {
		t.Errorf("the virtual clients were closed %d times; the next process resumes them", n)
	}
}

func TestDescription(t *testing.T) {
	p := newPlugin(t)
	d := p.Describe()
	c := d.Capabilities
	if d.Name != "remotecontrol" || d.Locality != pluginsdk.Remote || !c.SetEnabled || !c.AuthStrictness || !c.CredentialsChanged || !c.Resume {
		t.Errorf("got %+v", d)
	}
	// what is described is what is decoded
	b, err := json.Marshal(config{})
	if err != nil {
		t.Fatal(err)
	}
	var fields map[string]any
	if err := json.Unmarshal(b, &fields); err != nil {
		t.Fatal(err)
	}
	for _, k := range d.Config {
		if _, ok := fields[k.Name]; !ok || k.Help == "" {
			t.Errorf("key %q is described, decoded: %v, with help %q", k.Name, ok, k.Help)
		}
		delete(fields, k.Name)
	}
	if len(fields) > 0 {
		t.Errorf("keys that nobody describes: %v", fields)
	}
}

func TestConfigComplaints(t *testing.T) {
	p := newPlugin(t)
	err := p.start(t, true, pluginsdk.AllowRecoverable, map[string]any{"protocol": 4, "originator": "a\nb", "allowed_hosts": []string{"*.example.com"}, "max_clients": -1})
	if !errors.Is(err, pluginsdk.ErrInvalidConfig) {
		t.Fatalf("got %v", err)
	}
	for _, want := range []string{"protocol is 4", `originator is "a\nb"`, `allowed_hosts has "*.example.com"`, "max_clients is -1, want 1 or more"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q in it", err, want)
		}
	}
}

// TestTokenInTheStatus is the one that the link goes with, and none before there
// is one.
func TestTokenInTheStatus(t *testing.T) {
	for _, tt := range []struct {
		profile          profile
		token, tokenless bool
		want             string
	}{
		{profile2, false, false, "account token"}, {profile3, true, false, "server token"}, {profile3, false, false, ""},
		{profile3, false, true, "account token: the backend gives no server token"},
	} {
		e := storedEnrollment()
		e.token, e.tokenless = "", tt.tokenless
		if tt.token {
			e.token = "seeded"
		}
		f := facts{profile: tt.profile}
		f.enrolled(e)
		if f.token != tt.want {
			t.Errorf("%+v: %q", tt, f.token)
		}
	}
}

// TestOriginator: the configuration, else CODEX_INTERNAL_ORIGINATOR_OVERRIDE,
// else the reference's own (spec 2.1).
func TestOriginator(t *testing.T) {
	for _, tt := range []struct{ configured, env, want string }{
		{"", "", "codex_cli_rs"}, {"", "my_app", "my_app"}, {"mine", "my_app", "mine"},
	} {
		t.Setenv("CODEX_INTERNAL_ORIGINATOR_OVERRIDE", tt.env)
		c := config{Originator: tt.configured}.withDefaults()
		if agent := userAgent(c); c.Originator != tt.want || !strings.HasPrefix(agent, tt.want+"/") {
			t.Errorf("configured %q, environment %q: got %q and %q, want %q", tt.configured, tt.env, c.Originator, agent, tt.want)
		}
	}
	t.Setenv("CODEX_INTERNAL_ORIGINATOR_OVERRIDE", "a\nb")
	if err := (config{}).withDefaults().validate(); err == nil || !strings.Contains(err.Error(), `CODEX_INTERNAL_ORIGINATOR_OVERRIDE is "a\nb"`) {
		t.Errorf("got %v, want the variable named", err)
	}
}

func TestInstallationID(t *testing.T) {
	const id = "0B5E7A3C-1111-4222-8333-444455556666"
	home := t.TempDir()
	t.Setenv("CODEX_HOME", home)
	h := &fakeHost{state: map[string][]byte{}}
	made, err := installationID(t.Context(), h, "")
	if u, bad := uuid.Parse(made); err != nil || bad != nil || u.Version() != 4 {
		t.Fatalf("made %q, %v", made, err)
	}
	if again, err := installationID(t.Context(), h, ""); err != nil || again != made {
		t.Errorf("the second time it is %q, %v; want %q", again, err, made)
	}
	file := filepath.Join(home, "installation_id")
	if err := os.WriteFile(file, []byte("no id"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := installationID(t.Context(), h, ""); err != nil || got != made {
		t.Errorf("with a bad file of the reference: %q, %v", got, err)
	}
	if got, err := installationID(t.Context(), h, file); !errors.Is(err, pluginsdk.ErrInvalidConfig) {
		t.Errorf("with a bad file of the configuration: %q, %v", got, err)
	}
	if err := os.WriteFile(file, []byte(id+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, configured := range []string{"", file} {
		if got, err := installationID(t.Context(), h, configured); err != nil || got != id {
			t.Errorf("with a good file: %q, %v", got, err)
		}
	}
}

var _ http.Handler = (*fakeRelay)(nil)
