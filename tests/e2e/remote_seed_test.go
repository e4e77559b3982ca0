//go:build unix

package e2e

import (
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/transporthost/transporthost/host"
	"github.com/transporthost/transporthost/tests/relay/backend"
)

// command is a block's content for an application of this test.
func command(t *testing.T, mode, more string) string {
	t.Helper()
	c := self(t, mode)
	return fmt.Sprintf("command = [%q, %q, %q]\n%s", c[0], c[1], c[2], more)
}

// connections waits until the host has n of them.
func (h *hostProcess) connections(n int) {
	h.t.Helper()
	h.await(fmt.Sprint(n, " connections"), func(s host.Status) bool { return s.Connections == n })
}

// pong asks whether the host knows a client.
func (r *relay) pong(c *backend.Client, status string, seq uint64) {
	r.t.Helper()
	p, err := c.Ping(r.ctx)
	r.must(err)
	if p.Status != status || p.Seq != seq || p.StreamID != c.StreamID() {
		r.t.Errorf("%s: got %+v, want %s with seq_id %d", c.ID(), p, status, seq)
	}
}

// TestRemoteVirtualClients is the counterpart of
// remote_control_transport_manages_virtual_clients_and_routes_messages.
func TestRemoteVirtualClients(t *testing.T) {
	inProfiles(t, func(t *testing.T, p backend.Profile) {
		r := newRelay(t, backend.Options{Profile: p})
		r.signIn(backend.AuthChatGPT, "")
		h := r.start(setup{application: command(t, "greets", "")})
		r.connected(h, 1)
		if r.Requests()[0].Endpoint != backend.EndpointEnroll {
			t.Errorf("the first request is %s, want an enrollment", r.Requests()[0].Endpoint)
		}
		c := r.open(backend.ClientOptions{ID: "c1", StreamID: "s1", FirstSeq: 1})
		r.pong(c, "unknown", 1)
		r.must(c.Notify("initialized", nil)) // opens nothing
		r.pong(c, "unknown", 2)
		h.connections(0)
		_, err := c.Initialize(r.ctx, "x")
		r.must(err)
		h.connections(1)
		warning, err := c.Receive(r.ctx)
		r.must(err)
		if string(warning.Payload) != greeting || warning.Seq != 4 {
			t.Errorf("got %s with seq_id %d, want %s with 4, behind the answer", warning.Payload, warning.Seq, greeting)
		}
		r.call(c, `["follow-up"]`) // on the same connection
		h.connections(1)
		r.pong(c, "active", 6)
		c.Close()
		h.connections(0)
		r.pong(r.open(backend.ClientOptions{ID: "c1", StreamID: "s1"}), "unknown", 7)
	})
}

// TestRemoteReconnects is the counterpart of
// remote_control_transport_reconnects_after_disconnect. The connections of the
// first link live on.
func TestRemoteReconnects(t *testing.T) {
	inProfiles(t, func(t *testing.T, p backend.Profile) {
		r := newRelay(t, backend.Options{Profile: p})
		r.signIn(backend.AuthChatGPT, "")
		h := r.start(setup{})
		r.connected(h, 1)
		before := r.initialized("c1", "s1")
		r.CloseLinks(1000, "until soon")
		if c := r.connected(h, 2); c.Cursor == "" {
			t.Error("the second link does not continue where the first one ended")
		}
		if n := r.CountRequests(backend.EndpointEnroll); n != 1 {
			t.Errorf("%d enrollments, want 1", n)
		}
		r.initialized("c2", "s2")
		r.call(before, "[1]")
		h.connections(2)
	})
}

// TestRemoteStartsDisabledWithABadURL is the counterpart of
// remote_control_start_allows_remote_control_invalid_url_when_disabled.
func TestRemoteStartsDisabledWithABadURL(t *testing.T) {
	r := newRelay(t, backend.Options{})
	h := r.start(setup{url: "https://internal.example.com/backend-api/", keys: []string{"enabled = false"}})
	if s := h.remote(); s.State != "disabled" || s.PID != 0 {
		t.Errorf("got %+v, want disabled and no process", s)
	}
	if took := h.end(); took > time.Second {
		t.Errorf("the host ended after %v, want within 1 s", took)
	}
}

// TestRemoteSwitchesOffAndOn is the counterpart of
// remote_control_handle_set_enabled_stops_and_restarts_connections.
func TestRemoteSwitchesOffAndOn(t *testing.T) {
	inProfiles(t, func(t *testing.T, p backend.Profile) {
		r := newRelay(t, backend.Options{Profile: p})
		r.signIn(backend.AuthChatGPT, "")
		h := r.start(setup{})
		r.connected(h, 1)
		before := r.steps()
		began := time.Now()
		h.ask("remote", "disable")
		c, err := r.AwaitEnd(r.ctx, 1)
		r.must(err)
		if took := c.Ended.Sub(began); took > time.Second || c.CloseCode != 1000 {
			t.Errorf("the link ended after %v with code %d, want within 1 s with 1000", took, c.CloseCode)
		}
		h.reports("disabled", "")
		if r.steps() != before {
			t.Errorf("while disabled: %s", r.steps())
		}
		h.ask("remote", "enable")
		r.connected(h, 2)
		if got, want := r.steps(), before+" upgrade"; got != want {
			t.Errorf("the requests are %s, want %s", got, want)
		}
	})
}

// TestRemoteForgetsWhatWasAcknowledged is the counterpart of
// remote_control_transport_clears_outgoing_buffer_when_backend_acks.
func TestRemoteForgetsWhatWasAcknowledged(t *testing.T) {
	inProfiles(t, func(t *testing.T, p backend.Profile) {
		r := newRelay(t, backend.Options{Profile: p})
		r.signIn(backend.AuthChatGPT, "")
		h := r.start(setup{})
		r.connected(h, 1)
		c := r.open(backend.ClientOptions{ID: "c1", StreamID: "s1", Acks: backend.AckNothing})
		_, err := c.Initialize(r.ctx, "x")
		r.must(err)
		r.must(c.Ack(1))
		c.Close()
		h.connections(0) // so the ack before has arrived, too
		r.Drop()
		r.connected(h, 2)
		r.pong(r.open(backend.ClientOptions{ID: "c2", StreamID: "s2"}), "unknown", 1)
		for _, f := range r.Frames() {
			if f.Link == 2 && f.Envelope.ClientID != "c2" {
				t.Errorf("sent again: %s", f.Text)
			}
		}
	})
}

// TestRemoteSendsAgainWhatWasNotAcknowledged, with its numbers and bytes, before
// anything else (spec 6.11).
func TestRemoteSendsAgainWhatWasNotAcknowledged(t *testing.T) {
	inProfiles(t, func(t *testing.T, p backend.Profile) {
		r := newRelay(t, backend.Options{Profile: p})
		r.signIn(backend.AuthChatGPT, "")
		h := r.start(setup{})
		r.connected(h, 1)
		r.StopAcks()
		c := r.initialized("c1", "s1")
		r.call(c, "[1]")
		r.Drop()
		again := map[uint64]string{}
		for seq := range uint64(2) {
			f, err := r.AwaitFrame(r.ctx, func(f backend.Frame) bool { return f.Link == 2 && f.Envelope.Seq == seq+1 })
			r.must(err)
			again[f.Envelope.Seq] = string(f.Text)
		}
		for _, f := range r.Frames() {
			if f.Link == 1 && again[f.Envelope.Seq] != string(f.Text) {
				t.Errorf("got %s again, want %s", again[f.Envelope.Seq], f.Text)
			}
		}
	})
}

// Names of the reference's language.
var (
	systems    = map[string]string{"linux": "linux", "darwin": "macos", "freebsd": "freebsd"}
	processors = map[string]string{"amd64": "x86_64", "arm64": "aarch64", "386": "x86"}
)

// TestRemoteEnrollsBeforeConnecting is the counterpart of
// remote_control_http_mode_enrolls_before_connecting.
func TestRemoteEnrollsBeforeConnecting(t *testing.T) {
	const installation = "11111111-1111-4111-8111-111111111111"
	inProfiles(t, func(t *testing.T, p backend.Profile) {
		r := newRelay(t, backend.Options{Profile: p})
		r.signIn(backend.AuthChatGPT, "")
		r.must(os.WriteFile(filepath.Join(r.home, "installation_id"), []byte(installation+"\n"), 0o600))
		h := r.start(setup{application: command(t, "greets", ""), keys: []string{`server_name = "den"`, `app_version = "1.2.3"`}})
		link := r.connected(h, 1)
		account := r.account("")
		enroll := r.Requests()[0]
		body := fmt.Sprintf(`{"name":"den","os":%q,"arch":%q,"app_server_version":"1.2.3"`, systems[runtime.GOOS], processors[runtime.GOARCH])
		if p == backend.Profile3 {
			body += fmt.Sprintf(`,"installation_id":%q`, installation)
		}
		if enroll.Method != "POST" || enroll.Path != backend.EnrollPath || string(enroll.Body) != body+"}" {
			t.Errorf("enrolled by %s %s with %s, want %s}", enroll.Method, enroll.Path, enroll.Body, body)
		}
		for name, want := range map[string]string{"Authorization": "Bearer " + string(account.AccessToken), "Chatgpt-Account-Id": account.ID} {
			if got := enroll.Header.Get(name); got != want {
				t.Errorf("enrollment: %s is %q, want %q", name, got, want)
			}
		}
		server := r.Enrollments()[0].ServerID
		want := map[string]string{"X-Codex-Server-Id": server, "X-Codex-Name": base64.StdEncoding.EncodeToString([]byte("den")),
			"X-Codex-Protocol-Version": fmt.Sprint(int(p)), "X-Codex-Subscribe-Cursor": "", "Origin": ""}
		bearer := "account " + account.ID
		if p == backend.Profile3 {
			bearer = "server " + server
			want["X-Codex-Installation-Id"], want["Chatgpt-Account-Id"] = installation, ""
		} else {
			want["Chatgpt-Account-Id"], want["X-Codex-Installation-Id"] = account.ID, ""
		}
		for name, want := range want {
			if got := link.Header.Get(name); got != want {
				t.Errorf("websocket: %s is %q, want %q", name, got, want)
			}
		}
		if link.Bearer != bearer {
			t.Errorf("the websocket is authorized by the token of %s, want %s", link.Bearer, bearer)
		}
		r.initialized("c1", "s1")
		for seq, text := range []string{`"result":{`, `"method":"configWarning"`} {
			f, err := r.AwaitFrame(r.ctx, func(f backend.Frame) bool { return f.Envelope.Seq == uint64(seq+1) })
			if err != nil || f.Envelope.Type != "server_message" || !strings.Contains(string(f.Text), text) {
				t.Errorf("seq_id %d is %s, %v, want a server_message with %s", seq+1, f.Text, err, text)
			}
		}
	})
}
