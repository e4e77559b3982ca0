package remotecontrol

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"time"

	"github.com/gorilla/websocket"

	pluginsdk "github.com/transporthost/transporthost/plugin-sdk"
)

const (
	// requestTimeout bounds a request from dialling to the end of the answer,
	// and the handshake of the websocket (spec 2.1, 5).
	requestTimeout = 30 * time.Second
	// keepAlive finds a dead way to the backend below the pings' 60 s.
	keepAlive = 30 * time.Second
	// bodyTimeout bounds the rest of an answer that refuses the websocket.
	bodyTimeout = 2 * time.Second
	// maxHeadBytes bounds the headers of an answer.
	maxHeadBytes = 64 << 10
)

// errNoAnswer is why a request that ran out of requestTimeout ended.
var errNoAnswer = errors.New("no answer within 30s")

// errLargeHead is why an answer is given up whose headers do not end.
var errLargeHead = errors.New("the head of the answer is too large")

// A dialer makes every connection to the backend: those of enrollment and
// refresh, and the websocket. Proxy and certificates hold for all of them
// alike.
type dialer struct {
	net   func(ctx context.Context, network, address string) (net.Conn, error) // TCP
	proxy proxyPicker
	from  string // where proxy is from
	roots *x509.CertPool
}

// newDialer reads the files and the environment that cfg names.
func newDialer(cfg config) (*dialer, error) {
	pick, from, err := pickProxy(cfg.Proxy)
	if err != nil {
		return nil, err
	}
	d := &dialer{net: (&net.Dialer{KeepAlive: keepAlive, Control: lowWater}).DialContext, proxy: pick, from: from}
	if cfg.CAFile != "" {
		pem, err := os.ReadFile(cfg.CAFile)
		if err != nil {
			return nil, fmt.Errorf("%w: ca_file: %w", pluginsdk.ErrInvalidConfig, err)
		}
		if d.roots, err = x509.SystemCertPool(); err != nil {
			d.roots = x509.NewCertPool()
		}
		if !d.roots.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("%w: ca_file %q holds no PEM certificate", pluginsdk.ErrInvalidConfig, cfg.CAFile)
		}
	}
	return d, nil
}

// route says how a URL is reached, for people.
func (d *dialer) route(target string) string {
	u, err := httpURL(target)
	if err != nil {
		return ""
	}
	p, err := d.proxy(u)
	switch {
	case err != nil:
		return err.Error()
	case p == nil:
		return "direct"
	}
	return "proxy " + nameOf(p) + " of " + d.from
}

// httpURL is a URL with the scheme that proxies are chosen by.
func httpURL(target string) (*url.URL, error) {
	u, err := url.Parse(target)
	if err != nil {
		return nil, err
	}
	switch u.Scheme {
	case "ws":
		u.Scheme = "http"
	case "wss":
		u.Scheme = "https"
	}
	return u, nil
}

// dial connects to the host of a URL with this scheme, through the proxy that
// is due, encrypted if the scheme says so.
func (d *dialer) dial(ctx context.Context, scheme, address string) (net.Conn, error) {
	p, err := d.proxy(&url.URL{Scheme: scheme, Host: address})
	if err != nil {
		return nil, err
	}
	var conn net.Conn
	if p == nil {
		conn, err = d.net(ctx, "tcp", address)
	} else {
		conn, err = d.tunnel(ctx, p, address)
	}
	if err != nil || scheme == "http" {
		return conn, err
	}
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		_ = conn.Close()
		return nil, err
	}
	return d.encrypt(ctx, conn, host)
}

// encrypt speaks TLS on conn, which it closes if that fails.
func (d *dialer) encrypt(ctx context.Context, conn net.Conn, serverName string) (net.Conn, error) {
	c := tls.Client(conn, &tls.Config{
		RootCAs: d.roots, ServerName: serverName, MinVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1"},
	})
	if err := c.HandshakeContext(ctx); err != nil {
		_ = conn.Close()
		return nil, err
	}
	return c, nil
}

// client is an HTTP client over the dialer. It follows no redirect: a token
// goes to the place that was checked, and nowhere else. No connection outlives
// its request, so that there is nothing to close.
func (d *dialer) client() *http.Client {
	return &http.Client{
		Transport: &http.Transport{
			DialContext: func(ctx context.Context, _, address string) (net.Conn, error) { return d.dial(ctx, "http", address) },
			DialTLSContext: func(ctx context.Context, _, address string) (net.Conn, error) {
				return d.dial(ctx, "https", address)
			},
			DisableKeepAlives:      true,
			DisableCompression:     true,
			MaxResponseHeaderBytes: maxHeadBytes,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// websocket opens a WebSocket. If the server answers with something else, that
// answer is returned with the error, and its body is read from memory.
func (d *dialer) websocket(ctx context.Context, target string, header http.Header) (*websocket.Conn, *http.Response, error) {
	var held *heldConn
	stop := func() bool { return true }
	hold := func(scheme string) func(context.Context, string, string) (net.Conn, error) {
		return func(ctx context.Context, _, address string) (net.Conn, error) {
			conn, err := d.dial(ctx, scheme, address)
			if err != nil {
				return nil, err
			}
			held = &heldConn{Conn: conn, holding: true}
			// the library does not look at ctx once it has a connection
			stop = context.AfterFunc(ctx, func() { _ = conn.Close() })
			return held, nil
		}
	}
	w := websocket.Dialer{NetDialContext: hold("http"), NetDialTLSContext: hold("https"), WriteBufferSize: writeBuffer}
	ws, r, err := w.DialContext(ctx, target, header)
	switch {
	case held == nil:
		return nil, nil, err
	case err == nil:
		held.release()
	case held.large:
		err = errLargeHead // the parser's words quote a part of it
		_ = held.Conn.Close()
	case errors.Is(err, websocket.ErrBadHandshake):
		r = held.answer(r)
		fallthrough
	default:
		_ = held.Conn.Close()
	}
	if !stop() {
		if ws != nil {
			_ = ws.Close()
		}
		return nil, nil, context.Cause(ctx)
	}
	return ws, r, err
}

// writeBuffer holds the largest envelope: the library would send a larger one in
// several frames.
const writeBuffer = maxEnvelope + 1<<10

// A heldConn keeps what it read, and does not close, until it is released: the
// WebSocket library shows 1 KiB of a refusal's body, and the reason may stand
// behind that.
type heldConn struct {
	net.Conn
	holding bool // written by the goroutine that shakes hands, before anybody else has the connection
	large   bool // more than maxHeadBytes came
	read    bytes.Buffer
}

// Read implements [net.Conn].
func (c *heldConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if c.holding {
		c.read.Write(p[:n])
		if c.read.Len() > maxHeadBytes {
			c.large = true
			return n, errLargeHead
		}
	}
	return n, err
}

// Close implements [net.Conn].
func (c *heldConn) Close() error {
	if c.holding {
		return nil
	}
	return c.Conn.Close()
}

func (c *heldConn) release() {
	c.holding = false
	c.read = bytes.Buffer{}
}

// answer is the answer that was read, with its whole body. What does not parse
// or arrive a second time leaves the first reading.
func (c *heldConn) answer(first *http.Response) *http.Response {
	_ = c.SetDeadline(time.Now().Add(bodyTimeout))
	again := bytes.NewReader(bytes.Clone(c.read.Bytes()))
	r, err := http.ReadResponse(bufio.NewReader(io.MultiReader(again, c.Conn)), &http.Request{Method: http.MethodGet})
	if err != nil {
		return first
	}
	body, _ := io.ReadAll(io.LimitReader(r.Body, maxAnswerBytes)) // a part is better than nothing
	_ = r.Body.Close()
	r.Body = io.NopCloser(bytes.NewReader(body))
	return r
}
