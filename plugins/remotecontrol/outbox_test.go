package remotecontrol

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	pluginsdk "github.com/transporthost/transporthost/plugin-sdk"
)

var testKey = streamKey{"c1", "s1"}

// fillOutbox returns an outbox of these messages, all sent.
func fillOutbox(p profile, messages ...string) *outbox {
	o := newOutbox(testKey)
	for i, m := range messages {
		h := hostMessage{seq: pluginsdk.Seq(i + 1), payload: ropeOf([]byte(m)), verdict: messageValid}
		o.add([]entry{h.entry(o.next, o.tail, p)})
	}
	sendAll(&o)
	return &o
}

// sendAll is a link that takes everything.
func sendAll(o *outbox) []string {
	var sent []string
	for o.ready() {
		e := o.take()
		sent = append(sent, string(e.append(nil)))
	}
	return sent
}

// retained are the numbers, and segments behind a dot, that a new link gets.
func retained(t *testing.T, o *outbox) string {
	t.Helper()
	o.rewind()
	var all []string
	for _, s := range sendAll(o) {
		var e struct {
			Seq     uint64  `json:"seq_id"`
			Segment *uint64 `json:"segment_id"`
		}
		if err := json.Unmarshal([]byte(s), &e); err != nil {
			t.Fatalf("an envelope is not JSON: %v", err)
		}
		text := fmt.Sprint(e.Seq)
		if e.Segment != nil {
			text += fmt.Sprintf(".%d", *e.Segment)
		}
		all = append(all, text)
	}
	if len(all) != o.envelopes {
		t.Errorf("%d envelopes are counted, %d retained", o.envelopes, len(all))
	}
	return strings.Join(all, " ")
}

// TestOutboxAcks is outbound_buffer_retains_unacked_messages_until_ack_advances,
// outbound_buffer_advances_segmented_acks_by_wire_cursor and
// outbound_buffer_treats_segmentless_acks_as_seq_level_acks. (Streams have
// outboxes of their own: outbound_buffer_acks_by_stream_id.)
func TestOutboxAcks(t *testing.T) {
	long := `"` + strings.Repeat("x", 250<<10) + `"` // three segments
	segment := func(n uint64) *uint64 { return &n }
	tests := []struct {
		name    string
		seq     uint64
		segment *uint64
		want    string
		done    pluginsdk.Seq
	}{
		{"nothing", 0, nil, "1 2 3.0 3.1 3.2 4", 0},
		{"one", 1, nil, "2 3.0 3.1 3.2 4", 1},
		{"several", 2, nil, "3.0 3.1 3.2 4", 2},
		{"a segment", 3, segment(0), "3.1 3.2 4", 2},
		{"two segments", 3, segment(1), "3.2 4", 2},
		{"the last segment", 3, segment(2), "4", 3},
		{"all segments", 3, nil, "4", 3},
		{"a segment of a whole message", 4, segment(0), "", 4},
		{"everything", 4, nil, "", 4},
		{"more than was sent", 5, nil, "1 2 3.0 3.1 3.2 4", 0},
		{"a segment more than was sent", 4, segment(1), "1 2 3.0 3.1 3.2 4", 0},
		{"the largest number", 1<<64 - 1, segment(1<<64 - 1), "1 2 3.0 3.1 3.2 4", 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			o := fillOutbox(profile3, `1`, `2`, long, `4`)
			o.ack(tt.seq, tt.segment)
			if got := retained(t, o); got != tt.want {
				t.Errorf("retained %q, want %q", got, tt.want)
			}
			if got := o.done(); got != tt.done {
				t.Errorf("the host may forget up to %d, want %d", got, tt.done)
			}
			o.ack(4, nil)
			if o.bytes != 0 || o.envelopes != 0 {
				t.Errorf("an empty outbox counts %d bytes and %d envelopes", o.bytes, o.envelopes)
			}
		})
	}
}

// TestAckOfAMessageHalfSent: what was not sent is not acknowledged.
func TestAckOfAMessageHalfSent(t *testing.T) {
	o := newOutbox(testKey)
	m := hostMessage{seq: 1, payload: ropeOf([]byte(`"` + strings.Repeat("x", 250<<10) + `"`)), verdict: messageValid}
	o.add([]entry{m.entry(1, o.tail, profile3)})
	o.take()
	o.ack(1, nil)
	if got := retained(t, &o); got != "1.1 1.2" {
		t.Errorf("retained %q, want segments 1 and 2", got)
	}
}

// TestSplit is splits_large_server_messages_into_wire_chunks.
func TestSplit(t *testing.T) {
	tail := envelopeTail(testKey)
	most := maxEnvelope - messageEnvelopeBytes(0, tail, 1) // of a message that travels whole
	for _, tt := range []struct{ size, count int }{
		{1, 1}, {most, 1}, {most + 1, 2}, {2 * segmentBytes, 2}, {2*segmentBytes + 1, 3}, {10 * segmentBytes, 10}, {64 << 20, 656}, {maxJoinedBytes, 1024},
	} {
		s, ok := splitMessage(tt.size, tail, 1, profile3)
		if !ok || s.count != tt.count {
			t.Errorf("%d bytes travel in %d envelopes, want %d", tt.size, s.count, tt.count)
		}
		if s, ok := splitMessage(tt.size, tail, 1, profile2); !ok || s.count != 1 {
			t.Errorf("profile 2: %d bytes travel in %d envelopes, want 1", tt.size, s.count)
		}
	}
	if _, ok := splitMessage(maxJoinedBytes+1, tail, 1, profile3); ok {
		t.Errorf("%d bytes travel", maxJoinedBytes+1)
	}
	if _, ok := splitMessage(1<<20, strings.Repeat("x", maxEnvelope), 1, profile3); ok {
		t.Error("a message travels beside ids that fill the envelope")
	}
}

// TestChunkEnvelopes joins what was split.
func TestChunkEnvelopes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		key := streamKey{rapid.StringN(0, 40, 80).Draw(t, "client"), rapid.StringN(1, 40, 80).Draw(t, "stream")}
		tail, seq := envelopeTail(key), rapid.Uint64Range(1, 1<<60).Draw(t, "seq")
		message := bytes.Repeat([]byte{'7'}, rapid.IntRange(140<<10, 600<<10).Draw(t, "size"))
		s, ok := splitMessage(len(message), tail, seq, profile3)
		if !ok {
			t.Fatalf("%d bytes do not travel", len(message))
		}
		e := envelope{entry: entry{kind: entryMessage, seq: seq, payload: ropeOf(message), split: s}, tail: tail}
		var whole []byte
		for ; e.segment < s.count; e.segment++ {
			b := e.append(nil)
			if len(b) > maxEnvelope {
				t.Fatalf("segment %d of %d has an envelope of %d bytes", e.segment, s.count, len(b))
			}
			if s.count == 1 {
				if len(b) != messageEnvelopeBytes(len(message), tail, seq) {
					t.Fatalf("an envelope of %d bytes was counted as %d", len(b), messageEnvelopeBytes(len(message), tail, seq))
				}
				return
			}
			var got struct {
				Type    string `json:"type"`
				Segment int    `json:"segment_id"`
				Count   int    `json:"segment_count"`
				Size    int    `json:"message_size_bytes"`
				Chunk   string `json:"message_chunk_base64"`
				Client  string `json:"client_id"`
				Stream  string `json:"stream_id"`
				Seq     uint64 `json:"seq_id"`
			}
			if err := json.Unmarshal(b, &got); err != nil {
				t.Fatalf("an envelope is not JSON: %v", err)
			}
			if got.Type != "server_message_chunk" || got.Segment != e.segment || got.Count != s.count || got.Size != len(message) ||
				got.Client != key.client || got.Stream != key.stream || got.Seq != seq {
				t.Fatalf("segment %d of %d: %+v", e.segment, s.count, got)
			}
			part, err := base64.StdEncoding.DecodeString(got.Chunk)
			if err != nil {
				t.Fatal(err)
			}
			whole = append(whole, part...)
		}
		if !bytes.Equal(whole, message) {
			t.Fatalf("%d bytes were joined to %d others", len(message), len(whole))
		}
	})
}

// TestResponseThatCannotTravelIsAnswered: somebody waits for it.
func TestResponseThatCannotTravelIsAnswered(t *testing.T) {
	huge := strings.Repeat("x", maxJoinedBytes)
	for _, tt := range []struct{ name, message, want string }{
		{"response", `{"id":7,"result":"` + huge + `"}`, `{"type":"server_message","message":{"jsonrpc":"2.0","id":7,"error":{"code":-32603,"message":"The response is larger than remote control can carry."}},"client_id":"c1","stream_id":"s1","seq_id":1}`},
		{"notification", `{"method":"` + huge + `"}`, ""},
	} {
		o := fillOutbox(profile3, tt.message)
		o.rewind()
		if got := strings.Join(sendAll(o), ""); got != tt.want {
			t.Errorf("%s: sent %.300s, want %s", tt.name, got, tt.want)
		}
		if o.next != 2 {
			t.Errorf("%s: the next number is %d, want 2", tt.name, o.next)
		}
	}
}

// An outboxModel drives one outbox through links, acknowledgements and crashes
// beside a host that keeps what is not acknowledged, as the real one does.
type outboxModel struct {
	out      outbox
	kept     []hostMessage // by the host, oldest first
	waits    []hostMessage // not taken in yet
	sent     pluginsdk.Seq // by the host
	point    []byte        // the last checkpoint
	wire     map[string]string
	arrived  map[string]bool // messages of the host, by content
	answered int
}

func (m *outboxModel) Check(t *rapid.T) {
	if m.out.envelopes < 0 || m.out.bytes < 0 || m.out.waiting < 0 {
		t.Fatalf("counts %d envelopes, %d bytes, %d awaited", m.out.envelopes, m.out.bytes, m.out.waiting)
	}
}

// take does what a pump does: first what is awaited, then one batch.
func (m *outboxModel) take(own ...entry) {
	for len(m.waits) > 0 && m.waits[0].seq <= m.out.host {
		m.out.fill(m.waits[0], profile3)
		m.waits = m.waits[1:]
	}
	if len(m.waits) > 0 {
		m.out.giveUp()
	}
	if m.out.waiting > 0 {
		return
	}
	seq := m.out.next
	var entries []entry
	for _, e := range own {
		e.seq = seq
		seq++
		entries = append(entries, e)
	}
	for _, h := range m.waits {
		e := h.entry(seq, m.out.tail, profile3)
		if e.kind != entrySkipped {
			seq++
		}
		entries = append(entries, e)
	}
	m.waits = nil
	p := checkpoint{next: m.out.next, host: m.out.host, entries: append(slices.Clone(m.out.entries), entries...)}
	m.point = p.append(nil)
	m.out.add(entries)
	m.forget()
}

// forget is the host's half of an acknowledgement.
func (m *outboxModel) forget() {
	for done := m.out.done(); len(m.kept) > 0 && m.kept[0].seq <= done; {
		m.kept = m.kept[1:]
	}
}

func (m *outboxModel) Send(t *rapid.T) {
	for range rapid.IntRange(1, 4).Draw(t, "messages") {
		m.sent++
		h := hostMessage{seq: m.sent, verdict: messageValid}
		switch rapid.IntRange(0, 9).Draw(t, "kind") {
		case 0:
			h.payload = ropeOf(fmt.Appendf(nil, `{"n":%d,"x":%q}`, m.sent, strings.Repeat("x", 160<<10)))
		case 1:
			h.payload, h.verdict = ropeOf(fmt.Appendf(nil, `{"n":%d`, m.sent)), messageInvalid
		default:
			h.payload = ropeOf(fmt.Appendf(nil, `{"n":%d}`, m.sent))
		}
		m.kept, m.waits = append(m.kept, h), append(m.waits, h)
	}
}

func (m *outboxModel) TakeIn(t *rapid.T) {
	var own []entry
	if m.out.waiting == 0 && rapid.Bool().Draw(t, "pong") {
		own = append(own, entry{kind: entryPong, status: pongActive})
	}
	if m.out.waiting == 0 && rapid.Bool().Draw(t, "answer") {
		m.answered++
		own = append(own, entry{kind: entryAnswer, answer: newAnswer(answerOverloaded, fmt.Append(nil, m.answered))})
	}
	m.take(own...)
}

func (m *outboxModel) Write(t *rapid.T) {
	for range rapid.IntRange(1, 6).Draw(t, "envelopes") {
		if !m.out.ready() {
			return
		}
		e := m.out.take()
		text := string(e.append(nil))
		number := fmt.Sprintf("%d.%d", e.seq, e.segment)
		if before, ok := m.wire[number]; ok && before != text {
			t.Fatalf("number %s was %.80s, and is %.80s", number, before, text)
		}
		m.wire[number] = text
		if e.host != 0 && e.segment == e.segments()-1 {
			m.arrived[fmt.Sprint(e.host)] = true
		}
	}
}

func (m *outboxModel) Ack(t *rapid.T) {
	var segment *uint64
	if rapid.Bool().Draw(t, "segmented") {
		n := rapid.Uint64Range(0, 3).Draw(t, "segment")
		segment = &n
	}
	m.out.ack(rapid.Uint64Range(0, m.out.next+2).Draw(t, "seq"), segment)
	m.forget()
}

func (m *outboxModel) Reconnect(*rapid.T) { m.out.rewind() }

func (m *outboxModel) Crash(t *rapid.T) {
	p, err := decodeCheckpoint(m.point)
	if err != nil {
		t.Fatalf("decoding a checkpoint: %v", err)
	}
	next := m.sent + 1
	if len(m.kept) > 0 {
		next = m.kept[0].seq
	}
	p.acknowledged(next)
	used := m.out.sentSeq
	m.out = newOutbox(testKey)
	m.out.resume(p.entries, p.next, p.host)
	if m.out.next <= used {
		t.Fatalf("number %d was used, and the next process begins with %d", used, m.out.next)
	}
	m.waits = slices.Clone(m.kept)
}

// TestOutboxProperty: whatever happens, a number always stands for the same
// bytes, and every message of the host is sent.
func TestOutboxProperty(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := &outboxModel{out: newOutbox(testKey), wire: make(map[string]string), arrived: make(map[string]bool)}
		t.Repeat(rapid.StateMachineActions(m))
		m.take()
		m.out.rewind()
		for m.out.ready() {
			m.Write(t)
		}
		if m.out.waiting > 0 {
			t.Fatalf("%d messages are awaited for ever", m.out.waiting)
		}
		numbers := make(map[string]string)
		for number, text := range m.wire {
			if before, ok := numbers[text]; ok && strings.Contains(text, `"n":`) {
				t.Fatalf("the same message has the numbers %s and %s", before, number)
			}
			numbers[text] = number
		}
		for _, h := range m.kept {
			if !m.arrived[fmt.Sprint(h.seq)] && h.verdict == messageValid {
				t.Fatalf("message %d of the host was never sent", h.seq)
			}
		}
		m.out.ack(m.out.next-1, nil)
		if m.out.envelopes != 0 || m.out.bytes != 0 || m.out.done() != m.sent {
			t.Fatalf("acknowledged: %d envelopes, %d bytes, host up to %d of %d", m.out.envelopes, m.out.bytes, m.out.done(), m.sent)
		}
	})
}
