//go:build unix

package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/transporthost/transporthost/host"
	"github.com/transporthost/transporthost/tests/relay/backend"
)

// A replacement is one way in which a login changes on the disk. It returns when
// the last step has begun, and takes that step.
type replacement struct {
	name string
	do   func(r *relay, h *hostProcess, content []byte) (began time.Time)
}

// renamed puts content in the place of the file in one step.
func (r *relay) renamed(content []byte) time.Time {
	r.t.Helper()
	r.must(os.WriteFile(r.auth+".new", content, 0o600))
	began := time.Now()
	r.must(os.Rename(r.auth+".new", r.auth))
	return began
}

var replacements = []replacement{
	{"replaced by rename", func(r *relay, _ *hostProcess, content []byte) time.Time { return r.renamed(content) }},
	{"rewritten in place", func(r *relay, _ *hostProcess, content []byte) time.Time {
		began := time.Now()
		r.must(os.WriteFile(r.auth, content, 0o600))
		return began
	}},
	{"deleted and made again", func(r *relay, _ *hostProcess, content []byte) time.Time {
		r.must(os.Remove(r.auth))
		began := time.Now()
		r.must(os.WriteFile(r.auth, content, 0o600))
		return began
	}},
	{"a symbolic link swapped", func(r *relay, _ *hostProcess, content []byte) time.Time {
		elsewhere := filepath.Join(r.t.TempDir(), "login.json")
		r.must(os.WriteFile(elsewhere, content, 0o600))
		r.must(os.Symlink(elsewhere, r.auth+".link"))
		began := time.Now()
		r.must(os.Rename(r.auth+".link", r.auth))
		return began
	}},
	{"SIGHUP", func(r *relay, h *hostProcess, content []byte) time.Time {
		began := r.renamed(content)
		r.must(h.cmd.Process.Signal(syscall.SIGHUP))
		h.logged("credentials were read again: signal=SIGHUP")
		return began
	}},
	{"credentials reload", func(r *relay, h *hostProcess, content []byte) time.Time {
		began := r.renamed(content)
		if _, said := h.ask("credentials", "reload"); !strings.HasPrefix(said, "transporthost: the credentials have ") {
			r.t.Errorf("credentials reload says %q", said)
		}
		return began
	}},
}

// content is a login of an account, the first one for "".
func (r *relay) content(variant backend.AuthVariant, id string) []byte {
	r.t.Helper()
	content, err := backend.AuthFile(variant, r.account(id), time.Now())
	r.must(err)
	return content
}

// TestRemoteEnrollsSoonAfterASignIn measures from the change on the disk to the
// enrollment on the wire, for a host that waits. The median is under 100 ms on
// a machine with nothing else to do; what fails is five times that, for a poll
// instead of the watcher takes a second.
func TestRemoteEnrollsSoonAfterASignIn(t *testing.T) {
	const repetitions = 5
	var all []time.Duration
	for _, way := range replacements {
		t.Run(way.name, func(t *testing.T) {
			var took []time.Duration
			for range repetitions {
				r := newRelay(t, backend.Options{})
				r.signIn(backend.AuthAPIKey, "")
				h := r.start(setup{})
				h.reports("waiting-for-auth", "")
				began := way.do(r, h, r.content(backend.AuthChatGPT, ""))
				enroll, err := r.AwaitRequest(r.ctx, func(q backend.Request) bool { return q.Endpoint == backend.EndpointEnroll })
				r.must(err)
				took = append(took, enroll.At.Sub(began))
				h.end()
			}
			slices.Sort(took)
			t.Logf("median %v of %v", took[len(took)/2], took)
			if median := took[len(took)/2]; median > 500*time.Millisecond {
				t.Errorf("the median is %v, want less than 500 ms", median)
			}
			all = append(all, took...)
		})
	}
	slices.Sort(all)
	t.Logf("all ways together: median %v, at most %v", all[len(all)/2], all[len(all)-1])
}

// generation is that of the host's credentials.
func (h *hostProcess) generation() uint64 {
	h.t.Helper()
	out, _ := h.ask("credentials", "status", "--json")
	var s host.CredentialsStatus
	if err := json.Unmarshal([]byte(out), &s); err != nil {
		h.t.Fatalf("credentials status printed %q: %v", out, err)
	}
	return s.Generation
}

// TestRemoteIsNotToldOfNothing: a login that is written again with what it had
// is no change, and forwarded to nobody: what is forwarded is a new generation.
func TestRemoteIsNotToldOfNothing(t *testing.T) {
	r := newRelay(t, backend.Options{})
	content := r.content(backend.AuthChatGPT, "")
	r.must(os.WriteFile(r.auth, content, 0o600))
	h := r.start(setup{})
	r.connected(h, 1)
	before := h.generation()
	for _, way := range replacements {
		if way.name == "deleted and made again" {
			continue // there is a moment without it, which the host may see
		}
		way.do(r, h, content)
		if _, said := h.ask("credentials", "reload"); said != "transporthost: the credentials have not changed\n" {
			t.Errorf("%s: credentials reload says %q", way.name, said)
		}
	}
	if after := h.generation(); after != before {
		t.Errorf("generation %d, want %d still", after, before)
	}
	other := r.AddAccount(backend.AccountOptions{})
	r.signIn(backend.AuthChatGPT, other.ID)
	if link := r.connected(h, 2); link.AccountID != other.ID || h.generation() != before+1 {
		t.Errorf("after a real change the link is of %s, generation %d, want %s and %d", link.AccountID, h.generation(), other.ID, before+1)
	}
	if got, want := r.steps(), "enroll upgrade enroll upgrade"; got != want {
		t.Errorf("the requests are %s, want %s", got, want)
	}
}

// TestRemoteFollowsTheAccount: a new login ends the link of the old account, and
// each account keeps its enrollment. The virtual clients survive.
func TestRemoteFollowsTheAccount(t *testing.T) {
	inProfiles(t, func(t *testing.T, p backend.Profile) {
		r := newRelay(t, backend.Options{Profile: p, Accounts: []backend.AccountOptions{{ID: "acct-first"}, {ID: "acct-second"}}})
		r.signIn(backend.AuthChatGPT, "acct-first")
		h := r.start(setup{})
		first := r.connected(h, 1)
		c := r.initialized("c1", "s1")
		r.signIn(backend.AuthChatGPT, "acct-second")
		second := r.connected(h, 2)
		r.call(c, "[2]")
		r.signIn(backend.AuthChatGPT, "acct-first")
		third := r.connected(h, 3)
		r.call(c, "[3]")
		if second.AccountID != "acct-second" || second.ServerID == first.ServerID || third.ServerID != first.ServerID {
			t.Errorf("the links are of %s (%s), %s (%s) and %s (%s)", first.ServerID, first.AccountID, second.ServerID, second.AccountID, third.ServerID, third.AccountID)
		}
		if got, want := r.steps(), "enroll upgrade enroll upgrade "+toLink(p); got != want {
			t.Errorf("the requests are %s, want %s", got, want)
		}
		if s := h.phone(); s.Incarnation != 1 {
			t.Errorf("the plugin is process %d, want 1", s.Incarnation)
		}
	})
}

// TestRemoteFollowsTheMode: an API key, and a logout, end a link that runs, and
// say why. The next login has the link back, with the enrollment of before.
func TestRemoteFollowsTheMode(t *testing.T) {
	for i, tt := range []struct {
		name, text string
		change     func(r *relay)
	}{
		{"API key", "remote control requires ChatGPT authentication; API key auth is not supported", func(r *relay) { r.signIn(backend.AuthAPIKey, "") }},
		{"logout", "remote control requires ChatGPT authentication", func(r *relay) { r.must(os.Remove(r.auth)) }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := newRelay(t, backend.Options{Profile: profiles[i]})
			r.signIn(backend.AuthChatGPT, "")
			h := r.start(setup{})
			r.connected(h, 1)
			r.initialized("c1", "s1")
			tt.change(r)
			ended, err := r.AwaitEnd(r.ctx, 1)
			r.must(err)
			if ended.CloseCode == 0 {
				t.Errorf("the link ended without a close frame: %s", ended.Cause)
			}
			s := h.reports("waiting-for-auth", tt.text)
			if s.Remedy == "" || s.Incarnation != 1 {
				t.Errorf("got %+v", s)
			}
			r.signIn(backend.AuthChatGPT, "")
			if link := r.connected(h, 2); link.ServerID != r.Enrollments()[0].ServerID || len(r.Enrollments()) != 1 {
				t.Errorf("the link is of %s, and there are %d enrollments, want the one of before", link.ServerID, len(r.Enrollments()))
			}
			if out, _ := h.ask("credentials", "status"); !strings.Contains(out, "chatgpt") {
				t.Errorf("credentials status prints %s", fmt.Sprint(out))
			}
		})
	}
}
