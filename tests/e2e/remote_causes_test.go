//go:build unix

package e2e

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/transporthost/transporthost/host"
	"github.com/transporthost/transporthost/tests/relay/backend"
)

// TestRemoteShowsTheCause: what a backend refuses reads in `remote status` as
// the backend says it, with what is needed to ask its operator.
func TestRemoteShowsTheCause(t *testing.T) {
	const ray = "8f2a5c7d9e0b1234-FRA"
	for _, tt := range []struct {
		name     string
		endpoint backend.Endpoint
		answer   backend.Answer
		state    string
		cause    string
		details  map[string]string
	}{
		{"multi-factor authentication", backend.EndpointEnroll, backend.MultiFactorRequired(), "needs-user", "Multi-factor authentication required",
			map[string]string{"http_status": "403 Forbidden", "request_id": "req-fault"}},
		{"a page of Cloudflare's instead of an enrollment", backend.EndpointEnroll, backend.Cloudflare(), "retrying",
			"blocked before the backend: an HTML page with HTTP 403 Forbidden, cf-ray: " + ray, map[string]string{"http_status": "403 Forbidden", "cf_ray": ray}},
		{"a page of Cloudflare's instead of a websocket", backend.EndpointUpgrade, backend.Cloudflare(), "retrying",
			"blocked before the backend: an HTML page with HTTP 403 Forbidden, cf-ray: " + ray, map[string]string{"http_status": "403 Forbidden", "cf_ray": ray}},
		{"no answer", backend.EndpointEnroll, backend.Answer{Drop: true}, "retrying", "", map[string]string{"http_status": ""}},
		{"a failure", backend.EndpointEnroll, backend.Reject(500, "our fault"), "retrying", "HTTP 500 Internal Server Error: our fault",
			map[string]string{"http_status": "500 Internal Server Error", "request_id": "req-fault"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			inProfiles(t, func(t *testing.T, p backend.Profile) {
				r := newRelay(t, backend.Options{Profile: p})
				r.signIn(backend.AuthChatGPT, "")
				r.AnswerAlways(tt.endpoint, tt.answer)
				h := r.start(setup{})
				s := h.reports(tt.state, tt.cause)
				for name, want := range tt.details {
					if got := s.Reported.Details[name]; got != want {
						t.Errorf("%s is %q, want %q", name, got, want)
					}
				}
				if s.Remedy == "" || s.Reported.Details["next_attempt"] == "" {
					t.Errorf("no remedy or no next attempt in %+v, %v", s, s.Reported.Details)
				}
				out, _ := h.ask("remote", "status")
				for _, want := range []string{tt.state, tt.cause, tt.details["request_id"], tt.details["cf_ray"], s.Remedy} {
					if !strings.Contains(out, want) {
						t.Errorf("%q is not in\n%s", want, out)
					}
				}
				if line := oneOf(out, "cause"); tt.cause != "" && strings.TrimSpace(strings.TrimPrefix(strings.TrimSpace(line), "cause")) != tt.cause {
					t.Errorf("the row of the cause reads %q, want %q", line, tt.cause)
				}
			})
		})
	}
}

// oneOf is the row of text that begins with a word.
func oneOf(text, word string) string {
	for line := range strings.Lines(text) {
		if strings.HasPrefix(strings.TrimSpace(line), word+" ") {
			return line
		}
	}
	return ""
}

// TestRemoteConflicts: three answers of 409 in a row cost the enrollment, once
// (spec 0.2, 8).
func TestRemoteConflicts(t *testing.T) {
	conflict := backend.Reject(http.StatusConflict, "another host has it")
	r := newRelay(t, backend.Options{})
	r.signIn(backend.AuthChatGPT, "")
	r.AnswerAlways(backend.EndpointUpgrade, conflict)
	h := r.start(setup{})
	h.logged("the backend refused the enrollment with HTTP 409 three times in a row: a new one is made")
	s := h.reports("retrying", "the backend refuses a new enrollment too: HTTP 409 Conflict: another host has it")
	if got, want := r.steps(), "enroll upgrade upgrade upgrade enroll upgrade"; got != want {
		t.Errorf("the requests are %s, want %s", got, want)
	}
	next, err := time.Parse(time.RFC3339, s.Reported.Details["next_attempt"])
	if until := time.Until(next); err != nil || until < 10*time.Second || until > 30*time.Second {
		t.Errorf("the next attempt is in %v, %v, want at the cap", until, err)
	}
}

// TestRemoteComesBackWhenAsked: Retry-After is a floor.
func TestRemoteComesBackWhenAsked(t *testing.T) {
	const floor = time.Second
	for _, tt := range []struct {
		name     string
		endpoint backend.Endpoint
		status   int
	}{
		{"429 for an enrollment", backend.EndpointEnroll, http.StatusTooManyRequests},
		{"503 for a websocket", backend.EndpointUpgrade, http.StatusServiceUnavailable},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := newRelay(t, backend.Options{Profile: backend.Profile2})
			r.signIn(backend.AuthChatGPT, "")
			r.AnswerNext(tt.endpoint, backend.Overloaded(tt.status, floor))
			h := r.start(setup{})
			s := h.attempted("slow down")
			if s.Reported.State != "retrying" || !strings.HasSuffix(s.Cause, ": slow down") {
				t.Errorf("got %s, %q", s.Reported.State, s.Cause)
			}
			r.connected(h, 1)
			var times []time.Time
			for _, q := range r.Requests() {
				if q.Endpoint == tt.endpoint {
					times = append(times, q.At)
				}
			}
			if gap := times[1].Sub(times[0]); len(times) != 2 || gap < floor || gap > 2*floor+time.Second {
				t.Errorf("%d requests, %v apart, want 2 with at least %v between", len(times), gap, floor)
			}
		})
	}
}

// TestRemoteInvalidURL is a mistake in the configuration: the host does not
// start, whatever else could serve (spec 3.5).
func TestRemoteInvalidURL(t *testing.T) {
	for _, alone := range []bool{true, false} {
		r := newRelay(t, backend.Options{})
		r.signIn(backend.AuthChatGPT, "")
		h := r.launch(setup{alone: alone, url: "https://example.com/backend-api/"})
		want := "invalid remote control URL `https://example.com/backend-api/`; expected HTTPS URL for chatgpt.com or chatgpt-staging.com, or HTTP/HTTPS URL for localhost"
		if status := h.wait(); status != 2 || !strings.HasSuffix(h.lastWord(), want) {
			t.Errorf("alone %v: status %d and %q, want 2 and %q", alone, status, h.lastWord(), want)
		}
	}
}

// TestRemoteWithoutServerTokens: a backend of profile 3 that gives none is served
// in the way of profile 2, and status says so (spec 0.2, 9).
func TestRemoteWithoutServerTokens(t *testing.T) {
	r := newRelay(t, backend.Options{NoServerToken: true})
	r.signIn(backend.AuthChatGPT, "")
	for n := range 2 {
		h := r.start(setup{})
		link := r.connected(h, n+1)
		account := r.account("").ID
		if link.Bearer != "account "+account || link.Header.Get("Chatgpt-Account-Id") != account || link.Header.Get("X-Codex-Installation-Id") == "" {
			t.Errorf("the link is authorized by the token of %s, with %v", link.Bearer, link.Header)
		}
		s := h.awaitRemote("says which token it uses", func(s host.TransportStatus) bool { return s.Reported.Details["token"] != "" })
		if got, want := s.Reported.Details["token"], "account token: the backend gives no server token"; got != want {
			t.Errorf("token is %q, want %q", got, want)
		}
		h.end()
	}
	if got, want := r.steps(), "enroll upgrade upgrade"; got != want {
		t.Errorf("the requests are %s, want %s", got, want)
	}
}
