//go:build unix

package admin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hashicorp/go-hclog"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type fakeHost struct {
	serving bool
	refusal error // of everybody
}

func (fakeHost) AdminStatus() any                  { return map[string]string{"state": "serving"} }
func (fakeHost) AdminPlugins() any                 { return []string{"websocket"} }
func (fakeHost) AdminConnections() any             { return []int{1, 2} }
func (h fakeHost) Serving() bool                   { return h.serving }
func (h fakeHost) AdminAdmits(*net.UnixConn) error { return h.refusal }

func (fakeHost) RestartPlugin(_ context.Context, name string) error {
	if name != "websocket" {
		return errors.New("there is no transport " + name)
	}
	return nil
}

func (fakeHost) SetTransportEnabled(_ context.Context, name string, on bool) error {
	if name != "phone" {
		return fmt.Errorf("%s cannot be switched (on %v)", name, on)
	}
	return nil
}

func (fakeHost) AdminCredentials() (any, error) { return map[string]string{"mode": "chatgpt"}, nil }

func (h fakeHost) ReloadCredentials(string) (bool, error) {
	if !h.serving {
		return false, errors.New("no credentials")
	}
	return true, nil
}

// serve answers in a new directory until the test ends.
func serve(t *testing.T, h Host, log hclog.Logger) (dir string, s *Server) {
	t.Helper()
	dir, err := os.MkdirTemp("", "adm")
	if err != nil {
		t.Fatal(err)
	}
	s, err = Listen(t.Context(), dir, "127.0.0.1:0", h, log)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = s.Run(ctx)
	}()
	t.Cleanup(func() {
		cancel()
		<-done
		if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
			t.Errorf("left behind: %v, %v", left, err)
		}
		_ = os.RemoveAll(dir)
	})
	return dir, s
}

func TestAskingAHost(t *testing.T) {
	log := hclog.New(&hclog.LoggerOptions{Level: hclog.Info, Output: t.Output()})
	dir, s := serve(t, fakeHost{serving: true}, log)
	if info, err := os.Stat(filepath.Join(dir, SocketName)); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("socket %v, %v; want mode 0600", info.Mode(), err)
	}
	c := NewClient(dir)
	var status map[string]string
	if err := c.Status(t.Context(), &status); err != nil || status["state"] != "serving" {
		t.Errorf("Status = %v, %v", status, err)
	}
	var conns []int
	if err := c.Connections(t.Context(), &conns); err != nil || len(conns) != 2 {
		t.Errorf("Connections = %v, %v", conns, err)
	}
	if err := c.RestartPlugin(t.Context(), "websocket"); err != nil {
		t.Errorf("RestartPlugin: %v", err)
	}
	if err := c.RestartPlugin(t.Context(), "x/y"); err == nil || err.Error() != "there is no transport x/y" {
		t.Errorf("RestartPlugin of nothing: %v", err)
	}
	if err := c.SetTransportEnabled(t.Context(), "phone", true); err != nil {
		t.Errorf("SetTransportEnabled: %v", err)
	}
	for _, on := range []bool{true, false} {
		if err, want := c.SetTransportEnabled(t.Context(), "stdio", on), fmt.Sprintf("stdio cannot be switched (on %v)", on); err == nil || err.Error() != want {
			t.Errorf("SetTransportEnabled of another: got %v, want %s", err, want)
		}
	}
	var account map[string]string
	if err := c.Credentials(t.Context(), &account); err != nil || account["mode"] != "chatgpt" {
		t.Errorf("Credentials = %v, %v", account, err)
	}
	if changed, err := c.ReloadCredentials(t.Context()); err != nil || !changed {
		t.Errorf("ReloadCredentials = %v, %v", changed, err)
	}
	if err := c.SetLogLevel(t.Context(), "debug"); err != nil || !log.IsDebug() {
		t.Errorf("SetLogLevel: %v, debug %v", err, log.IsDebug())
	}
	if err := c.SetLogLevel(t.Context(), "loud"); err == nil || !strings.Contains(err.Error(), "one of trace, debug") {
		t.Errorf("SetLogLevel of nonsense: %v", err)
	}
	for path, want := range map[string]int{"/healthz": 200, "/readyz": 200, "/v1/status": 200, "/v1/connections": 404, "/v1/plugins": 404, "/v1/credentials": 404} {
		tr := &http.Transport{DisableKeepAlives: true}
		resp, err := (&http.Client{Transport: tr}).Get("http://" + s.Address() + path)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if resp.StatusCode != want {
			t.Errorf("%s on TCP: %d, want %d", path, resp.StatusCode, want)
		}
	}
}

func TestSecondHostIsRefusedAndADeadOneReplaced(t *testing.T) {
	dir, _ := serve(t, fakeHost{}, hclog.NewNullLogger())
	if _, err := Listen(t.Context(), dir, "", fakeHost{}, hclog.NewNullLogger()); !errors.Is(err, ErrInUse) {
		t.Errorf("a second host: %v", err)
	}
	other, err := os.MkdirTemp("", "adm")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(other)
	l, err := net.Listen("unix", filepath.Join(other, SocketName))
	if err != nil {
		t.Fatal(err)
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	_ = l.Close()
	if err := NewClient(other).Status(t.Context(), nil); !errors.Is(err, ErrNoHost) || !strings.Contains(err.Error(), "start one with: transporthost run") {
		t.Errorf("asking a dead host: %v", err)
	}
	s, err := Listen(t.Context(), other, "", fakeHost{}, hclog.NewNullLogger())
	if err != nil {
		t.Fatalf("after a dead host: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_ = s.Run(ctx)
}

// TestWhoIsRefusedIsToldWhy, whatever is asked, and a flood of such costs the
// host no more than a few connections.
func TestWhoIsRefusedIsToldWhy(t *testing.T) {
	refusing := fakeHost{serving: true, refusal: errors.New("not you")}
	dir, _ := serve(t, refusing, hclog.NewNullLogger())
	c := NewClient(dir)
	if err := c.Status(t.Context(), nil); err == nil || err.Error() != "not you" {
		t.Errorf("Status: got %v, want the refusal", err)
	}
	if err := c.RestartPlugin(t.Context(), "websocket"); err == nil || err.Error() != "not you" {
		t.Errorf("RestartPlugin: got %v, want the refusal", err)
	}

	dir, _ = serve(t, refusing, hclog.NewNullLogger())
	connect := func() net.Conn {
		c, err := net.Dial("unix", filepath.Join(dir, SocketName))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		return c
	}
	for range 2 * mostRefused { // each leaves its place when it is closed
		c := connect()
		if _, err := io.WriteString(c, "GET /v1/status HTTP/1.1\r\nHost: host\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		if answer, err := io.ReadAll(c); err != nil || !strings.HasSuffix(string(answer), "\r\n\r\nnot you\n") {
			t.Fatalf("got %q, %v; want the refusal, and the end", answer, err)
		}
	}
	for range mostRefused {
		connect() // and asks nothing
	}
	if n, err := connect().Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("one more than are told: read %d bytes, %v; want it closed", n, err)
	}
}
