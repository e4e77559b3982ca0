package remotecontrol

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	pluginsdk "github.com/transporthost/transporthost/plugin-sdk"
	"github.com/transporthost/transporthost/plugin-sdk/pluginsdktest"
)

// lent is a transport that lends its host to the test.
type lent struct{ host chan *pluginsdk.Host }

func (l *lent) Describe() pluginsdk.Description {
	return pluginsdk.Description{Name: "lent", Version: "1", Locality: pluginsdk.Remote}
}

func (l *lent) CanResume() {}

func (l *lent) Serve(ctx context.Context, h *pluginsdk.Host) error {
	l.host <- h
	h.Ready()
	<-ctx.Done()
	return nil
}

// A process is clients behind a scripted host.
type process struct {
	*clients
	t    *testing.T
	host *pluginsdktest.Host
}

func startProcess(t *testing.T, p profile, params pluginsdk.StartParams) *process {
	t.Helper()
	l := &lent{host: make(chan *pluginsdk.Host, 1)}
	host := pluginsdktest.Start(t, l, params)
	sdk := <-l.host
	c := newClients(sdk, p, "relay.test:443", defaultMaxClients, sdk.Logger())
	t.Cleanup(func() { c.close(pluginsdk.CloseReason{Code: pluginsdk.CloseGoingAway}) })
	if err := c.adopt(params.Resume); err != nil {
		t.Fatalf("adopting: %v", err)
	}
	return &process{clients: c, t: t, host: host}
}

// A relayEnd is the relay's end of one link that is served.
type relayEnd struct {
	t      *testing.T
	ws     *websocket.Conn
	served chan error
	cancel context.CancelCauseFunc
}

// link serves a new link over real sockets.
func (p *process) link() *relayEnd {
	p.t.Helper()
	accepted := make(chan *websocket.Conn, 1)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		up := websocket.Upgrader{}
		ws, err := up.Upgrade(w, r, nil)
		if err != nil {
			p.t.Errorf("upgrading: %v", err)
			return
		}
		accepted <- ws
	}))
	p.t.Cleanup(server.Close)
	ws, _, err := websocket.DefaultDialer.DialContext(p.t.Context(), "ws"+strings.TrimPrefix(server.URL, "http"), nil)
	if err != nil {
		p.t.Fatalf("dialling the relay: %v", err)
	}
	return p.serveOn(ws, <-accepted)
}

func (p *process) serveOn(ours, theirs *websocket.Conn) *relayEnd {
	ctx, cancel := context.WithCancelCause(context.Background())
	r := &relayEnd{t: p.t, ws: theirs, served: make(chan error, 1), cancel: cancel}
	go func() { r.served <- p.serve(ctx, ours) }()
	_ = theirs.SetReadDeadline(time.Now().Add(pluginsdktest.Timeout))
	p.t.Cleanup(func() {
		cancel(pluginsdk.ErrStopping)
		_ = theirs.Close()
		r.end()
	})
	return r
}

// end waits for the end of serve.
func (r *relayEnd) end() error {
	r.t.Helper()
	select {
	case err := <-r.served:
		r.served <- err
		return err
	case <-time.After(pluginsdktest.Timeout):
		r.t.Error("serve does not end")
		return nil
	}
}

// drop breaks the link, and waits until it is noticed.
func (r *relayEnd) drop() {
	r.t.Helper()
	_ = r.ws.UnderlyingConn().Close()
	r.end()
}

func (r *relayEnd) send(format string, args ...any) {
	r.t.Helper()
	if err := r.ws.WriteMessage(websocket.TextMessage, fmt.Appendf(nil, format, args...)); err != nil {
		r.t.Fatalf("sending: %v", err)
	}
}

// receive returns the next envelope as it came.
func (r *relayEnd) receive() string {
	r.t.Helper()
	_, b, err := r.ws.ReadMessage()
	if err != nil {
		r.t.Fatalf("receiving from the host: %v", err)
	}
	return string(b)
}

func (r *relayEnd) want(envelope string) {
	r.t.Helper()
	if got := r.receive(); got != envelope {
		r.t.Fatalf("got  %.300s\nwant %.300s", got, envelope)
	}
}

// wantNothing checks that nothing was sent before the answer to a ping.
func (r *relayEnd) wantNothing() {
	r.t.Helper()
	r.send(`{"type":"ping","client_id":"nobody","stream_id":%q}`, newStreamID())
	if got := r.receive(); !strings.HasPrefix(got, `{"type":"pong","status":"unknown","client_id":"nobody"`) {
		r.t.Fatalf("got %s, want nothing", got)
	}
}

func initialize(client, stream string, seq int) string {
	return fmt.Sprintf(`{"type":"client_message","client_id":%q,"stream_id":%q,"seq_id":%d,"message":{"id":1,"method":"initialize","params":{}}}`, client, stream, seq)
}

func message(client, stream string, seq int, message string) string {
	return fmt.Sprintf(`{"type":"client_message","client_id":%q,"stream_id":%q,"seq_id":%d,"message":%s}`, client, stream, seq, message)
}

// open initializes a stream and waits for its connection.
func (p *process) open(r *relayEnd, client, stream string) pluginsdk.ConnID {
	p.t.Helper()
	r.send("%s", initialize(client, stream, 0))
	id, opened := p.host.NextOpened()
	if opened.Peer.Identity != client || opened.Peer.RemoteAddr != "relay.test:443" {
		p.t.Errorf("opened with peer %+v", opened.Peer)
	}
	if got := string(p.host.NextReceived(id)); got != `{"id":1,"method":"initialize","params":{}}` {
		p.t.Errorf("the host received %s", got)
	}
	return id
}

var bothProfiles = map[string]profile{"profile 2": profile2, "profile 3": profile3}

// TestVirtualClientsAndRouting is
// remote_control_transport_manages_virtual_clients_and_routes_messages.
func TestVirtualClientsAndRouting(t *testing.T) {
	for name, profile := range bothProfiles {
		t.Run(name, func(t *testing.T) {
			p := startProcess(t, profile, pluginsdk.StartParams{})
			r := p.link()
			r.send(`{"type":"ping","client_id":"c1","stream_id":"s1"}`)
			r.want(`{"type":"pong","status":"unknown","client_id":"c1","stream_id":"s1","seq_id":1}`)
			r.send("%s", message("c1", "s1", 0, `{"method":"initialized"}`))
			r.wantNothing()
			if p.len() != 0 {
				t.Fatalf("a notification opened a virtual client")
			}
			id := p.open(r, "c1", "s1")
			r.send("%s", message("c1", "s1", 2, `{"id":2, "method" : "x","params":{"a":[1,2.50]}}`))
			if got := string(p.host.NextReceived(id)); got != `{"id":2, "method" : "x","params":{"a":[1,2.50]}}` {
				t.Errorf("the host received %s", got)
			}
			r.send(`{"type":"ping","client_id":"c1","stream_id":"s1"}`)
			r.want(`{"type":"pong","status":"active","client_id":"c1","stream_id":"s1","seq_id":2}`)
			p.host.Send(id, []byte(`{"method":"configWarning" }`))
			r.want(`{"type":"server_message","message":{"method":"configWarning" },"client_id":"c1","stream_id":"s1","seq_id":3}`)
			r.send(`{"type":"ack","client_id":"c1","stream_id":"s1","seq_id":3}`)
			p.host.NextAcked(id, 1)
			r.send(`{"type":"client_closed","client_id":"c1","stream_id":"s1"}`)
			if got := p.host.NextClosed(id); got.Code != pluginsdk.CloseNormal {
				t.Errorf("closed with %v", got)
			}
			r.send(`{"type":"ping","client_id":"c1","stream_id":"s1"}`)
			r.want(`{"type":"pong","status":"unknown","client_id":"c1","stream_id":"s1","seq_id":4}`)
			if p.len() != 0 {
				t.Errorf("%d virtual clients, want none", p.len())
			}
		})
	}
}

// TestReconnectKeepsVirtualClients is
// remote_control_transport_reconnects_after_disconnect, beyond the socket.
func TestReconnectKeepsVirtualClients(t *testing.T) {
	p := startProcess(t, profile3, pluginsdk.StartParams{})
	r := p.link()
	id := p.open(r, "c1", "s1")
	p.host.Send(id, []byte(`{"n":1}`))
	first := r.receive()
	p.host.Send(id, []byte(`{"n":2}`))
	second := r.receive()
	r.send(`{"type":"ack","client_id":"c1","stream_id":"s1","seq_id":1}`)
	p.host.NextAcked(id, 1)
	r.drop()
	p.host.Send(id, []byte(`{"n":3}`))

	r = p.link()
	r.want(second)
	r.want(`{"type":"server_message","message":{"n":3},"client_id":"c1","stream_id":"s1","seq_id":3}`)
	r.wantNothing()
	if !strings.Contains(first, `"seq_id":1}`) {
		t.Errorf("the first envelope was %s", first)
	}
	p.open(r, "c2", "s1")
	if p.len() != 2 {
		t.Errorf("%d virtual clients, want 2", p.len())
	}
}

// TestAckedIsNotReplayed is
// remote_control_transport_clears_outgoing_buffer_when_backend_acks.
func TestAckedIsNotReplayed(t *testing.T) {
	p := startProcess(t, profile2, pluginsdk.StartParams{})
	r := p.link()
	id := p.open(r, "c1", "s1")
	p.host.Send(id, []byte(`{"n":1}`))
	r.receive()
	r.send(`{"type":"ack","client_id":"c1","stream_id":"s1","seq_id":1}`)
	p.host.NextAcked(id, 1)
	r.send(`{"type":"client_closed","client_id":"c1","stream_id":"s1"}`)
	p.host.NextClosed(id)
	r.drop()
	r = p.link()
	r.send(`{"type":"ping","client_id":"c1","stream_id":"s2"}`)
	r.want(`{"type":"pong","status":"unknown","client_id":"c1","stream_id":"s2","seq_id":1}`)
}

// TestClientClosedFreesItsEnvelopes is behaviour 2 of spec 0.2: the reference
// goes on to send them.
func TestClientClosedFreesItsEnvelopes(t *testing.T) {
	p := startProcess(t, profile3, pluginsdk.StartParams{})
	r := p.link()
	id := p.open(r, "c1", "s1")
	p.host.Send(id, []byte(`{"n":1}`))
	r.receive()
	r.send(`{"type":"client_closed","client_id":"c1","stream_id":"s1"}`)
	p.host.NextClosed(id)
	r.drop()
	r = p.link()
	r.wantNothing()
	id = p.open(r, "c1", "s1")
	p.host.Send(id, []byte(`{"n":2}`))
	r.want(`{"type":"server_message","message":{"n":2},"client_id":"c1","stream_id":"s1","seq_id":2}`)
}

// TestNewStreamOpensAnotherConnection is
// initialize_with_new_stream_id_opens_new_connection_for_same_client,
// run_server_writer_inner_assigns_contiguous_seq_ids_per_stream, and
// outbound_buffer_acks_by_client_id_across_stream_ids for the one kind of ack that
// does that here: one without a stream (spec 0.2).
func TestNewStreamOpensAnotherConnection(t *testing.T) {
	p := startProcess(t, profile3, pluginsdk.StartParams{})
	r := p.link()
	one, two := p.open(r, "c1", "s1"), p.open(r, "c1", "s2")
	p.host.Send(one, []byte(`{"n":1}`))
	r.want(`{"type":"server_message","message":{"n":1},"client_id":"c1","stream_id":"s1","seq_id":1}`)
	p.host.Send(two, []byte(`{"n":2}`))
	r.want(`{"type":"server_message","message":{"n":2},"client_id":"c1","stream_id":"s2","seq_id":1}`)
	p.host.Send(one, []byte(`{"n":3}`))
	r.want(`{"type":"server_message","message":{"n":3},"client_id":"c1","stream_id":"s1","seq_id":2}`)
	r.send(`{"type":"ack","client_id":"c1","seq_id":1}`) // of no stream: of all
	p.host.NextAcked(one, 1)
	p.host.NextAcked(two, 1)
}

// TestLegacyClient is legacy_initialize_without_stream_id_resets_inbound_seq_id.
func TestLegacyClient(t *testing.T) {
	p := startProcess(t, profile2, pluginsdk.StartParams{})
	r := p.link()
	first := `{"type":"client_message","client_id":"c1","seq_id":0,"message":{"id":1,"method":"initialize"}}`
	r.send("%s", first)
	id, _ := p.host.NextOpened()
	p.host.NextReceived(id)
	r.send("%s", first) // sent again: nothing came in between
	r.send(`{"type":"client_message","client_id":"c1","seq_id":0,"message":{"method":"initialized"}}`)
	if got := string(p.host.NextReceived(id)); got != `{"method":"initialized"}` {
		t.Errorf("the host received %s", got)
	}
	p.host.Send(id, []byte(`{"n":1}`))
	var got struct {
		Stream string `json:"stream_id"`
	}
	if err := json.Unmarshal([]byte(r.receive()), &got); err != nil || len(got.Stream) != 36 || got.Stream[14] != '7' {
		t.Errorf("the stream was called %q, want a UUID of version 7", got.Stream)
	}
	r.send("%s", first) // the client began anew
	again, _ := p.host.NextOpened()
	p.host.NextClosed(id)
	p.host.Send(again, []byte(`{"n":2}`))
	r.want(fmt.Sprintf(`{"type":"server_message","message":{"n":2},"client_id":"c1","stream_id":%q,"seq_id":2}`, got.Stream))
	r.send(`{"type":"client_closed","client_id":"c1"}`)
	p.host.NextClosed(again)
	r.send(`{"type":"ping","client_id":"c1"}`)
	if pong := r.receive(); strings.Contains(pong, got.Stream) {
		t.Errorf("a closed client kept its stream: %s", pong)
	}
}

// TestSecondInitialize is behaviour 3 of spec 0.2.
func TestSecondInitialize(t *testing.T) {
	tests := []struct {
		name   string
		second string
		resets bool
	}{
		{"the same number and bytes", initialize("c1", "s1", 5), false},
		{"the same number, other bytes", message("c1", "s1", 5, `{"id":9,"method":"initialize"}`), true},
		{"a lower number", initialize("c1", "s1", 4), true},
		{"a higher number", initialize("c1", "s1", 9), true},
		{"no number", `{"type":"client_message","client_id":"c1","stream_id":"s1","message":{"id":1,"method":"initialize","params":{}}}`, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := startProcess(t, profile3, pluginsdk.StartParams{})
			r := p.link()
			r.send("%s", initialize("c1", "s1", 5))
			id, _ := p.host.NextOpened()
			p.host.NextReceived(id)
			p.host.Send(id, []byte(`{"n":1}`))
			r.receive()
			r.send("%s", tt.second)
			if !tt.resets {
				r.send("%s", message("c1", "s1", 6, `{"method":"x"}`))
				if got := string(p.host.NextReceived(id)); got != `{"method":"x"}` {
					t.Errorf("the host received %s", got)
				}
				return
			}
			p.host.NextClosed(id)
			again, _ := p.host.NextOpened()
			p.host.NextReceived(again)
			p.host.Send(again, []byte(`{"n":2}`))
			r.want(`{"type":"server_message","message":{"n":2},"client_id":"c1","stream_id":"s1","seq_id":2}`)
			r.drop()
			r = p.link()
			r.want(`{"type":"server_message","message":{"n":2},"client_id":"c1","stream_id":"s1","seq_id":2}`)
		})
	}
}

func TestDuplicatesAndGaps(t *testing.T) {
	p := startProcess(t, profile3, pluginsdk.StartParams{})
	r := p.link()
	id := p.open(r, "c1", "s1")
	for _, m := range []struct {
		seq  string
		n    int
		want bool
	}{{`,"seq_id":3`, 1, true}, {`,"seq_id":3`, 2, false}, {`,"seq_id":1`, 3, false}, {``, 4, true}, {`,"seq_id":null`, 5, true}, {`,"seq_id":9`, 6, true}} {
		r.send(`{"type":"client_message","client_id":"c1","stream_id":"s1"%s,"message":{"method":"m","params":%d}}`, m.seq, m.n)
		if want := fmt.Sprintf(`{"method":"m","params":%d}`, m.n); m.want {
			if got := string(p.host.NextReceived(id)); got != want {
				t.Fatalf("the host received %s, want %s", got, want)
			}
		}
	}
	if got := p.tally.repeated.Load(); got != 2 {
		t.Errorf("%d repeated envelopes, want 2", got)
	}
}

func TestMalformedFramesConcernNobody(t *testing.T) {
	frames := []string{
		``, `x`, `{`, `[]`, `null`, `{}`, `{"type":"ping"}`, `{"type":"ping","client_id":null}`, `{"type":"ping","client_id":7}`,
		`{"type":"nonsense","client_id":"c1"}`, `{"type":"ack","client_id":"c1","seq_id":-1}`, `{"type":"ack","client_id":"c1","seq_id":"1"}`,
		`{"type":"client_message","client_id":"c1","stream_id":"s1"}`, `{"type":"client_message","client_id":"c1","stream_id":"s1","message":null}`,
		`{"type":"client_message","client_id":"c1","stream_id":"s1","seq_id":4,"message":{"x":1}}`,
		`{"type":"client_message","client_id":"c1","stream_id":"s1","message":[{"method":"x"}]}`,
		"{\"type\":\"ping\",\"client_id\":\"\xff\"}",
		`{"type":"ping","client_id":"` + strings.Repeat("c", maxIDBytes+1) + `"}`,
	}
	for name, profile := range bothProfiles {
		t.Run(name, func(t *testing.T) {
			p := startProcess(t, profile, pluginsdk.StartParams{})
			r := p.link()
			id := p.open(r, "c1", "s1")
			for _, f := range frames {
				r.send("%s", f)
			}
			if err := r.ws.WriteMessage(websocket.BinaryMessage, []byte(`{"type":"client_closed","client_id":"c1","stream_id":"s1"}`)); err != nil {
				t.Fatal(err)
			}
			r.send(`{"type":"ping","client_id":"c1","stream_id":""}`) // dropped, and no defect
			r.send("%s", message("c1", "s1", 1, `{"method":"x"}`))
			if got := string(p.host.NextReceived(id)); got != `{"method":"x"}` {
				t.Errorf("the host received %s", got)
			}
			if got := p.tally.malformed.Load(); got != int64(len(frames)) {
				t.Errorf("%d malformed frames, want %d", got, len(frames))
			}
			if got := p.tally.details(); got["binary_frames"] != "1" || len(got) != 2 {
				t.Errorf("the details are %v", got)
			}
		})
	}
}

func TestCursor(t *testing.T) {
	p := startProcess(t, profile3, pluginsdk.StartParams{})
	r := p.link()
	if got := p.cursor(); got != "" {
		t.Errorf("cursor %q before anything came", got)
	}
	for _, tt := range []struct{ envelope, want string }{
		{`{"type":"ack","client_id":"c1","stream_id":"s","cursor":"1"}`, "1"},
		{`{"type":"ack","client_id":"c9","stream_id":"s","seq_id":1,"cursor":"2"}`, "2"},
		{`{"type":"client_message","client_id":"c9","stream_id":"s","message":{"method":"x"},"cursor":"3"}`, "3"},
		{`{"type":"client_closed","client_id":"c9","stream_id":"s","cursor":"4"}`, "4"},
		{`{"type":"ack","client_id":"c9","stream_id":"s","seq_id":1}`, "4"},
		{`{"type":"ack","client_id":"c9","stream_id":"s","cursor":"no\nheader"}`, "4"},
		{`{"type":"nonsense","client_id":"c9","stream_id":"s","cursor":"5"}`, "4"},
	} {
		r.send("%s", tt.envelope)
		r.wantNothing() // what came before is done
		if got := p.cursor(); got != tt.want {
			t.Errorf("after %s: cursor %q, want %q", tt.envelope, got, tt.want)
		}
	}
	r.send(`{"type":"ping","client_id":"c1","stream_id":"s","cursor":"6"}`)
	r.receive()
	r.drop()
	if got := p.cursor(); got != "6" {
		t.Errorf("after a ping, and the end of the link: cursor %q, want 6", got)
	}
}

// TestHostCloses is cancelled_outbound_task_emits_connection_closed: what ends a
// virtual client on this side is confirmed to the host. What the host said last
// still goes out, though it is more than an outbox holds and there is no link.
func TestHostCloses(t *testing.T) {
	p := startProcess(t, profile3, pluginsdk.StartParams{})
	r := p.link()
	id := p.open(r, "c1", "s1")
	r.drop()
	const messages = outboxEnvelopes + 72 // the rest fits into the window
	for n := range messages {
		p.host.Send(id, fmt.Appendf(nil, `{"n":%d}`, n))
	}
	p.host.Close(id, pluginsdk.CloseReason{Code: pluginsdk.CloseNormal, Text: "done"})
	if got := p.host.NextClosed(id); got.String() != "normal: done" {
		t.Errorf("closed with %v", got)
	}
	r = p.link()
	for n := range messages {
		r.want(fmt.Sprintf(`{"type":"server_message","message":{"n":%d},"client_id":"c1","stream_id":"s1","seq_id":%d}`, n, n+1))
	}
	r.send(`{"type":"ack","client_id":"c1","stream_id":"s1","seq_id":%d}`, messages)
	r.send(`{"type":"ping","client_id":"c1","stream_id":"s1"}`)
	r.want(fmt.Sprintf(`{"type":"pong","status":"unknown","client_id":"c1","stream_id":"s1","seq_id":%d}`, messages+1))
}

// TestOneThatNeverAcksDelaysNobody is behaviour 2 of spec 0.2.
func TestOneThatNeverAcksDelaysNobody(t *testing.T) {
	p := startProcess(t, profile3, pluginsdk.StartParams{})
	r := p.link()
	deaf, other := p.open(r, "c1", "s1"), p.open(r, "c2", "s1")
	for n := range 500 {
		p.host.Send(deaf, fmt.Appendf(nil, `{"n":%d}`, n))
	}
	for range outboxEnvelopes {
		r.receive()
	}
	for n := 1; n <= 300; n++ {
		p.host.Send(other, fmt.Appendf(nil, `{"n":%d}`, n))
		r.want(fmt.Sprintf(`{"type":"server_message","message":{"n":%d},"client_id":"c2","stream_id":"s1","seq_id":%d}`, n, n))
		r.send(`{"type":"ack","client_id":"c2","stream_id":"s1","seq_id":%d}`, n)
	}
	r.send(`{"type":"ack","client_id":"c1","stream_id":"s1","seq_id":1}`)
	r.want(fmt.Sprintf(`{"type":"server_message","message":{"n":%d},"client_id":"c1","stream_id":"s1","seq_id":%d}`, outboxEnvelopes, outboxEnvelopes+1))
}

// TestInvalidMessageOfTheApplication never reaches the wire, and takes no
// number.
func TestInvalidMessageOfTheApplication(t *testing.T) {
	p := startProcess(t, profile3, pluginsdk.StartParams{})
	r := p.link()
	id := p.open(r, "c1", "s1")
	p.host.Send(id, []byte(`{"n":1}`))
	p.host.Send(id, []byte(`{"n":2},"type":"pong"`))
	p.host.Send(id, []byte("{\"n\":\"\xff\"}"))
	p.host.Send(id, []byte(`{"n":4}`))
	r.want(`{"type":"server_message","message":{"n":1},"client_id":"c1","stream_id":"s1","seq_id":1}`)
	r.want(`{"type":"server_message","message":{"n":4},"client_id":"c1","stream_id":"s1","seq_id":2}`)
	r.send(`{"type":"ack","client_id":"c1","stream_id":"s1","seq_id":2}`)
	p.host.NextAcked(id, 4)
}

func TestServeSaysWhyItEnded(t *testing.T) {
	tests := []struct {
		name string
		end  func(r *relayEnd)
		want string
	}{
		{"close frame", func(r *relayEnd) {
			_ = r.ws.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(1008, "policy"), time.Now().Add(time.Second))
		}, `remote control websocket reader disconnected, err: websocket disconnected: close code 1008, "policy"`},
		{"close frame without a code", func(r *relayEnd) {
			_ = r.ws.WriteControl(websocket.CloseMessage, nil, time.Now().Add(time.Second))
		}, `remote control websocket reader disconnected, err: websocket disconnected`},
		{"end of the stream", func(r *relayEnd) { _ = r.ws.UnderlyingConn().(*net.TCPConn).CloseWrite() },
			`remote control websocket reader disconnected, err: websocket stream ended`},
		{"disabled", func(r *relayEnd) { r.cancel(errDisabled) }, errDisabled.Error()},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := startProcess(t, profile3, pluginsdk.StartParams{})
			r := p.link()
			tt.end(r)
			if err := r.end(); err == nil || err.Error() != tt.want {
				t.Errorf("serve returned %v, want %s", err, tt.want)
			}
		})
	}
}

// TestGoodbye is behaviour 12 of spec 0.2.
func TestGoodbye(t *testing.T) {
	for _, tt := range []struct {
		cause error
		code  int
	}{
		{errDisabled, websocket.CloseNormalClosure},
		{errAccountChanged, websocket.CloseNormalClosure},
		{pluginsdk.ErrStopping, websocket.CloseGoingAway},
		{context.Canceled, websocket.CloseGoingAway},
	} {
		t.Run(tt.cause.Error(), func(t *testing.T) {
			p := startProcess(t, profile3, pluginsdk.StartParams{})
			r := p.link()
			p.open(r, "c1", "s1")
			r.cancel(tt.cause)
			_, _, err := r.ws.ReadMessage()
			if !websocket.IsCloseError(err, tt.code) {
				t.Errorf("the relay saw %v, want close code %d", err, tt.code)
			}
			if err := r.end(); !errors.Is(err, tt.cause) {
				t.Errorf("serve returned %v, want %v", err, tt.cause)
			}
			if p.len() != 1 {
				t.Errorf("the virtual client did not survive its link")
			}
		})
	}
}
