package remotecontrol

import (
	"context"
	"errors"
	"net/url"
	"runtime/debug"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"

	pluginsdk "github.com/transporthost/transporthost/plugin-sdk"
)

const (
	// grantTimeout bounds the question at start whether credentials are
	// granted, which the host answers from memory. What it says of the
	// credentials themselves may take longer, and is not waited for.
	grantTimeout = time.Second
	// readyTimeout bounds the same question where its answer decides about the
	// start: without usable credentials the host is to end within 5 s. A question
	// that is open by then decides nothing.
	readyTimeout = 4 * time.Second
)

// A Transport is the remote control transport.
type Transport struct {
	clients func(host *pluginsdk.Host, cfg config, relay string, log hclog.Logger) relayClients
	enabled *toggle
	news    *news

	mu         sync.Mutex // guards what follows
	strictness pluginsdk.AuthStrictness
	status     *reporter // nil before Serve
}

var (
	_ pluginsdk.Transport          = (*Transport)(nil)
	_ pluginsdk.Enabler            = (*Transport)(nil)
	_ pluginsdk.StrictnessSetter   = (*Transport)(nil)
	_ pluginsdk.CredentialsWatcher = (*Transport)(nil)
	_ pluginsdk.Resumer            = (*Transport)(nil)
)

// New makes the transport.
func New() *Transport {
	return &Transport{
		clients: func(host *pluginsdk.Host, cfg config, relay string, log hclog.Logger) relayClients {
			return newClients(host, cfg.Protocol, relay, cfg.MaxClients, log)
		},
		enabled: newToggle(), news: newNews(),
	}
}

// Describe implements [pluginsdk.Transport].
func (t *Transport) Describe() pluginsdk.Description {
	version := "unknown"
	if info, ok := debug.ReadBuildInfo(); ok {
		version = info.Main.Version
	}
	return pluginsdk.Description{Name: "remotecontrol", Version: version, Locality: pluginsdk.Remote, Config: configKeys()}
}

// CanResume implements [pluginsdk.Resumer].
func (t *Transport) CanResume() {}

// Serve implements [pluginsdk.Transport]. It is ready at once, whatever the
// credentials are, unless the host has nothing else to offer its peers.
func (t *Transport) Serve(ctx context.Context, host *pluginsdk.Host) error {
	params := host.Params()
	var cfg config
	if err := host.DecodeConfig(&cfg); err != nil {
		return err
	}
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return err
	}
	d, err := newDialer(cfg)
	if err != nil {
		return err
	}
	id, err := installationID(ctx, host, cfg.InstallationIDFile)
	if err != nil {
		return notGranted(err)
	}
	log := host.Logger()
	l := &loop{
		host: host, log: log, cfg: cfg, dialer: d, enabled: t.enabled, news: t.news,
		installationID: id, backoff: backoff{random: newRandom()},
	}
	l.status = t.report(host, log, cfg, params.AuthStrictness)
	t.enabled.set(params.Enabled)
	relay := hostOf(cfg.URL)
	if params.Enabled { // else neither URL nor credentials are looked at (spec 3.5)
		if err := l.useTarget(); err != nil {
			return &refusal{text: err.Error(), class: pluginsdk.ErrInvalidConfig}
		}
		relay = hostOf(l.backend.target.websocket)
		if err := checkCredentials(ctx, host, params.AuthStrictness); err != nil {
			return err
		}
	}
	l.clients = t.clients(host, cfg, relay, log)
	// Their connections stay open at the end: the next process of this instance
	// resumes them, and a host that ends closes them itself.
	defer l.clients.detach()
	if err := l.clients.adopt(params.Resume); err != nil {
		return err
	}
	host.Ready()
	return l.run(ctx)
}

// hostOf is the host and port of a URL, as connections show it.
func hostOf(text string) string {
	u, err := url.Parse(text)
	if err != nil {
		return ""
	}
	return u.Host
}

// checkCredentials decides whether the transport may start (spec 3.5).
func checkCredentials(ctx context.Context, host hostCalls, s pluginsdk.AuthStrictness) error {
	limit := grantTimeout
	if s == pluginsdk.RequireReady {
		limit = readyTimeout
	}
	asking, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	_, err := host.Credentials(asking)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, pluginsdk.ErrNotGranted):
		return notGranted(err)
	case s != pluginsdk.RequireReady, asking.Err() != nil && ctx.Err() == nil:
		// A host that takes its time is renewing them; if that fails, it still has
		// the old ones.
		return nil
	case errors.Is(err, pluginsdk.ErrNoCredentials):
		return &refusal{text: err.Error(), class: pluginsdk.ErrPermissionDenied}
	}
	return err
}

// report makes the reporter, and takes note of how strict the host is.
func (t *Transport) report(host *pluginsdk.Host, log hclog.Logger, cfg config, s pluginsdk.AuthStrictness) *reporter {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.strictness == 0 { // the host may have changed its mind already
		t.strictness = s
	}
	t.status = newReporter(host.ReportStatus, log, facts{
		url: withoutUserinfo(cfg.URL), profile: cfg.Protocol, serverName: cfg.ServerName, strictness: t.strictness,
	})
	return t.status
}

// SetEnabled implements [pluginsdk.Enabler]. It returns before the link has
// ended or begun; the status says when it has.
func (t *Transport) SetEnabled(_ context.Context, enabled bool) error {
	t.enabled.set(enabled)
	return nil
}

// SetAuthStrictness implements [pluginsdk.StrictnessSetter]. A running link
// stays; that it is the only way to the host makes its readiness depend on the
// credentials.
func (t *Transport) SetAuthStrictness(_ context.Context, s pluginsdk.AuthStrictness) error {
	t.mu.Lock()
	t.strictness = s
	status := t.status
	t.mu.Unlock()
	if status != nil {
		status.update(func(f *facts) { f.strictness = s })
	}
	return nil
}

// CredentialsChanged implements [pluginsdk.CredentialsWatcher].
func (t *Transport) CredentialsChanged(_ context.Context, change pluginsdk.CredentialsChange) error {
	t.news.tell(change.Generation)
	return nil
}
