//go:build unix

package e2e

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/transporthost/transporthost/host"
	"github.com/transporthost/transporthost/tests/relay/backend"
)

// phone is the instance of remotecontrol in these tests.
const phone = "phone"

// profiles are the generations of the wire that a host speaks.
var profiles = [...]backend.Profile{backend.Profile2, backend.Profile3}

// A relay is a backend that listens, and what a host needs to reach it: a
// login, a state, a home of its own.
type relay struct {
	*backend.Backend
	t        *testing.T
	ctx      context.Context // bounds every wait
	protocol backend.Profile
	scheme   string
	address  string
	home     string // CODEX_HOME
	auth     string // the login, which is not there at first
	tokenURL string
	expected []backend.ViolationKind // what this host may do wrong
}

// newRelay makes a relay whose host must keep the protocol: what it breaks
// fails the test in the end.
func newRelay(t *testing.T, o backend.Options) *relay {
	t.Helper()
	return newRelayTLS(t, o, nil)
}

func newRelayTLS(t *testing.T, o backend.Options, encrypted *tls.Config) *relay {
	t.Helper()
	o.RecordSecrets = true
	b, err := backend.New(o)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	t.Cleanup(cancel)
	home := t.TempDir()
	r := &relay{Backend: b, t: t, ctx: ctx, protocol: max(o.Profile, backend.Profile2), scheme: "http", address: l.Addr().String(), home: home,
		auth: filepath.Join(home, "auth.json")}
	if o.Profile == 0 {
		r.protocol = backend.Profile3
	}
	if encrypted != nil {
		l, r.scheme = tls.NewListener(l, encrypted), "https"
	}
	r.tokenURL = r.scheme + "://" + r.address + backend.TokenPath
	life, end := context.WithCancel(context.Background()) // the host is stopped before it
	served := make(chan error, 1)
	go func() { served <- b.Serve(life, l) }()
	t.Cleanup(func() {
		end()
		if err := <-served; err != nil {
			t.Errorf("the relay: %v", err)
		}
		b.Verify(t, r.expected...)
		if t.Failed() {
			t.Logf("the relay was asked:\n%s", r.asked())
		}
	})
	return r
}

// asked tells the story of all requests, without tokens.
func (r *relay) asked() string {
	var story strings.Builder
	for _, q := range r.Requests() {
		fmt.Fprintf(&story, "%s %2d %-8s %d as %q\n", q.At.Format("05.000"), q.N, q.Endpoint, q.Status, q.Bearer)
	}
	return story.String()
}

// steps are the endpoints that were asked, in order.
func (r *relay) steps() string {
	var all []string
	for _, q := range r.Requests() {
		all = append(all, string(q.Endpoint))
	}
	return strings.Join(all, " ")
}

// account is an account, the first one for "".
func (r *relay) account(id string) backend.Account {
	r.t.Helper()
	a, err := r.Account(id)
	r.must(err)
	return a
}

// signIn writes the login of an account, the first one for "".
func (r *relay) signIn(variant backend.AuthVariant, id string) {
	r.t.Helper()
	r.must(backend.WriteAuthFile(r.auth, variant, r.account(id)))
}

func (r *relay) must(err error) {
	r.t.Helper()
	if err != nil {
		r.t.Fatal(err)
	}
}

func (r *relay) open(o backend.ClientOptions) *backend.Client {
	r.t.Helper()
	c, err := r.Open(o)
	r.must(err)
	return c
}

// initialized opens a virtual client and begins a session.
func (r *relay) initialized(id, stream string) *backend.Client {
	r.t.Helper()
	c := r.open(backend.ClientOptions{ID: id, StreamID: stream, FirstSeq: 1})
	_, err := c.Initialize(r.ctx, id)
	r.must(err)
	return c
}

// call asks for an echo.
func (r *relay) call(c *backend.Client, params string) {
	r.t.Helper()
	result, err := c.Call(r.ctx, "echo", json.RawMessage(params))
	r.must(err)
	if string(result) != params {
		r.t.Errorf("%s: got %s, want %s", c.ID(), result, params)
	}
}

// A setup is what differs between the hosts of these tests. The zero value has
// the built-in echo, and a websocket listener beside remote control.
type setup struct {
	application string   // content of the block; "": the echo
	local       string   // blocks of the transports beside; "": a websocket listener
	alone       bool     // no transports beside
	url         string   // "": the relay's
	keys        []string // more of the transport's block
	login       []string // more of the credentials' block
	env         []string
	args        []string // of run
}

const (
	besideWebsocket = `transport "websocket" { listen = ["ws://127.0.0.1:0"] }` + "\n"
	besideStdio     = `transport "stdio" {}` + "\n"
)

// config writes the configuration of a host.
func (r *relay) config(s setup) string {
	r.t.Helper()
	if s.application == "" {
		s.application = `builtin = "echo"`
	}
	if s.local == "" && !s.alone {
		s.local = besideWebsocket
	}
	if s.url == "" {
		s.url = r.scheme + "://" + r.address + backend.BasePath
	}
	keys := append([]string{`plugin = "remotecontrol"`, fmt.Sprintf("url = %q", s.url), fmt.Sprint("protocol = ", int(r.protocol))}, s.keys...)
	login := append([]string{fmt.Sprintf("file = %q", r.auth), fmt.Sprintf("token_url = %q", r.tokenURL)}, s.login...)
	text := fmt.Sprintf("application {\n%s\n}\ncredentials {\n  %s\n}\nstate { dir = %q }\n%stransport %q {\n  %s\n}\n",
		s.application, strings.Join(login, "\n  "), filepath.Join(r.home, "state"), s.local, phone, strings.Join(keys, "\n  "))
	path := filepath.Join(r.t.TempDir(), "host.hcl")
	r.must(os.WriteFile(path, []byte(text), 0o600))
	return path
}

// launch starts a host in front of the relay.
func (r *relay) launch(s setup) *hostProcess {
	r.t.Helper()
	env := append([]string{"CODEX_HOME=" + r.home, "NO_PROXY=", "HTTP_PROXY=", "HTTPS_PROXY=", "http_proxy=", "https_proxy=", "no_proxy="}, s.env...)
	return launchIn(r.t, env, append([]string{"--config", r.config(s)}, s.args...)...)
}

// start is launch that waits until the host is ready.
func (r *relay) start(s setup) *hostProcess {
	r.t.Helper()
	h := r.launch(s)
	h.awaitReady()
	return h
}

// connected waits for the nth WebSocket, and for the host to know of it.
func (r *relay) connected(h *hostProcess, n int) backend.Connect {
	r.t.Helper()
	c, err := r.AwaitConnect(r.ctx, n)
	if err != nil {
		r.t.Fatalf("%v; remote status is %+v", err, h.remote())
	}
	h.awaitRemote("connected", func(s host.TransportStatus) bool { return s.Reported.State == "connected" })
	return c
}

// ask runs a command for this host and returns what it printed.
func (h *hostProcess) ask(args ...string) (stdout, stderr string) {
	h.t.Helper()
	cmd := exec.Command(bin().host(), append(args, "--runtime-dir", h.runtime)...)
	var words strings.Builder
	cmd.Stderr = &words
	out, err := cmd.Output()
	if err != nil {
		h.t.Fatalf("%v: %v\n%s", args, err, words.String())
	}
	return string(out), words.String()
}

// remote is what `remote status --json` prints of the transport.
func (h *hostProcess) remote() host.TransportStatus {
	h.t.Helper()
	out, _ := h.ask("remote", "status", phone, "--json")
	var all []host.TransportStatus
	if err := json.Unmarshal([]byte(out), &all); err != nil || len(all) != 1 {
		h.t.Fatalf("remote status printed %q: %v", out, err)
	}
	return all[0]
}

// awaitRemote asks until ok accepts what the transport says of itself. It asks
// over the socket, without a command, so that little time passes between.
func (h *hostProcess) awaitRemote(what string, ok func(host.TransportStatus) bool) host.TransportStatus {
	h.t.Helper()
	ctx, cancel := context.WithTimeout(h.t.Context(), limit)
	defer cancel()
	often := time.NewTicker(5 * time.Millisecond)
	defer often.Stop()
	var last string
	for {
		running, err := host.FindHost(h.runtime, 0)
		if err == nil {
			var s host.Status
			if s, err = running.Status(ctx); err == nil {
				if i := slices.IndexFunc(s.Plugins, func(p host.TransportStatus) bool { return p.Instance == phone }); i >= 0 {
					p := s.Plugins[i]
					if p.Reported != nil && ok(p) {
						return p
					}
					last = fmt.Sprintf("%+v, reported %+v", p, p.Reported)
				}
			}
		}
		select {
		case <-often.C:
		case <-h.exited:
			h.t.Fatalf("never %s: the host ended\n%s", what, h.stderr())
		case <-ctx.Done():
			h.t.Fatalf("never %s; status is %s, %v", what, last, err)
		}
	}
}

// reports waits for a state, and a cause unless that is "".
func (h *hostProcess) reports(state, cause string) host.TransportStatus {
	h.t.Helper()
	return h.awaitRemote(fmt.Sprintf("%s, %q", state, cause), func(s host.TransportStatus) bool {
		return s.Reported.State == state && (cause == "" || s.Reported.Cause == cause)
	})
}

// end stops a host before the test ends, and returns how long that took.
func (h *hostProcess) end() time.Duration {
	h.t.Helper()
	began := time.Now()
	h.stop()
	return time.Since(began)
}

// inProfiles runs a test for each generation of the wire.
func inProfiles(t *testing.T, test func(t *testing.T, p backend.Profile)) {
	for _, p := range profiles {
		t.Run(fmt.Sprint("profile ", int(p)), func(t *testing.T) { test(t, p) })
	}
}
