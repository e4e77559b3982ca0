//go:build unix

package e2e

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/transporthost/transporthost/tests/relay/backend"
)

// toLink are the requests of a host that has an enrollment, up to its link.
func toLink(p backend.Profile) string {
	if p == backend.Profile3 {
		return "refresh upgrade" // the token is kept in memory only
	}
	return "upgrade"
}

// runUntilConnected runs a host once, up to its nth link.
func (r *relay) runUntilConnected(s setup, n int) {
	r.t.Helper()
	h := r.start(s)
	r.connected(h, n)
	h.end()
}

// TestRemoteReusesItsEnrollment is the counterpart of
// remote_control_http_mode_reuses_persisted_enrollment_before_reenrolling.
func TestRemoteReusesItsEnrollment(t *testing.T) {
	inProfiles(t, func(t *testing.T, p backend.Profile) {
		r := newRelay(t, backend.Options{Profile: p})
		r.signIn(backend.AuthChatGPT, "")
		for n := range 3 {
			r.runUntilConnected(setup{}, n+1)
		}
		want := "enroll upgrade " + toLink(p) + " " + toLink(p)
		if got := r.steps(); got != want {
			t.Errorf("the requests are %s, want %s", got, want)
		}
		for _, c := range r.Connects() {
			if c.ServerID != r.Enrollments()[0].ServerID {
				t.Errorf("link %d is of server %s, want %s", c.N, c.ServerID, r.Enrollments()[0].ServerID)
			}
		}
	})
}

// TestRemoteForgetsAnEnrollmentThatIsGone is the counterpart of
// remote_control_http_mode_clears_stale_persisted_enrollment_after_404.
func TestRemoteForgetsAnEnrollmentThatIsGone(t *testing.T) {
	inProfiles(t, func(t *testing.T, p backend.Profile) {
		r := newRelay(t, backend.Options{Profile: p})
		r.signIn(backend.AuthChatGPT, "")
		r.runUntilConnected(setup{}, 1)
		old := r.Enrollments()[0].ServerID
		r.must(r.DeleteEnrollment(old))
		r.runUntilConnected(setup{}, 2)
		r.runUntilConnected(setup{}, 3) // with the new one, which took the row of the old one
		want := "enroll upgrade " + strings.Split(toLink(p), " ")[0] + " enroll upgrade " + toLink(p)
		if got := r.steps(); got != want {
			t.Errorf("the requests are %s, want %s", got, want)
		}
		links := r.Connects()
		if links[1].ServerID == old || links[1].ServerID != links[2].ServerID {
			t.Errorf("the links are of %s, %s and %s, want a new server and the same again", links[0].ServerID, links[1].ServerID, links[2].ServerID)
		}
	})
}

// TestRemote404OfTheWebsocket: in profile 3 only the explicit one costs the
// enrollment (spec 2.7). Counterpart of
// websocket_404_only_reports_explicit_missing_remote_app_server.
func TestRemote404OfTheWebsocket(t *testing.T) {
	for _, tt := range []struct {
		profile backend.Profile
		detail  string
		want    string // the steps of a host that had been enrolled before
	}{
		{backend.Profile2, "Not Found", "upgrade enroll upgrade"},
		{backend.Profile3, "Remote app server not found", "refresh upgrade enroll upgrade"},
		{backend.Profile3, "Not Found", "refresh upgrade upgrade"},
	} {
		t.Run(fmt.Sprintf("profile %d, %s", tt.profile, tt.detail), func(t *testing.T) {
			r := newRelay(t, backend.Options{Profile: tt.profile})
			r.signIn(backend.AuthChatGPT, "")
			r.runUntilConnected(setup{}, 1)
			r.AnswerNext(backend.EndpointUpgrade, backend.Reject(http.StatusNotFound, tt.detail))
			r.runUntilConnected(setup{}, 2)
			if got, want := r.steps(), "enroll upgrade "+tt.want; got != want {
				t.Errorf("the requests are %s, want %s", got, want)
			}
		})
	}
}

// TestRemoteWaitsForTheNameAtTheTerminal is the counterpart of
// remote_control_stdio_mode_waits_for_client_name_before_connecting: the stored
// enrollment that counts is the one of that name.
func TestRemoteWaitsForTheNameAtTheTerminal(t *testing.T) {
	r := newRelay(t, backend.Options{})
	r.signIn(backend.AuthChatGPT, "")
	serverOf := map[string]string{}
	for n, name := range []string{"editor", "shell", "editor", "shell"} {
		before := r.steps()
		h := r.start(setup{local: besideStdio})
		h.reports("waiting-for-client-name", "waiting for the program at the terminal to say its name")
		if r.steps() != before {
			t.Errorf("before the name is known: %s", r.steps())
		}
		_, err := fmt.Fprintf(h.stdin, `{"id":1,"method":"initialize","params":{"clientInfo":{"name":%q,"version":"1"}}}`+"\n", name)
		r.must(err)
		link := r.connected(h, n+1)
		if known := serverOf[name]; known != "" && known != link.ServerID {
			t.Errorf("%s: the link is of %s, want %s, which was stored under that name", name, link.ServerID, known)
		}
		serverOf[name] = link.ServerID
		h.end()
	}
	if n := r.CountRequests(backend.EndpointEnroll); n != 2 || serverOf["editor"] == serverOf["shell"] {
		t.Errorf("%d enrollments for %v, want one for each name", n, serverOf)
	}
}

// TestRemoteOriginator: what CODEX_INTERNAL_ORIGINATOR_OVERRIDE says is the name
// that the backend hears from the plugin and from the host (spec 2.1, 3.7).
func TestRemoteOriginator(t *testing.T) {
	r := newRelay(t, backend.Options{})
	r.signIn(backend.AuthChatGPT, "")
	r.must(r.RevokeAccess("")) // so that the host refreshes the account's tokens
	h := r.start(setup{env: []string{"CODEX_INTERNAL_ORIGINATOR_OVERRIDE=my_app"}})
	r.connected(h, 1)
	asked := map[backend.Endpoint]bool{}
	for _, q := range r.Requests() {
		asked[q.Endpoint] = true
		if got := q.Header.Get("Originator"); q.Endpoint != backend.EndpointUpgrade && got != "my_app" {
			t.Errorf("%s: originator is %q, want my_app", q.Endpoint, got)
		}
		if got := q.Header.Get("User-Agent"); !strings.HasPrefix(got, "my_app/") {
			t.Errorf("%s: user-agent is %q, want my_app/…", q.Endpoint, got)
		}
	}
	if !asked[backend.EndpointEnroll] || !asked[backend.EndpointToken] {
		t.Errorf("the requests are %s, want an enrollment and a refresh of the account's tokens", r.steps())
	}
}
