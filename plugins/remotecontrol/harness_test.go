package remotecontrol

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gorilla/websocket"
	"github.com/hashicorp/go-hclog"

	pluginsdk "github.com/transporthost/transporthost/plugin-sdk"
)

const (
	testAccount = "account_id"
	testToken   = "account-access-token-seeded"
	testURL     = "http://localhost:8080/backend-api/"
	testSocket  = "ws://localhost:8080/backend-api/wham/remote/control/server"
	testID      = "11111111-1111-4111-8111-111111111111"
	enrollPath  = "/backend-api/wham/remote/control/server/enroll"
	refreshPath = "/backend-api/wham/remote/control/server/refresh"
	socketPath  = "/backend-api/wham/remote/control/server"
)

func goodCredentials() pluginsdk.Credentials {
	return pluginsdk.Credentials{AccessToken: testToken, AccountID: testAccount, Generation: 1}
}

// An asked is one request that a fakeRelay got.
type asked struct {
	at     time.Time
	path   string
	header http.Header
	body   string
}

// A fakeRelay is a backend. What it answers is in its func fields; without one
// it behaves.
type fakeRelay struct {
	mu      sync.Mutex // guards what follows
	seen    []asked
	enrolls int
	enroll  http.HandlerFunc
	refresh http.HandlerFunc
	socket  http.HandlerFunc // for a refusal; nil upgrades
	open    func(*websocket.Conn)
	token   bool          // gives server tokens
	life    time.Duration // of a token
	closed  []int         // close codes that came
}

func (r *fakeRelay) ServeHTTP(w http.ResponseWriter, q *http.Request) {
	body, _ := io.ReadAll(q.Body)
	r.mu.Lock()
	r.seen = append(r.seen, asked{time.Now(), q.URL.Path, q.Header.Clone(), string(body)})
	enroll, refresh, socket := r.enroll, r.refresh, r.socket
	r.mu.Unlock()
	switch q.URL.Path {
	case enrollPath:
		if enroll == nil {
			enroll = func(w http.ResponseWriter, _ *http.Request) {
				r.mu.Lock()
				r.enrolls++
				n := r.enrolls
				r.mu.Unlock()
				r.answer(w, fmt.Sprintf("srv_e_%d", n), fmt.Sprintf("env_%d", n))
			}
		}
		enroll(w, q)
	case refreshPath:
		if refresh == nil {
			refresh = func(w http.ResponseWriter, _ *http.Request) {
				var b struct {
					ServerID string `json:"server_id"`
				}
				_ = json.Unmarshal(body, &b)
				r.answer(w, b.ServerID, strings.Replace(b.ServerID, "srv_e_", "env_", 1))
			}
		}
		refresh(w, q)
	case socketPath:
		if socket != nil {
			socket(w, q)
			return
		}
		r.upgrade(w, q)
	default:
		http.NotFound(w, q)
	}
}

func (r *fakeRelay) answer(w http.ResponseWriter, server, environment string) {
	a := map[string]string{"server_id": server, "environment_id": environment}
	r.mu.Lock()
	if r.token {
		a["remote_control_token"] = "server-token-seeded-for-" + server
		a["expires_at"] = time.Now().Add(r.life).UTC().Format(time.RFC3339)
	}
	r.mu.Unlock()
	_ = json.NewEncoder(w).Encode(a)
}

func (r *fakeRelay) upgrade(w http.ResponseWriter, q *http.Request) {
	up := websocket.Upgrader{}
	ws, err := up.Upgrade(w, q, nil)
	if err != nil {
		return
	}
	defer ws.Close()
	r.mu.Lock()
	open := r.open
	r.mu.Unlock()
	if open != nil {
		open(ws)
		return
	}
	_, _, err = ws.ReadMessage()
	if ce, ok := errors.AsType[*websocket.CloseError](err); ok {
		r.mu.Lock()
		r.closed = append(r.closed, ce.Code)
		r.mu.Unlock()
	}
}

// set changes what the relay answers.
func (r *fakeRelay) set(change func(r *fakeRelay)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	change(r)
}

func (r *fakeRelay) requests() []asked {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.seen)
}

// paths are the last parts of what was asked for: "enroll refresh server".
func (r *fakeRelay) paths() string {
	var p []string
	for _, q := range r.requests() {
		p = append(p, q.path[strings.LastIndexByte(q.path, '/')+1:])
	}
	return strings.Join(p, " ")
}

// refuse answers with a status and a body.
func refuse(code int, body string, header ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		for i := 0; i+1 < len(header); i += 2 {
			w.Header().Set(header[i], header[i+1])
		}
		w.WriteHeader(code)
		_, _ = io.WriteString(w, body)
	}
}

// A fakeHost is the host as the loop sees it.
type fakeHost struct {
	mu       sync.Mutex // guards what follows
	creds    pluginsdk.Credentials
	none     error // instead of creds
	slow     time.Duration
	recovery func() (pluginsdk.Credentials, error)
	name     func(ctx context.Context) (string, error)
	state    map[string][]byte
	stateErr error
	accepted []uint64
	asked    int
	statuses []pluginsdk.Status
}

func (h *fakeHost) Credentials(ctx context.Context) (pluginsdk.Credentials, error) {
	h.mu.Lock()
	slow := h.slow
	h.mu.Unlock()
	if slow > 0 {
		select {
		case <-time.After(slow):
		case <-ctx.Done():
			return pluginsdk.Credentials{}, context.Cause(ctx)
		}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.asked++
	if h.none != nil {
		return pluginsdk.Credentials{}, h.none
	}
	return h.creds, nil
}

func (h *fakeHost) RecoverUnauthorized(context.Context, uint64) (pluginsdk.Credentials, error) {
	h.mu.Lock()
	f := h.recovery
	h.mu.Unlock()
	if f == nil {
		return pluginsdk.Credentials{}, noCredentials("No more recovery steps available.")
	}
	return f()
}

func (h *fakeHost) CredentialsAccepted(g uint64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.accepted = append(h.accepted, g)
}

func (h *fakeHost) ClientName(ctx context.Context) (string, error) {
	if h.name == nil {
		return "", nil
	}
	return h.name(ctx)
}

func (h *fakeHost) LoadState(_ context.Context, key string) ([]byte, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	v, ok := h.state[key]
	if !ok {
		return nil, pluginsdk.ErrNotFound
	}
	return v, nil
}

func (h *fakeHost) SaveState(_ context.Context, key string, value []byte) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.stateErr != nil {
		return h.stateErr
	}
	h.state[key] = value
	return nil
}

func (h *fakeHost) DeleteState(_ context.Context, key string) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.stateErr != nil {
		return h.stateErr
	}
	delete(h.state, key)
	return nil
}

func (h *fakeHost) report(s pluginsdk.Status) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.statuses = append(h.statuses, s)
}

func (h *fakeHost) status() pluginsdk.Status {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.statuses) == 0 {
		return pluginsdk.Status{}
	}
	return h.statuses[len(h.statuses)-1]
}

// setNone makes the host have no usable credentials, or the old ones again.
func (h *fakeHost) set(change func(h *fakeHost)) {
	h.mu.Lock()
	defer h.mu.Unlock()
	change(h)
}

// noCredentials is an error as the link brings it: the text is the cause.
func noCredentials(text string) error {
	return &refusal{text: text, class: pluginsdk.ErrNoCredentials}
}

// fakeClients are virtual clients that only hold the link.
type fakeClients struct {
	mu     sync.Mutex // guards what follows
	links  int
	at     string // the cursor
	closed int
	causes []error // why links ended
	adopts int
	tally  tally
}

func (c *fakeClients) adopt(r []pluginsdk.Resume) error { c.adopts += len(r); return nil }

func (c *fakeClients) cursor() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.at
}

func (c *fakeClients) len() int { return 0 }

func (c *fakeClients) counters() map[string]string { return c.tally.details() }

func (c *fakeClients) detach() {}

func (c *fakeClients) close(pluginsdk.CloseReason) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed++
}

func (c *fakeClients) serve(ctx context.Context, ws *websocket.Conn) error {
	c.mu.Lock()
	c.links++
	c.mu.Unlock()
	stop := context.AfterFunc(ctx, func() {
		code := websocket.CloseGoingAway
		if cause := context.Cause(ctx); errors.Is(cause, errDisabled) || errors.Is(cause, errAccountChanged) {
			code = websocket.CloseNormalClosure
		}
		_ = ws.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(code, ""), time.Now().Add(250*time.Millisecond))
		_ = ws.Close()
	})
	defer stop()
	defer ws.Close()
	for {
		if _, _, err := ws.ReadMessage(); err != nil {
			c.mu.Lock()
			c.causes = append(c.causes, context.Cause(ctx))
			c.mu.Unlock()
			return err
		}
	}
}

// A pipeListener accepts what its dial makes: connections without a socket,
// which a bubble of fake time can wait for.
type pipeListener struct {
	conns chan net.Conn
	once  sync.Once
	done  chan struct{}
}

func newPipeListener() *pipeListener {
	return &pipeListener{conns: make(chan net.Conn), done: make(chan struct{})}
}

func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

func (l *pipeListener) Close() error   { l.once.Do(func() { close(l.done) }); return nil }
func (l *pipeListener) Addr() net.Addr { return &net.UnixAddr{Name: "pipe", Net: "unix"} }

func (l *pipeListener) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	ours, theirs := net.Pipe()
	select {
	case l.conns <- theirs:
		return ours, nil
	case <-l.done:
		return nil, errors.New("connection refused")
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// A rig is a loop with everything around it faked.
type rig struct {
	*loop
	relay   *fakeRelay
	host    *fakeHost
	clients *fakeClients
	cancel  context.CancelFunc
	ctx     context.Context
	ended   chan error
}

// newRig makes a rig whose backend is reached by dial.
func newRig(t *testing.T, p profile, base string, dial func(context.Context, string, string) (net.Conn, error)) *rig {
	t.Helper()
	h := &fakeHost{creds: goodCredentials(), state: map[string][]byte{}}
	c := &fakeClients{}
	cfg := config{URL: base, Protocol: p, ServerName: "test-server", AppVersion: "1.2.3"}.withDefaults()
	d := &dialer{net: dial, proxy: func(*url.URL) (*url.URL, error) { return nil, nil }}
	ctx, cancel := context.WithCancelCause(t.Context())
	r := &rig{
		loop: &loop{
			host: h, log: testLog(t), cfg: cfg, dialer: d, clients: c, enabled: newToggle(), news: newNews(),
			installationID: testID, backoff: backoff{random: newRandom()},
		},
		relay: &fakeRelay{token: p == profile3, life: time.Hour}, host: h, clients: c,
		ctx: ctx, cancel: func() { cancel(pluginsdk.ErrStopping) }, ended: make(chan error, 1),
	}
	r.loop.status = newReporter(h.report, r.log, facts{url: base, profile: p, serverName: cfg.ServerName, strictness: pluginsdk.AllowRecoverable})
	r.enabled.set(true)
	t.Cleanup(r.cancel)
	return r
}

func testLog(t *testing.T) hclog.Logger {
	return hclog.New(&hclog.LoggerOptions{Level: hclog.Debug, Output: logWriter{t}, DisableTime: true})
}

type logWriter struct{ t *testing.T }

func (w logWriter) Write(p []byte) (int, error) {
	if strings.Contains(string(p), testToken) || strings.Contains(string(p), "server-token-seeded") {
		w.t.Errorf("a token is in the log: %s", p)
	}
	w.t.Logf("%s", strings.TrimSpace(string(p)))
	return len(p), nil
}

// onSockets is a rig with a real HTTP server, for tests of one attempt.
func onSockets(t *testing.T, p profile) *rig {
	t.Helper()
	var r *rig
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) { r.relay.ServeHTTP(w, q) }))
	t.Cleanup(s.Close)
	r = newRig(t, p, s.URL+"/backend-api/", (&net.Dialer{}).DialContext)
	if err := r.useTarget(); err != nil {
		t.Fatal(err)
	}
	return r
}

// inBubble runs test with a rig whose loop is to be started by start, in fake
// time.
func inBubble(t *testing.T, p profile, test func(t *testing.T, r *rig)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		l := newPipeListener()
		r := newRig(t, p, testURL, l.dial)
		s := &http.Server{Handler: r.relay}
		served := make(chan struct{})
		go func() { _ = s.Serve(l); close(served) }()
		test(t, r)
		r.cancel()
		_ = s.Close()
		_ = l.Close()
		<-served
		synctest.Wait()
	})
}

// start runs the loop, and makes the test fail if its end takes longer than
// 100 ms.
func (r *rig) start(t *testing.T) {
	t.Helper()
	go func() { r.ended <- r.run(r.ctx) }()
	synctest.Wait()
}

// stop ends the loop, which may take 100 ms.
func (r *rig) stop(t *testing.T) {
	t.Helper()
	r.cancel()
	begun := time.Now()
	if err := <-r.ended; err != nil {
		t.Errorf("the loop ended with %v", err)
	}
	if took := time.Since(begun); took > 100*time.Millisecond {
		t.Errorf("the loop took %v to end, want 100 ms at most", took)
	}
}

// after lets d pass, and everything that is due then happen.
func after(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func (r *rig) wantState(t *testing.T, want linkState) {
	t.Helper()
	if s := r.host.status(); s.State != string(want) {
		t.Errorf("state is %q (%s), want %q", s.State, s.Cause, want)
	}
}

func (r *rig) wantPaths(t *testing.T, want string) {
	t.Helper()
	if got := r.relay.paths(); got != want {
		t.Errorf("the backend was asked for %q, want %q", got, want)
	}
}

// wantFailure makes one attempt, which must fail.
func (r *rig) wantFailure(t *testing.T, kind failureKind, text string) *failure {
	t.Helper()
	ws, _, f := r.attempt(r.ctx)
	if f == nil {
		_ = ws.Close()
		t.Fatalf("the attempt succeeded, want %q", text)
	}
	if f.kind != kind || f.text != text {
		t.Errorf("got kind %d, %q\nwant     %d, %q", f.kind, f.text, kind, text)
	}
	return f
}

// wantLink makes one attempt, which must succeed.
func (r *rig) wantLink(t *testing.T) {
	t.Helper()
	ws, _, f := r.attempt(r.ctx)
	if f != nil {
		t.Fatalf("the attempt failed: %v", f)
	}
	_ = ws.Close()
}

// store makes a row of an earlier process.
func (r *rig) store(t *testing.T, e *enrollment) {
	t.Helper()
	if err := r.rows().save(t.Context(), e.accountID, e, time.Now()); err != nil {
		t.Fatal(err)
	}
}

func storedEnrollment() *enrollment {
	return &enrollment{accountID: testAccount, environmentID: "env_stored", serverID: "srv_e_stored", serverName: "old-name"}
}
