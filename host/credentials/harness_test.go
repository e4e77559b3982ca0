package credentials

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"go.uber.org/goleak"

	"github.com/transporthost/transporthost/shared/transport"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience bounds every wait of these tests. It is never waited out unless
// something is wrong.
const patience = 20 * time.Second

// jwt makes a token with these claims. Nobody checks its signature.
func jwt(claims map[string]any) string {
	payload, err := json.Marshal(claims)
	if err != nil {
		panic(err)
	}
	return "eyJhbGciOiJub25lIn0." + base64.RawURLEncoding.EncodeToString(payload) + ".c2ln"
}

func idToken(fedRAMP bool) string {
	return jwt(map[string]any{"email": "a@example.com", "https://api.openai.com/auth": map[string]any{
		"chatgpt_account_id": "of-the-claim", "chatgpt_account_is_fedramp": fedRAMP}})
}

// chatGPT is the content of a good auth.json. edit may change it.
func chatGPT(access, refresh, account string, edit ...func(file, tokens map[string]any)) string {
	tokens := map[string]any{"id_token": idToken(false), "access_token": access, "refresh_token": refresh, "account_id": account}
	file := map[string]any{"OPENAI_API_KEY": nil, "tokens": tokens, "last_refresh": time.Now().UTC().Format(time.RFC3339)}
	for _, e := range edit {
		e(file, tokens)
	}
	b, err := json.MarshalIndent(file, "", "  ")
	if err != nil {
		panic(err)
	}
	return string(b)
}

func stale(file, _ map[string]any) {
	file["last_refresh"] = time.Now().Add(-maxAge - time.Hour).UTC().Format(time.RFC3339)
}

const apiKeyFile = `{"OPENAI_API_KEY": "sk-seeded-key"}`

func put(t testing.TB, file, content string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

// replace puts content in the place of file as a login does.
func replace(t testing.TB, file, content string) {
	t.Helper()
	put(t, file+".new", content)
	if err := os.Rename(file+".new", file); err != nil {
		t.Fatal(err)
	}
}

// A fixture is a store with its file.
type fixture struct {
	*Store
	t       testing.TB
	file    string
	changes chan transport.CredentialsChange
	log     *logBuffer
	stop    func() // ends Run and waits for it
}

// newFixture makes a store of a file with this content; "" is no file. It does
// not run yet.
func newFixture(t testing.TB, content string, edit ...func(*Options)) *fixture {
	t.Helper()
	f := &fixture{t: t, file: filepath.Join(t.TempDir(), "auth.json"), log: &logBuffer{}, stop: func() {},
		changes: make(chan transport.CredentialsChange, 1000)}
	if content != "" {
		put(t, f.file, content)
	}
	o := Options{File: f.file, TokenURL: "http://127.0.0.1:9/refused", NoWatch: true, Poll: time.Hour,
		Changed: func(c transport.CredentialsChange) { f.changes <- c },
		Logger:  hclog.New(&hclog.LoggerOptions{Level: hclog.Trace, Output: f.log})}
	for _, e := range edit {
		e(&o)
	}
	f.file = o.File
	s, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	f.Store = s
	return f
}

// run runs the store until the test, or stop, ends it.
func (f *fixture) run() {
	f.t.Helper()
	ctx, cancel := context.WithCancel(f.t.Context())
	var running sync.WaitGroup
	running.Go(func() { _ = f.Run(ctx) })
	f.stop = func() { cancel(); running.Wait() }
	f.t.Cleanup(f.stop)
	eventually(f.t, "the store runs", func() bool {
		f.mu.Lock()
		defer f.mu.Unlock()
		return f.running != nil
	})
}

func (f *fixture) next() transport.CredentialsChange {
	f.t.Helper()
	select {
	case c := <-f.changes:
		return c
	case <-time.After(patience):
		f.t.Fatalf("no change was told; log:\n%s", f.log)
		panic("unreachable")
	}
}

// none fails if another change was told, or is about to be.
func (f *fixture) none() {
	f.t.Helper()
	f.stop()
	select {
	case c := <-f.changes:
		f.t.Errorf("one change too many was told: %+v", c)
	default:
	}
}

func (f *fixture) want(access, account string, generation uint64) {
	f.t.Helper()
	c, err := f.Credentials(f.t.Context())
	if err != nil || string(c.AccessToken) != access || c.AccountID != account || c.Generation != generation {
		f.t.Errorf("got token %q of %q, generation %d, %v; want %q of %q, generation %d",
			string(c.AccessToken), c.AccountID, c.Generation, err, access, account, generation)
	}
}

// eventually waits until ok. It may be called from any goroutine.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !ok(); {
		if time.Now().After(end) {
			t.Errorf("never: %s", what)
			return
		}
		time.Sleep(time.Millisecond)
	}
}

// A logBuffer collects what was logged.
type logBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *logBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// A tokenServer is a token endpoint. answer may be replaced before requests
// come.
type tokenServer struct {
	*httptest.Server
	answer func(w http.ResponseWriter, r *http.Request, n int)

	mu     sync.Mutex
	bodies []string
}

func newTokenServer(t testing.TB) *tokenServer {
	s := &tokenServer{}
	s.answer = func(w http.ResponseWriter, _ *http.Request, n int) {
		fmt.Fprintf(w, `{"id_token":%q,"access_token":"access-%d","refresh_token":"refresh-%d"}`, idToken(true), n, n)
	}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body) // a short one is seen in the test
		s.mu.Lock()
		s.bodies = append(s.bodies, r.Method+" "+r.Header.Get("Content-Type")+" "+string(body))
		n := len(s.bodies)
		s.mu.Unlock()
		s.answer(w, r, n)
	}))
	t.Cleanup(s.Close)
	return s
}

func (s *tokenServer) requests() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]string{}, s.bodies...)
}

func (s *tokenServer) use(o *Options) { o.TokenURL = s.URL + "/oauth/token" }

// refuse answers everything with status and body.
func (s *tokenServer) refuse(status int, body string) {
	s.answer = func(w http.ResponseWriter, _ *http.Request, _ int) {
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}
}

func wantText(t testing.TB, err error, text string) {
	t.Helper()
	if err == nil || err.Error() != text {
		t.Errorf("got %v, want %q", err, text)
	}
}

func wantContains(t testing.TB, what, text, part string) {
	t.Helper()
	if !strings.Contains(text, part) {
		t.Errorf("%s: got %q, want %q in it", what, text, part)
	}
}
