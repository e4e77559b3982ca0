package remotecontrol

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"runtime"
	"strings"
	"testing"
	"time"

	pluginsdk "github.com/transporthost/transporthost/plugin-sdk"
)

func profiles(t *testing.T, test func(t *testing.T, p profile)) {
	for _, p := range []profile{profile2, profile3} {
		t.Run(fmt.Sprintf("profile %d", p), func(t *testing.T) { test(t, p) })
	}
}

// TestEnrollsBeforeConnecting is remote_control_http_mode_enrolls_before_connecting
// as far as headers and bodies go, and
// build_remote_control_websocket_request_uses_server_token_when_available: beside
// the server's token no account is named (spec 5).
func TestEnrollsBeforeConnecting(t *testing.T) {
	profiles(t, func(t *testing.T, p profile) {
		r := onSockets(t, p)
		r.host.creds.FedRAMP = true
		r.clients.at = "cursor-7"
		r.wantLink(t)
		r.wantPaths(t, "enroll server")
		q := r.relay.requests()
		id := ""
		if p == profile3 {
			id = `,"installation_id":"` + testID + `"`
		}
		body := fmt.Sprintf(`{"name":"test-server","os":%q,"arch":%q,"app_server_version":"1.2.3"%s}`, rustOS(runtime.GOOS), rustArch(runtime.GOARCH), id)
		if q[0].body != body {
			t.Errorf("body %s\nwant %s", q[0].body, body)
		}
		name := base64.StdEncoding.EncodeToString([]byte("test-server"))
		want := []map[string]string{
			{"Authorization": "Bearer " + testToken, "Chatgpt-Account-Id": testAccount, "Content-Type": "application/json",
				"Originator": "codex_cli_rs", "X-Openai-Fedramp": "true", "Origin": "", "Accept-Encoding": ""},
			{"Authorization": "Bearer " + testToken, "Chatgpt-Account-Id": testAccount, "X-Codex-Server-Id": "srv_e_1", "X-Codex-Name": name,
				"X-Codex-Protocol-Version": "2", "X-Codex-Subscribe-Cursor": "cursor-7", "Origin": "", "Sec-Websocket-Extensions": "", "Sec-Websocket-Protocol": ""},
		}
		want[0]["X-Codex-Installation-Id"], want[1]["X-Codex-Installation-Id"] = "", ""
		if p == profile3 {
			want[0]["X-Codex-Installation-Id"], want[1]["X-Codex-Installation-Id"] = testID, testID
			want[1]["X-Codex-Protocol-Version"] = "3"
			want[1]["Authorization"], want[1]["Chatgpt-Account-Id"] = "Bearer server-token-seeded-for-srv_e_1", ""
		}
		for i, headers := range want {
			for k, v := range headers {
				if got := q[i].header.Get(k); got != v {
					t.Errorf("request %d: %s is %q, want %q", i, k, got, v)
				}
			}
			if ua := q[i].header.Get("User-Agent"); !strings.HasPrefix(ua, "codex_cli_rs/1.2.3 (") {
				t.Errorf("request %d: User-Agent %q", i, ua)
			}
		}
		if g := r.host.accepted; len(g) != 1 || g[0] != 1 {
			t.Errorf("accepted generations %v, want [1]", g)
		}
	})
}

// TestReusesTheStoredEnrollment is
// remote_control_http_mode_reuses_persisted_enrollment_before_reenrolling.
func TestReusesTheStoredEnrollment(t *testing.T) {
	profiles(t, func(t *testing.T, p profile) {
		r := onSockets(t, p)
		e := storedEnrollment()
		e.environmentID = "env_stored"
		r.relay.refresh = func(w http.ResponseWriter, _ *http.Request) { r.relay.answer(w, "srv_e_stored", "env_stored") }
		r.store(t, e)
		before := string(r.host.state[r.rows().key(testAccount)])
		r.wantLink(t)
		paths, name := "server", "old-name"
		if p == profile3 { // whose token is not stored, and whose name follows the host's
			paths, name = "refresh server", "test-server"
		}
		r.wantPaths(t, paths)
		q := r.relay.requests()
		last := q[len(q)-1].header
		if last.Get("X-Codex-Server-Id") != "srv_e_stored" || last.Get("X-Codex-Name") != base64.StdEncoding.EncodeToString([]byte(name)) {
			t.Errorf("connected as %v", last)
		}
		if got := string(r.host.state[r.rows().key(testAccount)]); got != before {
			t.Errorf("the row became %s, want %s", got, before)
		}
	})
}

// TestNotFoundClearsTheEnrollment is
// remote_control_http_mode_clears_stale_persisted_enrollment_after_404.
func TestNotFoundClearsTheEnrollment(t *testing.T) {
	for _, tt := range []struct {
		name, body string
		p          profile
		cleared    bool
	}{
		{"profile 2, any 404", "nothing here", profile2, true},
		{"profile 3, the backend's 404", `{"detail":"Remote app server not found"}`, profile3, true},
		{"profile 3, another 404", `{"detail":"Not Found"}`, profile3, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := onSockets(t, tt.p)
			r.relay.refresh = func(w http.ResponseWriter, _ *http.Request) { r.relay.answer(w, "srv_e_stored", "env_stored") }
			r.store(t, storedEnrollment())
			other := storedEnrollment()
			other.accountID = "other"
			r.store(t, other)
			r.relay.socket = refuse(404, tt.body)
			r.wantFailure(t, failedOther, fmt.Sprintf(
				"failed to connect app-server remote control websocket `%s`: HTTP error: 404 Not Found, request-id: <none>, cf-ray: <none>, body: %s", r.backend.target.websocket, tt.body))
			_, err := r.rows().load(t.Context(), testAccount)
			if gone := errors.Is(err, pluginsdk.ErrNotFound); gone != tt.cleared || (r.enrollment == nil) != tt.cleared {
				t.Errorf("row gone: %v, memory gone: %v; want %v", gone, r.enrollment == nil, tt.cleared)
			}
			if _, err := r.rows().load(t.Context(), "other"); err != nil {
				t.Errorf("the row of another account: %v", err)
			}
			r.relay.set(func(r *fakeRelay) { r.socket = nil })
			r.wantLink(t)
			q := r.relay.requests()
			want := "srv_e_stored"
			if tt.cleared {
				want = "srv_e_1"
			}
			if got := q[len(q)-1].header.Get("X-Codex-Server-Id"); got != want {
				t.Errorf("connected as %s, want %s", got, want)
			}
			if e, err := r.rows().load(t.Context(), testAccount); err != nil || e.serverID != want {
				t.Errorf("stored %+v, %v", e, err)
			}
		})
	}
}

// TestSocketErrorText is connect_remote_control_websocket_includes_http_error_details.
func TestSocketErrorText(t *testing.T) {
	profiles(t, func(t *testing.T, p profile) {
		r := onSockets(t, p)
		r.relay.socket = func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(503)
			_, _ = w.Write([]byte("upstream unavailable"))
		}
		prefix := "failed to connect app-server remote control websocket `" + r.backend.target.websocket + "`: HTTP error: "
		r.wantFailure(t, failedOther, prefix+"503 Service Unavailable, request-id: <none>, cf-ray: <none>, body: upstream unavailable")
		r.relay.set(func(r *fakeRelay) {
			r.socket = refuse(302, "", "Location", "https://example.com/", "X-Request-Id", "q")
		})
		r.wantFailure(t, failedOther, prefix+"302 Found, request-id: q, cf-ray: <none>")
		long := strings.Repeat("long ", 2000)
		r.relay.set(func(r *fakeRelay) { r.socket = refuse(500, long) })
		r.wantFailure(t, failedOther, prefix+"500 Internal Server Error, request-id: <none>, cf-ray: <none>, body: "+long[:4096]+"...")
		if r.enrollment == nil || len(r.relay.requests()) != 4 { // one enrollment, three sockets: no redirect followed
			t.Errorf("asked for %s", r.relay.paths())
		}
	})
}

// TestRecoversAfterARefusedSocket is
// connect_remote_control_websocket_recovers_after_unauthorized_reload and
// …treats_exhausted_unauthorized_as_recoverable; where the account's token is on
// the socket: in profile 2, and where profile 3 has no other.
func TestRecoversAfterARefusedSocket(t *testing.T) {
	profiles(t, func(t *testing.T, p profile) {
		r := onSockets(t, p)
		r.relay.token = false
		e := storedEnrollment()
		e.tokenless = true
		r.store(t, e)
		r.relay.socket = refuse(401, "unauthorized")
		const text = "remote control websocket auth failed with HTTP 401 Unauthorized"
		r.host.recovery = func() (pluginsdk.Credentials, error) {
			return pluginsdk.Credentials{AccessToken: "fresh", AccountID: testAccount, Generation: 7}, nil
		}
		if f := r.wantFailure(t, failedOther, text+"; retrying after auth recovery"); !f.auth || r.known != 7 {
			t.Errorf("auth %v, known generation %d; want true, 7", f.auth, r.known)
		}
		r.host.recovery = nil
		f := r.wantFailure(t, wouldBlock, text+"; waiting for valid ChatGPT authentication")
		if !f.auth || !strings.HasSuffix(f.line(), "No more recovery steps available.") {
			t.Errorf("auth %v, line %q", f.auth, f.line())
		}
		if r.enrollment == nil || r.enrollment.serverID != "srv_e_stored" {
			t.Errorf("the enrollment became %+v", r.enrollment)
		}
		if e, err := r.rows().load(t.Context(), testAccount); err != nil || e.serverID != "srv_e_stored" {
			t.Errorf("the row became %+v, %v", e, err)
		}
	})
}

// TestRecoversAfterARefusedEnrollment is
// connect_remote_control_websocket_recovers_after_unauthorized_enrollment.
func TestRecoversAfterARefusedEnrollment(t *testing.T) {
	profiles(t, func(t *testing.T, p profile) {
		for _, code := range []int{401, 403} {
			r := onSockets(t, p)
			r.relay.enroll = refuse(code, `{"detail":"no"}`, "X-Request-Id", "rid", "Cf-Ray", "ray")
			text := fmt.Sprintf("remote control server enrollment failed at `%s`: HTTP %d %s, request-id: rid, cf-ray: ray, body: {\"detail\":\"no\"}",
				r.backend.target.enroll, code, http.StatusText(code))
			r.wantFailure(t, wouldBlock, text+"; waiting for valid ChatGPT authentication")
			r.host.recovery = func() (pluginsdk.Credentials, error) { return goodCredentials(), nil }
			r.wantFailure(t, failedOther, text+"; retrying after auth recovery")
		}
	})
}

// TestDropsARefusedServerToken is
// connect_remote_control_websocket_invalidates_unauthorized_server_token and
// websocket_auth_failure_does_not_clear_rotated_server_token.
func TestDropsARefusedServerToken(t *testing.T) {
	r := onSockets(t, profile3)
	r.wantLink(t)
	r.relay.set(func(r *fakeRelay) { r.socket = refuse(401, "") })
	r.wantFailure(t, failedOther, "remote control websocket auth failed with HTTP 401 Unauthorized; refreshing server token before reconnect")
	if r.enrollment == nil || r.enrollment.token != "" || r.enrollment.serverID != "srv_e_1" {
		t.Errorf("the enrollment became %v, want it without its token", r.enrollment != nil)
	}
	r.relay.set(func(r *fakeRelay) { r.socket = nil })
	r.wantLink(t)
	r.wantPaths(t, "enroll server server refresh server")

	e := r.enrollment
	e.token = "newer"
	e.dropToken("older")
	if e.token != "newer" {
		t.Error("the failure of an older token dropped a newer one")
	}
}

// TestRecoversAfterARefusedRefresh is
// connect_remote_control_websocket_recovers_after_unauthorized_refresh.
func TestRecoversAfterARefusedRefresh(t *testing.T) {
	r := onSockets(t, profile3)
	r.store(t, storedEnrollment())
	r.relay.refresh = refuse(401, "no")
	r.host.recovery = func() (pluginsdk.Credentials, error) {
		r.news.tell(5) // the host's news of its own reload
		return pluginsdk.Credentials{AccessToken: "t", AccountID: testAccount, Generation: 5}, nil
	}
	text := "remote control server refresh failed at `" + r.backend.target.refresh + "`: HTTP 401 Unauthorized, request-id: <none>, cf-ray: <none>, body: no"
	r.wantFailure(t, failedOther, text+"; retrying after auth recovery")
	select {
	case <-r.news.beyond(r.known):
		t.Error("our own reload would wake the loop")
	default:
	}
	q := r.relay.requests()
	if want := `{"server_id":"srv_e_stored","installation_id":"` + testID + `"}`; q[0].body != want {
		t.Errorf("refreshed with %s, want %s", q[0].body, want)
	}
}

func TestRefreshOfAnUnknownServerEnrollsAtOnce(t *testing.T) {
	r := onSockets(t, profile3)
	r.store(t, storedEnrollment())
	r.relay.refresh = refuse(404, `{"detail":"gone"}`)
	r.wantLink(t)
	r.wantPaths(t, "refresh enroll server")
	if e, err := r.rows().load(t.Context(), testAccount); err != nil || e.serverID != "srv_e_1" {
		t.Errorf("stored %+v, %v", e, err)
	}
}

func TestRefreshMustNameTheSameServer(t *testing.T) {
	r := onSockets(t, profile3)
	r.store(t, storedEnrollment())
	r.relay.refresh = func(w http.ResponseWriter, _ *http.Request) { r.relay.answer(w, "srv_e_9", "env_9") }
	r.wantFailure(t, failedOther, "remote control server refresh returned mismatched enrollment: expected server_id=srv_e_stored, environment_id=env_stored; got server_id=srv_e_9, environment_id=env_9")
}

// TestRefreshOutcomes is proactive_refresh_failure_uses_valid_token_for_websocket_connect,
// expired_token_refresh_failure_throttles_reconnect_without_websocket and
// token_expiring_during_refresh_failure_throttles_reconnect_without_websocket; and
// websocket_retry_after_throttles_pairing_refresh without the pairing, which is
// not built.
func TestRefreshOutcomes(t *testing.T) {
	connected := func(left time.Duration) *rig {
		r := onSockets(t, profile3)
		e := storedEnrollment()
		e.token, e.expires = "server-token-seeded-old", time.Now().Add(left)
		r.enrollment = e
		r.relay.refresh = refuse(502, "bad gateway")
		return r
	}
	wantDeferred := func(t *testing.T, r *rig, low, high time.Duration) {
		t.Helper()
		if d := time.Until(r.enrollment.nextRefresh); d < low-5*time.Second || d > high {
			t.Errorf("the next refresh is in %v, want %v to %v", d, low, high)
		}
	}
	failed := func(r *rig) string {
		return "remote control server refresh failed at `" + r.backend.target.refresh + "`: HTTP 502 Bad Gateway, request-id: <none>, cf-ray: <none>, body: bad gateway"
	}
	t.Run("good for four minutes", func(t *testing.T) {
		r := connected(4 * time.Minute)
		r.wantLink(t)
		r.wantLink(t) // without a second refresh
		r.wantPaths(t, "refresh server server")
		if got := r.relay.requests()[1].header.Get("Authorization"); got != "Bearer server-token-seeded-old" {
			t.Error("the link has another token than the old one")
		}
		wantDeferred(t, r, 24*time.Second, 36*time.Second)
	})
	t.Run("ended", func(t *testing.T) {
		r := connected(-time.Minute)
		r.wantFailure(t, failedOther, failed(r))
		wantDeferred(t, r, 24*time.Second, 36*time.Second)
		f := r.wantFailure(t, wouldBlock, "remote control server token refresh deferred until "+r.enrollment.nextRefresh.UTC().Format(time.RFC3339))
		if !f.until.Equal(r.enrollment.nextRefresh) || f.auth {
			t.Errorf("until %v, auth %v", f.until, f.auth)
		}
		r.wantPaths(t, "refresh")
	})
	t.Run("ends meanwhile", func(t *testing.T) {
		r := connected(4 * time.Minute)
		r.relay.refresh = func(w http.ResponseWriter, q *http.Request) {
			r.enrollment.expires = time.Now().Add(-time.Millisecond)
			refuse(502, "bad gateway")(w, q)
		}
		r.wantFailure(t, failedOther, failed(r))
		r.wantPaths(t, "refresh")
	})
	t.Run("told when", func(t *testing.T) {
		r := connected(-time.Minute)
		r.relay.refresh = refuse(429, "", "Retry-After", "120")
		if _, _, f := r.attempt(t.Context()); f == nil || f.retryAfter() != 2*time.Minute {
			t.Errorf("got %+v", f)
		}
		wantDeferred(t, r, 2*time.Minute, 2*time.Minute)
	})
}

// TestServesBackendsWithoutServerTokens is
// remote_control_server_token_from_response_accepts_legacy_response_without_token,
// build_remote_control_websocket_request_falls_back_to_account_token, and spec
// 0.2, 9.
func TestServesBackendsWithoutServerTokens(t *testing.T) {
	r := onSockets(t, profile3)
	r.relay.token = false
	r.relay.refresh = refuse(404, "no such page")
	r.wantLink(t)
	r.enrollment = nil // as another process
	r.wantLink(t)
	r.wantPaths(t, "enroll server server")
	q := r.relay.requests()[2].header
	if q.Get("Authorization") != "Bearer "+testToken || q.Get("Chatgpt-Account-Id") != testAccount || q.Get("X-Codex-Protocol-Version") != "3" {
		t.Errorf("connected with %v", q)
	}
	if got := r.host.status().Details["token"]; got != "account token: the backend gives no server token" {
		t.Errorf("the status says %q", got)
	}
	// Once recovery is exhausted it is asked for a token, which it may want by
	// now. That it has none costs nothing.
	r.relay.set(func(r *fakeRelay) { r.socket = refuse(403, "") })
	r.wantFailure(t, wouldBlock, "remote control websocket auth failed with HTTP 403 Forbidden; waiting for valid ChatGPT authentication")
	r.relay.set(func(r *fakeRelay) { r.socket = nil })
	r.wantLink(t)
	r.wantPaths(t, "enroll server server server refresh server")
}

func TestConflicts(t *testing.T) {
	r := onSockets(t, profile2)
	r.relay.socket = refuse(409, `{"detail":"already connected"}`)
	text := "failed to connect app-server remote control websocket `" + r.backend.target.websocket + "`: HTTP error: 409 Conflict, request-id: <none>, cf-ray: <none>, body: {\"detail\":\"already connected\"}"
	for i := range 3 {
		f := r.wantFailure(t, failedOther, text)
		if f.held {
			t.Errorf("conflict %d is held", i)
		}
	}
	r.wantPaths(t, "enroll server server server")
	for range 4 {
		f := r.wantFailure(t, failedOther, text)
		if !f.held || !strings.Contains(f.line(), "already connected") || !strings.Contains(f.line(), "new enrollment") {
			t.Errorf("held %v, line %q", f.held, f.line())
		}
	}
	r.wantPaths(t, "enroll server server server enroll server server server server")
	r.settled()
	if r.renewed {
		t.Error("a settled link did not forget the conflicts")
	}
}

func TestPolicyNeedsAPerson(t *testing.T) {
	profiles(t, func(t *testing.T, p profile) {
		r := onSockets(t, p)
		r.host.recovery = func() (pluginsdk.Credentials, error) {
			t.Error("the host's ladder was used for what no credentials cure")
			return goodCredentials(), nil
		}
		const said = `{"detail":"Multi-factor authentication required"}`
		r.relay.enroll = refuse(403, said)
		f := r.wantFailure(t, permissionDenied, "remote control server enrollment failed at `"+r.backend.target.enroll+"`: HTTP 403 Forbidden, request-id: <none>, cf-ray: <none>, body: "+said)
		if !f.user || !f.held || !f.auth || f.line() != "Multi-factor authentication required" {
			t.Errorf("got %+v, line %q", f, f.line())
		}
		r.relay.set(func(r *fakeRelay) { r.enroll, r.socket = nil, refuse(403, said) })
		if _, _, f := r.attempt(t.Context()); f == nil || !f.user || f.line() != "Multi-factor authentication required" {
			t.Errorf("the socket's refusal: %+v", f)
		}
	})
}

// TestEnrollmentErrorTexts is enroll_remote_control_server_parse_failure_includes_response_body
// and the other texts of spec 2.3.
func TestEnrollmentErrorTexts(t *testing.T) {
	profiles(t, func(t *testing.T, p profile) {
		server := ""
		if p == profile3 {
			server = "server "
		}
		r := onSockets(t, p)
		url := r.backend.target.enroll
		for _, tt := range []struct {
			name, body string
			code       int
			kind       failureKind
			want       string
		}{
			{"no server id", `{"environment_id":"e"}`, 200, failedOther,
				"failed to parse remote control " + server + "enrollment response from `" + url + "`: HTTP 200 OK, request-id: <none>, cf-ray: <none>, body: {\"environment_id\":\"e\"}, decode error: missing field `server_id` at line 1 column 22"},
			{"not JSON", "hello", 200, failedOther,
				"failed to parse remote control " + server + "enrollment response from `" + url + "`: HTTP 200 OK, request-id: <none>, cf-ray: <none>, body: hello, decode error: invalid character 'h' looking for beginning of value"},
			{"500", "", 500, failedOther, "remote control server enrollment failed at `" + url + "`: HTTP 500 Internal Server Error, request-id: <none>, cf-ray: <none>, body: <empty>"},
			{"unheard of", "x", 599, failedOther, "remote control server enrollment failed at `" + url + "`: HTTP 599 <unknown status code>, request-id: <none>, cf-ray: <none>, body: x"},
			{"redirect", "", 307, failedOther, "remote control server enrollment failed at `" + url + "`: HTTP 307 Temporary Redirect, request-id: <none>, cf-ray: <none>, body: <empty>"},
		} {
			r.relay.set(func(r *fakeRelay) { r.enroll = refuse(tt.code, tt.body, "Location", "/elsewhere") })
			t.Run(tt.name, func(t *testing.T) { r.wantFailure(t, tt.kind, tt.want) })
		}
		r.relay.set(func(r *fakeRelay) { r.enroll = refuse(404, "x") })
		kind := map[profile]failureKind{profile2: failedOther, profile3: notFound}[p]
		r.wantFailure(t, kind, "remote control server enrollment failed at `"+url+"`: HTTP 404 Not Found, request-id: <none>, cf-ray: <none>, body: x")
	})
	t.Run("bad expiry", func(t *testing.T) {
		r := onSockets(t, profile3)
		r.relay.enroll = refuse(200, `{"server_id":"s","environment_id":"e","remote_control_token":"server-token-seeded","expires_at":"tomorrow"}`)
		_, _, f := r.attempt(t.Context())
		if f == nil || !strings.HasPrefix(f.text, "failed to parse remote control server token expiry from `"+r.backend.target.enroll+"`: ") || strings.Contains(f.text, "seeded") {
			t.Errorf("got %v", f)
		}
	})
	t.Run("nobody there", func(t *testing.T) {
		r := newRig(t, profile3, "http://127.0.0.1:1/backend-api/", newDialerOf(t).net)
		if err := r.useTarget(); err != nil {
			t.Fatal(err)
		}
		_, _, f := r.attempt(t.Context())
		if f == nil || f.kind != failedOther || !strings.HasPrefix(f.text, "failed to enroll remote control server at `http://127.0.0.1:1/backend-api/wham/remote/control/server/enroll`: dial tcp 127.0.0.1:1") {
			t.Errorf("got %v", f)
		}
	})
	t.Run("a header that cannot be sent", func(t *testing.T) {
		r := onSockets(t, profile2)
		r.relay.enroll = refuse(200, `{"server_id":"a\nb","environment_id":"e"}`)
		r.wantFailure(t, invalidInput, "invalid remote control header `x-codex-server-id`: failed to parse header value")
	})
}

// TestGoesOnWithoutStorage is the memory-only variant of spec 2.5, in place of
// connect_remote_control_websocket_requires_sqlite_state_db and
// remote_control_start_reports_missing_state_db_as_disabled_when_enabled: a disk
// that is full is no reason not to be reachable.
func TestGoesOnWithoutStorage(t *testing.T) {
	r := onSockets(t, profile2)
	r.host.stateErr = errors.New("disk full")
	r.wantLink(t)
	r.wantLink(t)
	r.wantPaths(t, "enroll server server")
	r.relay.set(func(r *fakeRelay) { r.socket = refuse(404, "") })
	if _, _, f := r.attempt(t.Context()); f == nil || r.enrollment != nil {
		t.Errorf("got %v, %+v", f, r.enrollment)
	}
}

// TestRowsOfEnrollments is persisted_remote_control_enrollment_round_trips_by_target_and_account,
// clearing_persisted_remote_control_enrollment_removes_only_matching_entry and
// delete_remote_control_enrollment_removes_only_matching_entry.
func TestRowsOfEnrollments(t *testing.T) {
	h := &fakeHost{state: map[string][]byte{}}
	first := rows{state: h, websocket: "ws://a", clientName: ""}
	places := []rows{first, {state: h, websocket: "ws://b"}, {state: h, websocket: "ws://a", clientName: "tui"}}
	for i, s := range places {
		for _, account := range []string{"x", "y"} {
			e := &enrollment{accountID: account, serverID: fmt.Sprint("srv", i, account), environmentID: "env", serverName: "n", token: "seeded"}
			if err := s.save(t.Context(), account, e, time.Now()); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := first.remove(t.Context(), "x"); err != nil {
		t.Fatal(err)
	}
	for i, s := range places {
		for _, account := range []string{"x", "y"} {
			e, err := s.load(t.Context(), account)
			if i == 0 && account == "x" {
				if !errors.Is(err, pluginsdk.ErrNotFound) {
					t.Errorf("the removed row: %+v, %v", e, err)
				}
				continue
			}
			if err != nil || e.serverID != fmt.Sprint("srv", i, account) || e.environmentID != "env" || e.serverName != "n" || e.accountID != account {
				t.Errorf("row %d of %s: %+v, %v", i, account, e, err)
			}
		}
	}
	for key, value := range h.state {
		if strings.Contains(string(value), "seeded") || len(key) > 100 {
			t.Errorf("%s holds a token, or has a key without bound: %s", key, value)
		}
	}
	err := first.save(t.Context(), "x", &enrollment{accountID: "y"}, time.Now())
	if err == nil || err.Error() != "enrollment account_id does not match expected account_id `x`" {
		t.Errorf("got %v", err)
	}
}

func FuzzRow(f *testing.F) {
	good, _ := json.Marshal(row{WebsocketURL: "ws://a", AccountID: "x", ServerID: "s", EnvironmentID: "e"})
	f.Add(good)
	f.Add([]byte(`{"server_id":null}`))
	f.Fuzz(func(t *testing.T, value []byte) {
		e, err := rows{websocket: "ws://a"}.decode(value, "x")
		if err == nil && (e.accountID != "x" || e.serverID == "" || e.environmentID == "") {
			t.Errorf("accepted %s as %+v", value, e)
		}
	})
}

func newDialerOf(t *testing.T) *dialer {
	t.Helper()
	d, err := newDialer(config{Proxy: proxyDirect})
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// TestHandshakeEndsWithItsContext is for what the WebSocket library does not do.
func TestHandshakeEndsWithItsContext(t *testing.T) {
	r := onSockets(t, profile2)
	reached := make(chan struct{})
	r.relay.socket = func(_ http.ResponseWriter, q *http.Request) { close(reached); <-q.Context().Done() }
	ctx, cancel := context.WithCancelCause(t.Context())
	go func() { <-reached; cancel(errDisabled) }()
	if _, _, f := r.attempt(ctx); f == nil || !errors.Is(f, errDisabled) {
		t.Errorf("got %v, want %v", f, errDisabled)
	}
}
