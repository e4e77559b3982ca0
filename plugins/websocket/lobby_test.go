package websocket

import (
	"bufio"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gorilla/websocket"

	"github.com/transporthost/transporthost/plugin-sdk/pluginsdktest"
)

// crowd is a listener at which there is always one more peer.
type crowd struct{ peers []net.Conn }

func (c *crowd) Accept() (net.Conn, error) {
	sock, peer := net.Pipe()
	c.peers = append(c.peers, peer)
	return sock, nil
}

func (c *crowd) Close() error   { return nil }
func (c *crowd) Addr() net.Addr { return nil }

func gone(t *testing.T, peer net.Conn) bool {
	t.Helper()
	_ = peer.SetReadDeadline(time.Now())
	_, err := peer.Read(make([]byte, 1))
	return errors.Is(err, io.EOF)
}

func TestLobby(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		peers := &crowd{}
		l := newLobby(peers)
		l.most = 3
		began := time.Now()
		accept := func() net.Conn {
			c, err := l.Accept()
			if err != nil {
				t.Fatalf("Accept: %v", err)
			}
			l.track(c, http.StateNew)
			l.track(c, http.StateActive)
			return c
		}
		for range 2 {
			accept()
			time.Sleep(100 * time.Millisecond)
		}
		third := accept()
		if d := time.Since(began); d != 200*time.Millisecond {
			t.Errorf("three places were taken after %v, want at once", d)
		}

		// Full: the next waits until the oldest has had its time.
		accept()
		if d := time.Since(began); d != lobbyTime {
			t.Errorf("the fourth was accepted after %v, want %v", d, lobbyTime)
		}
		if !gone(t, peers.peers[0]) || gone(t, peers.peers[1]) {
			t.Error("it is not the oldest that was closed")
		}

		// Who upgrades makes room at once, and is not looked at again.
		go func() {
			time.Sleep(time.Millisecond)
			l.track(third, http.StateHijacked)
		}()
		accept()
		if d := time.Since(began); d != lobbyTime+time.Millisecond {
			t.Errorf("the fifth was accepted after %v, want 1ms later than the fourth", d)
		}
		time.Sleep(time.Hour)
		for range 3 {
			accept()
		}
		if gone(t, peers.peers[2]) {
			t.Error("an upgraded socket was closed")
		}

		// Close ends an Accept that waits.
		go func() {
			time.Sleep(time.Millisecond)
			_ = l.Close()
		}()
		if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
			t.Errorf("Accept: %v, want that it is closed", err)
		}
		for _, p := range peers.peers {
			_ = p.Close()
		}
	})
}

func dialRaw(t *testing.T, h *pluginsdktest.Host) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", strings.TrimPrefix(h.Addresses()[0], "ws://"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// TestSilentSocketsKeepNobodyOut opens more sockets than the lobby holds, and
// says nothing on them.
func TestSilentSocketsKeepNobodyOut(t *testing.T) {
	h := serve(t, map[string]any{"header_timeout": "1m", "max_connections": 2})
	early, id := connect(t, h)
	const more = 50
	var silent []net.Conn
	for range lobbySockets + more {
		silent = append(silent, dialRaw(t, h))
	}
	exchange := func() {
		t.Helper()
		if err := early.WriteMessage(websocket.TextMessage, []byte("x")); err != nil {
			t.Fatal(err)
		}
		h.Send(id, h.NextReceived(id))
		receive(t, early)
	}
	exchange()
	connect(t, h)
	if code, body := get(t, h, "/", upgrade()); code != 503 || body != "too many connections (max_connections)" {
		t.Errorf("over the limit of connections: %d %q", code, body)
	}
	exchange()
	for i, c := range silent[:more] {
		_ = c.SetReadDeadline(time.Now().Add(pluginsdktest.Timeout))
		if _, err := c.Read(make([]byte, 1)); err == nil || isTimeout(err) {
			t.Fatalf("silent socket %d is still open: %v", i, err)
		}
	}
}

func isTimeout(err error) bool {
	ne, ok := errors.AsType[net.Error](err)
	return ok && ne.Timeout()
}

// TestRequestsThatAreNoUpgradeEnd: none keeps its socket until header_timeout,
// however little of its body comes.
func TestRequestsThatAreNoUpgradeEnd(t *testing.T) {
	h := serve(t, nil)
	const host, body = "Host: 127.0.0.1\r\n", "Content-Length: 1000\r\n"
	const up = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
	for _, tt := range []struct {
		name, request string
		code          int
		allow         string
	}{
		{"body", "POST / HTTP/1.1\r\n" + host + body, 405, "GET"},
		{"chunked body", "POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked\r\n", 405, "GET"},
		{"huge body", "POST / HTTP/1.1\r\n" + host + "Content-Length: 1000000000000\r\n", 405, "GET"},
		{"no body", "DELETE /x HTTP/1.1\r\n" + host, 405, "GET"},
		{"health by POST", "POST /healthz HTTP/1.1\r\n" + host + body, 405, "GET, HEAD"},
		{"ready by PUT", "PUT /readyz HTTP/1.1\r\n" + host + body, 405, "GET, HEAD"},
		{"health with a body", "GET /healthz HTTP/1.1\r\n" + host + body, 200, ""},
		{"no upgrade", "GET / HTTP/1.1\r\n" + host, 426, ""},
		{"upgrade with a body", "GET / HTTP/1.1\r\n" + host + up + body, 400, ""},
		{"upgrade without a key", "GET / HTTP/1.1\r\n" + host + strings.Replace(up, "AA", "", 1), 400, ""},
		{"origin", "POST / HTTP/1.1\r\n" + host + "Origin: https://evil.example\r\n" + body, 403, ""},
		{"another host", "GET / HTTP/1.1\r\nHost: evil.example\r\n" + up, 403, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c := dialRaw(t, h)
			_ = c.SetDeadline(time.Now().Add(defaultHeaderTimeout / 2))
			if _, err := io.WriteString(c, tt.request+"\r\n"); err != nil {
				t.Fatal(err)
			}
			r := bufio.NewReader(c)
			resp, err := http.ReadResponse(r, nil)
			if err != nil {
				t.Fatalf("no answer: %v", err)
			}
			if resp.StatusCode != tt.code || resp.Header.Get("Allow") != tt.allow || !resp.Close {
				t.Errorf("got %s, Allow %q, close %t; want %d, %q and that it is the last answer", resp.Status, resp.Header.Get("Allow"), resp.Close, tt.code, tt.allow)
			}
			if _, err := io.Copy(io.Discard, resp.Body); err != nil {
				t.Errorf("reading the answer: %v", err)
			}
			if _, err := r.ReadByte(); err == nil || isTimeout(err) {
				t.Errorf("the socket is still open: %v", err)
			}
		})
	}
	t.Run("trickle", func(t *testing.T) {
		t.Parallel()
		c := dialRaw(t, h)
		_ = c.SetDeadline(time.Now().Add(defaultHeaderTimeout / 2))
		_, err := io.WriteString(c, "POST / HTTP/1.1\r\n"+host+body+"\r\n")
		tick := time.NewTicker(10 * time.Millisecond)
		defer tick.Stop()
		for err == nil {
			<-tick.C
			_, err = io.WriteString(c, "x")
		}
		if isTimeout(err) {
			t.Error("a body that trickles in is read for ever")
		}
	})
}

// TestHealthChecksMayReuseTheirSocket, with GET and HEAD.
func TestHealthChecksMayReuseTheirSocket(t *testing.T) {
	h := serve(t, nil)
	c := dialRaw(t, h)
	_ = c.SetDeadline(time.Now().Add(pluginsdktest.Timeout))
	r := bufio.NewReader(c)
	for _, method := range []string{"GET", "HEAD", "GET"} {
		if _, err := io.WriteString(c, method+" /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		resp, err := http.ReadResponse(r, &http.Request{Method: method})
		if err != nil || resp.StatusCode != 200 || resp.Close {
			t.Fatalf("%s: %+v, %v", method, resp, err)
		}
	}
}

// TestHalfRequestsEnd: header_timeout is from connect to the end of the
// request, whatever comes of it.
func TestHalfRequestsEnd(t *testing.T) {
	h := serve(t, map[string]any{"header_timeout": "200ms"})
	for _, text := range []string{"", "GET / HT", "GET / HTTP/1.1\r\nHost: localhost\r\n", "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"} {
		c := dialRaw(t, h)
		_ = c.SetDeadline(time.Now().Add(pluginsdktest.Timeout))
		if _, err := io.WriteString(c, text); err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(io.Discard, c); isTimeout(err) {
			t.Errorf("after %q the socket is still open", text)
		}
	}
}
