//go:build unix

package host

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/transporthost/transporthost/host/supervisor"
	pluginsdk "github.com/transporthost/transporthost/plugin-sdk"
)

// An accountPlugin is a remote transport without a relay: towards the host it
// does what remote control does. It asks for credentials when it starts and
// whenever it is told that they have changed, and never by itself.
type accountPlugin struct {
	behaviour string
	look      chan struct{} // one slot

	mu         sync.Mutex // guards what follows
	host       *pluginsdk.Host
	enabled    bool
	strictness pluginsdk.AuthStrictness
	notified   int    // how often
	last       uint64 // the generation that it was told last
	deafness   string
}

func newAccountPlugin(behaviour string) *accountPlugin {
	return &accountPlugin{behaviour: behaviour, look: make(chan struct{}, 1)}
}

func (p *accountPlugin) Describe() pluginsdk.Description {
	return pluginsdk.Description{Name: "test", Version: "1.2.3", Locality: pluginsdk.Remote}
}

func (p *accountPlugin) Serve(ctx context.Context, h *pluginsdk.Host) error {
	p.mu.Lock()
	p.host, p.enabled, p.strictness = h, h.Params().Enabled, h.Params().AuthStrictness
	p.mu.Unlock()
	creds, err := h.Credentials(ctx)
	if err != nil && h.Params().Enabled && h.Params().AuthStrictness == pluginsdk.RequireReady {
		return fmt.Errorf("%w: %w", pluginsdk.ErrPermissionDenied, err)
	}
	if p.behaviour == "account at a gate" {
		if err := passGate(ctx); err != nil {
			return err
		}
	}
	h.Ready()
	for {
		p.report(creds, err)
		select {
		case <-p.look:
		case <-ctx.Done():
			return nil
		}
		if creds, err = h.Credentials(ctx); err != nil && !errors.Is(err, pluginsdk.ErrNoCredentials) {
			return err
		}
	}
}

func (p *accountPlugin) report(creds pluginsdk.Credentials, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := pluginsdk.Status{State: "connected", Ready: true, Details: map[string]string{
		"enabled": strconv.FormatBool(p.enabled), "strictness": p.strictness.String(), "notified": strconv.Itoa(p.notified),
		"last": strconv.FormatUint(p.last, 10), "account": creds.AccountID, "deafness": p.deafness,
	}}
	switch {
	case !p.enabled:
		s.State, s.Ready, s.Cause = "disabled", false, "remote control is disabled"
	case err != nil:
		s.State, s.Ready, s.Cause, s.Remedy = "waiting-for-auth", false, err.Error(), "sign in"
	}
	p.host.ReportStatus(s)
}

func (p *accountPlugin) lookAgain() {
	select {
	case p.look <- struct{}{}:
	default:
	}
}

func (p *accountPlugin) SetEnabled(_ context.Context, on bool) error {
	p.mu.Lock()
	p.enabled = on
	p.mu.Unlock()
	p.lookAgain()
	return nil
}

func (p *accountPlugin) SetAuthStrictness(_ context.Context, s pluginsdk.AuthStrictness) error {
	p.mu.Lock()
	p.strictness = s
	p.mu.Unlock()
	p.lookAgain()
	return nil
}

// CredentialsChanged hangs, once, if the plugin is deaf.
func (p *accountPlugin) CredentialsChanged(ctx context.Context, c pluginsdk.CredentialsChange) error {
	p.mu.Lock()
	p.notified++
	p.last = c.Generation
	deaf := p.behaviour == "account, deaf" && p.deafness == ""
	if deaf {
		p.deafness = "hangs"
	}
	p.mu.Unlock()
	p.lookAgain()
	if deaf {
		<-ctx.Done()
		p.mu.Lock()
		p.deafness = "over"
		p.mu.Unlock()
		p.lookAgain()
		return context.Cause(ctx)
	}
	return nil
}

// A curiousPlugin asks the host for everything that there is.
type curiousPlugin struct{ behaviour string }

func (p *curiousPlugin) Describe() pluginsdk.Description {
	return pluginsdk.Description{Name: "test", Version: "1.2.3", Locality: pluginsdk.Remote}
}

func (p *curiousPlugin) Serve(ctx context.Context, h *pluginsdk.Host) error {
	h.Ready()
	switch p.behaviour {
	case "claims the terminal":
		return p.claimTheTerminal(ctx, h)
	case "has a peer":
		return p.havePeer(ctx, h)
	}
	said := map[string]string{}
	note := func(what, value string, err error) {
		switch {
		case errors.Is(err, pluginsdk.ErrNotGranted):
			value = "not granted"
		case errors.Is(err, pluginsdk.ErrNotFound):
			value = "not found"
		case errors.Is(err, pluginsdk.ErrNoCredentials):
			value = "no credentials: " + err.Error()
		case err != nil:
			value = "error: " + err.Error()
		}
		said[what] = value
	}
	c, err := h.Credentials(ctx)
	note("credentials", c.AccountID, err)
	c, err = h.RecoverUnauthorized(ctx, c.Generation)
	note("recovery", c.AccountID, err)
	h.CredentialsAccepted(c.Generation)
	before, err := h.LoadState(ctx, "visits")
	note("before", string(before), err)
	note("save", "saved", h.SaveState(ctx, "visits", append(before, h.Params().Instance...)))
	after, err := h.LoadState(ctx, "visits")
	note("after", string(after), err)
	note("delete", "deleted", h.DeleteState(ctx, "another"))
	h.ReportStatus(pluginsdk.Status{State: "waiting-for-client-name", Ready: true, Details: said})
	name, err := h.ClientName(ctx)
	note("name", "name "+strconv.Quote(name), err)
	h.ReportStatus(pluginsdk.Status{State: "asked", Ready: true, Details: said})
	<-ctx.Done()
	return nil
}

// claimTheTerminal opens a connection that calls itself as the terminal's does,
// with a cursor that would be an offset there.
func (p *curiousPlugin) claimTheTerminal(ctx context.Context, h *pluginsdk.Host) error {
	if err := passGate(ctx); err != nil {
		return err
	}
	c, err := h.Open(pluginsdk.Opened{ResumeKey: "stdio"}, &accepterSink{accepted: func(pluginsdk.Cursor) {
		h.ReportStatus(pluginsdk.Status{State: "accepted", Ready: true})
	}})
	if err != nil {
		return err
	}
	if err := c.DeliverAt(ctx, []byte(`{"method":"m"}`), "5"); err != nil {
		return err
	}
	<-ctx.Done()
	return nil
}

// havePeer has one until the gate opens.
func (p *curiousPlugin) havePeer(ctx context.Context, h *pluginsdk.Host) error {
	c, err := h.Open(pluginsdk.Opened{}, &accepterSink{})
	if err != nil {
		return err
	}
	if err := passGate(ctx); err != nil {
		return err
	}
	c.Close(pluginsdk.CloseReason{Code: pluginsdk.CloseNormal})
	<-ctx.Done()
	return nil
}

type accepterSink struct {
	conn     *pluginsdk.Conn
	accepted func(pluginsdk.Cursor)
}

func (s *accepterSink) Bind(c *pluginsdk.Conn)           { s.conn = c }
func (*accepterSink) Message(pluginsdk.Seq, []byte)      {}
func (*accepterSink) Flush()                             {}
func (s *accepterSink) Close(r pluginsdk.CloseReason)    { s.conn.Close(r) }
func (s *accepterSink) Accepted(cursor pluginsdk.Cursor) { s.accepted(cursor) }

// An authFile is an auth.json.
type authFile struct {
	t    *testing.T
	path string
}

func newAuthFile(t *testing.T) authFile {
	t.Helper()
	return authFile{t, filepath.Join(t.TempDir(), "auth.json")}
}

// write replaces the file, as a login does that takes care.
func (f authFile) write(content string) {
	f.t.Helper()
	next := f.path + ".next"
	if err := os.WriteFile(next, []byte(content), 0o600); err != nil {
		f.t.Fatal(err)
	}
	if err := os.Rename(next, f.path); err != nil {
		f.t.Fatal(err)
	}
}

// What stands in the file, and what spec 3.4 says of it.
const (
	apiKeyAuth       = `{"OPENAI_API_KEY":"sk-seeded-secret"}`
	apiKeyAuthText   = "remote control requires ChatGPT authentication; API key auth is not supported"
	tokenlessAuth    = `{"auth_mode":"chatgpt","OPENAI_API_KEY":null,"tokens":null,"last_refresh":null}`
	tokenlessText    = "remote control cannot read ChatGPT authentication token: Token data is not available."
	noAuthText       = "remote control requires ChatGPT authentication"
	waitsForItsIDTxt = "remote control enrollment is waiting for a ChatGPT account id"
)

// chatGPTAuth is the content after a login; "" has no account id.
func chatGPTAuth(account string) string {
	part := base64.RawURLEncoding.EncodeToString
	id := part([]byte(`{"alg":"none"}`)) + "." + part([]byte(`{"email":"a@b.example"}`)) + "." + part([]byte("signature"))
	accountID := "null"
	if account != "" {
		accountID = strconv.Quote(account)
	}
	return fmt.Sprintf(`{"auth_mode":"chatgpt","OPENAI_API_KEY":null,"tokens":{"id_token":%q,"access_token":"seeded-secret-token",`+
		`"refresh_token":"seeded-secret-refresh","account_id":%s},"last_refresh":%q}`, id, accountID, time.Now().UTC().Format(time.RFC3339Nano))
}

// withAccount is a transport whose plugin behaves so and is granted everything,
// and withPlaces a host whose credentials and state are the test's.
func withAccount(name, b string) Transport {
	t := behaves(name, b)
	t.Grant = []Grant{GrantCredentials, GrantState, GrantClientName}
	return t
}

func withPlaces(t *testing.T, f authFile) func(*Config) {
	dir := filepath.Join(t.TempDir(), "state")
	return func(c *Config) { c.Credentials.File, c.StateDir = f.path, dir }
}

// awaitDetail waits until a plugin reports a value.
func (r *hosted) awaitDetail(instance, name, want string) supervisor.Status {
	r.t.Helper()
	var last supervisor.Status
	r.await(instance, fmt.Sprintf("reporting %s %q", name, want), func(s supervisor.Status) bool {
		last = s
		return s.Reported != nil && s.Reported.Details[name] == want
	})
	return last
}

func (r *hosted) awaitReported(instance, state string) supervisor.Status {
	r.t.Helper()
	var last supervisor.Status
	r.await(instance, state, func(s supervisor.Status) bool {
		last = s
		return s.Reported != nil && s.Reported.State == state
	})
	return last
}

// awaitChange waits until the host has heard of a generation of the credentials.
func (r *hosted) awaitChange(generation uint64) {
	r.t.Helper()
	deadline := time.After(limit)
	for {
		r.mu.Lock()
		turn, have := r.turn, r.change.Generation
		r.mu.Unlock()
		if have >= generation {
			return
		}
		select {
		case <-turn:
		case <-deadline:
			r.t.Fatalf("the host never hears of generation %d of the credentials", generation)
		}
	}
}
