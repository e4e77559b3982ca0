package backend_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"github.com/transporthost/transporthost/tests/relay/backend"
)

// control connects a controller.
func (b *bench) control(query string, header http.Header) (*websocket.Conn, *http.Response, error) {
	sock, response, err := websocket.DefaultDialer.DialContext(b.ctx, "ws"+strings.TrimPrefix(b.url, "http")+backend.ControllerPath+query, header)
	if err == nil {
		b.t.Cleanup(func() { _ = sock.Close() })
		b.must(sock.SetReadDeadline(time.Now().Add(time.Minute)))
	}
	return sock, response, err
}

func TestController(t *testing.T) {
	b := newBench(t, backend.Options{})
	person, _, err := b.control("?client=phone", nil)
	b.must(err)
	b.must(person.WriteMessage(websocket.TextMessage, []byte(initialize))) // before any host is there
	sock := b.dial()
	e := b.next(sock, "client_message")
	if e.ClientID != "phone" || len(e.StreamID) != 36 || string(e.Message) != initialize {
		t.Errorf("the host got %s", e.Text)
	}
	b.must(sock.Message("phone", e.StreamID, 1, `{"id":1,"result":{}}`))
	if _, text, err := person.ReadMessage(); err != nil || string(text) != `{"id":1,"result":{}}` {
		t.Errorf("the person got %s, %v", text, err)
	}
	b.next(sock, "ack")
	b.must(person.WriteMessage(websocket.TextMessage, []byte("hello?")))
	if _, text, err := person.ReadMessage(); err != nil || !strings.Contains(string(text), `"id":null,"error":{"code":-32600`) {
		t.Errorf("what is no message got %s, %v", text, err)
	}
	b.must(person.Close())
	if e := b.next(sock, "client_closed"); e.ClientID != "phone" {
		t.Errorf("the host got %s", e.Text)
	}
	b.Verify(t)
}

func TestControllersThatMayNot(t *testing.T) {
	b := newBench(t, backend.Options{})
	for _, tt := range []struct {
		name, query string
		header      http.Header
		want        int
	}{
		{"no name", "", nil, 400},
		{"a web page", "?client=x", http.Header{"Origin": {"http://evil.example"}}, 403},
	} {
		if _, response, err := b.control(tt.query, tt.header); err == nil || response == nil || response.StatusCode != tt.want {
			t.Errorf("%s: got %v, %v, want status %d", tt.name, response, err, tt.want)
		}
	}
	first, _, err := b.control("?client=x&stream=s", nil)
	b.must(err)
	b.must(first.WriteMessage(websocket.TextMessage, []byte("x")))
	if _, _, err := first.ReadMessage(); err != nil { // now it is there for sure
		t.Fatal(err)
	}
	second, _, err := b.control("?client=x&stream=s", nil)
	b.must(err)
	if _, _, err := second.ReadMessage(); !websocket.IsCloseError(err, websocket.ClosePolicyViolation) {
		t.Errorf("the same client and stream twice: got %v, want close code 1008", err)
	}
	b.Close()
	if _, _, err := first.ReadMessage(); err == nil {
		t.Error("a controller outlived the backend")
	}
}
