package remotecontrol

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"
	"time"

	pluginsdk "github.com/transporthost/transporthost/plugin-sdk"
)

// TestSlowApplicationIsAnswered is behaviour 4 of spec 0.2, in place of the
// reference's incoming_message_timeout_does_not_advance_seq_id and
// non_close_transport_event_send_times_out_when_queue_stays_full.
func TestSlowApplicationIsAnswered(t *testing.T) {
	p := startProcess(t, profile3, pluginsdk.StartParams{})
	r := p.link()
	slow, other := p.open(r, "c1", "s1"), p.open(r, "c2", "s1")
	p.host.Stall(true)
	const window, more = 128, 20
	seq := 0
	say := func(format string) {
		seq++
		r.send("%s", message("c1", "s1", seq, fmt.Sprintf(format, seq)))
	}
	for range window - 1 { // and the initialize
		say(`{"id":%d,"method":"x"}`)
		p.host.NextReceived(slow)
	}
	for range inboundMessages + more {
		say(`{"id":%d,"method":"x"}`)
	}
	for n := range more - 1 { // one more may be in the hand of the goroutine that waits
		if got := r.receive(); !strings.Contains(got, `"error":{"code":-32001,"message":"Server overloaded; retry later."}`) ||
			!strings.HasSuffix(got, fmt.Sprintf(`"client_id":"c1","stream_id":"s1","seq_id":%d}`, n+1)) {
			t.Fatalf("answer %d is %s", n, got)
		}
	}
	r.send("%s", message("c2", "s1", 1, `{"method":"y"}`))
	p.host.NextReceived(other)
	for range inboundMessages + 2 {
		say(`{"method":"n%d"}`)
	}
	if got := p.host.NextClosed(slow); got.Code != pluginsdk.CloseOverloaded {
		t.Errorf("closed with %v, want overloaded", got)
	}
	if p.len() != 1 {
		t.Errorf("%d virtual clients, want 1", p.len())
	}
	p.wg.Wait() // for the one that was in hand
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.inbound != 0 || p.ledger.first != nil {
		t.Errorf("%d bytes are on their way, the first %+v", p.inbound, p.ledger.first)
	}
}

// TestHostWithoutRoom: the peer of a refused connection hears of it.
func TestHostWithoutRoom(t *testing.T) {
	p := startProcess(t, profile3, pluginsdk.StartParams{})
	r := p.link()
	id := p.open(r, "c1", "s1")
	p.host.Close(id, pluginsdk.CloseReason{Code: pluginsdk.CloseOverloaded, Text: "the host has 1 connection, its limit"})
	r.want(`{"type":"server_message","message":{"jsonrpc":"2.0","id":1,"error":{"code":-32001,"message":"Server overloaded; retry later."}},"client_id":"c1","stream_id":"s1","seq_id":1}`)
	p.host.NextClosed(id)
}

// TestGoodbyeOfAPeer is close_client_waits_for_transport_event_queue_capacity:
// what the peer said before it left still arrives. The wait has an end here.
func TestGoodbyeOfAPeer(t *testing.T) {
	p := startProcess(t, profile3, pluginsdk.StartParams{})
	r := p.link()
	id := p.open(r, "c1", "s1")
	for n := 1; n <= 100; n++ {
		r.send("%s", message("c1", "s1", n, fmt.Sprintf(`{"method":"m","params":%d}`, n)))
	}
	r.send(`{"type":"client_closed","client_id":"c1","stream_id":"s1"}`)
	for n := 1; n <= 100; n++ {
		if got, want := string(p.host.NextReceived(id)), fmt.Sprintf(`{"method":"m","params":%d}`, n); got != want {
			t.Fatalf("the host received %s, want %s", got, want)
		}
	}
	p.host.NextClosed(id)

	id = p.open(r, "c1", "s1")
	p.host.Stall(true)
	for n := 1; n <= 200; n++ { // more than a window
		r.send("%s", message("c1", "s1", n, `{"method":"m"}`))
	}
	r.send(`{"type":"client_closed","client_id":"c1","stream_id":"s1"}`)
	r.send(`{"type":"ping","client_id":"c1","stream_id":"s1"}`)
	r.want(`{"type":"pong","status":"unknown","client_id":"c1","stream_id":"s1","seq_id":1}`)
	p.sweep(time.Now().Add(leavingTimeout + time.Second))
	p.host.NextClosed(id)
}

// TestIdleClientsEnd is spec 6.9, and behaviour 2 of spec 0.2.
func TestIdleClientsEnd(t *testing.T) {
	p := startProcess(t, profile3, pluginsdk.StartParams{})
	r := p.link()
	id := p.open(r, "c1", "s1")
	p.host.Send(id, []byte(`{"n":1}`))
	r.receive()
	p.sweep(time.Now().Add(idleTimeout - time.Minute))
	if p.len() != 1 {
		t.Fatal("it ended before its time")
	}
	p.sweep(time.Now().Add(idleTimeout))
	if got := p.host.NextClosed(id); got.Code != pluginsdk.CloseIdle {
		t.Errorf("closed with %v, want idle", got)
	}
	r.drop()
	r = p.link()
	r.wantNothing()
}

// TestLargeMessages go both ways, whole in profile 2 and in segments in
// profile 3.
func TestLargeMessages(t *testing.T) {
	for name, profile := range bothProfiles {
		t.Run(name, func(t *testing.T) {
			p := startProcess(t, profile, pluginsdk.StartParams{})
			r := p.link()
			id := p.open(r, "c1", "s1")
			for n, size := range []int{100, 150 << 10, 1 << 20, 3 << 20} {
				m := fmt.Sprintf(`{"method":"m","params":%q}`, strings.Repeat("x", size))
				if profile.chunks() {
					r.sendChunks("c1", "s1", n+1, m)
				} else {
					r.send("%s", message("c1", "s1", n+1, m))
				}
				if got := p.host.NextReceived(id); string(got) != m {
					t.Fatalf("%d bytes arrived as %d others", len(m), len(got))
				}
				p.host.Send(id, []byte(m))
				if got := r.receiveMessage("c1", n+1); got != m {
					t.Fatalf("%d bytes went out as %d others", len(m), len(got))
				}
				r.send(`{"type":"ack","client_id":"c1","stream_id":"s1","seq_id":%d}`, n+1)
			}
		})
	}
}

func (r *relayEnd) sendChunks(client, stream string, seq int, m string) {
	r.t.Helper()
	count := (len(m) + segmentBytes - 1) / segmentBytes
	for i := range count {
		r.send(`{"type":"client_message_chunk","client_id":%q,"stream_id":%q,"seq_id":%d,"segment_id":%d,"segment_count":%d,"message_size_bytes":%d,"message_chunk_base64":%q,"cursor":"%d.%d"}`,
			client, stream, seq, i, count, len(m), base64.StdEncoding.EncodeToString([]byte(m[i*segmentBytes:min(len(m), (i+1)*segmentBytes)])), seq, i)
	}
}

// receiveMessage joins the next message of a client; its number must be seq.
func (r *relayEnd) receiveMessage(client string, seq int) string {
	r.t.Helper()
	var whole []byte
	for {
		var e struct {
			Type    string          `json:"type"`
			Client  string          `json:"client_id"`
			Seq     int             `json:"seq_id"`
			Message json.RawMessage `json:"message"`
			Segment int             `json:"segment_id"`
			Count   int             `json:"segment_count"`
			Chunk   []byte          `json:"message_chunk_base64"`
		}
		text := r.receive()
		if err := json.Unmarshal([]byte(text), &e); err != nil || e.Client != client || e.Seq != seq {
			r.t.Fatalf("got %.200s, want number %d of %s", text, seq, client)
		}
		if e.Type == "server_message" {
			return string(e.Message)
		}
		if len(text) > maxEnvelope {
			r.t.Fatalf("an envelope of %d bytes", len(text))
		}
		if whole = append(whole, e.Chunk...); e.Segment == e.Count-1 {
			return string(whole)
		}
	}
}

// TestLargeMessageThatIsNoJSON is found out before the host gets it.
func TestLargeMessageThatIsNoJSON(t *testing.T) {
	p := startProcess(t, profile3, pluginsdk.StartParams{})
	r := p.link()
	id := p.open(r, "c1", "s1")
	r.sendChunks("c1", "s1", 1, `{"id":1,"method":"m","params":"`+strings.Repeat("x", checkedAtOnce)+`"]`)
	r.sendChunks("c1", "s1", 2, `{"id":2,"method":"m","params":"`+strings.Repeat("x", checkedAtOnce)+`"`)
	r.send("%s", message("c1", "s1", 3, `{"method":"n"}`))
	if got := p.host.NextReceived(id); string(got) != `{"method":"n"}` {
		t.Errorf("the host received %.100s", got)
	}
	if got := p.tally.details(); got["malformed_frames"] != "2" {
		t.Errorf("the details are %v", got)
	}
}

// TestPartialChunksKeepTheCursor: the relay must send them again after a crash,
// and need not after a reconnect. Its end is
// websocket_state_clears_chunk_cursor_when_stream_is_invalidated.
func TestPartialChunksKeepTheCursor(t *testing.T) {
	p := startProcess(t, profile3, pluginsdk.StartParams{})
	r := p.link()
	id := p.open(r, "c1", "s1")
	chunk := func(i int, text string) {
		r.send(`{"type":"client_message_chunk","client_id":"c1","stream_id":"s1","seq_id":1,"segment_id":%d,"segment_count":2,"message_size_bytes":14,"message_chunk_base64":%q,"cursor":"%d"}`,
			i, base64.StdEncoding.EncodeToString([]byte(text)), i)
	}
	chunk(0, `{"method"`)
	r.wantNothing()
	if got := p.cursor(); got != "" {
		t.Errorf("the first segment moved the cursor to %q", got)
	}
	r.drop()
	r = p.link()
	r.receive() // the pong
	chunk(1, `:"x"}`)
	if got := string(p.host.NextReceived(id)); got != `{"method":"x"}` {
		t.Errorf("the host received %s", got)
	}
	if got := p.cursor(); got != "1" {
		t.Errorf("the last segment moved the cursor to %q, want 1", got)
	}
	chunk(0, `{"method"`) // websocket_state_drops_replayed_client_chunks_after_completion
	r.wantNothing()
	if len(p.assembler.assemblies) != 0 {
		t.Error("a message that was taken in is assembled again")
	}
	r.send(`{"type":"client_closed","client_id":"c1","stream_id":"s1"}`)
	p.host.NextClosed(id)
	r.send("%s", initialize("c1", "s1", 0))
	id, _ = p.host.NextOpened()
	p.host.NextReceived(id)
	chunk(0, `{"method"`) // websocket_state_clears_chunk_cursor_when_stream_is_invalidated
	chunk(1, `:"x"}`)
	p.host.NextReceived(id)
}

// TestLargeMessageDelaysNobody: streams take turns, envelope by envelope.
func TestLargeMessageDelaysNobody(t *testing.T) {
	p := startProcess(t, profile3, pluginsdk.StartParams{})
	r := p.link()
	large, small := p.open(r, "c1", "s1"), p.open(r, "c2", "s1")
	m := append(append([]byte(`{"m":"`), bytes.Repeat([]byte("x"), 48<<20)...), `"}`...)
	p.host.Send(large, m)
	r.receive() // it is under way, and fills the socket
	p.host.Send(small, []byte(`{"n":1}`))
	for n := 2; ; n++ {
		if strings.Contains(r.receive(), `"c2"`) {
			if n > 400 {
				t.Errorf("the small message came as envelope %d of about 480", n)
			}
			break
		}
	}
}

// TestNothingIsLostOrDoubled drops the link at random, with a relay that sends
// again from the cursor.
func TestNothingIsLostOrDoubled(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 1))
	p := startProcess(t, profile3, pluginsdk.StartParams{})
	r := p.link()
	id := p.open(r, "c1", "s1")
	const total = 2000
	got, sent := 0, 0 // the relay has so many of the host; the host was sent so many
	for received := 0; received < total || got < total; {
		next := 1
		if c := p.cursor(); c != "" {
			n, err := strconv.Atoi(c)
			if err != nil {
				t.Fatal(err)
			}
			next = n + 1
		}
		burst := min(total, next+rnd.IntN(150))
		for n := next; n <= burst; n++ {
			r.send(`{"type":"client_message","client_id":"c1","stream_id":"s1","seq_id":%d,"cursor":"%d","message":{"method":"m","params":%d}}`, n, n, n)
		}
		for ; sent < min(total, got+rnd.IntN(100)); sent++ {
			p.host.Send(id, fmt.Appendf(nil, `{"n":%d}`, sent+1))
		}
		for range rnd.IntN(sent - got + 1) {
			var e struct {
				Seq     int `json:"seq_id"`
				Message struct{ N int }
			}
			text := r.receive()
			if err := json.Unmarshal([]byte(text), &e); err != nil || e.Seq != e.Message.N || e.Seq > got+1 {
				t.Fatalf("got %s after number %d", text, got)
			}
			if e.Seq == got+1 {
				got++
				if rnd.IntN(4) == 0 {
					r.send(`{"type":"ack","client_id":"c1","stream_id":"s1","seq_id":%d}`, got)
				}
			}
		}
		until := max(burst-60, received+rnd.IntN(max(1, burst-received))) // so that no queue overflows
		for ; received < until; received++ {
			if m, want := string(p.host.NextReceived(id)), fmt.Sprintf(`{"method":"m","params":%d}`, received+1); m != want {
				t.Fatalf("the host received %s, want %s", m, want)
			}
		}
		if burst == total && sent == total && rnd.IntN(3) == 0 {
			for ; received < total; received++ {
				if m, want := string(p.host.NextReceived(id)), fmt.Sprintf(`{"method":"m","params":%d}`, received+1); m != want {
					t.Fatalf("the host received %s, want %s", m, want)
				}
			}
		}
		if rnd.IntN(3) == 0 {
			r.drop()
			r = p.link()
		}
	}
}

// TestLargeMessagesOfTheDeafDelayNobody: two that never acknowledge fill what
// there is for large messages, and the others do not notice.
func TestLargeMessagesOfTheDeafDelayNobody(t *testing.T) {
	p := startProcess(t, profile3, pluginsdk.StartParams{})
	p.mu.Lock()
	p.small.max, p.large.max = 4<<20, 4<<20
	p.mu.Unlock()
	r := p.link()
	deaf := []pluginsdk.ConnID{p.open(r, "c1", "s1"), p.open(r, "c2", "s1")}
	other := p.open(r, "c3", "s1")
	m := fmt.Sprintf(`{"m":%q}`, strings.Repeat("x", 4<<20))
	p.host.Send(deaf[0], []byte(m))
	r.receiveMessage("c1", 1)
	p.host.Send(deaf[1], []byte(m))
	for n := 1; n <= 5; n++ {
		m := fmt.Sprintf(`{"m":%q}`, strings.Repeat("y", 500<<10))
		p.host.Send(other, []byte(m))
		if got := r.receiveMessage("c3", n); got != m {
			t.Errorf("%d bytes arrived as %d others", len(m), len(got))
		}
		r.send(`{"type":"ack","client_id":"c3","stream_id":"s1","seq_id":%d}`, n)
	}
	r.wantNothing()
	r.send(`{"type":"ack","client_id":"c1","stream_id":"s1","seq_id":1}`)
	r.receiveMessage("c2", 1)
}
