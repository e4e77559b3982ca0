//go:build unix

package e2e

import (
	"fmt"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/transporthost/transporthost/host"
	"github.com/transporthost/transporthost/tests/relay/backend"
)

// attempted waits for a failure with these words.
func (h *hostProcess) attempted(words string) host.TransportStatus {
	h.t.Helper()
	return h.awaitRemote(fmt.Sprintf("says %q", words), func(s host.TransportStatus) bool {
		return strings.Contains(s.Reported.Details["last_error"], words)
	})
}

// logged waits until the host has written words.
func (h *hostProcess) logged(words string) {
	h.t.Helper()
	h.awaitRemote(fmt.Sprintf("writes %q", words), func(host.TransportStatus) bool { return strings.Contains(h.stderr(), words) })
}

// socketURL is the canonical URL of the WebSocket, as texts have it.
func (r *relay) socketURL() string { return "ws://" + r.address + backend.UpgradePath }

// TestRemoteSaysWhyThereIsNoSocket is the counterpart of
// connect_remote_control_websocket_includes_http_error_details.
func TestRemoteSaysWhyThereIsNoSocket(t *testing.T) {
	inProfiles(t, func(t *testing.T, p backend.Profile) {
		r := newRelay(t, backend.Options{Profile: p})
		r.signIn(backend.AuthChatGPT, "")
		r.AnswerAlways(backend.EndpointUpgrade, backend.Answer{Status: http.StatusServiceUnavailable, Body: "upstream unavailable"})
		h := r.start(setup{})
		s := h.attempted("503")
		want := "failed to connect app-server remote control websocket `" + r.socketURL() +
			"`: HTTP error: 503 Service Unavailable, request-id: <none>, cf-ray: <none>, body: upstream unavailable"
		if d := s.Reported.Details; d["last_error"] != want || d["http_status"] != "503 Service Unavailable" || d["next_attempt"] == "" {
			t.Errorf("got %v, want last_error %s", d, want)
		}
		r.Heal()
		r.connected(h, 1)
		if n := r.CountRequests(backend.EndpointEnroll); n != 1 {
			t.Errorf("%d enrollments, want 1: the one that is there stays", n)
		}
	})
}

// refusing is a backend that refuses the account's token at one endpoint, and
// the text of that.
var refusing = []struct {
	name     string
	profile  backend.Profile
	endpoint backend.Endpoint
	text     func(r *relay) string
}{
	{"websocket", backend.Profile2, backend.EndpointUpgrade,
		func(*relay) string { return "remote control websocket auth failed with HTTP 401 Unauthorized" }},
	{"enrollment", backend.Profile3, backend.EndpointEnroll, func(r *relay) string {
		return "remote control server enrollment failed at `http://" + r.address + backend.EnrollPath + "`: HTTP 401 Unauthorized, request-id: "
	}},
	{"refresh", backend.Profile3, backend.EndpointRefresh, func(r *relay) string {
		return "remote control server refresh failed at `http://" + r.address + backend.RefreshPath + "`: HTTP 401 Unauthorized, request-id: "
	}},
}

// TestRemoteRecoversAfterUnauthorized: the host reads the file again, then
// refreshes the account's tokens, and stores them. Counterpart of
// connect_remote_control_websocket_recovers_after_unauthorized_reload,
// connect_remote_control_websocket_recovers_after_unauthorized_enrollment and
// connect_remote_control_websocket_recovers_after_unauthorized_refresh.
func TestRemoteRecoversAfterUnauthorized(t *testing.T) {
	for _, tt := range refusing {
		t.Run(tt.name, func(t *testing.T) {
			r := newRelay(t, backend.Options{Profile: tt.profile})
			r.signIn(backend.AuthChatGPT, "")
			n := 1
			if tt.endpoint != backend.EndpointEnroll {
				r.runUntilConnected(setup{}, 1) // so that there is an enrollment
				n = 2
			}
			r.must(r.RevokeAccess(""))
			h := r.start(setup{})
			link := r.connected(h, n)
			written := strings.Split(h.stderr(), "\n")
			recovery := 0
			for _, line := range written {
				if strings.Contains(line, tt.text(r)) && strings.Contains(line, "; retrying after auth recovery") {
					recovery++
				}
			}
			// two steps; the log has each change of the cause once
			if recovery == 0 || r.Refreshes() != 1 {
				t.Errorf("%d lines of a recovery and %d refreshes of the account's tokens, want some and 1:\n%s", recovery, r.Refreshes(), h.stderr())
			}
			content, err := os.ReadFile(r.auth)
			if err != nil || !strings.Contains(string(content), string(r.account("").AccessToken)) {
				t.Errorf("the new tokens are not in the file: %v", err)
			}
			if n == 2 && link.ServerID != r.Enrollments()[0].ServerID {
				t.Errorf("the enrollment was not kept: %s", r.steps())
			}
		})
	}
}

// TestRemoteWaitsAfterExhaustedRecovery is the counterpart of
// connect_remote_control_websocket_treats_exhausted_unauthorized_as_recoverable:
// what cannot be refreshed is waited out, and a new sign-in is noticed.
func TestRemoteWaitsAfterExhaustedRecovery(t *testing.T) {
	for _, tt := range refusing {
		t.Run(tt.name, func(t *testing.T) {
			r := newRelay(t, backend.Options{Profile: tt.profile})
			r.signIn(backend.AuthChatGPT, "")
			n := 1
			if tt.endpoint != backend.EndpointEnroll {
				r.runUntilConnected(setup{}, 1)
				n = 2
			}
			r.must(r.RevokeAccess(""))
			r.must(r.RevokeRefresh("", "refresh_token_expired"))
			h := r.start(setup{})
			s := h.attempted("; waiting for valid ChatGPT authentication")
			if d := s.Reported.Details; s.Reported.State != "waiting-for-auth" || !strings.HasPrefix(d["last_error"], tt.text(r)) ||
				d["http_status"] != "401 Unauthorized" || !strings.HasSuffix(s.Cause, "because your refresh token has expired. Please log out and sign in again.") {
				t.Errorf("got %s: %s, %v", s.Reported.State, s.Cause, d)
			}
			_, err := r.RotateAccess("")
			r.must(err)
			began := time.Now()
			r.signIn(backend.AuthChatGPT, "")
			link := r.connected(h, n)
			if took := link.At.Sub(began); took > 2*time.Second {
				t.Errorf("connected %v after the sign-in", took)
			}
			if n == 2 && link.ServerID != r.Enrollments()[0].ServerID {
				t.Errorf("the enrollment was not kept: %s", r.steps())
			}
		})
	}
}

// TestRemoteReplacesARefusedServerToken is the counterpart of
// connect_remote_control_websocket_invalidates_unauthorized_server_token.
func TestRemoteReplacesARefusedServerToken(t *testing.T) {
	r := newRelay(t, backend.Options{})
	r.signIn(backend.AuthChatGPT, "")
	h := r.start(setup{})
	first := r.connected(h, 1)
	r.ExpireServerTokens()
	r.Drop()
	second := r.connected(h, 2)
	if got, want := r.steps(), "enroll upgrade upgrade refresh upgrade"; got != want || first.ServerID != second.ServerID {
		t.Errorf("the requests are %s, want %s for one server", got, want)
	}
	h.logged("remote control websocket auth failed with HTTP 401 Unauthorized; refreshing server token before reconnect")
}

// TestRemoteUsesATokenWhoseRefreshFails is the counterpart of
// proactive_refresh_failure_uses_valid_token_for_websocket_connect: with four
// minutes left the refresh is due, and not needed.
func TestRemoteUsesATokenWhoseRefreshFails(t *testing.T) {
	r := newRelay(t, backend.Options{TokenLifetime: 4 * time.Minute})
	r.signIn(backend.AuthChatGPT, "")
	h := r.start(setup{})
	r.connected(h, 1)
	r.AnswerAlways(backend.EndpointRefresh, backend.Reject(http.StatusBadGateway, "not now"))
	for n := range 2 {
		r.Drop()
		r.connected(h, n+2)
	}
	if got, want := r.steps(), "enroll upgrade refresh upgrade upgrade"; got != want {
		t.Errorf("the requests are %s, want %s: one refresh, then it is deferred", got, want)
	}
}

// TestRemoteDefersARequiredRefresh is the counterpart of
// expired_token_refresh_failure_throttles_reconnect_without_websocket.
func TestRemoteDefersARequiredRefresh(t *testing.T) {
	const lifetime = 100 * time.Millisecond // over before a host comes again
	r := newRelay(t, backend.Options{TokenLifetime: lifetime})
	r.signIn(backend.AuthChatGPT, "")
	r.AnswerAlways(backend.EndpointRefresh, backend.Reject(http.StatusBadGateway, "not now"))
	h := r.start(setup{})
	_, err := r.AwaitConnect(r.ctx, 1)
	r.must(err)
	r.Drop()
	s := h.attempted("remote control server token refresh deferred until ")
	if s.Reported.State != "retrying" || s.Reported.Details["next_attempt"] == "" {
		t.Errorf("got %+v", s.Reported)
	}
	if got, want := r.steps(), "enroll upgrade refresh"; got != want {
		t.Errorf("the requests are %s, want %s", got, want)
	}
	h.logged("remote control server refresh failed at `http://" + r.address + backend.RefreshPath + "`: HTTP 502 Bad Gateway, request-id: req-fault")
}
