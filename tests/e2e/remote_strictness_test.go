//go:build unix

package e2e

import (
	"os"
	"strings"
	"testing"
	"time"

	"github.com/transporthost/transporthost/host"
	"github.com/transporthost/transporthost/tests/relay/backend"
)

// unusable are credentials that remote control cannot use, and the text of
// spec 3.4 that says so.
var unusable = []struct {
	name, text string
	write      func(r *relay)
}{
	{"no file", "remote control requires ChatGPT authentication", func(*relay) {}},
	{"an API key", "remote control requires ChatGPT authentication; API key auth is not supported",
		func(r *relay) { r.signIn(backend.AuthAPIKey, "") }},
	{"no tokens", "remote control cannot read ChatGPT authentication token: Token data is not available.",
		func(r *relay) { r.signIn(backend.AuthNoTokens, "") }},
	{"no account id", "remote control enrollment is waiting for a ChatGPT account id",
		func(r *relay) { r.signIn(backend.AuthNoAccountID, "") }},
	{"broken JSON", "remote control requires ChatGPT authentication",
		func(r *relay) { r.must(os.WriteFile(r.auth, []byte(`{"tokens": {`), 0o600)) }},
	{"a directory", "remote control requires ChatGPT authentication", func(r *relay) { r.must(os.Mkdir(r.auth, 0o700)) }},
}

// TestRemoteAloneRequiresCredentials: with nothing else to serve, a host ends
// with status 1 within 5 s, and its last line is the cause. Counterpart of
// remote_control_auth_validation_treats_api_key_auth_as_recoverable_unless_only_transport
// and remote_control_auth_validation_treats_invalid_chatgpt_auth_as_recoverable,
// as far as they concern RequireReady.
func TestRemoteAloneRequiresCredentials(t *testing.T) {
	for _, tt := range unusable {
		t.Run(tt.name, func(t *testing.T) {
			r := newRelay(t, backend.Options{})
			tt.write(r)
			began := time.Now()
			h := r.launch(setup{alone: true})
			if status := h.wait(); status != 1 || h.lastWord() != tt.text {
				t.Errorf("status %d and %q, want 1 and %q", status, h.lastWord(), tt.text)
			}
			if took := time.Since(began); took > 5*time.Second {
				t.Errorf("it took %v, want at most 5 s", took)
			}
			if r.steps() != "" {
				t.Errorf("the relay was asked: %s", r.steps())
			}
		})
	}
}

// TestRemoteBesideOthersWaitsForCredentials: beside another transport the same
// is a state, shown with the same text, and over when the file is good. No
// process is replaced for it. Counterpart of the other halves of those tests
// and of
// remote_control_reloads_api_key_auth_until_chatgpt_auth_available,
// remote_control_waits_for_account_id_before_enrolling and
// remote_control_start_allows_missing_auth_when_enabled.
func TestRemoteBesideOthersWaitsForCredentials(t *testing.T) {
	for i, tt := range unusable {
		t.Run(tt.name, func(t *testing.T) {
			r := newRelay(t, backend.Options{Profile: profiles[i%2]})
			tt.write(r)
			local := besideStdio
			if i%2 == 0 {
				local = besideWebsocket
			}
			h := r.start(setup{local: local})
			if local == besideStdio { // the name comes before the credentials
				_, err := h.stdin.Write([]byte(`{"id":1,"method":"initialize","params":{"clientInfo":{"name":"x","version":"1"}}}` + "\n"))
				r.must(err)
			}
			s := h.reports("waiting-for-auth", tt.text)
			if s.State != "degraded" || s.Cause != tt.text || s.Remedy == "" || s.Reported.Details["strictness"] != "allow-recoverable" {
				t.Errorf("got %+v, %+v", s, s.Reported)
			}
			if out, _ := h.ask("remote", "status"); !strings.Contains(out, "waiting-for-auth") || !strings.Contains(out, tt.text) {
				t.Errorf("remote status prints\n%s", out)
			}
			if r.steps() != "" {
				t.Errorf("the relay was asked: %s", r.steps())
			}
			if tt.name == "a directory" {
				r.must(os.Remove(r.auth))
			}
			began := time.Now()
			r.signIn(backend.AuthChatGPT, "")
			link := r.connected(h, 1)
			if took := link.At.Sub(began); took > 5*time.Second {
				t.Errorf("connected %v after the sign-in", took)
			}
			if r.steps() != "enroll upgrade" || link.AccountID != r.account("").ID {
				t.Errorf("the relay was asked: %s, for %s", r.steps(), link.AccountID)
			}
			after := h.awaitRemote("ready", func(s host.TransportStatus) bool { return s.State == "ready" })
			if after.PID != s.PID || after.Incarnation != 1 || after.Cause != "" {
				t.Errorf("afterwards it is %+v, want the same process without a complaint", after)
			}
		})
	}
}

// TestRemoteStopsWhileItWaits within 1 s, from any of the long waits. Counterpart
// of run_remote_control_websocket_loop_shutdown_cancels_reconnect_backoff.
func TestRemoteStopsWhileItWaits(t *testing.T) {
	for _, tt := range []struct {
		name, state string
		set         func(r *relay) setup
	}{
		{"for credentials", "waiting-for-auth", func(*relay) setup { return setup{} }},
		{"for the next attempt", "retrying", func(r *relay) setup {
			r.signIn(backend.AuthChatGPT, "")
			return setup{url: "http://127.0.0.1:1/backend-api/"}
		}},
		{"for a person", "needs-user", func(r *relay) setup {
			r.signIn(backend.AuthChatGPT, "")
			r.AnswerAlways(backend.EndpointEnroll, backend.MultiFactorRequired())
			return setup{}
		}},
		{"for an answer", "enrolling", func(r *relay) setup {
			r.signIn(backend.AuthChatGPT, "")
			r.AnswerAlways(backend.EndpointEnroll, backend.Answer{Hang: true})
			return setup{}
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := newRelay(t, backend.Options{})
			h := r.start(tt.set(r))
			h.reports(tt.state, "")
			if took := h.end(); took > time.Second {
				t.Errorf("the host ended after %v, want within 1 s", took)
			}
		})
	}
}
