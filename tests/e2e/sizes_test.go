//go:build unix

package e2e

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"
)

// certificate writes one for 127.0.0.1, and its key. It returns the setting
// that names them and what a peer must trust.
func certificate(t *testing.T) (setting string, trust *tls.Config) {
	t.Helper()
	server := httptest.NewTLSServer(http.NotFoundHandler()) // has a pair
	defer server.Close()
	pair := server.TLS.Certificates[0]
	key, err := x509.MarshalPKCS8PrivateKey(pair.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for name, block := range map[string]*pem.Block{
		"cert": {Type: "CERTIFICATE", Bytes: pair.Certificate[0]},
		"key":  {Type: "PRIVATE KEY", Bytes: key},
	} {
		if err := os.WriteFile(filepath.Join(dir, name), pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	roots := x509.NewCertPool()
	roots.AddCert(server.Certificate())
	return fmt.Sprintf("tls = { cert_file = %q, key_file = %q }", filepath.Join(dir, "cert"), filepath.Join(dir, "key")), &tls.Config{RootCAs: roots}
}

// everyListener starts a host that listens in every way, and returns how to
// dial each.
func everyListener(t *testing.T, settings ...string) map[string]func(*testing.T) *websocket.Conn {
	t.Helper()
	tlsSetting, trust := certificate(t)
	socket := filepath.Join(runtimeDir(t), "socket")
	listen := fmt.Sprintf(`listen = ["ws://127.0.0.1:0", "wss://127.0.0.1:0", "unix://%s"]`, socket)
	h := configured(t, append([]string{listen, tlsSetting}, settings...)...)
	dialer := func(url string, d websocket.Dialer) func(*testing.T) *websocket.Conn {
		return func(t *testing.T) *websocket.Conn {
			t.Helper()
			ws, _, err := d.Dial(url, nil)
			if err != nil {
				t.Fatalf("dialling %s: %v", url, err)
			}
			t.Cleanup(func() { _ = ws.Close() })
			_ = ws.SetReadDeadline(time.Now().Add(limit))
			return ws
		}
	}
	h.url() // there are addresses
	h.mu.Lock()
	defer h.mu.Unlock()
	dials := map[string]func(*testing.T) *websocket.Conn{}
	for _, url := range h.listen["websocket"] {
		switch kind, _, _ := strings.Cut(url, ":"); kind {
		case "ws":
			dials[kind] = dialer(url, websocket.Dialer{})
		case "wss":
			dials[kind] = dialer(url, websocket.Dialer{TLSClientConfig: trust})
		case "unix":
			dials[kind] = dialer("ws://localhost/", websocket.Dialer{NetDial: func(string, string) (net.Conn, error) { return net.Dial("unix", socket) }})
		}
	}
	if len(dials) != 3 {
		t.Fatalf("it listens on %v, want all three", h.listen)
	}
	return dials
}

// sizedRequest is a request of exactly so many bytes, and its answer, which is
// larger where that fits in most.
func sizedRequest(size, most int) (request, answer string) {
	const ask, reply, tail = `{"id":1,"method":"m","params":"`, `{"jsonrpc":"2.0","id":1,"result":"`, `"}`
	n := max(0, size-len(ask)-len(tail))
	n = min(n, most-len(reply)-len(tail))
	p := strings.Repeat("x", n)
	request = ask + p + tail
	request += strings.Repeat(" ", max(0, size-len(request)))
	return request, reply + p + tail
}

// TestSizes sends messages from the smallest to exactly the limit, both ways.
func TestSizes(t *testing.T) {
	const most = 64 << 20
	sizes := []int{0, 100, 1 << 10, 64 << 10, 68<<10 + 1, 1 << 20, 16 << 20, most}
	check := func(t *testing.T, ws *websocket.Conn) {
		for _, size := range sizes {
			request, want := sizedRequest(size, most)
			if size == most && (len(request) != most || len(want) != most) {
				t.Fatalf("the test sends %d bytes and wants %d back, want %d", len(request), len(want), most)
			}
			send(t, ws, request)
			if got := receive(t, ws); got != want {
				t.Fatalf("the answer to %d bytes has %d bytes, want %d: %.100s", len(request), len(got), len(want), got)
			}
		}
		send(t, ws, strings.Repeat(" ", most+1))
		refusedAsTooLarge(t, ws, most)
	}
	for _, app := range []struct {
		name string
		args []string
	}{
		{"echo", []string{"--builtin", "echo"}},
		{"child", append([]string{"--"}, self(t, "echo")...)},
	} {
		t.Run(app.name, func(t *testing.T) {
			check(t, start(t, append([]string{"--listen", "ws://127.0.0.1:0"}, app.args...)...).dial())
		})
	}
	dials := everyListener(t)
	for _, kind := range []string{"wss", "unix"} {
		t.Run("echo over "+kind, func(t *testing.T) { check(t, dials[kind](t)) })
	}
}

func refusedAsTooLarge(t *testing.T, ws *websocket.Conn, most int) {
	t.Helper()
	want := fmt.Sprintf(`{"jsonrpc":"2.0","id":null,"error":{"code":-32600,"message":"message of more than %d bytes; the limit is %d bytes"}}`, most, most)
	if got := receive(t, ws); got != want {
		t.Errorf("one byte over the limit is answered %.200s, want %s", got, want)
	}
	if _, _, err := ws.ReadMessage(); !websocket.IsCloseError(err, websocket.CloseMessageTooBig) {
		t.Errorf("and then comes %v, want close code 1009", err)
	}
}

// TestOwnLimit is the same at a limit of the configuration, and with the
// smallest message there is.
func TestOwnLimit(t *testing.T) {
	const most = 1000
	for kind, dial := range everyListener(t, fmt.Sprintf("max_message_bytes = %d", most)) {
		t.Run(kind, func(t *testing.T) {
			ws := dial(t)
			send(t, ws, "0")
			if got := receive(t, ws); !strings.HasPrefix(got, `{"jsonrpc":"2.0","id":null,"error":{"code":-32600,`) {
				t.Errorf("one byte, which is JSON and no message, is answered %s", got)
			}
			request, want := sizedRequest(most, 1<<20)
			if len(request) != most {
				t.Fatalf("the test sends %d bytes, want %d", len(request), most)
			}
			send(t, ws, request)
			if got := receive(t, ws); got != want {
				t.Errorf("the limit itself is answered %.100s", got)
			}
			send(t, ws, request+" ")
			refusedAsTooLarge(t, ws, most)
		})
	}
}
