package credentials

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"slices"

	"github.com/transporthost/transporthost/shared/transport"
)

// ProxyDirect is the proxy that is none, whatever the environment says.
const ProxyDirect = "direct"

// maxAuthorityBytes bounds a file of certificates. A whole system's has 250 KiB.
const maxAuthorityBytes = 4 << 20

// maxHeadBytes bounds the headers of an answer.
const maxHeadBytes = 64 << 10

// errProxyEnv stands for an error that quotes the address, and may quote a
// password with it.
var errProxyEnv = errors.New("the proxy in the environment is not a URL such as http://HOST:PORT")

// newRoute makes the HTTP client for the token endpoint: through a proxy, which
// is the environment's for "", and trusting the authorities of a file, if there
// is one, beside the system's. What is asked with http is this machine's, and no
// proxy's: the refresh token is readable on that way. Errors do not show the
// proxy's password.
func newRoute(proxy transport.Secret, caFile string) (*http.Client, error) {
	pick, err := picker(proxy)
	if err != nil {
		return nil, err
	}
	t := &http.Transport{Proxy: pick, OnProxyConnectResponse: tunnelled, MaxResponseHeaderBytes: maxHeadBytes}
	if caFile != "" {
		roots, err := Authorities(caFile)
		if err != nil {
			return nil, err
		}
		t.TLSClientConfig = &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}
	}
	// A redirected POST would carry the refresh token to wherever the answer
	// says.
	stay := func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return &http.Client{Transport: t, Timeout: refreshLimit, CheckRedirect: stay}, nil
}

func picker(proxy transport.Secret) (func(*http.Request) (*url.URL, error), error) {
	switch proxy {
	case "":
		return func(r *http.Request) (*url.URL, error) {
			p, err := http.ProxyFromEnvironment(r)
			if err != nil {
				return nil, errProxyEnv
			}
			return p, nil
		}, nil
	case ProxyDirect:
		return nil, nil
	}
	p, err := url.Parse(string(proxy))
	if err != nil || p.Hostname() == "" || !slices.Contains([]string{"http", "https", "socks5", "socks5h"}, p.Scheme) {
		return nil, errors.New("the proxy is not a URL such as http://HOST:PORT, https://HOST:PORT or socks5://HOST:PORT") // it may hold a password
	}
	return func(r *http.Request) (*url.URL, error) {
		if r.URL.Scheme == "http" {
			return nil, nil
		}
		return p, nil
	}, nil
}

// Authorities reads a file of certificates in PEM, and returns them beside the
// system's.
func Authorities(file string) (*x509.CertPool, error) {
	info, err := os.Stat(file) // first: opening a pipe would wait for its writer
	if err != nil {
		return nil, fmt.Errorf("ca_file: %w", err)
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("ca_file %q is not a file", file)
	}
	f, err := os.Open(file)
	if err != nil {
		return nil, fmt.Errorf("ca_file: %w", err)
	}
	defer f.Close()
	content, err := io.ReadAll(io.LimitReader(f, maxAuthorityBytes+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("ca_file: %w", err)
	case len(content) > maxAuthorityBytes:
		return nil, fmt.Errorf("ca_file %q has more than %d bytes", file, maxAuthorityBytes)
	}
	roots, err := x509.SystemCertPool()
	if err != nil {
		roots = x509.NewCertPool()
	}
	if !roots.AppendCertsFromPEM(content) {
		return nil, fmt.Errorf("ca_file %q holds no PEM certificate", file)
	}
	return roots, nil
}

// A proxyRefusal is a proxy's answer that is no tunnel. Package http would make
// an error of its reason alone, which reads like the token endpoint's.
type proxyRefusal struct {
	proxy  string
	status int
}

func (r proxyRefusal) Error() string {
	return fmt.Sprintf("proxy %s: answered CONNECT with HTTP %d %s", r.proxy, r.status, http.StatusText(r.status))
}

func tunnelled(_ context.Context, proxy *url.URL, _ *http.Request, answer *http.Response) error {
	if answer.StatusCode/100 == 2 {
		return nil
	}
	return proxyRefusal{proxy.Scheme + "://" + proxy.Host, answer.StatusCode}
}

// withRemedy adds to an error of the way to the token endpoint what a person can
// do about it.
func withRemedy(err error) error {
	if r, ok := errors.AsType[proxyRefusal](err); ok && r.status == http.StatusProxyAuthRequired {
		return fmt.Errorf("%w; correct the user and the password of the proxy", err)
	}
	if _, ok := errors.AsType[x509.UnknownAuthorityError](err); ok {
		return fmt.Errorf("%w; if it is a proxy's or your own, name the file of it as ca_file of the credentials", err)
	}
	return err
}
