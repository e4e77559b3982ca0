package credentials

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/transporthost/transporthost/shared/transport"
)

// TestRecoversAfterUnauthorizedReload is the store's part of the reference's
// connect_remote_control_websocket_recovers_after_unauthorized_reload.
func TestRecoversAfterUnauthorizedReload(t *testing.T) {
	f := newFixture(t, chatGPT("stale", "r", "account"))
	l := f.NewLadder()
	put(t, f.file, chatGPT("fresh", "r", "account"))
	c, err := l.Recover(t.Context(), 1)
	if err != nil || string(c.AccessToken) != "fresh" || c.Generation != 2 {
		t.Errorf("got %q, generation %d, %v, want fresh, 2", string(c.AccessToken), c.Generation, err)
	}
	f.want("fresh", "account", 2)
}

// TestExhaustedUnauthorizedIsRecoverable is the store's part of the reference's
// connect_remote_control_websocket_treats_exhausted_unauthorized_as_recoverable:
// with nothing on disk there is nothing left, and the next login is seen.
func TestExhaustedUnauthorizedIsRecoverable(t *testing.T) {
	f := newFixture(t, chatGPT("refused", "r", "account"))
	l := f.NewLadder()
	if err := os.Remove(f.file); err != nil {
		t.Fatal(err)
	}
	_, err := l.Recover(t.Context(), 1)
	wantText(t, err, textSignedOut)
	if !errors.Is(err, transport.ErrNoCredentials) {
		t.Errorf("%v is not ErrNoCredentials", err)
	}
	if st := f.Status(); st.Mode != "" || st.Generation != 2 {
		t.Errorf("after reload and wait: %+v, want no credentials", st)
	}
	_, err = f.Credentials(t.Context())
	wantText(t, err, textNoAuth)
	put(t, f.file, chatGPT("login", "r", "another"))
	f.want("login", "another", 3)
	if _, err := l.Recover(t.Context(), 3); err != nil { // a ladder of the new account
		t.Errorf("got %v", err)
	}
}

// TestLadder walks the whole of it: reload, refresh, reload and wait, and again.
func TestLadder(t *testing.T) {
	server := newTokenServer(t)
	f := newFixture(t, chatGPT("old", "r", "account"), server.use)
	l := f.NewLadder()
	recover := func(generation uint64, wantAccess string, wantGeneration uint64, wantErr string) {
		t.Helper()
		c, err := l.Recover(t.Context(), generation)
		if wantErr != "" {
			wantText(t, err, wantErr)
			return
		}
		if err != nil || string(c.AccessToken) != wantAccess || c.Generation != wantGeneration {
			t.Errorf("got %q, generation %d, %v, want %q, %d", string(c.AccessToken), c.Generation, err, wantAccess, wantGeneration)
		}
	}
	recover(1, "old", 1, "")          // reload: nothing new, but a success
	recover(1, "access-1", 2, "")     // refresh
	recover(1, "access-1", 2, "")     // older than what there is: no step
	recover(2, "", 0, textNoSteps)    // reload, then wait
	recover(2, "access-1", 2, "")     // and the ladder begins anew
	l.Accepted(2)                     //
	recover(2, "access-1", 2, "")     // reload again, for it was accepted
	server.refuse(401, `{}`)          //
	recover(2, "", 0, textNotAllowed) // the refresh fails for good
	recover(2, "access-1", 2, "")     // reload
	recover(2, "", 0, textNotAllowed) // refresh: remembered
	if got := len(server.requests()); got != 2 {
		t.Errorf("%d requests, want 2", got)
	}
	put(t, f.file, chatGPT("login", "r", "other"))
	f.Reload("test")
	recover(2, "login", 3, "") // the plugin does not know yet
	recover(3, "login", 3, "") // reload: the ladder is the new account's
}

// TestRefreshStepStays is the reference's own object: after a failure the same
// step is next.
func TestRefreshStepStays(t *testing.T) {
	server := newTokenServer(t)
	answer := server.answer
	server.refuse(503, `{}`)
	f := newFixture(t, chatGPT("old", "r", "account"), server.use)
	r := &recovery{store: f.Store, account: "account"}
	if err := r.next(t.Context()); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		wantText(t, r.next(t.Context()), "Failed to refresh token: 503 Service Unavailable: Unknown error")
	}
	server.answer = answer
	if err := r.next(t.Context()); err != nil {
		t.Error(err)
	}
	wantText(t, r.next(t.Context()), textNoSteps)
}

func TestNothingToRecover(t *testing.T) {
	tests := []struct{ name, content, want string }{
		{"no file", "", textNoSteps},
		{"an API key", apiKeyFile, textNoSteps},
		{"no account", chatGPT("a", "r", "x", drop("account_id")), textSignedOut},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f := newFixture(t, tt.content)
			_, err := f.NewLadder().Recover(t.Context(), 1)
			wantText(t, err, tt.want)
		})
	}
}

// TestLadderAgainstAModel: whatever happens to the file, the server and the
// ladder, each call does what the model says. There are two accounts and no
// account; every login is a new token.
func TestLadderAgainstAModel(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		server := newTokenServer(t)
		answer := server.answer
		serverWorks := true
		f := newFixture(t, chatGPT("token-0", "r-0", "a"), server.use)
		l := f.NewLadder()

		// The model: what the disk says, what the store knows, and the ladder.
		type creds struct{ access, account string }
		disk, known := creds{"token-0", "a"}, creds{"token-0", "a"}
		generation, ladderGeneration := uint64(1), uint64(1)
		account, next := "a", stepReload
		logins, refreshes := 0, 0
		read := func() {
			if disk != known {
				known = disk
				generation++
			}
		}
		renew := func() { account, next, ladderGeneration = known.account, stepReload, generation }
		step := func() (ok bool) {
			if known.account == "" {
				return false
			}
			switch next {
			case stepReload:
				read()
				if known.account != account {
					return false
				}
				next = stepRefresh
				return true
			case stepRefresh:
				if disk != known { // another program's tokens are used
					read()
					next = stepDone
					return known.account == account
				}
				refreshes++
				if !serverWorks {
					return false
				}
				disk.access = fmt.Sprint("access-", refreshes)
				read()
				next = stepDone
				return true
			}
			return false
		}

		rt.Repeat(map[string]func(*rapid.T){
			"login": func(rt *rapid.T) {
				logins++
				disk = creds{fmt.Sprint("token-", logins), rapid.SampledFrom([]string{"a", "b"}).Draw(rt, "account")}
				replace(t, f.file, chatGPT(disk.access, fmt.Sprint("r-", logins), disk.account))
			},
			"logout": func(*rapid.T) {
				disk = creds{}
				replace(t, f.file, "not json")
				f.Store.seen = readAuth(f.file).fingerprint // it is not being written
			},
			"reload": func(rt *rapid.T) {
				before := generation
				read()
				if got := f.Reload("test"); got != (generation != before) {
					rt.Fatalf("Reload: got %v, want %v", got, !got)
				}
			},
			"server": func(*rapid.T) {
				if serverWorks = !serverWorks; serverWorks {
					server.answer = answer
				} else {
					server.refuse(500, `{}`)
				}
			},
			"accepted": func(*rapid.T) {
				l.Accepted(generation)
				renew()
			},
			"recover": func(rt *rapid.T) {
				of := generation - uint64(rapid.IntRange(0, 1).Draw(rt, "behind"))
				if ladderGeneration != generation {
					renew()
				}
				wantOK := known.account != ""
				if of == generation {
					if wantOK = step(); wantOK {
						ladderGeneration = generation
					} else {
						read()
						renew()
					}
				}
				c, err := l.Recover(t.Context(), of)
				if err != nil && (wantOK || !errors.Is(err, transport.ErrNoCredentials)) || err == nil && !wantOK {
					rt.Fatalf("Recover(%d): got %v, want success: %v", of, err, wantOK)
				}
				if err == nil && (string(c.AccessToken) != known.access || c.AccountID != known.account || c.Generation != generation) {
					rt.Fatalf("Recover(%d): got %q of %q, generation %d, want %v, %d", of, string(c.AccessToken), c.AccountID, c.Generation, known, generation)
				}
			},
			"": func(rt *rapid.T) {
				if st := f.Status(); st.Generation != generation {
					rt.Fatalf("generation %d, want %d", st.Generation, generation)
				}
				if got := len(server.requests()); got != refreshes {
					rt.Fatalf("%d refreshes, want %d", got, refreshes)
				}
			},
		})
		server.Close()
	})
}

// TestSecretsStayInside walks through everything that logs, and looks for what
// must not be seen in logs, status and errors.
func TestSecretsStayInside(t *testing.T) {
	secrets := []string{"seeded-access", "seeded-refresh", "sk-seeded-key", idToken(false), "seeded-new", "seeded-next", "seeded-broken", "seeded-account-long"}
	server := newTokenServer(t)
	f := newFixture(t, chatGPT("seeded-access", "seeded-refresh", "seeded-account-long", stale), watching, server.use)
	var said strings.Builder
	say := func(v any) { fmt.Fprintf(&said, "%v %+v %#v\n", v, v, v) }
	f.run()
	server.refuse(500, `{"error":{"message":"seeded-refresh seeded-access `+idToken(false)+`"}}`)
	c, err := f.Credentials(t.Context())
	say(c.AccessToken)
	say(err)
	l := f.NewLadder()
	for range 3 {
		_, err := l.Recover(t.Context(), 1)
		say(err)
		say(f.Status())
	}
	server.refuse(200, `{"access_token":"seeded-new","refresh_token":"seeded-next"}`)
	for range 3 {
		_, err := l.Recover(t.Context(), 1)
		say(err)
	}
	f.next()
	for _, content := range []string{apiKeyFile, `{"auth_mode":"seeded-broken"}`, "{seeded-broken", `{"tokens":{"id_token":"seeded-broken","access_token":"seeded-broken","refresh_token":"x"}}`} {
		replace(t, f.file, content)
		f.Reload("test")
		say(f.Status())
		_, err := f.Credentials(t.Context())
		say(err)
		_, err = l.Recover(t.Context(), f.Status().Generation)
		say(err)
	}
	f.stop()
	said.WriteString(f.log.String())
	if !strings.Contains(said.String(), "credentials changed") || !strings.Contains(said.String(), "refreshing the credentials") {
		t.Fatalf("the test sees no log:\n%s", said.String())
	}
	for _, secret := range secrets {
		if at := strings.Index(said.String(), secret); at >= 0 {
			t.Errorf("%q was said: …%s…", secret, said.String()[max(0, at-200):min(said.Len(), at+100)])
		}
	}
}
