package backend

import (
	"cmp"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"time"
)

// goneDetail is what a profile 3 backend says of a server that it does not
// know: only then does the host forget its enrollment.
const goneDetail = "Remote app server not found"

// Names that Rust has for systems and processors, where Go has others.
var (
	rustSystems    = []string{"linux", "macos", "windows", "freebsd", "openbsd", "netbsd", "dragonfly", "android", "ios", "solaris", "illumos"}
	rustProcessors = []string{"x86_64", "aarch64", "x86", "arm", "riscv64", "s390x", "powerpc64", "loongarch64", "mips64"}
)

// An Enrollment is a host that the backend knows.
type Enrollment struct {
	ServerID       string
	EnvironmentID  string
	AccountID      string
	Name           string
	OS             string
	Arch           string
	Version        string
	InstallationID string
	At             time.Time
}

type enrollment struct {
	Enrollment
	tokens  []string // all that were given; the last one is good
	expires time.Time
}

// token is the server token that is good, or "".
func (e *enrollment) token(now time.Time) string {
	if len(e.tokens) == 0 || !now.Before(e.expires) {
		return ""
	}
	return e.tokens[len(e.tokens)-1]
}

// Enrollments lists the hosts that are enrolled, oldest first.
func (b *Backend) Enrollments() []Enrollment {
	b.mu.Lock()
	defer b.mu.Unlock()
	var all []Enrollment
	for _, e := range b.enrollments {
		all = append(all, e.Enrollment)
	}
	return all
}

// AddEnrollment enrolls a host as if it had asked for it: for tests that begin
// with a persisted enrollment. Empty ids are made up; an empty AccountID is
// the first account.
func (b *Backend) AddEnrollment(e Enrollment) (Enrollment, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	a, err := b.account(e.AccountID)
	if err != nil {
		return Enrollment{}, fmt.Errorf("enrolling %q: %w", e.Name, err)
	}
	e.AccountID = a.ID
	added := &enrollment{Enrollment: e}
	b.add(added)
	return added.Enrollment, nil
}

// DeleteEnrollment forgets a host: its next connect or refresh is answered
// with 404. A link that it has goes on.
func (b *Backend) DeleteEnrollment(serverID string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	before := len(b.enrollments)
	b.enrollments = slices.DeleteFunc(b.enrollments, func(e *enrollment) bool { return e.ServerID == serverID })
	if len(b.enrollments) == before {
		return fmt.Errorf("deleting an enrollment: there is no server %q", serverID)
	}
	return nil
}

// ExpireServerTokens makes all server tokens unusable for the next connect.
func (b *Backend) ExpireServerTokens() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, e := range b.enrollments {
		e.expires = time.Time{}
	}
}

// enrolled finds an enrollment. b.mu is held.
func (b *Backend) enrolled(serverID string) *enrollment {
	for _, e := range b.enrollments {
		if e.ServerID == serverID {
			return e
		}
	}
	return nil
}

func (b *Backend) enroll(r *http.Request, body []byte) reply {
	fields := []string{"name", "os", "arch", "app_server_version"}
	if b.opts.Profile == Profile3 {
		fields = append(fields, "installation_id")
	}
	a, values, refusal := b.admit(r, body, fields)
	if a == nil {
		return refusal
	}
	if !slices.Contains(rustSystems, values["os"]) || !slices.Contains(rustProcessors, values["arch"]) {
		b.violate(0, problemf(BadRequest, "os and arch are %q and %q, which are no Rust names", shortened(values["os"]), shortened(values["arch"])))
	}
	if values["name"] != strings.TrimSpace(values["name"]) {
		b.violate(0, problemf(BadRequest, "the name of the host is not trimmed"))
	}
	e := &enrollment{Enrollment: Enrollment{AccountID: a.ID, Name: values["name"], OS: values["os"], Arch: values["arch"],
		Version: values["app_server_version"], InstallationID: values["installation_id"]}}
	b.add(e)
	b.log.Info("enrolled", "server", e.ServerID, "environment", e.EnvironmentID, "account", a.ID, "name", e.Name)
	return b.grant(e)
}

// add gives an enrollment the ids that it lacks. b.mu is held.
func (b *Backend) add(e *enrollment) {
	e.ServerID = cmp.Or(e.ServerID, "srv_e_"+strings.ToLower(rand.Text()))
	e.EnvironmentID = cmp.Or(e.EnvironmentID, "env_e_"+strings.ToLower(rand.Text()))
	e.At = time.Now()
	b.enrollments = append(b.enrollments, e)
	b.notify()
}

func (b *Backend) refresh(r *http.Request, body []byte) reply {
	if b.opts.Profile == Profile2 {
		b.violate(0, problemf(UnaskedRefresh, "a refresh, where the profile has no server tokens"))
		return detailReply(http.StatusNotFound, "Not Found")
	}
	a, values, refusal := b.admit(r, body, []string{"server_id", "installation_id"})
	if a == nil {
		return refusal
	}
	e := b.enrolled(values["server_id"])
	if e == nil || e.AccountID != a.ID {
		return detailReply(http.StatusNotFound, goneDetail)
	}
	b.log.Info("refreshed a server token", "server", e.ServerID)
	return b.grant(e)
}

// grant answers with an enrollment and, if we give those, a new token.
func (b *Backend) grant(e *enrollment) reply {
	answer := map[string]string{"server_id": e.ServerID, "environment_id": e.EnvironmentID}
	if b.opts.Profile == Profile3 && !b.opts.NoServerToken {
		e.tokens = append(e.tokens, "rct_"+rand.Text())
		e.expires = b.now().Add(b.opts.TokenLifetime)
		answer["remote_control_token"] = e.token(b.now())
		answer["expires_at"] = e.expires.UTC().Format(time.RFC3339Nano)
	}
	return jsonReply(http.StatusOK, answer)
}

// admit checks what enrollment and refresh have in common: headers, account
// and a body of strings in this order. Without an account there is a refusal.
func (b *Backend) admit(r *http.Request, body []byte, fields []string) (*account, map[string]string, reply) {
	problems := accountHeaders(r)
	values, wrong := stringFields(body, fields)
	problems = append(problems, wrong...)
	if r.Method != http.MethodPost {
		problems = append(problems, problemf(BadRequest, "%s on %s", r.Method, r.URL.Path))
	}
	installation := r.Header.Values("X-Codex-Installation-Id")
	switch {
	case b.opts.Profile == Profile2 && len(installation) > 0:
		problems = append(problems, problemf(BadRequest, "x-codex-installation-id, which profile 2 does not have"))
	case b.opts.Profile == Profile3 && (len(installation) != 1 || installation[0] != values["installation_id"]):
		problems = append(problems, problemf(BadRequest, "%d x-codex-installation-id, or not that of the body", len(installation)))
	case b.opts.Profile == Profile3 && !uuidPattern.MatchString(installation[0]):
		problems = append(problems, problemf(BadRequest, "the installation id is no UUID"))
	}
	a, refused := b.authorize(r)
	if a != nil && (r.Header.Get("X-Openai-Fedramp") == "true") != a.FedRAMP {
		problems = append(problems, problemf(BadRequest, "X-OpenAI-Fedramp is %q for an account with FedRAMP=%v",
			shortened(r.Header.Get("X-Openai-Fedramp")), a.FedRAMP))
	}
	b.violate(0, problems...)
	switch {
	case refused != "":
		return nil, nil, detailReply(http.StatusUnauthorized, refused)
	case len(wrong) > 0 || r.Method != http.MethodPost:
		return nil, nil, detailReply(http.StatusUnprocessableEntity, "unprocessable body")
	}
	return a, values, reply{}
}

var (
	// agentPattern is `<originator>/<version> (<os type> <os version>; <arch>) <terminal>`.
	agentPattern = regexp.MustCompile(`^[^/ ]+/\S+ \([^;()]+ [^;()]+; [^;()]+\) \S.*$`)
	uuidPattern  = regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-[1-8][0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`)
	uuid7Pattern = regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`)
)

// accountHeaders checks the headers of a request with the account's token.
func accountHeaders(r *http.Request) (problems []problem) {
	complain := func(format string, args ...any) { problems = append(problems, problemf(BadRequest, format, args...)) }
	if got := r.Header.Get("Content-Type"); got != "application/json" {
		complain("content-type is %q", shortened(got))
	}
	if bearer(r) == "" {
		complain("authorization has no bearer")
	}
	if got := r.Header.Values("Chatgpt-Account-Id"); len(got) != 1 || got[0] == "" {
		complain("chatgpt-account-id is there %d times", len(got))
	}
	originator, agent := r.Header.Get("Originator"), r.UserAgent()
	if originator == "" {
		complain("originator is missing")
	}
	if !agentPattern.MatchString(agent) || !strings.HasPrefix(agent, originator+"/") {
		complain("user-agent is %q with originator %q", agent, shortened(originator))
	}
	return problems
}

// authorize finds the account of a request, or says why there is none.
func (b *Backend) authorize(r *http.Request) (_ *account, refused string) {
	a := b.byAccess(bearer(r))
	switch {
	case a == nil:
		return nil, "Unauthorized"
	case a.ID != r.Header.Get("Chatgpt-Account-Id"):
		return nil, "The token is that of another account"
	}
	return a, ""
}

func bearer(r *http.Request) string {
	token, _ := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	return token
}

// stringFields reads an object of strings that has exactly these fields.
func stringFields(body []byte, fields []string) (map[string]string, []problem) {
	keys, raw, err := decodeObject(body)
	if err != nil {
		return nil, []problem{problemf(BadRequest, "the body is wrong: %v", err)}
	}
	values := map[string]string{}
	if !slices.Equal(keys, fields) {
		return values, []problem{problemf(BadRequest, "the body has the fields %q, want %q", keys, fields)}
	}
	for _, name := range fields {
		var value string
		if json.Unmarshal(raw[name], &value) != nil || value == "" {
			return values, []problem{problemf(BadRequest, "%s is no text, or empty", name)}
		}
		values[name] = value
	}
	return values, nil
}
