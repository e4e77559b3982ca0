//go:build unix

package e2e

import (
	"syscall"
	"testing"

	"github.com/transporthost/transporthost/host"
	"github.com/transporthost/transporthost/tests/relay/backend"
)

// TestRemoteSwitchedOffStaysOff: a person's wish outlives the process, and the
// virtual clients outlive both (spec 4.6).
func TestRemoteSwitchedOffStaysOff(t *testing.T) {
	inProfiles(t, func(t *testing.T, p backend.Profile) {
		r := newRelay(t, backend.Options{Profile: p})
		r.signIn(backend.AuthChatGPT, "")
		h := r.start(setup{})
		r.connected(h, 1)
		c := r.initialized("c1", "s1")
		r.call(c, "[1]")
		h.ask("remote", "disable")
		h.reports("disabled", "")
		off := h.phone()
		if off.State != "disabled" || off.Remedy != "transporthost remote enable phone" {
			t.Errorf("got %+v", off)
		}
		before := r.steps()
		r.must(syscall.Kill(off.PID, syscall.SIGKILL))
		h.awaitRemote("off in its next process", func(s host.TransportStatus) bool {
			return s.Incarnation == 2 && s.PID != 0 && s.State == "disabled" && s.Reported.State == "disabled"
		})
		if r.steps() != before {
			t.Errorf("while disabled: %s", r.steps()[len(before):])
		}
		h.ask("remote", "enable")
		link := r.connected(h, 2)
		r.call(c, "[2]") // on the stream of before, without an initialize
		h.connections(1)
		if link.Restarts != 0 || r.CountRequests(backend.EndpointEnroll) != 1 {
			t.Errorf("%d streams began anew, and there are %d enrollments, want 0 and 1", link.Restarts, r.CountRequests(backend.EndpointEnroll))
		}
	})
}

// TestRemoteEnabledLater: what the configuration disables gets its process when
// a person wants it.
func TestRemoteEnabledLater(t *testing.T) {
	r := newRelay(t, backend.Options{})
	r.signIn(backend.AuthChatGPT, "")
	h := r.start(setup{keys: []string{"enabled = false"}})
	if r.steps() != "" {
		t.Errorf("while disabled: %s", r.steps())
	}
	h.ask("remote", "enable", phone)
	r.connected(h, 1)
	r.call(r.initialized("c1", "s1"), "[1]")
}
