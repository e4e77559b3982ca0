package credentials

import (
	"encoding/pem"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/transporthost/transporthost/shared/transport"
)

// A tunneller is a CONNECT proxy that wants a password.
type tunneller struct {
	*httptest.Server
	asked atomic.Int64
}

func newTunneller(t *testing.T) *tunneller {
	p := &tunneller{}
	p.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p.asked.Add(1)
		if user, password, ok := basic(r); !ok || user != "walter" || password != "passw0rd" || r.Method != http.MethodConnect {
			w.WriteHeader(http.StatusProxyAuthRequired)
			return
		}
		to, err := net.Dial("tcp", r.Host)
		if err != nil {
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		defer to.Close()
		w.WriteHeader(http.StatusOK)
		from, buffered, err := w.(http.Hijacker).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer from.Close()
		var back sync.WaitGroup
		back.Go(func() { _, _ = io.Copy(from, to); _ = from.Close() })
		_, _ = io.Copy(to, buffered)
		_ = to.Close()
		back.Wait()
	}))
	t.Cleanup(p.Close)
	return p
}

// basic reads the user and the password of Proxy-Authorization.
func basic(r *http.Request) (user, password string, ok bool) {
	return (&http.Request{Header: http.Header{"Authorization": r.Header["Proxy-Authorization"]}}).BasicAuth()
}

func (p *tunneller) url(password string) transport.Secret {
	return transport.Secret(strings.Replace(p.URL, "://", "://walter:"+password+"@", 1))
}

// newTokenServerTLS is a token endpoint with an authority of its own, and the
// file of that.
func newTokenServerTLS(t *testing.T) (server *tokenServer, caFile string) {
	server = newTokenServer(t)
	plain := server.Server
	server.Server = httptest.NewTLSServer(plain.Config.Handler)
	server.Server.Config.ErrorLog = log.New(io.Discard, "", 0) // of handshakes that are to fail
	plain.Close()
	t.Cleanup(server.Close)
	caFile = filepath.Join(t.TempDir(), "ca.pem")
	put(t, caFile, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})))
	return server, caFile
}

// TestRefreshThroughAProxy with a password, to an endpoint of one's own
// authority.
func TestRefreshThroughAProxy(t *testing.T) {
	server, ca := newTokenServerTLS(t)
	p := newTunneller(t)
	f := newFixture(t, chatGPT("old", "r", "account", stale), server.use, func(o *Options) { o.Proxy, o.CAFile = p.url("passw0rd"), ca })
	f.run()
	f.want("access-1", "account", 2)
	if got := p.asked.Load(); got != 1 {
		t.Errorf("the proxy was asked %d times, want 1", got)
	}
}

// TestWaysThatFail are told with what a person can do, and without a password.
func TestWaysThatFail(t *testing.T) {
	server, ca := newTokenServerTLS(t)
	p := newTunneller(t)
	for _, tt := range []struct {
		name  string
		proxy transport.Secret
		ca    string
		want  string
	}{
		{"wrong password", p.url("wr0ng"), ca, "Failed to refresh token: proxy " + p.URL +
			": answered CONNECT with HTTP 407 Proxy Authentication Required; correct the user and the password of the proxy"},
		{"unknown authority", p.url("passw0rd"), "", "certificate signed by unknown authority; if it is a proxy's or your own, name the file of it as ca_file of the credentials"},
		{"no proxy there", "http://walter:passw0rd@127.0.0.1:1", ca, "Failed to refresh token: proxyconnect tcp: dial tcp 127.0.0.1:1: "},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := newFixture(t, chatGPT("old", "r", "account"), server.use, func(o *Options) { o.Proxy, o.CAFile = tt.proxy, tt.ca })
			a, _ := f.snapshot()
			err := f.refresh(t.Context(), a)
			if err == nil {
				t.Fatal("no error")
			}
			wantContains(t, "error", err.Error(), tt.want)
			for _, password := range []string{"passw0rd", "wr0ng"} {
				if strings.Contains(err.Error()+f.log.String(), password) {
					t.Errorf("the password shows in %v, or in the log:\n%s", err, f.log)
				}
			}
			f.want("old", "account", 1)
		})
	}
	if got := len(server.requests()); got != 0 {
		t.Errorf("the token endpoint was asked %d times, past what fails", got)
	}
}

// TestThisMachineNeedsNoProxy: over http a proxy could read the refresh token.
func TestThisMachineNeedsNoProxy(t *testing.T) {
	server := newTokenServer(t)
	p := newTunneller(t)
	f := newFixture(t, chatGPT("old", "r", "account", stale), server.use, func(o *Options) { o.Proxy = p.url("passw0rd") })
	f.run()
	f.want("access-1", "account", 2)
	if got := p.asked.Load(); got != 0 {
		t.Errorf("the proxy was asked %d times, want 0", got)
	}
}

func TestDirect(t *testing.T) {
	server, ca := newTokenServerTLS(t)
	f := newFixture(t, chatGPT("old", "r", "account", stale), server.use, func(o *Options) { o.Proxy, o.CAFile = ProxyDirect, ca })
	f.run()
	f.want("access-1", "account", 2)
}

func TestNewRefusesAWayThatIsNone(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "auth.json")
	junk := filepath.Join(dir, "junk.pem")
	put(t, junk, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
	large := filepath.Join(dir, "large.pem")
	put(t, large, "")
	if err := os.Truncate(large, maxAuthorityBytes+1); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name string
		o    Options
		want string
	}{
		{"proxy", Options{Proxy: "walter:passw0rd@127.0.0.1:1"}, "opening the credentials: the proxy is not a URL such as http://HOST:PORT, https://HOST:PORT or socks5://HOST:PORT"},
		{"no authorities", Options{CAFile: filepath.Join(dir, "none")}, "opening the credentials: ca_file: "},
		{"no certificate", Options{CAFile: junk}, `junk.pem" holds no PEM certificate`},
		{"a directory", Options{CAFile: dir}, `" is not a file`},
		{"a huge file", Options{CAFile: large}, "has more than 4194304 bytes"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tt.o.File = file
			_, err := New(tt.o)
			if err == nil {
				t.Fatal("no error")
			}
			wantContains(t, "error", strings.ReplaceAll(err.Error(), `\\`, `\`), tt.want)
		})
	}
}
