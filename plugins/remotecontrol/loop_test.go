package remotecontrol

import (
	"context"
	"errors"
	"math/rand/v2"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"github.com/hashicorp/go-hclog"
	"pgregory.net/rapid"

	pluginsdk "github.com/transporthost/transporthost/plugin-sdk"
)

// openFor keeps a link for so long, and reads meanwhile.
func openFor(d time.Duration) func(*websocket.Conn) {
	return func(ws *websocket.Conn) {
		_ = ws.SetReadDeadline(time.Now().Add(d))
		_, _, _ = ws.ReadMessage()
	}
}

// TestReconnectsAfterTheLinkEnded is remote_control_transport_reconnects_after_disconnect,
// with the delays of spec 0.2, 1.
func TestReconnectsAfterTheLinkEnded(t *testing.T) {
	profiles(t, func(t *testing.T, p profile) {
		inBubble(t, p, func(t *testing.T, r *rig) {
			live := 61 * time.Second
			r.relay.open = openFor(live)
			r.start(t)
			r.wantState(t, stateConnected)
			after(live + atOnce + time.Millisecond) // at once, for it had settled
			r.wantPaths(t, "enroll server server")
			r.wantState(t, stateConnected)
			r.stop(t)
		})
	})
}

// TestAcceptingAndClosingIsAFailure is for 5,698 connections in 6 s, as one of
// the reference's versions made.
func TestAcceptingAndClosingIsAFailure(t *testing.T) {
	inBubble(t, profile2, func(t *testing.T, r *rig) {
		r.relay.open = func(*websocket.Conn) {}
		r.start(t)
		after(6 * time.Second)
		if n := len(r.relay.requests()); n < 5 || n > 8 { // 0.2, 0.2, 0.4, 0.8, 1.6, 3.2 s
			t.Errorf("%d requests in 6 s, want 1 enrollment and about 6 links", n)
		}
		r.wantState(t, stateRetrying)
		s := r.host.status()
		if s.Ready || !strings.HasPrefix(s.Cause, "the relay link ended after ") || s.Details["attempts"] == "" || s.Details["next_attempt"] == "" {
			t.Errorf("the status is %+v", s)
		}
		r.stop(t)
	})
}

// TestAttemptsNeverComeTooFast drives the whole loop with a backend, a switch
// and credentials that do what they like.
func TestAttemptsNeverComeTooFast(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		seed := rapid.Uint64().Draw(rt, "seed")
		random := rand.New(rand.NewPCG(seed, 2))
		inBubble(t, profile(2+random.IntN(2)), func(t *testing.T, r *rig) {
			answers := []http.HandlerFunc{
				nil, refuse(401, ""), refuse(404, `{"detail":"Remote app server not found"}`), refuse(409, ""), refuse(500, ""), refuse(429, "", "Retry-After", "1"),
			}
			var generation uint64 = 1
			r.start(t)
			for range 200 {
				r.relay.set(func(r *fakeRelay) {
					r.socket = answers[random.IntN(len(answers))]
					r.open = openFor(time.Duration(random.IntN(100)) * time.Millisecond)
				})
				generation++
				r.news.tell(generation)
				r.enabled.set(random.IntN(3) > 0)
				after(time.Duration(random.IntN(60)) * time.Millisecond)
			}
			r.enabled.set(false)
			r.stop(t)
			var last time.Time
			for _, q := range r.relay.requests() {
				if q.path != socketPath {
					continue
				}
				if gap := q.at.Sub(last); gap < attemptSpacing {
					t.Errorf("seed %d: two attempts within %v", seed, gap)
				}
				last = q.at
			}
		})
	})
}

// TestSwitchesOffAndOn is remote_control_handle_set_enabled_stops_and_restarts_connections,
// and with the states that it reports on the way
// remote_control_handle_enable_disable_stops_and_restarts_connections.
func TestSwitchesOffAndOn(t *testing.T) {
	profiles(t, func(t *testing.T, p profile) {
		inBubble(t, p, func(t *testing.T, r *rig) {
			r.start(t)
			r.wantState(t, stateConnected)
			r.enabled.set(false)
			after(time.Millisecond)
			r.wantState(t, stateDisabled)
			if c := r.clients.causes; len(c) != 1 || !errors.Is(c[0], errDisabled) {
				t.Errorf("links ended because of %v", c)
			}
			if got := r.relay.closed; len(got) != 1 || got[0] != websocket.CloseNormalClosure {
				t.Errorf("close codes %v, want 1000", got)
			}
			after(10 * time.Minute)
			r.wantPaths(t, "enroll server")
			r.enabled.set(true)
			after(attemptSpacing)
			r.wantPaths(t, "enroll server server") // no new enrollment
			r.wantState(t, stateConnected)
			r.stop(t)
			if c := r.clients.causes; !errors.Is(c[len(c)-1], pluginsdk.ErrStopping) {
				t.Errorf("the last link ended because of %v", c[len(c)-1])
			}
		})
	})
}

// TestStopsFromAnyWait is run_remote_control_websocket_loop_shutdown_cancels_reconnect_backoff,
// for every place where the loop waits.
func TestStopsFromAnyWait(t *testing.T) {
	hang := func(_ http.ResponseWriter, q *http.Request) { <-q.Context().Done() }
	for _, tt := range []struct {
		name  string
		set   func(r *rig)
		state linkState
	}{
		{"client name", func(r *rig) {
			r.host.name = func(ctx context.Context) (string, error) { <-ctx.Done(); return "", context.Cause(ctx) }
		}, stateWaitingForName},
		{"disabled", func(r *rig) { r.enabled.set(false) }, stateDisabled},
		{"credentials", func(r *rig) { r.host.none = noCredentials("none") }, stateWaitingForAuth},
		{"enrollment", func(r *rig) { r.relay.enroll = hang }, stateEnrolling},
		{"websocket", func(r *rig) { r.relay.socket = hang }, stateConnecting},
		{"back-off", func(r *rig) { r.relay.enroll = refuse(503, "") }, stateRetrying},
		{"a floor", func(r *rig) { r.relay.socket = refuse(503, "", "Retry-After", "1000") }, stateRetrying},
		{"a person", func(r *rig) { r.relay.enroll = refuse(403, `{"detail":"mfa"}`) }, stateNeedsUser},
		{"link", func(*rig) {}, stateConnected},
		{"bad URL", func(r *rig) { r.cfg.URL = "https://example.com" }, stateNeedsUser},
	} {
		t.Run(tt.name, func(t *testing.T) {
			inBubble(t, profile3, func(t *testing.T, r *rig) {
				tt.set(r)
				r.start(t)
				after(5 * time.Second / 2)
				r.wantState(t, tt.state)
				r.stop(t)
			})
			inBubble(t, profile3, func(t *testing.T, r *rig) { // and is switched off from there
				tt.set(r)
				r.start(t)
				after(5 * time.Second / 2)
				r.enabled.set(false)
				after(100 * time.Millisecond)
				r.wantState(t, stateDisabled)
				r.stop(t)
			})
		})
	}
}

func TestNoAnswerIn30Seconds(t *testing.T) {
	profiles(t, func(t *testing.T, p profile) {
		inBubble(t, p, func(t *testing.T, r *rig) {
			hang := func(_ http.ResponseWriter, q *http.Request) { <-q.Context().Done() }
			r.relay.enroll = hang
			if err := r.useTarget(); err != nil {
				t.Fatal(err)
			}
			begun := time.Now()
			r.wantFailure(t, timedOut, "failed to enroll remote control server at `"+r.backend.target.enroll+"`: no answer within 30s")
			r.relay.set(func(r *fakeRelay) { r.enroll, r.socket = nil, hang })
			r.wantFailure(t, timedOut, "timed out connecting to remote control websocket at `"+testSocket+"` after 30s")
			if took := time.Since(begun); took != 60*time.Second {
				t.Errorf("both took %v, want 1m0s", took)
			}
		})
	})
}

// TestWaitsForTheClientName is remote_control_stdio_mode_waits_for_client_name_before_connecting.
func TestWaitsForTheClientName(t *testing.T) {
	inBubble(t, profile2, func(t *testing.T, r *rig) {
		name := make(chan string)
		r.host.name = func(context.Context) (string, error) { return <-name, nil }
		if err := r.useTarget(); err != nil {
			t.Fatal(err)
		}
		r.clientName = "tui"
		r.store(t, storedEnrollment())
		r.clientName = ""
		r.start(t)
		after(time.Minute)
		r.wantPaths(t, "")
		r.wantState(t, stateWaitingForName)
		name <- "tui"
		after(time.Millisecond)
		r.wantPaths(t, "server")
		if got := r.relay.requests()[0].header.Get("X-Codex-Server-Id"); got != "srv_e_stored" {
			t.Errorf("connected as %q", got)
		}
		r.stop(t)
	})
}

func TestEndsForGoodWithoutAClientName(t *testing.T) {
	inBubble(t, profile2, func(t *testing.T, r *rig) {
		r.host.name = func(context.Context) (string, error) { return "", pluginsdk.ErrNotFound }
		r.start(t)
		after(time.Hour)
		r.wantState(t, stateStopped)
		r.wantPaths(t, "")
		if s := r.host.status(); s.Ready || s.Cause == "" || s.Remedy == "" || r.clients.closed != 1 {
			t.Errorf("the status is %+v, the clients were closed %d times", s, r.clients.closed)
		}
		r.stop(t)
	})
}

// TestWaitsForCredentials is remote_control_waits_for_account_id_before_enrolling,
// remote_control_reloads_api_key_auth_until_chatgpt_auth_available and
// remote_control_start_allows_missing_auth_when_enabled: looked for each second,
// and at once when the host tells of others.
func TestWaitsForCredentials(t *testing.T) {
	for _, text := range []string{
		"remote control enrollment is waiting for a ChatGPT account id",
		"remote control requires ChatGPT authentication; API key auth is not supported",
		"remote control requires ChatGPT authentication",
		"remote control cannot read ChatGPT authentication token: Token data is not available.",
	} {
		for _, told := range []bool{true, false} {
			inBubble(t, profile3, func(t *testing.T, r *rig) {
				r.host.none = noCredentials(text)
				r.start(t)
				after(10*time.Second + 500*time.Millisecond)
				r.wantPaths(t, "")
				r.wantState(t, stateWaitingForAuth)
				if s := r.host.status(); s.Cause != text || s.Remedy == "" || s.Ready {
					t.Errorf("the status is %+v", s)
				}
				if n, reports := r.host.asked, len(r.host.statuses); n != 11 || reports != 3 { // two before the first answer: one with the URL as it is used
					t.Errorf("asked the host %d times and reported %d, want 11 and 3", n, reports)
				}
				r.host.set(func(h *fakeHost) { h.none, h.creds.Generation = nil, 2 })
				changed := time.Now()
				limit := time.Second
				if told {
					limit = 100 * time.Millisecond
					r.news.tell(2)
				}
				after(limit)
				q := r.relay.requests()
				if len(q) == 0 || q[0].at.Sub(changed) > limit {
					t.Fatalf("told %v: enrolled after more than %v: %s", told, limit, r.relay.paths())
				}
				r.wantState(t, stateConnected)
				r.stop(t)
			})
		}
	}
}

// TestNewCredentialsEndABackoff is for back-offs that followed an auth failure,
// and only those. What a recovery of its own brought ends none, but what comes
// beside it does: mark_recovery_auth_change_seen_marks_only_recovery_revision_seen
// and mark_recovery_auth_change_seen_preserves_racing_auth_change.
func TestNewCredentialsEndABackoff(t *testing.T) {
	for _, tt := range []struct {
		name   string
		enroll http.HandlerFunc
		woken  bool
	}{
		{"401, recovered", refuse(401, ""), true},
		{"a policy", refuse(403, `{"detail":"mfa"}`), true},
		{"503", refuse(503, "", "Retry-After", "60"), false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			inBubble(t, profile3, func(t *testing.T, r *rig) {
				r.host.recovery = func() (pluginsdk.Credentials, error) {
					r.news.tell(2) // of what this very answer is
					return pluginsdk.Credentials{AccessToken: testToken, AccountID: testAccount, Generation: 2}, nil
				}
				r.relay.enroll = tt.enroll
				r.start(t)
				after(150 * time.Millisecond) // within the first back-off
				r.wantPaths(t, "enroll")
				r.relay.set(func(r *fakeRelay) { r.enroll = nil })
				r.news.tell(3)
				after(20 * time.Millisecond)
				if woken := len(r.relay.requests()) > 1; woken != tt.woken {
					t.Errorf("woken %v, want %v", woken, tt.woken)
				}
				r.stop(t)
			})
		})
	}
}

func TestRetryAfterIsAFloor(t *testing.T) {
	for _, tt := range []struct {
		name string
		set  func(r *fakeRelay, h http.HandlerFunc)
		path string
	}{
		{"enroll", func(r *fakeRelay, h http.HandlerFunc) { r.enroll = h }, enrollPath},
		{"websocket", func(r *fakeRelay, h http.HandlerFunc) { r.socket = h }, socketPath},
	} {
		t.Run(tt.name, func(t *testing.T) {
			inBubble(t, profile2, func(t *testing.T, r *rig) {
				tt.set(r.relay, refuse(429, "slow down", "Retry-After", "120"))
				r.start(t)
				after(10 * time.Minute)
				var at []time.Time
				for _, q := range r.relay.requests() {
					if q.path == tt.path {
						at = append(at, q.at)
					}
				}
				if len(at) < 4 {
					t.Fatalf("%d attempts in 10 minutes", len(at))
				}
				for i := range at[1:] {
					if d := at[i+1].Sub(at[i]); d < 2*time.Minute || d > 2*time.Minute+13*time.Second {
						t.Errorf("attempt %d after %v, want two minutes and a little", i+1, d)
					}
				}
				r.stop(t)
			})
		})
	}
}

// TestHeldAtTheCap: what only a person can end is asked for each 15–30 s.
func TestHeldAtTheCap(t *testing.T) {
	inBubble(t, profile3, func(t *testing.T, r *rig) {
		r.relay.enroll = refuse(403, `{"detail":"Multi-factor authentication required"}`, "X-Request-Id", "rid", "Cf-Ray", "ray")
		r.start(t)
		after(10 * time.Minute)
		q := r.relay.requests()
		for i := range q[1:] {
			if d := q[i+1].at.Sub(q[i].at); d < 15*time.Second || d > 30*time.Second {
				t.Errorf("attempt %d after %v", i+1, d)
			}
		}
		s := r.host.status()
		if s.State != string(stateNeedsUser) || s.Cause != "Multi-factor authentication required" || s.Remedy == "" ||
			s.Details["http_status"] != "403 Forbidden" || s.Details["request_id"] != "rid" || s.Details["cf_ray"] != "ray" ||
			s.Details["account"] != "acco…" || !strings.Contains(s.Details["last_error"], "HTTP 403 Forbidden") {
			t.Errorf("the status is %+v", s)
		}
		r.stop(t)
	})
}

// TestFollowsTheAccount: after a sign-in to another account the link is made
// anew with that one's enrollment; the row of the old one stays.
func TestFollowsTheAccount(t *testing.T) {
	profiles(t, func(t *testing.T, p profile) {
		inBubble(t, p, func(t *testing.T, r *rig) {
			r.start(t)
			r.wantState(t, stateConnected)
			sign := func(account string, generation uint64) {
				r.host.set(func(h *fakeHost) {
					h.none, h.creds = nil, pluginsdk.Credentials{AccessToken: testToken, AccountID: account, Generation: generation}
				})
				r.news.tell(generation)
				after(attemptSpacing)
				r.wantState(t, stateConnected)
			}
			sign("another", 2)
			r.wantPaths(t, "enroll server enroll server")
			sign("another", 3) // another token of the same account: nothing to do
			sign(testAccount, 4)
			want := "enroll server enroll server server"
			if p == profile3 {
				want = "enroll server enroll server refresh server"
			}
			r.wantPaths(t, want)
			q := r.relay.requests()
			if got := q[len(q)-1].header.Get("X-Codex-Server-Id"); got != "srv_e_1" {
				t.Errorf("connected as %s, want the first account's server", got)
			}
			for _, c := range r.clients.causes {
				if !errors.Is(c, errAccountChanged) {
					t.Errorf("a link ended because of %v", c)
				}
			}
			r.stop(t)
		})
	})
}

// TestSignedOutWhileConnected is connect_remote_control_websocket_requires_chatgpt_auth
// as the seed has it: what is missing is waited for, and the enrollment in memory
// is given up.
func TestSignedOutWhileConnected(t *testing.T) {
	inBubble(t, profile3, func(t *testing.T, r *rig) {
		r.start(t)
		r.host.set(func(h *fakeHost) { h.none = noCredentials("remote control requires ChatGPT authentication") })
		r.news.tell(2)
		after(900 * time.Millisecond)
		r.wantState(t, stateConnected) // it may be a file that is being written
		after(200 * time.Millisecond)
		r.wantState(t, stateWaitingForAuth)
		if c := r.clients.causes; len(c) != 1 || !errors.Is(c[0], errAccountChanged) || r.enrollment != nil {
			t.Errorf("the link ended because of %v, the enrollment is %v", c, r.enrollment != nil)
		}
		r.host.set(func(h *fakeHost) { h.none, h.creds.Generation = nil, 3 })
		r.news.tell(3)
		after(attemptSpacing)
		r.wantState(t, stateConnected)
		r.wantPaths(t, "enroll server refresh server") // the row was kept
		r.stop(t)
	})
}

func TestABlinkOfTheCredentialsKeepsTheLink(t *testing.T) {
	inBubble(t, profile2, func(t *testing.T, r *rig) {
		r.start(t)
		r.host.set(func(h *fakeHost) { h.none = noCredentials("none") })
		r.news.tell(2)
		after(500 * time.Millisecond)
		r.host.set(func(h *fakeHost) { h.none = nil })
		r.news.tell(3)
		after(time.Hour)
		r.wantState(t, stateConnected)
		r.wantPaths(t, "enroll server")
		r.stop(t)
	})
}

// TestRefreshesWhileConnected is spec 0.2, 10.
func TestRefreshesWhileConnected(t *testing.T) {
	inBubble(t, profile3, func(t *testing.T, r *rig) {
		begun := time.Now()
		r.start(t)
		after(time.Hour - refreshSkew - time.Second)
		r.wantPaths(t, "enroll server")
		after(2 * time.Second)
		r.wantPaths(t, "enroll server refresh")
		r.relay.set(func(r *fakeRelay) { r.refresh = refuse(500, "") })
		after(2 * time.Hour)
		q := r.relay.requests()
		if at := q[3].at.Sub(begun); at < 2*time.Hour-2*refreshSkew-2*time.Second || at > 2*time.Hour-2*refreshSkew+2*time.Second {
			t.Errorf("the second refresh came after %v", at)
		}
		for i := 4; i < len(q); i++ {
			if d := q[i].at.Sub(q[i-1].at); d < 24*time.Second || d > 37*time.Second {
				t.Errorf("refresh %d after %v, want 24 to 36 s", i, d)
			}
		}
		if r.clients.links != 1 {
			t.Errorf("%d links, want the first", r.clients.links)
		}
		r.stop(t)
	})
}

// TestShortLivedTokens: a token that is born inside the skew does not make the
// loop refresh without end.
func TestShortLivedTokens(t *testing.T) {
	inBubble(t, profile3, func(t *testing.T, r *rig) {
		r.relay.life = time.Minute
		r.start(t)
		after(10 * time.Minute)
		if n := strings.Count(r.relay.paths(), "refresh"); n < 16 || n > 25 {
			t.Errorf("%d refreshes in 10 minutes, want one each 24 to 36 s", n)
		}
		r.wantState(t, stateConnected)
		r.stop(t)
	})
}

func TestEnabledWithABadURL(t *testing.T) {
	inBubble(t, profile2, func(t *testing.T, r *rig) {
		r.cfg.URL = "https://internal.example.com/backend-api/"
		r.start(t)
		after(time.Hour)
		s := r.host.status()
		if s.State != string(stateNeedsUser) || s.Cause != "invalid remote control URL `https://internal.example.com/backend-api/`; expected HTTPS URL for chatgpt.com or chatgpt-staging.com, or HTTP/HTTPS URL for localhost" {
			t.Errorf("the status is %+v", s)
		}
		if n := len(r.host.statuses); n != 2 || r.host.asked != 0 {
			t.Errorf("%d reports, asked for credentials %d times; want 2, 0", n, r.host.asked)
		}
		r.stop(t)
	})
}

// TestReportsOnlyChanges is publish_status_if_changed_sends_only_status_changes.
func TestReportsOnlyChanges(t *testing.T) {
	var got []pluginsdk.Status
	r := newReporter(func(s pluginsdk.Status) { got = append(got, s) }, testLog(t), facts{url: "u", profile: profile3, serverName: "n"})
	r.update(func(f *facts) { f.route = "direct" }) // before there is a state
	for range 3 {
		r.update(func(f *facts) { f.settle(stateConnected, "", "") })
	}
	r.update(func(f *facts) { f.clients = 2 })
	r.update(func(f *facts) { f.strictness = pluginsdk.RequireReady })
	r.update(func(f *facts) { f.unusable = "signed out" })
	r.update(func(f *facts) { f.strictness = pluginsdk.AllowRecoverable })
	if len(got) != 5 {
		t.Fatalf("%d reports, want 5: %+v", len(got), got)
	}
	if !got[2].Ready || got[2].Details["strictness"] != "require-ready" || got[1].Details["clients"] != "2" || got[0].Details["route"] != "direct" {
		t.Errorf("reports %+v", got)
	}
	if got[3].Ready || got[3].Cause != "signed out" || got[3].State != "connected" || !got[4].Ready {
		t.Errorf("strict without credentials %+v, lenient again %+v", got[3], got[4])
	}
}

// states are what was reported, one after the other.
func (h *fakeHost) states() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	var states []string
	for _, s := range h.statuses {
		if len(states) == 0 || states[len(states)-1] != s.State {
			states = append(states, s.State)
		}
	}
	return strings.Join(states, " ")
}

// TestSaysThatItAsksTheHost: a host whose credentials are being renewed must not
// look ready meanwhile, nor one that was enabled disabled.
func TestSaysThatItAsksTheHost(t *testing.T) {
	inBubble(t, profile3, func(t *testing.T, r *rig) {
		r.host.slow = 25 * time.Second
		r.start(t)
		r.wantState(t, stateConnecting)
		if s := r.host.status(); s.Ready || !strings.Contains(s.Cause, "credentials") {
			t.Errorf("the status is %+v", s)
		}
		after(26 * time.Second)
		r.wantState(t, stateConnected)
		r.enabled.set(false)
		after(time.Second)
		r.wantState(t, stateDisabled)
		r.enabled.set(true)
		after(time.Second)
		r.wantState(t, stateConnecting)
		r.enabled.set(false)
		after(time.Minute)
		r.stop(t)
	})
}

// TestAFailureStaysWhileTheHostIsAsked: no flapping.
func TestAFailureStaysWhileTheHostIsAsked(t *testing.T) {
	inBubble(t, profile3, func(t *testing.T, r *rig) {
		r.host.none = noCredentials("remote control requires ChatGPT authentication")
		r.start(t)
		after(30 * time.Second)
		if got, want := r.host.states(), "connecting waiting-for-auth"; got != want {
			t.Errorf("reported %q, want %q", got, want)
		}
		r.stop(t)
	})
}

// TestSaysThatALinkHasEnded although it had settled, and that one is made for
// another account.
func TestSaysThatALinkHasEnded(t *testing.T) {
	inBubble(t, profile3, func(t *testing.T, r *rig) {
		r.relay.open = openFor(2 * time.Minute)
		r.start(t)
		r.wantState(t, stateConnected)
		r.host.set(func(h *fakeHost) { h.slow = 10 * time.Second })
		after(2*time.Minute + time.Second)
		r.wantState(t, stateRetrying)
		s := r.host.status()
		if s.Ready || !strings.HasPrefix(s.Cause, "the relay link ended after 2m0") || s.Details["attempts"] != "" || s.Details["last_error"] != s.Cause {
			t.Errorf("the status is %+v", s)
		}
		r.relay.set(func(r *fakeRelay) { r.open = nil })
		after(20 * time.Second)
		r.wantState(t, stateConnected)

		r.host.set(func(h *fakeHost) { h.creds.AccountID, h.creds.Generation = "another", 2 })
		r.news.tell(2)
		after(11 * time.Second) // the keeper asks
		r.wantState(t, stateConnecting)
		if s := r.host.status(); s.Ready || !strings.Contains(s.Cause, "the account has changed") || s.Details["server_id"] != "" {
			t.Errorf("the status is %+v", s)
		}
		r.host.set(func(h *fakeHost) { h.slow = 0 })
		after(time.Minute)
		r.wantState(t, stateConnected)
		r.stop(t)
	})
}

// TestLastErrorStaysUntilSettled: who looks a second after a link was lost
// learns why it was.
func TestLastErrorStaysUntilSettled(t *testing.T) {
	inBubble(t, profile3, func(t *testing.T, r *rig) {
		r.relay.enroll = refuse(503, "")
		r.start(t)
		failed := time.Now()
		after(10 * time.Millisecond)
		r.relay.set(func(r *fakeRelay) { r.enroll = nil })
		after(5 * time.Second)
		r.wantState(t, stateConnected)
		s := r.host.status()
		if !s.Ready || s.Cause != "" || s.Details["attempts"] != "" || !strings.Contains(s.Details["last_error"], "503") || s.Details["last_error_at"] != failed.UTC().Format(time.RFC3339) {
			t.Errorf("the status is %+v", s)
		}
		after(settledAfter)
		if s := r.host.status(); !s.Ready || s.Details["last_error"] != "" || s.Details["last_error_at"] != "" {
			t.Errorf("the status of a settled link is %+v", s)
		}
		r.stop(t)
	})
}

// TestGoesOnWithoutAGrantedName: a host may grant credentials and state only.
func TestGoesOnWithoutAGrantedName(t *testing.T) {
	inBubble(t, profile3, func(t *testing.T, r *rig) {
		r.host.name = func(context.Context) (string, error) { return "", pluginsdk.ErrNotGranted }
		r.start(t)
		after(time.Second)
		r.wantState(t, stateConnected)
		r.stop(t)
	})
}

// TestConflictsAreOfOneAccount: what was refused to the account before says
// nothing of the next one.
func TestConflictsAreOfOneAccount(t *testing.T) {
	inBubble(t, profile3, func(t *testing.T, r *rig) {
		r.relay.socket = refuse(409, "in use")
		r.start(t)
		after(3 * time.Second)
		r.relay.set(func(r *fakeRelay) { r.socket = nil })
		after(time.Minute / 2)
		r.wantState(t, stateConnected)
		if !r.renewed {
			t.Fatal("no enrollment was made because of a conflict")
		}
		r.host.set(func(h *fakeHost) { h.creds.AccountID, h.creds.Generation = "another", 2 })
		r.news.tell(2)
		after(time.Second)
		r.wantState(t, stateConnected)
		if r.renewed || r.conflicts != 0 {
			t.Errorf("renewed %v, %d conflicts; want none of the other account's", r.renewed, r.conflicts)
		}
		r.stop(t)
	})
}

// TestConflictOfAProxy: an HTML page is not the backend's word.
func TestConflictOfAProxy(t *testing.T) {
	r := onSockets(t, profile3)
	r.relay.socket = refuse(409, "<html>blocked</html>")
	for range 2 * conflictLimit {
		if _, _, f := r.attempt(r.ctx); f == nil {
			t.Fatal("the attempt succeeded")
		}
	}
	if r.conflicts != 0 || r.renewed || r.relay.enrolls != 1 {
		t.Errorf("%d conflicts, renewed %v, %d enrollments; want none, and one enrollment", r.conflicts, r.renewed, r.relay.enrolls)
	}
}

// TestRecoveryMayFindAnotherAccount: the running link is then of the wrong one.
func TestRecoveryMayFindAnotherAccount(t *testing.T) {
	inBubble(t, profile3, func(t *testing.T, r *rig) {
		r.host.recovery = func() (pluginsdk.Credentials, error) {
			better := pluginsdk.Credentials{AccessToken: testToken, AccountID: "another", Generation: 2}
			r.host.set(func(h *fakeHost) { h.creds = better })
			return better, nil
		}
		r.start(t)
		r.relay.set(func(r *fakeRelay) {
			r.refresh = func(w http.ResponseWriter, q *http.Request) {
				r.set(func(r *fakeRelay) { r.refresh = nil })
				refuse(401, "")(w, q)
			}
		})
		after(time.Hour - refreshSkew + time.Second)
		r.wantState(t, stateConnected)
		if s := r.host.status(); s.Details["account"] != pluginsdk.ShortAccount("another") || r.clients.links != 2 {
			t.Errorf("%d links, the status is %+v", r.clients.links, s)
		}
		r.stop(t)
	})
}

// TestCountersAreReported, those that have counted anything.
func TestCountersAreReported(t *testing.T) {
	inBubble(t, profile3, func(t *testing.T, r *rig) {
		r.start(t)
		r.clients.tally.homeless.Add(3)
		after(countEvery)
		d := r.host.status().Details
		if _, more := d["malformed_frames"]; more || d["messages_without_client"] != "3" {
			t.Errorf("the details are %v", d)
		}
		r.stop(t)
	})
}

// TestLogSaysWhyTheURLIsBad, for those who see no status.
func TestLogSaysWhyTheURLIsBad(t *testing.T) {
	var lines strings.Builder
	r := newReporter(func(pluginsdk.Status) {}, hclog.New(&hclog.LoggerOptions{Output: &lines}), facts{url: "u"})
	r.update(func(f *facts) { f.settle(stateNeedsUser, "no such thing", urlRemedy) })
	if got := lines.String(); !strings.Contains(got, "websocket: u, err: no such thing") {
		t.Errorf("logged %s", got)
	}
}
