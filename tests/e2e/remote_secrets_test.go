//go:build unix

package e2e

import (
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"strings"
	"testing"

	"github.com/transporthost/transporthost/host"
	"github.com/transporthost/transporthost/tests/relay/backend"
)

// said is everything that a person can get out of a host: what it wrote, and
// what its commands print.
func (h *hostProcess) said() map[string]string {
	h.t.Helper()
	all := map[string]string{"stderr": h.stderr()}
	for _, args := range [][]string{
		{"status"}, {"status", "--json"}, {"remote", "status"}, {"remote", "status", "--json"},
		{"credentials", "status"}, {"credentials", "status", "--json"}, {"plugins", "list"},
	} {
		if args[0] != "plugins" {
			args = append(args, "--runtime-dir", h.runtime)
		}
		out, err := exec.Command(bin().host(), args...).CombinedOutput()
		if err != nil {
			h.t.Errorf("%v: %v\n%s", args, err, out)
		}
		all[strings.Join(args, " ")] = string(out)
	}
	return all
}

// hides fails the test if one of the secrets is in what the host says.
func (h *hostProcess) hides(secrets ...string) {
	h.t.Helper()
	h.look(h.said(), secrets)
}

// hidesFromOthers fails the test if one of the secrets is where other programs
// of this user can see it: in command lines and environments.
func (h *hostProcess) hidesFromOthers(secrets ...string) {
	h.t.Helper()
	if runtime.GOOS != "linux" {
		return // no /proc
	}
	seen := map[string]string{}
	for _, pid := range append(descendants(h.cmd.Process.Pid), h.cmd.Process.Pid) {
		for _, file := range []string{"cmdline", "environ"} {
			path := fmt.Sprintf("/proc/%d/%s", pid, file)
			content, err := os.ReadFile(path)
			if err != nil || len(content) == 0 {
				h.t.Errorf("%s has %d bytes, %v", path, len(content), err)
			}
			seen[path] = string(content)
		}
	}
	h.look(seen, secrets)
}

func (h *hostProcess) look(places map[string]string, secrets []string) {
	h.t.Helper()
	for place, text := range places {
		for _, secret := range secrets {
			if at := strings.Index(text, secret); secret != "" && at >= 0 {
				h.t.Errorf("a secret is in %s: …%.60q", place, text[max(0, at-60):at])
			}
		}
	}
}

// secretParts are those of tokens that are told from everything else, so that
// half a token is found too.
var secretParts = regexp.MustCompile(`sk-[A-Za-z0-9_-]{8}|rt_[A-Z0-9]{8}|rct_[A-Z0-9]{8}|eyJhbGciOi|Bearer [A-Za-z0-9]`)

// TestRemoteSecretsStayInside: no token and no key is in anything that the host
// and its plugins write, at the level trace, nor where other programs can see
// it, whatever goes wrong meanwhile.
func TestRemoteSecretsStayInside(t *testing.T) {
	inProfiles(t, func(t *testing.T, p backend.Profile) {
		r := newRelay(t, backend.Options{Profile: p, Accounts: []backend.AccountOptions{{}, {ID: "acct-second"}}})
		r.signIn(backend.AuthAPIKey, "")
		key, err := os.ReadFile(r.auth)
		r.must(err)
		secrets := regexp.MustCompile(`sk-[^"]+`).FindAllString(string(key), -1)
		if len(secrets) != 1 {
			t.Fatalf("%d keys in the login, want 1", len(secrets))
		}
		h := r.start(setup{args: []string{"--log-level", "trace"}, local: besideWebsocket + besideStdio})
		_, err = h.stdin.Write([]byte(`{"id":1,"method":"initialize","params":{"clientInfo":{"name":"x","version":"1"}}}` + "\n"))
		r.must(err)
		h.reports("waiting-for-auth", "")

		// an enrollment that is refused with the token in the answer
		token := string(r.account("").AccessToken)
		r.AnswerNext(backend.EndpointEnroll, backend.Reject(http.StatusInternalServerError, "no such token: "+token))
		r.AnswerNext(backend.EndpointUpgrade, backend.Reject(http.StatusServiceUnavailable, "no: Bearer "+token))
		r.signIn(backend.AuthChatGPT, "")
		r.connected(h, 1)
		r.call(r.initialized("c1", "s1"), `["`+strings.Repeat("payload", 3)+`"]`)

		// tokens that are refused, refreshed, and refused for good
		h.ask("plugins", "restart", phone) // begins with short delays again
		r.connected(h, 2)
		r.ExpireServerTokens()
		r.must(r.RevokeAccess(""))
		r.Drop()
		r.connected(h, 3)
		r.must(r.RevokeAccess(""))
		r.must(r.RevokeRefresh("", "refresh_token_reused"))
		h.ask("plugins", "restart", phone)
		h.attempted("; waiting for valid ChatGPT authentication")
		h.hides(secrets...)
		r.signIn(backend.AuthChatGPT, "acct-second")
		r.connected(h, 4)
		h.awaitRemote("restarted", func(s host.TransportStatus) bool { return s.Reported.Details["account"] != "" })

		for _, s := range r.Secrets() {
			secrets = append(secrets, string(s))
		}
		if len(secrets) < 8 {
			t.Fatalf("only %d secrets are known", len(secrets))
		}
		h.hides(append(secrets, strings.Repeat("payload", 3))...)
		h.hidesFromOthers(secrets...)
		for place, text := range h.said() {
			if part := secretParts.FindString(text); part != "" {
				t.Errorf("%s has %q, which begins a secret", place, part)
			}
		}
	})
}
