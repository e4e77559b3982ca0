//go:build unix

package e2e

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/transporthost/transporthost/host"
	"github.com/transporthost/transporthost/tests/relay/backend"
)

const (
	relayName     = "relay.example.com" // that nobody but the proxy can resolve
	proxyUser     = "walter"
	proxyPassword = "pr0xy-p4ssw0rd-nobody-may-see"
)

// A connectProxy makes tunnels for those who know the password, all of them to
// one address.
type connectProxy struct {
	address string // its own
	target  string

	mu      sync.Mutex // guards what follows
	opened  []string   // what CONNECT asked for
	refused int
}

func startProxy(t *testing.T, target string) *connectProxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &connectProxy{address: l.Addr().String(), target: target}
	ctx, end := context.WithCancel(context.Background()) // the host is stopped before it
	var all sync.WaitGroup
	all.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			all.Go(func() { p.serve(ctx, c) })
		}
	})
	t.Cleanup(func() {
		end()
		_ = l.Close()
		all.Wait()
	})
	return p
}

func (p *connectProxy) serve(ctx context.Context, c net.Conn) {
	defer c.Close()
	defer context.AfterFunc(ctx, func() { _ = c.Close() })()
	from := bufio.NewReader(c)
	q, err := http.ReadRequest(from)
	if err != nil {
		return
	}
	want := "Basic " + base64.StdEncoding.EncodeToString([]byte(proxyUser+":"+proxyPassword))
	allowed := q.Method == http.MethodConnect && q.Header.Get("Proxy-Authorization") == want
	p.mu.Lock()
	if allowed {
		p.opened = append(p.opened, q.Host)
	} else {
		p.refused++
	}
	p.mu.Unlock()
	if !allowed {
		_, _ = io.WriteString(c, "HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
		return
	}
	to, err := net.Dial("tcp", p.target)
	if err != nil {
		return
	}
	defer to.Close()
	defer context.AfterFunc(ctx, func() { _ = to.Close() })()
	if _, err := io.WriteString(c, "HTTP/1.1 200 OK\r\n\r\n"); err != nil {
		return
	}
	var back sync.WaitGroup
	back.Go(func() {
		_, _ = io.Copy(c, to)
		_ = c.Close()
	})
	_, _ = io.Copy(to, from)
	_ = to.Close()
	back.Wait()
}

// tunnels are the targets that were asked for so far.
func (p *connectProxy) tunnels() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]string(nil), p.opened...)
}

// authority makes a certificate of name and the file of the authority that it is
// from.
func authority(t *testing.T, name string) (server *tls.Config, caFile string) {
	t.Helper()
	sign := func(template, parent *x509.Certificate, parentKey *ecdsa.PrivateKey) ([]byte, *ecdsa.PrivateKey) {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
		if parentKey == nil {
			parentKey = key
		}
		der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), parentKey)
		if err != nil {
			t.Fatal(err)
		}
		return der, key
	}
	root := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, IsCA: true,
		BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	rootDER, rootKey := sign(root, root, nil)
	leaf := &x509.Certificate{SerialNumber: big.NewInt(2), DNSNames: []string{name}, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}
	leafDER, leafKey := sign(leaf, root, rootKey)
	caFile = filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(caFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: rootDER}), 0o600); err != nil {
		t.Fatal(err)
	}
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{leafDER}, PrivateKey: leafKey}}}, caFile
}

// TestRemoteThroughAProxy: enrollment, websocket and the refresh of both tokens,
// the server's by the plugin and the account's by the host, go through one proxy
// with authentication, to a backend whose authority is configured (spec 0.2, 6).
// The password shows nowhere.
func TestRemoteThroughAProxy(t *testing.T) {
	for _, tt := range []struct {
		name, from string
		set        func(s *setup, proxy string)
	}{
		{"of the environment", "the environment", func(s *setup, proxy string) { s.env = []string{"HTTPS_PROXY=" + proxy} }},
		{"of the configuration", "the configuration", func(s *setup, proxy string) {
			s.keys, s.login = append(s.keys, `proxy = "`+proxy+`"`), append(s.login, `proxy = "`+proxy+`"`)
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			server, ca := authority(t, relayName)
			r := newRelayTLS(t, backend.Options{}, server)
			r.signIn(backend.AuthChatGPT, "")
			p := startProxy(t, r.address)
			_, port, err := net.SplitHostPort(r.address)
			r.must(err)
			site := "https://" + net.JoinHostPort(relayName, port)
			r.tokenURL = site + backend.TokenPath
			s := setup{url: site + backend.BasePath, args: []string{"--log-level", "trace"},
				keys: []string{`allowed_hosts = ["` + relayName + `"]`, `ca_file = "` + ca + `"`}, login: []string{`ca_file = "` + ca + `"`}}
			tt.set(&s, "http://"+proxyUser+":"+proxyPassword+"@"+p.address)
			h := r.start(s)
			r.connected(h, 1)
			r.call(r.initialized("c1", "s1"), "[1]")
			r.ExpireServerTokens()
			r.Drop()
			r.connected(h, 2)
			if got, want := r.steps(), "enroll upgrade upgrade refresh upgrade"; got != want {
				t.Errorf("the requests are %s, want %s", got, want)
			}
			r.must(r.RevokeAccess(""))
			r.ExpireServerTokens()
			r.Drop()
			r.connected(h, 3)
			if got := r.Refreshes(); got != 1 {
				t.Errorf("the account's tokens were refreshed %d times, want 1", got)
			}
			tunnels := p.tunnels()
			for _, to := range tunnels {
				if to != net.JoinHostPort(relayName, port) {
					t.Errorf("a tunnel to %s, want only those to the relay", to)
				}
			}
			if asked := len(r.Requests()); len(tunnels) != asked {
				t.Errorf("%d tunnels for %d requests, want one each", len(tunnels), asked)
			}
			if route := h.phone().Reported.Details["route"]; route != "proxy http://"+p.address+" of "+tt.from {
				t.Errorf("the route is %q", route)
			}
			h.hides(proxyPassword, base64.StdEncoding.EncodeToString([]byte(proxyUser+":"+proxyPassword)))
			if tt.from == "the configuration" {
				h.hidesFromOthers(proxyPassword)
			}
		})
	}
}

// TestRemoteProxyThatRefuses is told from a backend that does.
func TestRemoteProxyThatRefuses(t *testing.T) {
	r := newRelay(t, backend.Options{})
	r.signIn(backend.AuthChatGPT, "")
	p := startProxy(t, r.address)
	h := r.start(setup{keys: []string{`proxy = "http://` + proxyUser + `:wrong-` + proxyPassword + `@` + p.address + `"`}})
	s := h.awaitRemote("refused", func(s host.TransportStatus) bool { return strings.Contains(s.Cause, "407") })
	if !strings.Contains(s.Cause, "proxy http://"+p.address+": answered CONNECT with HTTP 407") || s.Remedy != "correct the user and the password of the proxy" {
		t.Errorf("got %q, %q", s.Cause, s.Remedy)
	}
	if r.steps() != "" {
		t.Errorf("the relay was asked, not through the proxy: %s", r.steps())
	}
	h.hides(proxyPassword)
}

// TestAccountProxyThatRefuses: what keeps the host from refreshing the account's
// tokens is told as the proxy's words, where a person looks for it.
func TestAccountProxyThatRefuses(t *testing.T) {
	server, ca := authority(t, relayName)
	r := newRelayTLS(t, backend.Options{}, server)
	r.signIn(backend.AuthChatGPT, "")
	r.must(r.RevokeAccess(""))
	p := startProxy(t, r.address)
	_, port, err := net.SplitHostPort(r.address)
	r.must(err)
	site := "https://" + net.JoinHostPort(relayName, port)
	r.tokenURL = site + backend.TokenPath
	proxy := func(password string) string {
		return `proxy = "http://` + proxyUser + ":" + password + "@" + p.address + `"`
	}
	h := r.start(setup{url: site + backend.BasePath, login: []string{`ca_file = "` + ca + `"`, proxy("wrong-" + proxyPassword)},
		keys: []string{`allowed_hosts = ["` + relayName + `"]`, `ca_file = "` + ca + `"`, proxy(proxyPassword)}})
	const want = "answered CONNECT with HTTP 407 Proxy Authentication Required; correct the user and the password of the proxy"
	h.logged("Failed to refresh token: proxy http://" + p.address + ": " + want)
	if out, _ := h.ask("credentials", "status"); !strings.Contains(out, "Failed to refresh token: proxy http://"+p.address+": "+want) {
		t.Errorf("credentials status prints\n%s", out)
	}
	h.hides(proxyPassword)
	h.hidesFromOthers(proxyPassword)
}

// TestRemoteUnknownAuthority names what to configure.
func TestRemoteUnknownAuthority(t *testing.T) {
	server, _ := authority(t, "localhost")
	r := newRelayTLS(t, backend.Options{}, server)
	r.signIn(backend.AuthChatGPT, "")
	_, port, err := net.SplitHostPort(r.address)
	r.must(err)
	h := r.start(setup{url: "https://localhost:" + port + backend.BasePath})
	if s := h.attempted("certificate signed by unknown authority"); !strings.Contains(s.Remedy, "ca_file") {
		t.Errorf("the remedy is %q, want one about ca_file", s.Remedy)
	}
}
