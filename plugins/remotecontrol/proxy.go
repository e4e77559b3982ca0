package remotecontrol

import (
	"bufio"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"

	"golang.org/x/net/http/httpproxy"
	"golang.org/x/net/proxy"

	pluginsdk "github.com/transporthost/transporthost/plugin-sdk"
)

// proxyDirect is the value of the key proxy that ignores the environment.
const proxyDirect = "direct"

// maxConnectAnswer bounds the head of a proxy's answer to CONNECT, and with it
// what a port that speaks something else makes us read.
const maxConnectAnswer = 16 << 10

// A proxyPicker returns the proxy for a URL with http or https, or nil.
type proxyPicker func(u *url.URL) (*url.URL, error)

// pickProxy makes the picker for the key proxy; where that is empty it is the
// environment's, read now. The errors do not show what may hold a password.
func pickProxy(configured pluginsdk.Secret) (pick proxyPicker, from string, err error) {
	switch text := string(configured); text {
	case "":
		env := httpproxy.FromEnvironment().ProxyFunc()
		return func(u *url.URL) (*url.URL, error) {
			p, err := env(u)
			if err != nil {
				return nil, errors.New("the proxy in the environment is not a URL such as http://HOST:PORT")
			}
			return p, nil
		}, "the environment", nil
	case proxyDirect:
		return func(*url.URL) (*url.URL, error) { return nil, nil }, "", nil
	default:
		p, err := url.Parse(text)
		if err != nil || p.Hostname() == "" || defaultProxyPort(p.Scheme) == "" {
			return nil, "", fmt.Errorf("%w: proxy is not a URL such as http://HOST:PORT, https://HOST:PORT or socks5://HOST:PORT", pluginsdk.ErrInvalidConfig)
		}
		return func(*url.URL) (*url.URL, error) { return p, nil }, "the configuration", nil
	}
}

func defaultProxyPort(scheme string) string {
	switch scheme {
	case "http":
		return "80"
	case "https":
		return "443"
	case "socks5", "socks5h":
		return "1080"
	}
	return ""
}

// nameOf is a proxy as people may see it: without user, password and path.
func nameOf(p *url.URL) string { return p.Scheme + "://" + p.Host }

func proxyAddress(p *url.URL) string {
	port := p.Port()
	if port == "" {
		port = defaultProxyPort(p.Scheme)
	}
	return net.JoinHostPort(p.Hostname(), port)
}

// tunnel connects to address through a proxy. Every scheme of address goes
// through CONNECT, so that requests and the websocket take one way.
func (d *dialer) tunnel(ctx context.Context, p *url.URL, address string) (net.Conn, error) {
	conn, err := d.tunnelOver(ctx, p, address)
	if err != nil {
		return nil, fmt.Errorf("proxy %s: %w", nameOf(p), err)
	}
	return conn, nil
}

func (d *dialer) tunnelOver(ctx context.Context, p *url.URL, address string) (net.Conn, error) {
	if p.Scheme == "socks5" || p.Scheme == "socks5h" {
		return d.socks(ctx, p, address)
	}
	if defaultProxyPort(p.Scheme) == "" {
		return nil, fmt.Errorf("proxies with %q are not supported", p.Scheme)
	}
	conn, err := d.net(ctx, "tcp", proxyAddress(p))
	if err != nil {
		return nil, err
	}
	if p.Scheme == "https" {
		if conn, err = d.encrypt(ctx, conn, p.Hostname()); err != nil {
			return nil, err
		}
	}
	// whoever blocks on conn does not see ctx
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	err = connect(conn, p, address)
	if !stop() {
		return nil, context.Cause(ctx)
	}
	if err != nil {
		_ = conn.Close()
		return nil, err
	}
	return conn, nil
}

// connect asks the HTTP proxy at the other end of conn for a tunnel.
func connect(conn net.Conn, p *url.URL, address string) error {
	header := http.Header{"User-Agent": {""}} // a proxy need not know who we are
	if p.User != nil {
		password, _ := p.User.Password()
		basic := base64.StdEncoding.EncodeToString([]byte(p.User.Username() + ":" + password))
		header.Set("Proxy-Authorization", "Basic "+basic)
	}
	request := &http.Request{Method: http.MethodConnect, URL: &url.URL{Opaque: address}, Host: address, Header: header}
	if err := request.Write(conn); err != nil {
		return fmt.Errorf("asking for a tunnel: %w", err)
	}
	// What is buffered behind the answer is lost with the reader, and is
	// nothing: the server at the other end does not speak first.
	r, err := http.ReadResponse(bufio.NewReader(io.LimitReader(conn, maxConnectAnswer)), request)
	if err != nil {
		return fmt.Errorf("asking for a tunnel: reading the answer: %w", err)
	}
	if r.StatusCode < 200 || r.StatusCode > 299 {
		return &proxyRefusal{code: r.StatusCode}
	}
	return nil
}

// A proxyRefusal is a proxy's answer that is no tunnel.
type proxyRefusal struct{ code int }

func (r *proxyRefusal) Error() string {
	return strings.TrimSpace(fmt.Sprintf("answered CONNECT with HTTP %d %s", r.code, http.StatusText(r.code)))
}

// socks connects through a SOCKS5 proxy, which resolves the name of address.
func (d *dialer) socks(ctx context.Context, p *url.URL, address string) (net.Conn, error) {
	var auth *proxy.Auth
	if p.User != nil {
		password, _ := p.User.Password()
		auth = &proxy.Auth{User: p.User.Username(), Password: password}
	}
	s, err := proxy.SOCKS5("tcp", proxyAddress(p), auth, netDialer(d.net))
	if err != nil {
		return nil, err
	}
	c, ok := s.(proxy.ContextDialer)
	if !ok {
		return nil, errors.New("the SOCKS dialer cannot be cancelled")
	}
	return c.DialContext(ctx, "tcp", address)
}

// A netDialer is a dial function as package proxy wants it.
type netDialer func(ctx context.Context, network, address string) (net.Conn, error)

// DialContext implements [proxy.ContextDialer].
func (f netDialer) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	return f(ctx, network, address)
}

// Dial implements [proxy.Dialer], which package proxy uses only where a dialer
// has no DialContext.
func (f netDialer) Dial(string, string) (net.Conn, error) {
	return nil, errors.New("dialling without a context")
}
