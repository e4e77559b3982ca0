package remotecontrol

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"runtime"
	"strings"
	"time"

	"github.com/gorilla/websocket"
	"golang.org/x/net/http/httpguts"

	pluginsdk "github.com/transporthost/transporthost/plugin-sdk"
)

// A backend makes the requests of one profile to one target.
type backend struct {
	profile        profile
	target         target
	dialer         *dialer
	installationID string
	serverName     string
	appVersion     string
	userAgent      string
	originator     string
	residency      string
}

func newBackend(cfg config, t target, d *dialer, installationID string) *backend {
	return &backend{
		profile: cfg.Protocol, target: t, dialer: d, installationID: installationID,
		serverName: cfg.ServerName, appVersion: cfg.AppVersion,
		userAgent: userAgent(cfg), originator: cfg.Originator, residency: cfg.Residency,
	}
}

// userAgent names this program as the reference names itself (spec 2.1).
func userAgent(cfg config) string {
	system, version := map[string]string{"linux": "Linux", "darwin": "Mac OS", "windows": "Windows"}[runtime.GOOS], "unknown"
	if system == "" {
		system = runtime.GOOS
	}
	if runtime.GOOS == "linux" {
		if b, err := os.ReadFile("/proc/sys/kernel/osrelease"); err == nil && httpguts.ValidHeaderFieldValue(strings.TrimSpace(string(b))) {
			version = strings.TrimSpace(string(b))
		}
	}
	s := fmt.Sprintf("%s/%s (%s %s; %s) unknown", cfg.Originator, cfg.AppVersion, system, version, rustArch(runtime.GOARCH))
	if cfg.UserAgentSuffix != "" {
		s += " (" + cfg.UserAgentSuffix + ")"
	}
	return s
}

// rustOS is a system by the name that the reference's language has for it.
func rustOS(goos string) string {
	if goos == "darwin" {
		return "macos"
	}
	return goos
}

// rustArch is the same for a processor.
func rustArch(goarch string) string {
	switch goarch {
	case "amd64":
		return "x86_64"
	case "arm64":
		return "aarch64"
	case "386":
		return "x86"
	case "ppc64", "ppc64le":
		return "powerpc64"
	case "loong64":
		return "loongarch64"
	}
	return goarch
}

// A call is one of the two requests, with the words of its errors.
type call struct {
	url    string
	what   string // "enrollment": in the errors of an answer
	verb   string // "enroll": in the error of a request that was not answered
	answer string // "remote control enrollment response": in the errors of its body
	body   any
}

// issuedToken is the token of an answer, if there is one.
type issuedToken struct {
	token   pluginsdk.Secret
	expires time.Time
}

// serverAnswer is what enroll and refresh answer with. Every field is a pointer
// or may be empty, to tell a missing one.
type serverAnswer struct {
	ServerID      *string `json:"server_id"`
	EnvironmentID *string `json:"environment_id"`
	Token         string  `json:"remote_control_token"`
	ExpiresAt     string  `json:"expires_at"`
}

// enroll registers this host for the account of creds (spec 2.1–2.3).
func (b *backend) enroll(ctx context.Context, creds pluginsdk.Credentials) (*enrollment, *failure) {
	type body struct {
		Name           string `json:"name"`
		OS             string `json:"os"`
		Arch           string `json:"arch"`
		AppVersion     string `json:"app_server_version"`
		InstallationID string `json:"installation_id,omitempty"`
	}
	c := call{
		url: b.target.enroll, what: "remote control server enrollment", verb: "enroll", answer: "remote control enrollment response",
		body: body{b.serverName, rustOS(runtime.GOOS), rustArch(runtime.GOARCH), b.appVersion, b.installation()},
	}
	if b.profile == profile3 {
		c.answer = "remote control server enrollment response"
	}
	got, token, f := b.post(ctx, creds, c)
	if f != nil {
		return nil, f
	}
	e := &enrollment{
		accountID: creds.AccountID, environmentID: *got.EnvironmentID, serverID: *got.ServerID, serverName: b.serverName,
	}
	if b.profile == profile3 {
		e.issue(token)
	}
	return e, nil
}

// refresh gets a new token for e (spec 2.8). It does not change e.
func (b *backend) refresh(ctx context.Context, creds pluginsdk.Credentials, e *enrollment) (issuedToken, *failure) {
	type body struct {
		ServerID       string `json:"server_id"`
		InstallationID string `json:"installation_id"`
	}
	got, token, f := b.post(ctx, creds, call{
		url: b.target.refresh, what: "remote control server refresh", verb: "refresh", answer: "remote control server refresh response",
		body: body{e.serverID, b.installation()},
	})
	if f != nil {
		return issuedToken{}, f
	}
	if *got.ServerID != e.serverID || *got.EnvironmentID != e.environmentID {
		return issuedToken{}, &failure{kind: failedOther, text: fmt.Sprintf(
			"remote control server refresh returned mismatched enrollment: expected server_id=%s, environment_id=%s; got server_id=%s, environment_id=%s",
			e.serverID, e.environmentID, cutAt(*got.ServerID, 128), cutAt(*got.EnvironmentID, 128))}
	}
	return token, nil
}

// installation is the installation id where the profile has one.
func (b *backend) installation() string {
	if b.profile == profile3 {
		return b.installationID
	}
	return ""
}

// post makes a request and decodes what it is answered with.
func (b *backend) post(ctx context.Context, creds pluginsdk.Credentials, c call) (serverAnswer, issuedToken, *failure) {
	unanswered := func(err error) *failure {
		return &failure{kind: kindOf(err), err: err, remedy: networkRemedy(err),
			text: fmt.Sprintf("failed to %s remote control server at `%s`: %s", c.verb, c.url, errorText(err))}
	}
	ctx, cancel := context.WithTimeoutCause(ctx, requestTimeout, errNoAnswer)
	defer cancel()
	body, err := json.Marshal(c.body)
	if err != nil {
		return serverAnswer{}, issuedToken{}, unanswered(err)
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, c.url, bytes.NewReader(body))
	if err != nil {
		return serverAnswer{}, issuedToken{}, unanswered(err)
	}
	header, f := b.requestHeader(creds)
	if f != nil {
		return serverAnswer{}, issuedToken{}, f
	}
	r.Header = header
	response, err := b.dialer.client().Do(r)
	if err != nil {
		return serverAnswer{}, issuedToken{}, unanswered(causeOf(ctx, err))
	}
	defer response.Body.Close()
	a, err := readAnswer(response, b.profile, time.Now(), creds.AccessToken)
	if err != nil {
		err = causeOf(ctx, err)
		return serverAnswer{}, issuedToken{}, &failure{kind: kindOf(err), err: err, answer: a,
			text: fmt.Sprintf("failed to read %s from `%s`: %s", c.answer, c.url, errorText(err))}
	}
	if !a.success() {
		return serverAnswer{}, issuedToken{}, b.refused(c, a)
	}
	var got serverAnswer
	if err = decodeServerAnswer(a.body, &got); err != nil {
		return serverAnswer{}, issuedToken{}, &failure{kind: failedOther, answer: a,
			text: fmt.Sprintf("failed to parse %s from `%s`: HTTP %s, %s, body: %s, decode error: %s",
				c.answer, c.url, a.status(), a.ids(), a.preview(), a.clean(err.Error()))}
	}
	token := issuedToken{token: pluginsdk.Secret(got.Token)}
	got.Token = ""
	if b.profile != profile3 {
		return got, issuedToken{}, nil
	}
	if token.token != "" && got.ExpiresAt != "" {
		if token.expires, err = time.Parse(time.RFC3339, got.ExpiresAt); err != nil {
			return serverAnswer{}, issuedToken{}, &failure{kind: failedOther, answer: a,
				text: fmt.Sprintf("failed to parse remote control server token expiry from `%s`: %s", c.url, err)}
		}
	}
	return got, token, nil
}

// refused is the failure for an answer that is not 2xx.
func (b *backend) refused(c call, a *answer) *failure {
	f := &failure{kind: failedOther, answer: a,
		text: fmt.Sprintf("%s failed at `%s`: HTTP %s, %s, body: %s", c.what, c.url, a.status(), a.ids(), a.preview())}
	switch {
	case a.unauthorized():
		f.kind = permissionDenied
	case a.html: // whatever its code is, it is not the backend's
		f.remedy = blockedRemedy
	case a.code == http.StatusNotFound && b.profile == profile3:
		f.kind = notFound
	}
	return f
}

// decodeServerAnswer decodes an answer of 2xx. Its error for a missing field
// has the reference's words.
func decodeServerAnswer(body []byte, got *serverAnswer) error {
	if err := json.Unmarshal(body, got); err != nil {
		return err
	}
	for _, f := range []struct {
		name  string
		value *string
	}{{"server_id", got.ServerID}, {"environment_id", got.EnvironmentID}} {
		if f.value == nil {
			return fmt.Errorf("missing field `%s` at line 1 column %d", f.name, len(body))
		}
		if *f.value == "" {
			return fmt.Errorf("field `%s` is empty", f.name)
		}
	}
	return nil
}

// requestHeader is that of enroll and refresh.
func (b *backend) requestHeader(creds pluginsdk.Credentials) (http.Header, *failure) {
	h := http.Header{}
	set := headerSetter{h}
	set.text("Originator", b.originator)
	set.text("User-Agent", b.userAgent)
	set.optional("X-Openai-Internal-Codex-Residency", b.residency)
	set.text("Authorization", "Bearer "+string(creds.AccessToken))
	set.text("Chatgpt-Account-Id", creds.AccountID)
	set.optional("X-Codex-Installation-Id", b.installation())
	set.text("Content-Type", "application/json")
	if creds.FedRAMP {
		set.text("X-Openai-Fedramp", "true")
	}
	return h, set.invalid()
}

// connect opens the websocket of e (spec 5). used is the server token that it
// went with, or "" for the account's. The failure of a refusal is the generic
// one, with the answer; what follows from it is the caller's to decide.
func (b *backend) connect(ctx context.Context, creds pluginsdk.Credentials, e *enrollment, cursor string) (ws *websocket.Conn, used pluginsdk.Secret, f *failure) {
	h := http.Header{}
	set := headerSetter{h}
	set.text("User-Agent", b.userAgent)
	set.text("X-Codex-Server-Id", e.serverID)
	set.text("X-Codex-Name", base64.StdEncoding.EncodeToString([]byte(e.serverName)))
	set.text("X-Codex-Protocol-Version", fmt.Sprint(uint8(b.profile)))
	set.optional("X-Codex-Installation-Id", b.installation())
	set.optional("X-Codex-Subscribe-Cursor", cursor)
	if b.profile == profile3 && e.token != "" {
		used = e.token
		set.text("Authorization", "Bearer "+string(used))
	} else {
		set.text("Authorization", "Bearer "+string(creds.AccessToken))
		set.text("Chatgpt-Account-Id", creds.AccountID)
	}
	if f := set.invalid(); f != nil {
		return nil, used, f
	}
	ctx, cancel := context.WithTimeoutCause(ctx, requestTimeout, errNoAnswer)
	defer cancel()
	ws, response, err := b.dialer.websocket(ctx, b.target.websocket, h)
	if err == nil {
		return ws, used, nil
	}
	err = causeOf(ctx, err)
	if kindOf(err) == timedOut { // the library's deadline, or ctx's: whichever was seen first
		return nil, used, &failure{kind: timedOut, err: err, remedy: networkRemedy(err),
			text: fmt.Sprintf("timed out connecting to remote control websocket at `%s` after 30s", b.target.websocket)}
	}
	text := fmt.Sprintf("failed to connect app-server remote control websocket `%s`: ", b.target.websocket)
	if response == nil || response.StatusCode == http.StatusSwitchingProtocols {
		return nil, used, &failure{kind: failedOther, err: err, remedy: networkRemedy(err), text: text + errorText(err)}
	}
	a, _ := readAnswer(response, b.profile, time.Now(), creds.AccessToken, used) // from memory
	text += "HTTP error: " + a.status() + ", " + a.ids()
	if len(a.body) > 0 {
		text += ", body: " + a.preview()
	}
	f = &failure{kind: failedOther, answer: a, text: text}
	if a.html {
		f.remedy = blockedRemedy
	}
	return nil, used, f
}

// A headerSetter fills a header.
type headerSetter struct{ h http.Header }

func (s headerSetter) text(name, value string) { s.h.Set(name, value) }

func (s headerSetter) optional(name, value string) {
	if value != "" {
		s.h.Set(name, value)
	}
}

// invalid is the failure for a value that a header cannot hold. It does not
// show the value.
func (s headerSetter) invalid() *failure {
	for name, values := range s.h {
		for _, v := range values {
			if !httpguts.ValidHeaderFieldValue(v) {
				return &failure{kind: invalidInput,
					text: fmt.Sprintf("invalid remote control header `%s`: failed to parse header value", strings.ToLower(name))}
			}
		}
	}
	return nil
}

// causeOf is why ctx ended, if it has: the error that followed from it says
// less.
func causeOf(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	return err
}

func kindOf(err error) failureKind {
	if errors.Is(err, errNoAnswer) || errors.Is(err, os.ErrDeadlineExceeded) {
		return timedOut
	}
	return failedOther
}

// errorText is what went wrong, without the URL that the error of package http
// repeats.
func errorText(err error) string {
	if ue, ok := errors.AsType[*url.Error](err); ok {
		err = ue.Err
	}
	return oneLine(err.Error())
}
