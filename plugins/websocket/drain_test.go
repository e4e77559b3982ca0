package websocket

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/transporthost/transporthost/plugin-sdk/pluginsdktest"
)

// awaitClosedListener returns when nobody is accepted any more.
func awaitClosedListener(t *testing.T, h *pluginsdktest.Host) {
	t.Helper()
	for deadline := time.Now().Add(pluginsdktest.Timeout); ; {
		c, err := net.Dial("tcp", strings.TrimPrefix(h.Addresses()[0], "ws://"))
		if err != nil {
			return
		}
		_ = c.Close()
		if time.Now().After(deadline) {
			t.Fatal("it still accepts")
		}
	}
}

// TestDrainGreetsWhoWasAccepted: a peer that was accepted and has not said its
// request is none that is refused, and the drain waits for it.
func TestDrainGreetsWhoWasAccepted(t *testing.T) {
	h := serve(t, map[string]any{"header_timeout": "1m"})
	silent, half := dialRaw(t, h), dialRaw(t, h)
	if _, err := io.WriteString(half, "GET / HTTP/1.1\r\nHost: localhost\r\n"); err != nil {
		t.Fatal(err)
	}
	health := dialRaw(t, h)
	_ = health.SetDeadline(time.Now().Add(pluginsdktest.Timeout))
	if _, err := io.WriteString(health, "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	answers := bufio.NewReader(health)
	if r, err := http.ReadResponse(answers, nil); err != nil || r.StatusCode != http.StatusOK {
		t.Fatalf("health: %v", err)
	}
	connect(t, h) // accepted last: all others are in the lobby now

	drained := make(chan struct{})
	go func() {
		defer close(drained)
		h.Drain()
	}()
	awaitClosedListener(t, h)
	// A socket that only waits for another health check is no reason to wait.
	if _, err := answers.ReadByte(); err != io.EOF {
		t.Errorf("the socket of a health check: %v, want its end", err)
	}
	for _, sock := range []net.Conn{half, silent} {
		select {
		case <-drained:
			t.Fatal("the drain did not wait for a peer that was accepted")
		default:
		}
		_ = sock.SetDeadline(time.Now().Add(pluginsdktest.Timeout))
		text := "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
		if sock == silent {
			text = "GET / HTTP/1.1\r\nHost: localhost\r\n" + text
		}
		if _, err := io.WriteString(sock, text); err != nil {
			t.Fatal(err)
		}
		r, err := http.ReadResponse(bufio.NewReader(sock), nil)
		if err != nil || r.StatusCode != http.StatusSwitchingProtocols {
			t.Fatalf("a peer that was accepted got %v, %v; want the upgrade", r, err)
		}
		h.NextOpened()
	}
	<-drained
}
