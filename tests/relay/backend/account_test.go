package backend_test

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/transporthost/transporthost/tests/relay/backend"
)

func TestAccessTokens(t *testing.T) {
	now := time.Now()
	b := newBench(t, backend.Options{Now: func() time.Time { return now },
		Accounts: []backend.AccountOptions{{ID: "acct-1", AccessToken: "known"}, {ID: "acct-2", AccessLifetime: time.Hour}}})
	status := func(what, account, token string, want int) {
		t.Helper()
		b.host.AccountID, b.host.AccessToken = account, token
		if a, err := b.host.Enroll(b.ctx); err != nil || a.Status != want {
			t.Errorf("%s: got status %d, %v, want %d", what, a.Status, err, want)
		}
	}
	second, err := b.Account("acct-2")
	b.must(err)
	status("a chosen token", "acct-1", "known", 200)
	status("the second account", "acct-2", string(second.AccessToken), 200)
	status("a token of another account", "acct-1", string(second.AccessToken), 401)
	rotated, err := b.RotateAccess("acct-2")
	b.must(err)
	status("the token before", "acct-2", string(second.AccessToken), 401)
	status("the token after", "acct-2", string(rotated.AccessToken), 200)
	now = now.Add(time.Hour)
	status("an expired token", "acct-2", string(rotated.AccessToken), 401)
	b.must(b.RevokeAccess("acct-1"))
	status("a revoked token", "acct-1", "known", 401)
	if _, err := b.Account("acct-3"); err == nil {
		t.Error("an account that does not exist was found")
	}
	if got := len(b.Enrollments()); got != 3 {
		t.Errorf("%d hosts are enrolled, want 3", got)
	}
	b.Verify(t)
}

func TestTokenEndpoint(t *testing.T) {
	b := newBench(t, backend.Options{})
	refresh := func(token, client string) (int, string, map[string]string) {
		t.Helper()
		a, err := b.host.Post(b.ctx, b.url+backend.TokenPath, fmt.Sprintf(`{"client_id":%q,"grant_type":"refresh_token","refresh_token":%q}`, client, token))
		b.must(err)
		var out map[string]string
		_ = json.Unmarshal([]byte(a.Body), &out) // an error has another shape
		var fail struct {
			Error struct{ Code string }
		}
		_ = json.Unmarshal([]byte(a.Body), &fail)
		return a.Status, fail.Error.Code, out
	}
	const client = "app_EMoamEEZ73f0CkXaXp7hrann"
	account, err := b.Account("")
	b.must(err)
	status, _, tokens := refresh(string(account.RefreshToken), client)
	if status != 200 || tokens["access_token"] == string(account.AccessToken) || tokens["id_token"] == "" || tokens["refresh_token"] == "" {
		t.Fatalf("got status %d with %d tokens, want new ones", status, len(tokens))
	}
	b.host.AccessToken = tokens["access_token"]
	b.enroll()
	for _, tt := range []struct{ name, code string }{
		{"expired", "refresh_token_expired"}, {"revoked", "refresh_token_invalidated"}, {"of another kind", "account_closed"},
	} {
		rotated, err := b.RotateAccess("")
		b.must(err)
		b.must(b.RevokeRefresh("", tt.code))
		if status, code, _ := refresh(string(rotated.RefreshToken), client); status != 401 || code != tt.code {
			t.Errorf("%s: got status %d, code %q, want 401, %q", tt.name, status, code, tt.code)
		}
	}
	if status, code, _ := refresh(string(account.RefreshToken), client); status != 401 || code != "refresh_token_reused" {
		t.Errorf("used twice: got status %d, code %q", status, code)
	}
	if status, code, _ := refresh("rt_of_nobody", client); status != 401 || code != "refresh_token_invalidated" {
		t.Errorf("of nobody: got status %d, code %q", status, code)
	}
	if got := b.Refreshes(); got != 1 {
		t.Errorf("%d refreshes were counted, want 1", got)
	}
	b.Verify(t)
	if status, _, _ := refresh("rt", "another"); status != 400 {
		t.Errorf("another client id: got status %d, want 400", status)
	}
	b.wantOne(backend.BadRequest, "client_id")
}

func TestAuthFiles(t *testing.T) {
	b := newBench(t, backend.Options{Accounts: []backend.AccountOptions{{ID: "acct-1", Email: "a@example.com", FedRAMP: true}}})
	account, err := b.Account("")
	b.must(err)
	path := filepath.Join(t.TempDir(), "auth.json")
	for _, tt := range []struct {
		name                 string
		variant              backend.AuthVariant
		mode                 string
		key, tokens, account bool
	}{
		{"chatgpt", backend.AuthChatGPT, "chatgpt", false, true, true},
		{"no account id", backend.AuthNoAccountID, "chatgpt", false, true, false},
		{"no tokens", backend.AuthNoTokens, "chatgpt", false, false, false},
		{"API key", backend.AuthAPIKey, "apikey", true, false, false},
	} {
		b.must(backend.WriteAuthFile(path, tt.variant, account)) // replaces the one before
		content, err := os.ReadFile(path)
		b.must(err)
		var got struct {
			Mode   string  `json:"auth_mode"`
			Key    *string `json:"OPENAI_API_KEY"`
			Tokens *struct {
				ID        string  `json:"id_token"`
				Access    string  `json:"access_token"`
				Refresh   string  `json:"refresh_token"`
				AccountID *string `json:"account_id"`
			}
			LastRefresh *time.Time `json:"last_refresh"`
		}
		b.must(json.Unmarshal(content, &got))
		if got.Mode != tt.mode || (got.Key != nil) != tt.key || (got.Tokens != nil) != tt.tokens || (got.LastRefresh != nil) != tt.tokens {
			t.Errorf("%s: mode %q, key %v, tokens %v", tt.name, got.Mode, got.Key != nil, got.Tokens != nil)
		}
		if got.Tokens == nil {
			continue
		}
		if (got.Tokens.AccountID != nil) != tt.account || got.Tokens.Access != string(account.AccessToken) || got.Tokens.Refresh != string(account.RefreshToken) {
			t.Errorf("%s: the tokens are others, or account_id is %v", tt.name, got.Tokens.AccountID)
		}
		parts := strings.Split(got.Tokens.ID, ".")
		if len(parts) != 3 {
			t.Fatalf("%s: the id token has %d parts", tt.name, len(parts))
		}
		claims, err := base64.RawURLEncoding.DecodeString(parts[1])
		b.must(err)
		for _, want := range []string{`"email":"a@example.com"`, `"chatgpt_account_id":"acct-1"`, `"chatgpt_account_is_fedramp":true`, `"chatgpt_plan_type":"pro"`} {
			if !strings.Contains(string(claims), want) {
				t.Errorf("%s: the claims lack %s", tt.name, want)
			}
		}
	}
	if info, err := os.Stat(path); err != nil || runtime.GOOS != "windows" && info.Mode().Perm() != 0o600 {
		t.Errorf("the file has mode %v, %v, want 0600", info.Mode(), err)
	}
	if err := backend.WriteAuthFile(path, 0, account); err == nil {
		t.Error("a file of no variant was written")
	}
	if left, err := os.ReadDir(filepath.Dir(path)); err != nil || len(left) != 1 {
		t.Errorf("%d files are left, %v, want 1", len(left), err)
	}
}

func TestSecretsAreNotRecorded(t *testing.T) {
	for _, keep := range []bool{false, true} {
		b := newBench(t, backend.Options{RecordSecrets: keep})
		b.dial()
		account, err := b.Account("")
		b.must(err)
		_, err = b.host.Post(b.ctx, b.url+backend.TokenPath, fmt.Sprintf(`{"client_id":"x","grant_type":"refresh_token","refresh_token":%q}`, string(account.RefreshToken)))
		b.must(err)
		recorded := fmt.Sprintf("%v", b.Connects())
		for _, r := range b.Requests() {
			recorded += fmt.Sprintf("%v %s", r.Header, r.Body)
		}
		secrets := b.Secrets()
		if len(secrets) < 4 {
			t.Fatalf("the backend knows %d secrets", len(secrets))
		}
		found := 0
		for _, s := range secrets {
			if strings.Contains(recorded, string(s)) {
				found++
			}
		}
		if keep != (found > 0) {
			t.Errorf("RecordSecrets %v: %d secrets are in what is recorded", keep, found)
		}
		if got := b.Requests()[1]; got.Bearer != "server "+b.host.ServerID || got.Status != 101 {
			t.Errorf("the upgrade is recorded with the bearer %q and status %d", got.Bearer, got.Status)
		}
	}
}
