package remotecontrol

import (
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	pluginsdk "github.com/transporthost/transporthost/plugin-sdk"
)

func answered(t testing.TB, p profile, code int, body string, header ...string) *answer {
	t.Helper()
	h := http.Header{}
	for i := 0; i+1 < len(header); i += 2 {
		h.Set(header[i], header[i+1])
	}
	a, err := readAnswer(&http.Response{StatusCode: code, Header: h, Body: io.NopCloser(strings.NewReader(body))}, p, time.Now(), testToken)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func TestPreviews(t *testing.T) {
	for _, tt := range []struct {
		name, body, want string
		p                profile
	}{
		{"nothing", " \n", "<empty>", profile3},
		{"text", "  upstream unavailable\n", "upstream unavailable", profile3},
		{"not UTF-8", "a\xffb", "a\uFFFDb", profile2},
		{"long", strings.Repeat("x", 5000), strings.Repeat("x", 4096) + "...", profile2},
		{"cut at a character", strings.Repeat("x", 4095) + "äöü", strings.Repeat("x", 4095) + "...", profile2},
		{"JSON as it is", `{ "b": 1, "a": 2 }`, `{ "b": 1, "a": 2 }`, profile2},
		{"JSON anew", `{ "b": 1, "a": "<x>" }`, `{"a":"<x>","b":1}`, profile3},
		{"token", `{"server_id":"s","remote_control_token":"secret"}`, `{"remote_control_token":"<redacted>","server_id":"s"}`, profile2},
		{"pairing codes", `{"pairing_code":{"x":"secret"},"manual_pairing_code":5}`, `{"manual_pairing_code":"<redacted>","pairing_code":"<redacted>"}`, profile3},
		{"token deeper", `{"data":{"remote_control_token" : "sec\"ret"}}`, `{"data":{"remote_control_token" : "<redacted>"}}`, profile2},
		{"token in cut JSON", `{"remote_control_token":"secr`, `{"remote_control_token":"<redacted>"`, profile3},
		{"token in an escape at the end", `{"remote_control_token":"secr\`, `{"remote_control_token":"<redacted>"`, profile3},
		{"our own token said back", "no such token: Bearer " + testToken, "no such token: Bearer <redacted>", profile2},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := answered(t, tt.p, 500, tt.body).preview(); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

func TestWordsOfAnswers(t *testing.T) {
	for _, tt := range []struct {
		body, want string
		policy     bool
	}{
		{`{"detail":"Multi-factor authentication required"}`, "Multi-factor authentication required", true},
		{`{"message":"Your workspace does not allow this"}`, "Your workspace does not allow this", true},
		{`{"error":"blocked by the policy of your admin"}`, "blocked by the policy of your admin", true},
		{`{"error":{"message":"SSO is\nrequired","code":"x"}}`, "SSO is required", true},
		{`{"detail":{"error":{"message":"Forbidden"}}}`, "Forbidden", false},
		{`{"detail":["x"],"message":""}`, "", false},
		{`not json: mfa`, "", false},
		{`{"detail":"token expired"}`, "token expired", false},
	} {
		a := answered(t, profile3, 403, tt.body)
		if got := a.words(); got != tt.want || a.policy() != tt.policy {
			t.Errorf("%s: got %q, policy %v; want %q, %v", tt.body, got, a.policy(), tt.want, tt.policy)
		}
	}
	if answered(t, profile3, 401, `{"detail":"Multi-factor authentication required"}`).policy() {
		t.Error("a 401 is a policy, want a 403 only")
	}
}

func TestAnswersFromBeforeTheBackend(t *testing.T) {
	for _, a := range []*answer{
		answered(t, profile3, 403, "<p>Attention Required!", "Content-Type", "text/html; charset=UTF-8", "Cf-Ray", "abc-FRA"),
		answered(t, profile3, 401, " \n<!DOCTYPE html><html>", "Cf-Ray", "abc-FRA"),
	} {
		f := (&backend{profile: profile3}).refused(call{what: "x", url: "u"}, a)
		want := "blocked before the backend: an HTML page with HTTP " + a.status() + ", cf-ray: abc-FRA"
		if f.kind != failedOther || f.line() != want {
			t.Errorf("got kind %d, %q; want %q and no recovery of credentials", f.kind, f.line(), want)
		}
	}
}

func TestIDsOfAnswers(t *testing.T) {
	for _, tt := range []struct {
		header []string
		want   string
	}{
		{nil, "request-id: <none>, cf-ray: <none>"},
		{[]string{"X-Request-Id", "a", "X-Oai-Request-Id", "b", "Cf-Ray", "c"}, "request-id: a, cf-ray: c"},
		{[]string{"X-Oai-Request-Id", "b"}, "request-id: b, cf-ray: <none>"},
		{[]string{"X-Request-Id", "a\xffb"}, "request-id: <invalid utf-8>, cf-ray: <none>"},
	} {
		if got := answered(t, profile2, 500, "", tt.header...).ids(); got != tt.want {
			t.Errorf("%q: got %q, want %q", tt.header, got, tt.want)
		}
	}
}

func TestRetryAfter(t *testing.T) {
	now := time.Date(2026, 4, 10, 12, 0, 0, 0, time.UTC)
	for _, tt := range []struct {
		value string
		want  time.Duration
	}{
		{"", 0}, {"120", 2 * time.Minute}, {" 7 ", 7 * time.Second}, {"-1", 0}, {"soon", 0},
		{"Fri, 10 Apr 2026 12:00:30 GMT", 30 * time.Second}, {"Fri, 10 Apr 2026 11:59:30 GMT", 0},
		{"18446744073709551615", maxRetryAfter}, {"Fri, 10 Apr 2099 12:00:30 GMT", maxRetryAfter},
	} {
		if got := parseRetryAfter(tt.value, now); got != tt.want {
			t.Errorf("%q: got %v, want %v", tt.value, got, tt.want)
		}
	}
}

// TestOnlyAnExplicit404ClearsAnEnrollment is
// websocket_404_only_reports_explicit_missing_remote_app_server.
func TestOnlyAnExplicit404ClearsAnEnrollment(t *testing.T) {
	for _, tt := range []struct {
		code int
		body string
		want bool
	}{
		{404, `{"detail":"Remote app server not found"}`, true},
		{404, `{"detail":"Remote app server not found","code":7}`, true},
		{404, `{"detail":"Not Found"}`, false},
		{404, `Remote app server not found`, false},
		{503, `{"detail":"Remote app server not found"}`, false},
	} {
		if got := answered(t, profile3, tt.code, tt.body).missingServer(); got != tt.want {
			t.Errorf("%d %s: got %v, want %v", tt.code, tt.body, got, tt.want)
		}
	}
}

func FuzzAnswer(f *testing.F) {
	for _, s := range []string{
		`{"server_id":"s","environment_id":"e","remote_control_token":"seededsecret","expires_at":"2026-04-10T12:00:00Z"}`,
		`{"remote_control_token":"seededsecret`, `<html>`, `{"error":{"message":{"detail":"x"}}}`, "{\"detail\":\"\u2028\xff\"}", `[]`, ``,
	} {
		f.Add(200, []byte(s), true)
		f.Add(403, []byte(s), false)
	}
	f.Fuzz(func(t *testing.T, code int, body []byte, third bool) {
		p := profile2
		if third {
			p = profile3
		}
		a := answered(t, p, code, string(body))
		preview, words := a.preview(), a.words()
		if !utf8.ValidString(preview) || len(preview) > maxPreviewBytes+len("...") || preview == "" {
			t.Errorf("preview %q", preview)
		}
		if !utf8.ValidString(words) || len(words) > maxLineBytes+len("...") || strings.ContainsAny(words, "\n\r\x00") {
			t.Errorf("words %q", words)
		}
		// A token field never gets through, in whatever it is wrapped.
		wrapped := answered(t, p, code, string(body)+`{"remote_control_token":"hushhush"}`)
		if s := wrapped.preview() + wrapped.words(); strings.Contains(s, "hushhush") && !strings.Contains(string(body), "hushhush") && !inString(body) {
			t.Errorf("the token is shown: %q", s)
		}
		var got serverAnswer
		if err := decodeServerAnswer(body, &got); err == nil && (*got.ServerID == "" || *got.EnvironmentID == "") {
			t.Error("an enrollment without ids is accepted")
		}
		_ = (&failure{answer: a, text: "x"}).line()
		_ = a.policy()
		_ = pluginsdk.Secret(got.Token)
	})
}

// FuzzRetryAfter: whatever the header says, the wait is one, and has a bound.
func FuzzRetryAfter(f *testing.F) {
	now := time.Date(2026, 4, 10, 12, 0, 0, 0, time.UTC)
	for _, s := range []string{"", "0", "120", "-1", " 7 ", "18446744073709551616", "1e3", "Fri, 10 Apr 2026 12:00:30 GMT", "Friday, 10-Apr-26 11:00:00 GMT", "Fri Apr 10 13:59:00 9999"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, v string) {
		got := parseRetryAfter(v, now)
		if got < 0 || got > maxRetryAfter {
			t.Errorf("%q: %v, want 0 to %v", v, got, maxRetryAfter)
		}
		if n, err := strconv.ParseUint(strings.TrimSpace(v), 10, 64); err == nil && got != min(time.Duration(min(n, 1<<20))*time.Second, maxRetryAfter) {
			t.Errorf("%q: %v", v, got)
		}
	})
}

// inString reports whether body may leave a JSON string or an escape open, so
// that what follows it is no field.
func inString(body []byte) bool { return strings.ContainsAny(string(body), `"\`) }
