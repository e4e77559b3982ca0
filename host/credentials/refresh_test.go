package credentials

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/transporthost/transporthost/shared/transport"
)

func TestStaleCredentialsAreRefreshed(t *testing.T) {
	server := newTokenServer(t)
	f := newFixture(t, "", watching, server.use)
	vault := filepath.Join(t.TempDir(), "vault.json")
	put(t, vault, chatGPT("old", "old-refresh", "account", stale, set("other", "kept"), setToken("more", "kept too")))
	link(t, vault, f.file)
	if !f.Reload("test") {
		t.Fatal("the link was not followed")
	}
	f.run()
	f.next() // of the reload
	f.watched()
	f.want("access-1", "account", 3)
	if c := f.next(); c != (transport.CredentialsChange{Generation: 3, Reason: "refreshed"}) {
		t.Errorf("told %+v", c)
	}
	f.want("access-1", "account", 3)
	if f.Reload("test") {
		t.Error("our own write is two changes")
	}
	f.none()

	want := `POST application/json {"client_id":"app_EMoamEEZ73f0CkXaXp7hrann","grant_type":"refresh_token","refresh_token":"old-refresh"}`
	if got := server.requests(); len(got) != 1 || got[0] != want {
		t.Errorf("the token endpoint got %q, want %q", got, want)
	}
	var saved struct {
		Tokens      map[string]string `json:"tokens"`
		LastRefresh time.Time         `json:"last_refresh"`
		Other       string            `json:"other"`
	}
	content, err := os.ReadFile(vault)
	if err != nil || json.Unmarshal(content, &saved) != nil {
		t.Fatalf("%v\n%s", err, content)
	}
	if s := saved.Tokens; s["access_token"] != "access-1" || s["refresh_token"] != "refresh-1" || s["account_id"] != "account" ||
		s["id_token"] != idToken(true) || s["more"] != "kept too" || saved.Other != "kept" || time.Since(saved.LastRefresh) > time.Minute {
		t.Errorf("the file is now\n%s", content)
	}
	if info, err := os.Lstat(f.file); err != nil || info.Mode()&fs.ModeSymlink == 0 {
		t.Errorf("the link was replaced: %v, %v", info, err)
	}
	if info, err := os.Stat(vault); err != nil || runtime.GOOS != "windows" && info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v, want 0600", info.Mode(), err)
	}
	if left, _ := filepath.Glob(filepath.Join(filepath.Dir(vault), ".*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	if c, _ := f.Credentials(t.Context()); !c.FedRAMP {
		t.Error("the claim of the new id token is not heeded")
	}
	if st := f.Status(); st.LastRefresh == nil || time.Since(*st.LastRefresh) > time.Minute || st.LastRefreshError != "" || st.Refreshing {
		t.Errorf("status: %+v", st)
	}
}

// TestAnswers is spec §3.7: what the token endpoint says, and what becomes of it.
func TestAnswers(t *testing.T) {
	const secret = "old-refresh"
	tests := []struct {
		name      string
		status    int
		body      string
		want      string // of the error; "" if it is a success
		permanent bool
		access    string // after a success
	}{
		{"all three", 200, `{"id_token":"` + idToken(false) + `","access_token":"n","refresh_token":"m"}`, "", false, "n"},
		{"access token only", 200, `{"access_token":"n","expires_in":3600}`, "", false, "n"},
		{"nothing new", 200, `{}`, "", false, "old"},
		{"null and empty", 200, `{"access_token":null,"refresh_token":"","id_token":""}`, "", false, "old"},
		{"an id token that is none", 201, `{"access_token":"n","id_token":"x"}`, "", false, "n"},
		{"not JSON", 200, `<html>`, "Failed to refresh token: the answer is not JSON: line 1, byte 1", false, ""},
		{"wrong type", 200, `{"access_token":7}`, "Failed to refresh token: in the answer, access_token has the wrong type", false, ""},
		{"expired", 401, `{"error":{"code":"refresh_token_expired","message":"x"}}`, textExpired, true, ""},
		{"reused", 400, `{"error":{"code":"Refresh_Token_Reused"}}`, textReused, true, ""},
		{"invalidated", 401, `{"error":"refresh_token_invalidated"}`, textRevoked, true, ""},
		{"code at the top", 403, `{"code":"REFRESH_TOKEN_EXPIRED"}`, textExpired, true, ""},
		{"401 with another code", 401, `{"error":{"code":"nope"}}`, textNotAllowed, true, ""},
		{"401 without words", 401, ``, textNotAllowed, true, ""},
		{"another code", 400, `{"error":"invalid_grant","error_description":"no such grant"}`, "Failed to refresh token: 400 Bad Request: no such grant", false, ""},
		{"a code alone", 400, `{"error":"invalid_grant"}`, "Failed to refresh token: 400 Bad Request: invalid_grant", false, ""},
		{"a message", 503, `{"error":{"message":"try\nlater"}}`, "Failed to refresh token: 503 Service Unavailable: try later", false, ""},
		{"HTML", 502, `<html>old-refresh</html>`, "Failed to refresh token: 502 Bad Gateway: Unknown error", false, ""},
		{"unknown status", 599, ``, "Failed to refresh token: 599: Unknown error", false, ""},
		{"our token repeated", 500, `{"error":{"message":"bad token old-refresh"}}`, "Failed to refresh token: 500 Internal Server Error: bad token [redacted]", false, ""},
		{"endless words", 500, `{"error":{"message":"` + strings.Repeat("é", 5000) + `"}}`, "Failed to refresh token: 500 Internal Server Error: " + strings.Repeat("é", maxWords) + "…", false, ""},
		{"redirect", 307, `{}`, "Failed to refresh token: 307 Temporary Redirect: Unknown error", false, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			server := newTokenServer(t)
			server.answer = func(w http.ResponseWriter, _ *http.Request, _ int) {
				w.Header().Set("Location", "/elsewhere")
				w.WriteHeader(tt.status)
				_, _ = w.Write([]byte(tt.body))
			}
			f := newFixture(t, chatGPT("old", secret, "account"), server.use)
			a, _ := f.snapshot()
			err := f.refresh(t.Context(), a)
			if tt.want == "" {
				if err != nil {
					t.Fatalf("got %v", err)
				}
				f.want(tt.access, "account", 2)
				return
			}
			wantText(t, err, tt.want)
			if got := f.Status().LastRefreshError; got != tt.want {
				t.Errorf("status: %q, want %q", got, tt.want)
			}
			f.want("old", "account", 1) // a failure takes nothing away
			_ = f.refresh(t.Context(), a)
			want := 2
			if tt.permanent {
				want = 1 // remembered
			}
			if got := len(server.requests()); got != want {
				t.Errorf("%d requests after two refreshes, want %d", got, want)
			}
			if !tt.permanent {
				return
			}
			replace(t, f.file, chatGPT("new", "new-refresh", "account"))
			f.Reload("test")
			a, _ = f.snapshot()
			_ = f.refresh(t.Context(), a)
			if got := len(server.requests()); got != 2 {
				t.Errorf("%d requests after a login, want 2: what is remembered is of other tokens", got)
			}
			if strings.Contains(f.log.String(), secret) {
				t.Errorf("the log has the refresh token:\n%s", f.log)
			}
		})
	}
}

// TestFailedRefreshLeavesStaleCredentials, and is not repeated each second.
func TestFailedRefreshLeavesStaleCredentials(t *testing.T) {
	server := newTokenServer(t)
	server.refuse(503, `{}`)
	f := newFixture(t, chatGPT("old", "r", "account", stale), server.use)
	f.run()
	for range 5 {
		f.want("old", "account", 1)
	}
	if got := len(server.requests()); got != 1 {
		t.Errorf("%d requests, want 1", got)
	}
}

func TestUnreachableTokenEndpoint(t *testing.T) {
	f := newFixture(t, chatGPT("old", "r", "account"), func(o *Options) { o.TokenURL = "http://user:SECRET@127.0.0.1:1/" })
	a, _ := f.snapshot()
	err := f.refresh(t.Context(), a)
	if err == nil || !strings.HasPrefix(err.Error(), "Failed to refresh token: dial tcp") || strings.Contains(err.Error()+f.log.String(), "SECRET") {
		t.Errorf("got %v", err)
	}
}

// TestAnotherHostRefreshed: the file has newer tokens, which are used without a
// request, unless they are another account's.
func TestAnotherHostRefreshed(t *testing.T) {
	tests := []struct {
		name, content string
		want          string // the error, "" if there is none
	}{
		{"other tokens", chatGPT("new", "r2", "account"), ""},
		{"another account", chatGPT("new", "r2", "other"), textSignedOut},
		{"an API key", apiKeyFile, textSignedOut},
		{"signed out", "{", textSignedOut},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			server := newTokenServer(t)
			f := newFixture(t, chatGPT("old", "r", "account"), server.use)
			a, _ := f.snapshot()
			replace(t, f.file, tt.content)
			err := f.refresh(t.Context(), a)
			if tt.want == "" && err != nil {
				t.Errorf("got %v", err)
			} else if tt.want != "" {
				wantText(t, err, tt.want)
			}
			if got := len(server.requests()); got != 0 {
				t.Errorf("%d requests, want none", got)
			}
			if st := f.Status(); st.Generation != 2 {
				t.Errorf("generation %d, want 2", st.Generation)
			}
		})
	}
}

// TestLoginDuringARefresh wins over what the refresh brings.
func TestLoginDuringARefresh(t *testing.T) {
	server := newTokenServer(t)
	f := newFixture(t, chatGPT("old", "r", "account", stale), server.use)
	answer := server.answer
	server.answer = func(w http.ResponseWriter, r *http.Request, n int) {
		replace(t, f.file, chatGPT("login", "r3", "other"))
		answer(w, r, n)
	}
	f.run()
	f.want("login", "other", 2)
	f.next()
	f.none()
	content, err := os.ReadFile(f.file)
	if err != nil || !strings.Contains(string(content), "login") {
		t.Errorf("the login was overwritten: %v", err)
	}
}

// TestTwoHostsRefreshOnce: two stores of one file, one of them through a link,
// and many callers: one request.
func TestTwoHostsRefreshOnce(t *testing.T) {
	server := newTokenServer(t)
	both := make(chan struct{}) // want to refresh
	answer := server.answer
	server.answer = func(w http.ResponseWriter, r *http.Request, n int) {
		<-both
		answer(w, r, n)
	}
	first := newFixture(t, chatGPT("old", "r", "account", stale), watching, server.use)
	name := filepath.Join(t.TempDir(), "link.json")
	link(t, first.file, name)
	second := newFixture(t, "", watching, server.use, func(o *Options) { o.File = name })
	first.run()
	second.run()
	var all sync.WaitGroup
	for i := range 16 {
		all.Go(func() { []*fixture{first, second}[i%2].want("access-1", "account", 2) })
	}
	all.Go(func() {
		defer close(both)
		eventually(t, "both refresh", func() bool { return first.Status().Refreshing && second.Status().Refreshing })
	})
	all.Wait()
	if got := server.requests(); len(got) != 1 {
		t.Errorf("the token endpoint got %d requests, want 1", len(got))
	}
	reasons := first.next().Reason + ", " + second.next().Reason
	if reasons != "refreshed, "+reasonFile && reasons != reasonFile+", refreshed" {
		t.Errorf("told %s", reasons)
	}
	first.none()
	second.none()
}

// TestCallerGivesUp: the refresh goes on for the others.
func TestCallerGivesUp(t *testing.T) {
	server := newTokenServer(t)
	asked, goOn := make(chan struct{}), make(chan struct{})
	answer := server.answer
	server.answer = func(w http.ResponseWriter, r *http.Request, n int) {
		close(asked)
		<-goOn
		answer(w, r, n)
	}
	f := newFixture(t, chatGPT("old", "r", "account", stale), server.use)
	f.run()
	ctx, cancel := context.WithCancelCause(t.Context())
	gone := errors.New("gone")
	var all sync.WaitGroup
	all.Go(func() {
		if _, err := f.Credentials(ctx); !errors.Is(err, gone) {
			t.Errorf("the caller who gave up got %v", err)
		}
	})
	<-asked
	if !f.Status().Refreshing {
		t.Error("status does not say that a refresh is under way")
	}
	all.Go(func() { f.want("access-1", "account", 2) })
	cancel(gone)
	close(goOn)
	all.Wait()
	if got := len(server.requests()); got != 1 {
		t.Errorf("%d requests, want 1", got)
	}
}

// TestEndCutsARefresh: Run does not wait for a token endpoint that hangs.
func TestEndCutsARefresh(t *testing.T) {
	server := newTokenServer(t)
	asked, done := make(chan struct{}), make(chan struct{})
	server.answer = func(_ http.ResponseWriter, r *http.Request, _ int) { close(asked); <-r.Context().Done(); close(done) }
	f := newFixture(t, chatGPT("old", "r", "account"), server.use)
	f.run()
	l := f.NewLadder()
	if _, err := l.Recover(t.Context(), 1); err != nil { // the first step reads the file
		t.Fatal(err)
	}
	var all sync.WaitGroup
	all.Go(func() {
		if _, err := l.Recover(t.Context(), 1); !errors.Is(err, transport.ErrStopping) {
			t.Errorf("got %v, want ErrStopping", err)
		}
	})
	<-asked
	f.stop()
	all.Wait()
	<-done
}

// TestWithoutRunACallerRefreshes, and whoever waited for a caller that gave up
// does it instead.
func TestWithoutRunACallerRefreshes(t *testing.T) {
	server := newTokenServer(t)
	asked := make(chan struct{})
	answer := server.answer
	server.answer = func(w http.ResponseWriter, r *http.Request, n int) {
		if n == 1 {
			close(asked)
			<-r.Context().Done()
			return
		}
		answer(w, r, n)
	}
	f := newFixture(t, chatGPT("old", "r", "account"), server.use)
	a, _ := f.snapshot()
	ctx, cancel := context.WithCancel(t.Context())
	var all sync.WaitGroup
	all.Go(func() {
		if err := f.refresh(ctx, a); err == nil {
			t.Error("a cancelled refresh succeeded")
		}
	})
	<-asked
	all.Go(func() {
		if err := f.refresh(t.Context(), a); err != nil {
			t.Errorf("the one who waited: %v", err)
		}
	})
	cancel()
	all.Wait()
	f.want("access-2", "account", 2)
}
