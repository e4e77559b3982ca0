package credentials

import (
	"errors"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/transporthost/transporthost/shared/transport"
)

func drop(name string) func(file, tokens map[string]any) {
	return func(file, tokens map[string]any) { delete(file, name); delete(tokens, name) }
}

func set(name string, v any) func(file, tokens map[string]any) {
	return func(file, tokens map[string]any) { file[name] = v }
}

func setToken(name string, v any) func(file, tokens map[string]any) {
	return func(file, tokens map[string]any) { tokens[name] = v }
}

// TestParse is spec §3.1. A file that cannot be used is "no auth".
func TestParse(t *testing.T) {
	good := func(edit ...func(file, tokens map[string]any)) string {
		return chatGPT("acc", "ref", "account-1", edit...)
	}
	tests := []struct {
		name, content string
		wantMode      Mode
		wantProblem   string // part of it; "" if there is none
	}{
		{"as the reference writes it", good(), ChatGPT, ""},
		{"unknown fields", good(set("agent_identity", map[string]any{"x": 1}), setToken("more", []int{1})), ChatGPT, ""},
		{"explicit mode wins over a key", good(set("auth_mode", "chatgpt"), set("OPENAI_API_KEY", "sk-x")), ChatGPT, ""},
		{"a key without a mode", good(set("OPENAI_API_KEY", "sk-x")), APIKey, ""},
		{"key only", apiKeyFile, APIKey, ""},
		{"explicit key mode", `{"auth_mode":"apikey","OPENAI_API_KEY":"sk-x"}`, APIKey, ""},
		{"key mode without a key", `{"auth_mode":"apikey"}`, "", "API key auth is missing a key."},
		{"key mode with a null key", `{"auth_mode":"apikey","OPENAI_API_KEY":null}`, "", "API key auth is missing a key."},
		{"empty object", `{}`, ChatGPT, ""}, // no tokens: not usable, but it is a mode
		{"null tokens", `{"tokens":null}`, ChatGPT, ""},
		{"unknown mode", good(set("auth_mode", "SECRET")), "", "auth_mode is neither"},
		{"mode is no text", good(set("auth_mode", 1)), "", "auth_mode has the wrong type"},
		{"names are exact", `{"openai_api_key":"sk-x","Tokens":7}`, ChatGPT, ""},
		{"no access token", good(drop("access_token")), "", "tokens: id_token, access_token"},
		{"null refresh token", good(setToken("refresh_token", nil)), "", "tokens: id_token, access_token"},
		{"account of the wrong type", good(setToken("account_id", 7)), "", "tokens: account_id has the wrong type"},
		{"no account", good(drop("account_id")), ChatGPT, ""},
		{"null account", good(setToken("account_id", nil)), ChatGPT, ""},
		{"tokens is a list", good(set("tokens", []int{1})), "", "tokens: not a JSON object"},
		{"no last_refresh", good(drop("last_refresh")), ChatGPT, ""},
		{"last_refresh is no time", good(set("last_refresh", "yesterday SECRET")), "", "last_refresh is not a time"},
		{"last_refresh with an offset", good(set("last_refresh", "2026-01-02T03:04:05.123456789+02:00")), ChatGPT, ""},
		{"id token without dots", good(setToken("id_token", "SECRET")), "", "id_token is not a JWT"},
		{"id token with an empty part", good(setToken("id_token", "a..c")), "", "id_token is not a JWT"},
		{"id token with padding", good(setToken("id_token", "a.e30=.c")), "", "payload is not base64"},
		{"id token that is not JSON", good(setToken("id_token", "a.YWJj.c")), "", "payload is not a JSON object"},
		{"id token of four parts", good(setToken("id_token", "a.e30.c.d")), ChatGPT, ""},
		{"claim of the wrong type", good(setToken("id_token", jwt(map[string]any{"https://api.openai.com/auth": 1}))), "", "claim of the wrong type"},
		{"empty file", "", "", "the file is empty"},
		{"white space", " \n", "", "the file is empty"},
		{"null", "null", "", "not a JSON object"},
		{"a list", "[]", "", "not a JSON object"},
		{"cut off", "{\n  \"tokens\": {\n    \"id_to", "", "not JSON: line 3, byte 26"},
		{"text behind it", "{} SECRET", "", "not JSON: line 1"},
		{"not UTF-8", "{\"auth_mode\":\"\xff\"}", "", "not UTF-8"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			a, err := parseAuth([]byte(tt.content))
			if a.mode != tt.wantMode && err == nil || err != nil && tt.wantProblem == "" {
				t.Errorf("got mode %q, %v, want %q", a.mode, err, tt.wantMode)
			}
			if tt.wantProblem != "" {
				if err == nil {
					t.Fatalf("got mode %q, want a problem", a.mode)
				}
				wantContains(t, "problem", err.Error(), tt.wantProblem)
				if strings.Contains(err.Error(), "SECRET") {
					t.Errorf("the problem quotes the file: %v", err)
				}
			}
		})
	}
}

func TestStale(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	old, fresh := now.Add(-maxAge-time.Second), now.Add(-maxAge)
	expiring := func(at any) string { return jwt(map[string]any{"exp": at}) }
	tests := []struct {
		name, access string
		lastRefresh  time.Time
		want         bool
	}{
		{"expires now", expiring(now.Unix()), fresh, true},
		{"expires in a second", expiring(now.Unix() + 1), fresh, false},
		{"the token's own word counts", expiring(now.Unix() + 1), old, false},
		{"opaque and old", "opaque", old, true},
		{"opaque and 8 days old to the second", "opaque", fresh, false},
		{"a token without expiry", jwt(map[string]any{}), old, true},
		{"an expiry of the wrong type", expiring("soon"), old, true},
		{"an expiry beyond all reason", expiring(1e300), old, true},
		{"never refreshed", "opaque", time.Time{}, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			a := auth{mode: ChatGPT, lastRefresh: tt.lastRefresh,
				tokens: tokens{id: "i", access: transport.Secret(tt.access), refresh: "r"}}
			if got := a.stale(now); got != tt.want {
				t.Errorf("got %v, want %v", got, tt.want)
			}
			a.mode = APIKey
			if a.stale(now) {
				t.Error("an API key is stale")
			}
		})
	}
}

// TestLoadResults is the store's part of the reference's
// remote_control_auth_validation_treats_api_key_auth_as_recoverable_unless_only_transport,
// remote_control_auth_validation_treats_invalid_chatgpt_auth_as_recoverable and
// remote_control_waits_for_account_id_before_enrolling.
func TestLoadResults(t *testing.T) {
	tests := []struct {
		name, content string
		want          string // the error's whole text
	}{
		{"no file", "", "remote control requires ChatGPT authentication"},
		{"broken", "{", "remote control requires ChatGPT authentication"},
		{"key", apiKeyFile, "remote control requires ChatGPT authentication; API key auth is not supported"},
		{"no tokens", `{"auth_mode":"chatgpt","tokens":null}`, "remote control cannot read ChatGPT authentication token: Token data is not available."},
		{"no last_refresh", chatGPT("a", "r", "account-1", drop("last_refresh")), "remote control cannot read ChatGPT authentication token: Token data is not available."},
		{"no account, though the claim is there", chatGPT("a", "r", "account-1", drop("account_id")), "remote control enrollment is waiting for a ChatGPT account id"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f := newFixture(t, tt.content)
			_, err := f.Credentials(t.Context())
			wantText(t, err, tt.want)
			if !errors.Is(err, transport.ErrNoCredentials) {
				t.Errorf("%v is not ErrNoCredentials", err)
			}
			if st := f.Status(); st.Problem == "" || st.Generation != 1 {
				t.Errorf("status: problem %q, generation %d, want a problem and 1", st.Problem, st.Generation)
			}
			// One reload per call finds what has become good.
			replace(t, f.file, chatGPT("good", "r", "account-2"))
			f.want("good", "account-2", 2)
			if st := f.Status(); st.Problem != "" || st.Mode != ChatGPT || st.Account != "acco…" {
				t.Errorf("status: %+v", st)
			}
		})
	}
}

func TestFedRAMPIsOfTheIDToken(t *testing.T) {
	f := newFixture(t, chatGPT("a", "r", "x", setToken("id_token", idToken(true))))
	if c, err := f.Credentials(t.Context()); err != nil || !c.FedRAMP {
		t.Errorf("got %v, %v, want FedRAMP", c.FedRAMP, err)
	}
}

func TestReplacedKeepsWhatItDoesNotKnow(t *testing.T) {
	content := `{"tokens":{"id_token":"a.e30.c","access_token":"1","refresh_token":"2","account_id":"x","n":12345678901234567890},"other":{"<&>":[1.50]}}`
	a, err := parseAuth([]byte(content))
	if err != nil {
		t.Fatal(err)
	}
	a.tokens.access, a.tokens.refresh, a.lastRefresh = "3", "4", time.Unix(1, 5).UTC()
	got, err := replaced([]byte(content), a)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`"n": 12345678901234567890`, `"<&>": [`, "1.50", `"account_id": "x"`, `"OPENAI_API_KEY": null`} {
		wantContains(t, "file", string(got), want)
	}
	if b, err := parseAuth(got); err != nil || b != a {
		t.Errorf("what was written reads otherwise: %v", err)
	}
}

// FuzzParseAuth: nothing in the file stops the host, nothing of it gets into a
// problem, and what was read survives being written.
func FuzzParseAuth(f *testing.F) {
	for _, s := range []string{"", "{", "null", "[]", apiKeyFile, chatGPT("acc", "ref", "account"), `{"auth_mode":"apikey"}`,
		`{"tokens":{"id_token":"a.e30.c","access_token":"","refresh_token":"","account_id":""},"last_refresh":"2026-01-02T03:04:05Z"}`,
		`{"tokens":{"id_token":"` + idToken(true) + `","access_token":"` + jwt(map[string]any{"exp": 1}) + `","refresh_token":"r"}}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, content []byte) {
		a, err := parseAuth(content)
		if err != nil {
			if len(err.Error()) > 300 {
				t.Errorf("a problem of %d bytes", len(err.Error()))
			}
			return
		}
		a.stale(time.Now())
		if _, err := a.usable(); err == nil && (a.tokens.account == "" || a.mode != ChatGPT) {
			t.Errorf("usable without an account, or in mode %q", a.mode)
		}
		if a.tokens == (tokens{}) {
			return
		}
		a.lastRefresh = time.Unix(1_800_000_000, 42).UTC()
		written, err := replaced(content, a)
		if err != nil {
			t.Fatalf("what was read cannot be written: %v", err)
		}
		if b, err := parseAuth(written); err != nil || b != a {
			t.Errorf("written and read again: %v", err)
		}
	})
}

// FuzzTokenAnswer: whatever the token endpoint says, the account stays, what is
// adopted can be saved and read again, and no error shows a token.
func FuzzTokenAnswer(f *testing.F) {
	for _, s := range []string{"", "{", "null", `{"access_token":"n","refresh_token":"m","id_token":"` + idToken(true) + `"}`, `{"access_token":"","id_token":"x"}`,
		`{"access_token":"\ud800","refresh_token":"\u0000\n"}`, `{"error":{"code":"refresh_token_reused","message":"seeded-refresh-token"}}`,
		`{"error":"invalid_grant","error_description":"a\u2028b seeded-access-token"}`, `{"code":"REFRESH_TOKEN_EXPIRED","account_id":"other"}`} {
		f.Add(200, []byte(s))
		f.Add(401, []byte(s))
	}
	before := chatGPT("seeded-access-token", "seeded-refresh-token", "account")
	a, err := parseAuth([]byte(before))
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, status int, answer []byte) {
		err := refusal(status, answer, a.tokens)
		if text := err.Error(); len(text) > 1000 || !utf8.ValidString(text) || strings.ContainsAny(text, "\n\r\x00") ||
			strings.Contains(text, "seeded-refresh-token") || strings.Contains(text, "seeded-access-token") {
			t.Errorf("refused with %q", text)
		}
		fresh, err := a.tokens.with(answer)
		if err != nil {
			if text := err.Error(); len(text) > 300 {
				t.Errorf("an error of %d bytes", len(text))
			}
			return
		}
		if fresh.account != a.tokens.account || fresh.access == "" || fresh.refresh == "" || fresh.id == "" {
			t.Error("the account changed, or a token was lost")
		}
		adopted := a
		adopted.tokens, adopted.lastRefresh = fresh, time.Unix(1_800_000_000, 42).UTC()
		written, err := replaced([]byte(before), adopted)
		if err != nil {
			t.Fatalf("what was adopted cannot be written: %v", err)
		}
		if b, err := parseAuth(written); err != nil || b != adopted {
			t.Errorf("written and read again: %v", err)
		}
	})
}
