package admin

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"path/filepath"
	"syscall"
	"time"
)

// ErrNoHost is returned when no host answers in a runtime directory.
var ErrNoHost = errors.New("no host is running here")

// maxAnswer bounds what a client reads: the status of tens of thousands of
// connections.
const maxAnswer = 64 << 20

// A Client asks the host of a runtime directory.
type Client struct {
	path string
	http *http.Client
}

// NewClient makes a client; nothing is dialled before the first call.
func NewClient(dir string) *Client {
	path := filepath.Join(dir, SocketName)
	return &Client{path: path, http: &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext:       func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx, path) },
	}}}
}

// dial connects to a socket. If so many wait there that there is no room for one
// more, it tries again: whoever floods it does so too.
func dial(ctx context.Context, path string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	var d net.Dialer
	for {
		c, err := d.DialContext(ctx, "unix", path)
		if !errors.Is(err, syscall.EAGAIN) {
			return c, err
		}
		select {
		case <-time.After(dialPause):
		case <-ctx.Done():
			return nil, err
		}
	}
}

// Status decodes the host's status into v, a *host.Status.
func (c *Client) Status(ctx context.Context, v any) error {
	return c.call(ctx, http.MethodGet, "/v1/status", v)
}

// Connections decodes the list of connections into v.
func (c *Client) Connections(ctx context.Context, v any) error {
	return c.call(ctx, http.MethodGet, "/v1/connections", v)
}

// RestartPlugin replaces a plugin's process and returns when the new one is
// ready.
func (c *Client) RestartPlugin(ctx context.Context, name string) error {
	return c.call(ctx, http.MethodPost, "/v1/plugins/"+url.PathEscape(name)+"/restart", nil)
}

// SetTransportEnabled switches a transport on or off.
func (c *Client) SetTransportEnabled(ctx context.Context, name string, on bool) error {
	verb := "disable"
	if on {
		verb = "enable"
	}
	return c.call(ctx, http.MethodPost, "/v1/plugins/"+url.PathEscape(name)+"/"+verb, nil)
}

// Credentials decodes what is known of the credentials into v, a
// *host.CredentialsStatus.
func (c *Client) Credentials(ctx context.Context, v any) error {
	return c.call(ctx, http.MethodGet, "/v1/credentials", v)
}

// ReloadCredentials makes the host read the credentials again, and reports
// whether they have changed.
func (c *Client) ReloadCredentials(ctx context.Context) (changed bool, err error) {
	var r Reload
	err = c.call(ctx, http.MethodPost, "/v1/credentials/reload", &r)
	return r.Changed, err
}

// SetLogLevel sets the level of the host's log.
func (c *Client) SetLogLevel(ctx context.Context, level string) error {
	return c.call(ctx, http.MethodPut, "/v1/log-level/"+url.PathEscape(level), nil)
}

func (c *Client) call(ctx context.Context, method, path string, v any) error {
	r, err := http.NewRequestWithContext(ctx, method, "http://host"+path, nil)
	if err != nil {
		return fmt.Errorf("asking the host: %w", err)
	}
	resp, err := c.http.Do(r)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED) {
		return fmt.Errorf("%w: nobody answers at %s; start one with: transporthost run", ErrNoHost, c.path)
	}
	if err != nil {
		return fmt.Errorf("asking the host: %w", err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return fmt.Errorf("reading the host's answer: %w", err)
	}
	if resp.StatusCode != http.StatusOK {
		return errors.New(string(bytes.TrimSpace(body)))
	}
	if v == nil {
		return nil
	}
	if err := json.Unmarshal(body, v); err != nil {
		return fmt.Errorf("reading the host's answer: %w", err)
	}
	return nil
}
