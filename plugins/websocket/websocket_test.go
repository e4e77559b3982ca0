package websocket

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"go.uber.org/goleak"

	pluginsdk "github.com/transporthost/transporthost/plugin-sdk"
	"github.com/transporthost/transporthost/plugin-sdk/pluginsdktest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// serve runs the transport with this configuration, beside one listener.
func serve(t *testing.T, config map[string]any) *pluginsdktest.Host {
	t.Helper()
	if config == nil {
		config = map[string]any{}
	}
	if config["listen"] == nil {
		config["listen"] = []string{"ws://127.0.0.1:0"}
	}
	b, err := json.Marshal(config)
	if err != nil {
		t.Fatal(err)
	}
	return pluginsdktest.Start(t, New(), pluginsdk.StartParams{Config: b})
}

// connect opens a connection and returns both ends.
func connect(t *testing.T, h *pluginsdktest.Host) (*websocket.Conn, pluginsdk.ConnID) {
	t.Helper()
	ws, _, err := websocket.DefaultDialer.DialContext(t.Context(), h.Addresses()[0], nil)
	if err != nil {
		t.Fatalf("dialling %s: %v", h.Addresses()[0], err)
	}
	t.Cleanup(func() { _ = ws.Close() })
	_ = ws.SetReadDeadline(time.Now().Add(pluginsdktest.Timeout))
	id, _ := h.NextOpened()
	return ws, id
}

func receive(t *testing.T, ws *websocket.Conn) string {
	t.Helper()
	kind, p, err := ws.ReadMessage()
	if err != nil {
		t.Fatalf("reading: %v", err)
	}
	if kind != websocket.TextMessage {
		t.Fatalf("got a message of kind %d", kind)
	}
	return string(p)
}

func wantClose(t *testing.T, ws *websocket.Conn, code int) {
	t.Helper()
	_, p, err := ws.ReadMessage()
	var ce *websocket.CloseError
	if !errors.As(err, &ce) || ce.Code != code {
		t.Errorf("got %.40q, %v; want close code %d", p, err, code)
	}
}

// TestRoutesMessages is websocket_transport_routes_per_connection_handshake_and_responses,
// as far as the listener has a part in it.
func TestRoutesMessages(t *testing.T) {
	h := serve(t, nil)
	one, id1 := connect(t, h)
	two, id2 := connect(t, h)
	for _, size := range []int{1, 125, 126, 65535, 65536, 70_000, 1 << 20} {
		for _, end := range []struct {
			ws *websocket.Conn
			id pluginsdk.ConnID
		}{{one, id1}, {two, id2}} {
			p := bytes.Repeat([]byte{byte('a' + end.id)}, size)
			if err := end.ws.WriteMessage(websocket.TextMessage, p); err != nil {
				t.Fatal(err)
			}
			if got := h.NextReceived(end.id); !bytes.Equal(got, p) {
				t.Fatalf("the host got %d other bytes of %d", len(got), size)
			}
			h.Send(end.id, p)
			if got := receive(t, end.ws); got != string(p) {
				t.Fatalf("the peer got %d other bytes of %d", len(got), size)
			}
		}
	}
}

func TestManyMessagesKeepTheirOrder(t *testing.T) {
	h := serve(t, nil)
	ws, id := connect(t, h)
	const n = 5000
	go func() {
		for i := range n {
			if ws.WriteMessage(websocket.TextMessage, fmt.Append(nil, i)) != nil {
				return
			}
		}
	}()
	for i := range n {
		got := h.NextReceived(id)
		if string(got) != fmt.Sprint(i) {
			t.Fatalf("message %d is %s", i, got)
		}
		h.Send(id, got)
	}
	for i := range n {
		if got := receive(t, ws); got != fmt.Sprint(i) {
			t.Fatalf("answer %d is %s", i, got)
		}
	}
}

func TestFragmentedMessageIsJoined(t *testing.T) {
	h := serve(t, nil)
	ws, id := connect(t, h)
	w, err := ws.NextWriter(websocket.TextMessage)
	if err != nil {
		t.Fatal(err)
	}
	for range 100 {
		if _, err := w.Write(bytes.Repeat([]byte("x"), 1000)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if got := h.NextReceived(id); len(got) != 100_000 {
		t.Errorf("got %d bytes, want 100000", len(got))
	}
}

func TestOversizeMessage(t *testing.T) {
	h := serve(t, map[string]any{"max_message_bytes": 1000})
	ws, id := connect(t, h)
	if err := ws.WriteMessage(websocket.TextMessage, bytes.Repeat([]byte("x"), 1000)); err != nil {
		t.Fatal(err)
	}
	if got := h.NextReceived(id); len(got) != 1000 {
		t.Errorf("the limit itself came as %d bytes", len(got))
	}
	if err := ws.WriteMessage(websocket.TextMessage, bytes.Repeat([]byte("x"), 1001)); err != nil {
		t.Fatal(err)
	}
	want := `{"jsonrpc":"2.0","id":null,"error":{"code":-32600,"message":"message of more than 1000 bytes; the limit is 1000 bytes"}}`
	if got := receive(t, ws); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	wantClose(t, ws, websocket.CloseMessageTooBig)
	if r := h.NextClosed(id); r.Code != pluginsdk.CloseTooLarge {
		t.Errorf("the host heard %v", r)
	}
}

func TestBinaryIsDroppedAndTheConnectionGoesOn(t *testing.T) {
	h := serve(t, nil)
	ws, id := connect(t, h)
	for range 3 {
		if err := ws.WriteMessage(websocket.BinaryMessage, []byte{1, 2, 3}); err != nil {
			t.Fatal(err)
		}
	}
	if err := ws.WriteMessage(websocket.TextMessage, []byte("text")); err != nil {
		t.Fatal(err)
	}
	if got := h.NextReceived(id); string(got) != "text" {
		t.Errorf("got %q", got)
	}
}

func TestInvalidUTF8(t *testing.T) {
	h := serve(t, nil)
	ws, id := connect(t, h)
	if err := ws.WriteMessage(websocket.TextMessage, []byte("\xff\xfe")); err != nil {
		t.Fatal(err)
	}
	wantClose(t, ws, websocket.CloseInvalidFramePayloadData)
	if r := h.NextClosed(id); r.Code != pluginsdk.CloseInvalidData {
		t.Errorf("the host heard %v", r)
	}
}

// TestPingIsAnswered is control_socket_acceptor_forwards_websocket_text_messages_and_pings.
func TestPingIsAnswered(t *testing.T) {
	h := serve(t, nil)
	ws, id := connect(t, h)
	pong := make(chan string, 1)
	ws.SetPongHandler(func(s string) error {
		pong <- s
		return nil
	})
	if err := ws.WriteControl(websocket.PingMessage, []byte("payload"), time.Now().Add(time.Second)); err != nil {
		t.Fatal(err)
	}
	if err := ws.WriteMessage(websocket.TextMessage, []byte("text")); err != nil {
		t.Fatal(err)
	}
	h.Send(id, h.NextReceived(id))
	receive(t, ws)
	if got := <-pong; got != "payload" {
		t.Errorf("pong with %q", got)
	}
}

func TestSilentPeerIsPingedAndGivenUp(t *testing.T) {
	h := serve(t, map[string]any{"ping_interval": "50ms", "pong_timeout": "200ms"})
	ws, id := connect(t, h)
	pinged := make(chan struct{}, 100)
	ws.SetPingHandler(func(string) error { // and no answer
		pinged <- struct{}{}
		return nil
	})
	go func() { _, _, _ = ws.ReadMessage() }()
	if r := h.NextClosed(id); r.Code != pluginsdk.ClosePeerGone {
		t.Errorf("the host heard %v", r)
	}
	if len(pinged) == 0 {
		t.Error("it was given up without a ping")
	}
}

func TestClosesOfTheHost(t *testing.T) {
	for _, tt := range []struct {
		code pluginsdk.CloseCode
		want int
	}{
		{pluginsdk.CloseNormal, 1000}, {pluginsdk.CloseGoingAway, 1001}, {pluginsdk.CloseSlow, 1013}, {pluginsdk.CloseInternal, 1011},
		{pluginsdk.CloseTooLarge, 1009}, {pluginsdk.CloseUnauthorized, 1008}, {pluginsdk.CloseAppEnded, 1011},
	} {
		t.Run(tt.code.String(), func(t *testing.T) {
			h := serve(t, nil)
			ws, id := connect(t, h)
			h.Send(id, []byte("last words"))
			h.Close(id, pluginsdk.CloseReason{Code: tt.code, Text: "because"})
			if got := receive(t, ws); got != "last words" {
				t.Errorf("before the close came %q", got)
			}
			wantClose(t, ws, tt.want)
			h.NextClosed(id)
		})
	}
}

func TestPeerClosesAndVanishes(t *testing.T) {
	h := serve(t, nil)
	ws, id := connect(t, h)
	if err := ws.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(1000, ""), time.Now().Add(time.Second)); err != nil {
		t.Fatal(err)
	}
	wantClose(t, ws, 1000)
	if r := h.NextClosed(id); r.Code != pluginsdk.CloseNormal {
		t.Errorf("the host heard %v", r)
	}
	ws, id = connect(t, h)
	_ = ws.NetConn().Close()
	if r := h.NextClosed(id); r.Code != pluginsdk.ClosePeerGone {
		t.Errorf("the host heard %v", r)
	}
}

// TestAPeerThatDoesNotReadDelaysNobody is the slow browser tab of the field
// notes.
func TestAPeerThatDoesNotReadDelaysNobody(t *testing.T) {
	h := serve(t, nil)
	slow, slowID := connect(t, h)
	fast, fastID := connect(t, h)
	big := bytes.Repeat([]byte("x"), 64<<10)
	const n = 400
	for range n {
		h.Send(slowID, big)
	}
	for i := range 1000 {
		p := fmt.Append(nil, i)
		if err := fast.WriteMessage(websocket.TextMessage, p); err != nil {
			t.Fatal(err)
		}
		h.Send(fastID, h.NextReceived(fastID))
		if got := receive(t, fast); got != string(p) {
			t.Fatalf("got %q", got)
		}
	}
	if h.Unwritten(slowID) == 0 {
		t.Fatal("nothing waits for the slow peer: the test shows nothing")
	}
	for i := range n {
		if got := receive(t, slow); len(got) != len(big) {
			t.Fatalf("message %d for the slow peer has %d bytes", i, len(got))
		}
	}
}

func get(t *testing.T, h *pluginsdktest.Host, path string, header http.Header) (int, string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, strings.Replace(h.Addresses()[0], "ws://", "http://", 1)+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header = header
	if host := header.Get("Host"); host != "" {
		r.Host = host
	}
	tr := &http.Transport{DisableKeepAlives: true}
	resp, err := (&http.Client{Transport: tr}).Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode == http.StatusSwitchingProtocols {
		return resp.StatusCode, "" // what follows are frames
	}
	var body bytes.Buffer
	_, _ = body.ReadFrom(resp.Body)
	return resp.StatusCode, strings.TrimSpace(body.String())
}

func upgrade(more ...string) http.Header {
	h := http.Header{"Connection": {"Upgrade"}, "Upgrade": {"websocket"}, "Sec-Websocket-Version": {"13"}, "Sec-Websocket-Key": {"AAAAAAAAAAAAAAAAAAAAAA=="}}
	for i := 0; i < len(more); i += 2 {
		h.Set(more[i], more[i+1])
	}
	return h
}

// TestHTTPAnswers is websocket_transport_serves_health_endpoints_on_same_listener
// and websocket_transport_rejects_browser_origin_without_auth.
func TestHTTPAnswers(t *testing.T) {
	h := serve(t, map[string]any{"allowed_origins": []string{"https://app.example"}, "allowed_hosts": []string{"desk.local"}})
	for _, tt := range []struct {
		name   string
		path   string
		header http.Header
		code   int
		body   string
	}{
		{"healthz", "/healthz", http.Header{}, 200, ""},
		{"readyz", "/readyz", http.Header{}, 200, ""},
		{"health with an origin", "/healthz", http.Header{"Origin": {"https://evil.example"}}, 403, ""},
		{"an origin", "/", upgrade("Origin", "https://evil.example"), 403, ""},
		{"another host", "/", upgrade("Host", "evil.example"), 403, "host not allowed; add it to allowed_hosts"},
		{"another address", "/", upgrade("Host", "10.0.0.1"), 403, "host not allowed; add it to allowed_hosts"},
		{"no upgrade", "/", http.Header{}, 426, "this is a websocket endpoint; want an upgrade"},
		{"old version", "/", upgrade("Sec-Websocket-Version", "8"), 426, "want Sec-WebSocket-Version 13"},
		{"allowed origin", "/", upgrade("Origin", "https://app.example"), 101, ""},
		{"allowed host", "/", upgrade("Host", "desk.local:4500"), 101, ""},
		{"localhost", "/", upgrade("Host", "localhost:1"), 101, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			code, body := get(t, h, tt.path, tt.header)
			if code != tt.code || code != 101 && body != tt.body {
				t.Errorf("got %d %q, want %d %q", code, body, tt.code, tt.body)
			}
		})
	}
}

func TestConnectionLimit(t *testing.T) {
	h := serve(t, map[string]any{"max_connections": 2})
	first, id := connect(t, h)
	connect(t, h)
	if code, body := get(t, h, "/", upgrade()); code != 503 || body != "too many connections (max_connections)" {
		t.Errorf("got %d %q", code, body)
	}
	_ = first.Close()
	h.NextClosed(id)
	connect(t, h)
}

func TestDrain(t *testing.T) {
	h := serve(t, nil)
	ws, id := connect(t, h)
	h.Drain()
	if _, _, err := websocket.DefaultDialer.DialContext(t.Context(), h.Addresses()[0], nil); err == nil {
		t.Error("a new connection was accepted while draining")
	}
	if err := ws.WriteMessage(websocket.TextMessage, []byte("still here")); err != nil {
		t.Fatal(err)
	}
	h.Send(id, h.NextReceived(id))
	if got := receive(t, ws); got != "still here" {
		t.Errorf("got %q", got)
	}
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		h.Stop()
	}()
	wantClose(t, ws, websocket.CloseGoingAway)
	h.NextClosed(id)
	<-stopped
}

func TestUnixSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	h := serve(t, map[string]any{"listen": []string{"unix://" + path}})
	d := websocket.Dialer{NetDial: func(string, string) (net.Conn, error) { return net.Dial("unix", path) }}
	ws, _, err := d.DialContext(t.Context(), "ws://anything/", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer ws.Close()
	id, o := h.NextOpened()
	if o.Peer.RemoteAddr != "unix" {
		t.Errorf("peer %+v", o.Peer)
	}
	if err := ws.WriteMessage(websocket.TextMessage, []byte("x")); err != nil {
		t.Fatal(err)
	}
	h.Send(id, h.NextReceived(id))
	if got := receive(t, ws); got != "x" {
		t.Errorf("got %q", got)
	}
}

func TestInvalidConfigIsRefused(t *testing.T) {
	dir := t.TempDir()
	file := func(name, content string, mode os.FileMode) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	empty, open, short := file("empty", " \n", 0o600), file("open", "token", 0o644), file("short", "secret", 0o600)
	binary, huge := file("binary", "\xff\xfe", 0o600), file("huge", strings.Repeat("x", maxSecretFile+1), 0o600)
	for _, tt := range []struct {
		name, config, want string
	}{
		{"no listener", `{}`, "listen is empty"},
		{"unknown key", `{"listen":["ws://127.0.0.1:0"],"colour":1}`, `unknown field "colour"`},
		{"not an address", `{"listen":["ws://localhost:0"]}`, "invalid websocket listen URL `ws://localhost:0`; expected `ws://IP:PORT`"},
		{"not a scheme", `{"listen":["http://127.0.0.1:0"]}`, "unsupported listen URL `http://127.0.0.1:0`"},
		// websocket_transport_rejects_unauthenticated_non_loopback_startup
		{"exposed", `{"listen":["ws://0.0.0.0:0"]}`, "refusing to start non-loopback websocket listener 0.0.0.0:0 without auth; configure auth"},
		{"exposed, and what to do", `{"listen":["ws://0.0.0.0:0"]}`, `auth = { mode = "signed-bearer-token" } in the transport "websocket" block of a configuration file (--config FILE); there is no flag for it`},
		{"wss without certificate", `{"listen":["wss://127.0.0.1:0"]}`, "needs tls = { cert_file = …, key_file = … } in the transport \"websocket\" block of a configuration file (--config FILE)"},
		{"missing certificate", `{"listen":["wss://127.0.0.1:0"],"tls":{"cert_file":"/nope.pem","key_file":"/nope.key"}}`, "tls.cert_file /nope.pem and tls.key_file /nope.key"},
		{"pong before ping", `{"listen":["ws://127.0.0.1:0"],"ping_interval":"50s"}`, "pong_timeout is 45s, want more than ping_interval"},
		// capability_token_args_require_token_file
		{"no token file", `{"listen":["ws://127.0.0.1:0"],"auth":{"mode":"capability-token"}}`, "auth.token_file (or auth.token_sha256) is required"},
		{"both", `{"listen":["ws://127.0.0.1:0"],"auth":{"mode":"capability-token","token_file":"/x","token_sha256":"00"}}`, "one is enough"},
		{"bad sum", `{"listen":["ws://127.0.0.1:0"],"auth":{"mode":"capability-token","token_sha256":"00"}}`, "not 64 hexadecimal digits"},
		{"empty file", `{"listen":["ws://127.0.0.1:0"],"auth":{"mode":"capability-token","token_file":"` + empty + `"}}`, "must not be empty"},
		{"readable file", `{"listen":["ws://127.0.0.1:0"],"auth":{"mode":"capability-token","token_file":"` + open + `"}}`, "chmod 600 " + open},
		{"relative file", `{"listen":["ws://127.0.0.1:0"],"auth":{"mode":"capability-token","token_file":"t"}}`, "auth.token_file must be an absolute path"},
		{"missing file", `{"listen":["ws://127.0.0.1:0"],"auth":{"mode":"capability-token","token_file":"/nope"}}`, "failed to read websocket auth secret /nope"},
		{"binary file", `{"listen":["ws://127.0.0.1:0"],"auth":{"mode":"capability-token","token_file":"` + binary + `"}}`, "failed to read websocket auth secret " + binary},
		{"huge file", `{"listen":["ws://127.0.0.1:0"],"auth":{"mode":"capability-token","token_file":"` + huge + `"}}`, "has 65537 bytes, more than 65536"},
		{"unknown mode", `{"listen":["ws://127.0.0.1:0"],"auth":{"mode":"basic"}}`, `auth.mode is "basic", want "capability-token" or "signed-bearer-token"`},
		{"skew with a token", `{"listen":["ws://127.0.0.1:0"],"auth":{"mode":"capability-token","token_sha256":"00","max_clock_skew":"1s"}}`, `auth.max_clock_skew require auth.mode "signed-bearer-token"`},
		{"negative skew", `{"listen":["ws://127.0.0.1:0"],"auth":{"mode":"signed-bearer-token","shared_secret_file":"/x","max_clock_skew":"-1s"}}`, "auth.max_clock_skew is -1s, want 0 or more"},
		{"relative secret", `{"listen":["ws://127.0.0.1:0"],"auth":{"mode":"signed-bearer-token","shared_secret_file":"s"}}`, "auth.shared_secret_file must be an absolute path"},
		// signed_bearer_args_require_mode_when_mode_specific_flags_are_set
		{"issuer without mode", `{"listen":["ws://127.0.0.1:0"],"auth":{"issuer":"x"}}`, "require auth.mode"},
		{"token and issuer", `{"listen":["ws://127.0.0.1:0"],"auth":{"mode":"capability-token","issuer":"x"}}`, `require auth.mode "signed-bearer-token"`},
		{"signed with token", `{"listen":["ws://127.0.0.1:0"],"auth":{"mode":"signed-bearer-token","token_file":"/x"}}`, `require auth.mode "capability-token", not "signed-bearer-token"`},
		{"no secret", `{"listen":["ws://127.0.0.1:0"],"auth":{"mode":"signed-bearer-token"}}`, "auth.shared_secret_file is required"},
		// validate_signed_bearer_secret_rejects_short_secret
		{"short secret", `{"listen":["ws://127.0.0.1:0"],"auth":{"mode":"signed-bearer-token","shared_secret_file":"` + short + `"}}`, "must be at least 32 bytes"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			err := pluginsdktest.Serve(t, New()).TryStart(pluginsdk.StartParams{Config: json.RawMessage(tt.config)})
			if !errors.Is(err, pluginsdk.ErrInvalidConfig) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("Start: %v; want an invalid configuration with %q", err, tt.want)
			}
		})
	}
}
