package remotecontrol

import (
	"strings"
	"testing"
)

// TestTargets is normalize_remote_control_url_accepts_chatgpt_https_urls,
// …accepts_localhost_urls and …rejects_unsupported_urls, with the vectors of
// spec 1.
func TestTargets(t *testing.T) {
	const below = "/wham/remote/control/server"
	for _, tt := range []struct{ in, ws, enroll string }{
		{"https://chatgpt.com/backend-api", "wss://chatgpt.com/backend-api", "https://chatgpt.com/backend-api"},
		{"https://chatgpt.com/backend-api/", "wss://chatgpt.com/backend-api", "https://chatgpt.com/backend-api"},
		{"https://api.chatgpt-staging.com/backend-api", "wss://api.chatgpt-staging.com/backend-api", "https://api.chatgpt-staging.com/backend-api"},
		{"http://localhost:8080/backend-api", "ws://localhost:8080/backend-api", "http://localhost:8080/backend-api"},
		{"https://localhost:8443/backend-api", "wss://localhost:8443/backend-api", "https://localhost:8443/backend-api"},
		{"http://127.0.0.1:1/backend-api/", "ws://127.0.0.1:1/backend-api", "http://127.0.0.1:1/backend-api"},
		{"http://127.9.9.9/x", "ws://127.9.9.9/x", "http://127.9.9.9/x"},
		{"http://[::1]:9/x", "ws://[::1]:9/x", "http://[::1]:9/x"},
		{"https://[::1]/x", "wss://[::1]/x", "https://[::1]/x"},
		{"HTTPS://ChatGPT.com:443/a?q=1#f", "wss://chatgpt.com/a", "https://chatgpt.com/a"},
		{"http://localhost:80", "ws://localhost", "http://localhost"},
		{"https://chatgpt.com:8443/%2F", "wss://chatgpt.com:8443/%2F", "https://chatgpt.com:8443/%2F"},
		{"https://relay.example.org/x", "wss://relay.example.org/x", "https://relay.example.org/x"}, // allowed_hosts
	} {
		got, err := parseTarget(tt.in, []string{"Relay.Example.org"})
		want := target{enroll: tt.enroll + below + "/enroll", refresh: tt.enroll + below + "/refresh", websocket: tt.ws + below}
		if err != nil || got != want {
			t.Errorf("%s: got %+v, %v; want %+v", tt.in, got, err, want)
		}
	}
	for _, in := range []string{
		"http://chatgpt.com/backend-api", "http://example.com/backend-api", "https://example.com/backend-api",
		"https://chatgpt.com.evil.com/backend-api", "https://evilchatgpt.com/backend-api", "https://foo.localhost/backend-api",
		"https://chat.openai.com/backend-api", "ftp://chatgpt.com/", "chatgpt.com", "https:chatgpt.com", "", "https:///x",
		"https://10.0.0.1/x", "http://relay.example.org/x", "https://[::ffff:127.0.0.1]/", "https://.chatgpt.com.evil.com",
	} {
		want := "invalid remote control URL `" + in + "`; expected HTTPS URL for chatgpt.com or chatgpt-staging.com, or HTTP/HTTPS URL for localhost"
		if got, err := parseTarget(in, []string{"relay.example.org"}); err == nil || err.Error() != want {
			t.Errorf("%s: got %+v, %v; want the error %q", in, got, err, want)
		}
	}
	if _, err := parseTarget("https://chatgpt.com:port/", nil); err == nil || !strings.HasPrefix(err.Error(), "invalid remote control URL `https://chatgpt.com:port/`: ") {
		t.Errorf("got %v, want the parser's error", err)
	}
}

func TestTargetErrorsShowNoPassword(t *testing.T) {
	for _, in := range []string{
		"https://user:hunter2@chatgpt.com/", "https://user:hun/ter2@chatgpt.com/", "https://user:hunter2 @chatgpt.com/\x7f", "//u:hunter2@x", "user:hunter2@x",
	} {
		_, err := parseTarget(in, nil)
		if err == nil {
			t.Errorf("%s is accepted, with a password that would go nowhere", in)
		} else if strings.Contains(err.Error(), "hunter2") || strings.Contains(err.Error(), "ter2") {
			t.Errorf("%s: the error shows the password: %v", in, err)
		}
	}
}

func FuzzTarget(f *testing.F) {
	for _, s := range []string{testURL, "https://chatgpt.com", "https://user:pw@chatgpt.com:443/a/../b?x#y", "http://[::1%25lo]:1/", "https://chatgpt.com\\@evil.com"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, in string) {
		got, err := parseTarget(in, nil)
		if err != nil {
			if !strings.HasPrefix(err.Error(), "invalid remote control URL `") {
				t.Errorf("%q: error %v", in, err)
			}
			return
		}
		// Whatever was accepted is accepted again in its own form, and goes to
		// an allowed host: a token is sent there.
		base := strings.TrimSuffix(got.enroll, "wham/remote/control/server/enroll")
		again, err := parseTarget(base, nil)
		if err != nil || again != got {
			t.Errorf("%q gives %+v, and that gives %+v, %v", in, got, again, err)
		}
	})
}
