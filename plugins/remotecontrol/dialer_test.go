package remotecontrol

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	pluginsdk "github.com/transporthost/transporthost/plugin-sdk"
)

// A connectProxy is a real HTTP proxy that knows CONNECT, and wants a user and
// a password.
type connectProxy struct {
	*httptest.Server
	to string // where every tunnel ends

	mu    sync.Mutex // guards what follows
	asked []string
}

func newConnectProxy(t *testing.T, to string, encrypted bool) *connectProxy {
	t.Helper()
	p := &connectProxy{to: to}
	if encrypted {
		p.Server = httptest.NewTLSServer(p)
	} else {
		p.Server = httptest.NewServer(p)
	}
	t.Cleanup(p.Close)
	return p
}

func (p *connectProxy) ServeHTTP(w http.ResponseWriter, q *http.Request) {
	p.mu.Lock()
	p.asked = append(p.asked, q.Method+" "+q.Host)
	p.mu.Unlock()
	if q.Header.Get("Proxy-Authorization") != "Basic "+base64.StdEncoding.EncodeToString([]byte("jane:hunter2")) {
		w.Header().Set("Proxy-Authenticate", "Basic")
		w.WriteHeader(http.StatusProxyAuthRequired)
		return
	}
	if q.Method != http.MethodConnect {
		w.WriteHeader(http.StatusMethodNotAllowed)
		return
	}
	there, err := net.Dial("tcp", p.to)
	if err != nil {
		w.WriteHeader(http.StatusBadGateway)
		return
	}
	here, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		_ = there.Close()
		return
	}
	_, _ = io.WriteString(here, "HTTP/1.1 200 Connection established\r\n\r\n")
	back := make(chan struct{})
	go func() { _, _ = io.Copy(here, there); _ = here.Close(); close(back) }()
	_, _ = io.Copy(there, here)
	_ = there.Close()
	<-back
}

// onTLS is a backend with a certificate of its own authority, and the file with
// that.
func onTLS(t *testing.T, p profile) (r *rig, address, caFile string) {
	t.Helper()
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) { r.relay.ServeHTTP(w, q) }))
	s.Config.ErrorLog = testLog(t).StandardLogger(nil)
	s.StartTLS()
	t.Cleanup(s.Close)
	caFile = filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(caFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	// the certificate of package httptest is for this name, and for 127.0.0.1
	r = newRig(t, p, "https://example.com/backend-api/", nil)
	r.cfg.AllowedHosts = []string{"example.com"}
	return r, s.Listener.Addr().String(), caFile
}

// dialWith makes the rig's dialer from the configuration.
func (r *rig) dialWith(t *testing.T, proxy pluginsdk.Secret, caFile string) {
	t.Helper()
	r.cfg.Proxy, r.cfg.CAFile = proxy, caFile
	d, err := newDialer(r.cfg)
	if err != nil {
		t.Fatal(err)
	}
	r.dialer, r.backend = d, nil
	if err := r.useTarget(); err != nil {
		t.Fatal(err)
	}
}

// TestEverythingGoesThroughTheProxy: enroll, refresh and websocket, with the
// proxy's password and an authority of its own, for a proxy of the configuration
// and of the environment.
func TestEverythingGoesThroughTheProxy(t *testing.T) {
	for _, tt := range []struct {
		name      string
		encrypted bool
		env       bool
	}{{"configured", false, false}, {"configured, encrypted", true, false}, {"environment", false, true}} {
		t.Run(tt.name, func(t *testing.T) {
			r, address, ca := onTLS(t, profile3)
			p := newConnectProxy(t, address, tt.encrypted)
			url := strings.Replace(p.URL, "://", "://jane:hunter2@", 1)
			for _, name := range []string{"HTTPS_PROXY", "https_proxy", "NO_PROXY", "no_proxy", "REQUEST_METHOD"} {
				t.Setenv(name, "")
			}
			configured := pluginsdk.Secret(url)
			if tt.env {
				t.Setenv("HTTPS_PROXY", url)
				configured = ""
			}
			r.dialWith(t, configured, ca)
			r.wantLink(t)
			r.enrollment.token = "" // lost: the next attempt refreshes
			r.wantLink(t)
			r.wantPaths(t, "enroll server refresh server")
			if got := strings.Join(p.asked, ", "); got != "CONNECT example.com:443, CONNECT example.com:443, CONNECT example.com:443, CONNECT example.com:443" {
				t.Errorf("the proxy was asked for %s", got)
			}
			if route := r.host.status().Details["route"]; !strings.HasPrefix(route, "proxy "+p.URL+" of the ") || strings.Contains(route, "hunter2") || strings.Contains(route, "jane") {
				t.Errorf("the route is %q", route)
			}
		})
	}
}

func TestProxyFailuresShowNoPassword(t *testing.T) {
	r, address, ca := onTLS(t, profile3)
	p := newConnectProxy(t, address, false)
	r.dialWith(t, pluginsdk.Secret(strings.Replace(p.URL, "://", "://jane:wrong-hunter2@", 1)), ca)
	f := r.wantFailure(t, failedOther, "failed to enroll remote control server at `https://example.com/backend-api/wham/remote/control/server/enroll`: proxy "+
		p.URL+": answered CONNECT with HTTP 407 Proxy Authentication Required")
	if f.remedy != "correct the user and the password of the proxy" {
		t.Errorf("the remedy is %q", f.remedy)
	}
	r.enrollment = storedEnrollment()
	r.enrollment.tokenless = true
	r.wantFailure(t, failedOther, "failed to connect app-server remote control websocket `wss://example.com/backend-api/wham/remote/control/server`: proxy "+
		p.URL+": answered CONNECT with HTTP 407 Proxy Authentication Required")

	for _, bad := range []pluginsdk.Secret{"http://jane:hunter2@", "ftp://jane:hunter2@proxy", "http://jane:hunter2@proxy:port", "jane:hunter2@proxy:1"} {
		_, err := newDialer(config{Proxy: bad})
		if !errors.Is(err, pluginsdk.ErrInvalidConfig) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: got %v", string(bad), err)
		}
	}
	t.Setenv("HTTPS_PROXY", "http://jane:hunter2@127.0.0.1:1")
	r.dialWith(t, "", ca)
	if _, _, f := r.attempt(t.Context()); f == nil || strings.Contains(f.text, "hunter2") || !strings.Contains(f.text, "proxy http://127.0.0.1:1: dial tcp") {
		t.Errorf("got %v", f)
	}
}

func TestUnknownAuthorityIsNamed(t *testing.T) {
	r, address, _ := onTLS(t, profile2)
	r.dialWith(t, proxyDirect, "")
	r.dialer.net = func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "tcp", address)
	}
	_, _, f := r.attempt(t.Context())
	if f == nil || !strings.Contains(f.text, "x509") || !strings.Contains(f.remedy, "ca_file") {
		t.Errorf("got %v, remedy %q", f, f.remedy)
	}
	for _, content := range []string{"", "no certificate"} {
		path := filepath.Join(t.TempDir(), "ca.pem")
		if content != "" {
			if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := newDialer(config{CAFile: path}); !errors.Is(err, pluginsdk.ErrInvalidConfig) {
			t.Errorf("ca_file with %q: %v", content, err)
		}
	}
}

// TestSocksProxy has a SOCKS5 proxy that takes a user and a password, and lets
// the name of the backend be resolved there.
func TestSocksProxy(t *testing.T) {
	r, address, ca := onTLS(t, profile2)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var work sync.WaitGroup
	t.Cleanup(func() { _ = l.Close(); work.Wait() })
	work.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			work.Go(func() { socksTunnel(t, c, address) })
		}
	})
	r.dialWith(t, pluginsdk.Secret("socks5://jane:hunter2@"+l.Addr().String()), ca)
	r.wantLink(t)
	r.wantPaths(t, "enroll server")
}

func socksTunnel(t *testing.T, c net.Conn, to string) {
	defer c.Close()
	b := bufio.NewReader(c)
	expect := func(want string) bool {
		got := make([]byte, len(want))
		if _, err := io.ReadFull(b, got); err != nil || string(got) != want {
			t.Errorf("the SOCKS proxy got %q, %v; want %q", got, err, want)
			return false
		}
		return true
	}
	if !expect("\x05\x02\x00\x02") {
		return
	}
	_, _ = io.WriteString(c, "\x05\x02")
	if !expect("\x01\x04jane\x07hunter2") {
		return
	}
	_, _ = io.WriteString(c, "\x01\x00")
	if !expect("\x05\x01\x00\x03\x0bexample.com\x01\xbb") {
		return
	}
	_, _ = io.WriteString(c, "\x05\x00\x00\x01\x00\x00\x00\x00\x00\x00")
	there, err := net.Dial("tcp", to)
	if err != nil {
		return
	}
	defer there.Close()
	done := make(chan struct{})
	go func() { _, _ = io.Copy(c, there); _ = c.Close(); close(done) }()
	_, _ = io.Copy(there, b)
	_ = there.Close()
	<-done
}

// TestEndlessHeadOfAnAnswer: something that speaks HTTP without end must not
// fill the memory.
func TestEndlessHeadOfAnAnswer(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	t.Cleanup(func() { _ = l.Close(); <-done })
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_, err = io.WriteString(c, "HTTP/1.1 503 Busy\r\n")
			for err == nil {
				_, err = io.WriteString(c, "X-Header: "+strings.Repeat("x", 1000)+"\r\n")
			}
			_ = c.Close()
		}
	}()
	r := newRig(t, profile2, "http://"+l.Addr().String()+"/", (&net.Dialer{}).DialContext)
	if err := r.useTarget(); err != nil {
		t.Fatal(err)
	}
	r.enrollment = storedEnrollment()
	if _, _, f := r.attempt(t.Context()); f == nil || !strings.Contains(f.text, "the head of the answer is too large") {
		t.Errorf("got %v", f)
	}
}

func TestServerCertificateIsForTheName(t *testing.T) {
	r, address, ca := onTLS(t, profile2)
	r.cfg.AllowedHosts, r.cfg.URL = []string{"other.test"}, "https://other.test/"
	r.dialWith(t, proxyDirect, ca)
	r.dialer.net = func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "tcp", address)
	}
	_, _, f := r.attempt(t.Context())
	if f == nil {
		t.Fatal("a certificate for another name was accepted")
	}
	if _, ok := errors.AsType[*tls.CertificateVerificationError](f.err); !ok {
		t.Errorf("got %v", f)
	}
}
