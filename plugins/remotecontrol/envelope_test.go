package remotecontrol

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"github.com/hashicorp/go-hclog"
	"pgregory.net/rapid"

	pluginsdk "github.com/transporthost/transporthost/plugin-sdk"
)

func TestDecodeEnvelope(t *testing.T) {
	tests := []struct {
		name, frame string
		profile     profile
		wantErr     string // "" if it decodes
	}{
		{"message", `{"type":"client_message","client_id":"c","message":{"id":1,"method":"x"}}`, profile2, ""},
		{"unknown field", `{"type":"ping","client_id":"c","grease":{"a":[1]}}`, profile3, ""},
		{"nulls", `{"type":"ack","client_id":"c","stream_id":null,"seq_id":null,"cursor":null,"segment_id":null}`, profile3, ""},
		{"largest number", `{"type":"ack","client_id":"c","seq_id":18446744073709551615}`, profile3, ""},
		{"number over it", `{"type":"ack","client_id":"c","seq_id":18446744073709551616}`, profile3, "field seq_id has the wrong type"},
		{"fraction", `{"type":"ack","client_id":"c","seq_id":1.5}`, profile3, "field seq_id has the wrong type"},
		{"chunk in profile 2", `{"type":"client_message_chunk","client_id":"c","segment_id":0,"segment_count":1,"message_size_bytes":1,"message_chunk_base64":"eA=="}`, profile2, "unknown type of event"},
		{"chunk", `{"type":"client_message_chunk","client_id":"c","segment_id":0,"segment_count":1,"message_size_bytes":1,"message_chunk_base64":"eA=="}`, profile3, ""},
		{"chunk without data", `{"type":"client_message_chunk","client_id":"c","segment_id":0,"segment_count":1,"message_size_bytes":1}`, profile3, "a field of the chunk is missing"},
		{"no client", `{"type":"ping"}`, profile3, "no client_id"},
		{"array", `["secret"]`, profile3, "not an object"},
		{"cut off", `{"type":"ping","client_id":"secret`, profile3, "not JSON at byte 34"},
		{"no message", `{"type":"client_message","client_id":"c"}`, profile3, "no message"},
		{"message that is none", `{"type":"client_message","client_id":"c","message":{"secret":1}}`, profile3, "Invalid Request: neither method nor result nor error"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := decodeEnvelope([]byte(tt.frame), tt.profile)
			if err == nil && tt.wantErr != "" || err != nil && err.Error() != tt.wantErr {
				t.Errorf("got error %v, want %q", err, tt.wantErr)
			}
		})
	}
}

// TestMessageKeepsItsBytes, with whatever the keys around it are.
func TestMessageKeepsItsBytes(t *testing.T) {
	const m = `{ "id":1.0,"method":"a\u0062","params":{"x":1e400,"x":"<&>\ud800"} }`
	e, err := decodeEnvelope([]byte(`{"message":`+m+`,"client_id":"c","type":"client_message"}`), profile3)
	if err != nil || string(e.Message) != m {
		t.Errorf("got %s, %v", e.Message, err)
	}
	if e.initialize() || string(e.peeked.Method) != "ab" {
		t.Errorf("its method is %q", e.peeked.Method)
	}
	out := appendMessage(nil, ropeOf([]byte(m)), envelopeTail(streamKey{"<c>", "s\n"}), 7)
	if want := `{"type":"server_message","message":` + m + `,"client_id":"<c>","stream_id":"s\n","seq_id":7}`; string(out) != want {
		t.Errorf("got  %s\nwant %s", out, want)
	}
}

func FuzzDecodeEnvelope(f *testing.F) {
	for _, s := range []string{
		initialize("c", "s", 1), `{"type":"ping","client_id":"c","cursor":"\u0000"}`, `{"type":"ack","client_id":"c","seq_id":1,"segment_id":2}`,
		`{"type":"client_message_chunk","client_id":"c","segment_id":0,"segment_count":1,"message_size_bytes":1,"message_chunk_base64":"eA=="}`,
	} {
		f.Add([]byte(s), true)
	}
	f.Fuzz(func(t *testing.T, frame []byte, third bool) {
		p := profile2
		if third {
			p = profile3
		}
		e, err := decodeEnvelope(frame, p)
		if err != nil {
			return
		}
		if e.ClientID == nil || e.Type == typeMessage && !json.Valid(e.Message) || e.Type == typeChunk && (e.chunk == nil || !p.chunks()) {
			t.Errorf("%q decodes to an incomplete envelope %+v", frame, e)
		}
		if strings.ContainsAny(e.cursor(), "\r\n\x00") {
			t.Errorf("%q has a cursor that no header carries", frame)
		}
		c := newClients(new(pluginsdk.Host), p, "", defaultMaxClients, hclog.NewNullLogger())
		if e.initialize() {
			return // needs a host
		}
		c.receive(frame)
		c.receive(frame)
		c.close(pluginsdk.CloseReason{})
	})
}

func TestCheckpointRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		seq := rapid.Uint64Range(1, 1<<40).Draw(t, "first")
		host := pluginsdk.Seq(rapid.Uint64Range(0, 1<<40).Draw(t, "host"))
		want := checkpoint{place: place{rapid.Uint64Range(0, 1<<40).Draw(t, "n"), rapid.StringN(0, 200, 600).Draw(t, "cursor")}}
		for range rapid.IntRange(0, 200).Draw(t, "entries") {
			e := entry{kind: entryKind(rapid.IntRange(1, 6).Draw(t, "kind")), seq: seq}
			switch e.kind {
			case entryMessage, entryDropped:
				host++
				e.host = host
			case entrySkipped:
				host++
				e.host, e.seq = host, seq-1
				seq--
			case entryPong:
				e.status = rapid.SampledFrom([]pongStatus{pongActive, pongUnknown}).Draw(t, "status")
			case entryAnswer:
				e.answer = newAnswer(answerTooLarge, rapid.SliceOfN(rapid.Byte(), 1, 300).Draw(t, "id"))
			}
			seq++
			want.entries = append(want.entries, e)
		}
		want.next, want.host = seq, host
		b := want.append(nil)
		if len(b) > maxCheckpoint {
			t.Fatalf("a checkpoint of %d bytes", len(b))
		}
		got, err := decodeCheckpoint(b)
		if err != nil {
			t.Fatalf("decoding a checkpoint: %v", err)
		}
		if got.next != want.next || got.host != want.host || got.place != want.place || len(got.entries) != len(want.entries) {
			t.Fatalf("got next %d, host %d, place %+v, %d entries; want %d, %d, %+v, %d", got.next, got.host, got.place, len(got.entries), want.next, want.host, want.place, len(want.entries))
		}
		for i, e := range got.entries {
			w := want.entries[i]
			if e.kind == entryGap && w.kind == entryAnswer {
				continue // there was no room
			}
			if e.kind != w.kind || e.seq != w.seq || e.host != w.host || e.status != w.status || !bytes.Equal(e.answer.id, w.answer.id) {
				t.Fatalf("entry %d: got %+v, want %+v", i, e, w)
			}
		}
	})
}

func FuzzDecodeCheckpoint(f *testing.F) {
	p := checkpoint{next: 5, host: 2, place: place{9, "k"}, entries: []entry{
		{kind: entryMessage, seq: 1, host: 1}, {kind: entryPong, seq: 2, status: pongActive}, {kind: entryAnswer, seq: 3, answer: newAnswer(answerOverloaded, []byte("7"))}, {kind: entryMessage, seq: 4, host: 2},
	}}
	f.Add(p.append(nil), uint64(1))
	f.Add([]byte{checkpointVersion, 1, 1, 0, 0, 'm', 0xff, 0xff, 0xff, 0xff, 0x0f}, uint64(0))
	f.Fuzz(func(t *testing.T, b []byte, next uint64) {
		p, err := decodeCheckpoint(b)
		if err != nil {
			return
		}
		if p.next == 0 || len(p.entries) > maxCheckpointEntries {
			t.Fatalf("%x: next %d, %d entries", b, p.next, len(p.entries))
		}
		p.acknowledged(pluginsdk.Seq(next))
		o := newOutbox(testKey)
		o.resume(p.entries, p.next, p.host)
		o.giveUp()
		last := uint64(0)
		for o.ready() {
			e := o.take()
			if e.seq <= last && e.segment == 0 || e.seq >= o.next {
				t.Fatalf("%x: number %d after %d, next %d", b, e.seq, last, o.next)
			}
			last = e.seq
			_ = e.append(nil)
		}
		o.ack(o.next-1, nil)
		if o.envelopes != 0 || o.bytes != 0 || o.waiting != 0 {
			t.Fatalf("%x: %d envelopes and %d bytes are left", b, o.envelopes, o.bytes)
		}
	})
}

func TestNote(t *testing.T) {
	seq := uint64(7)
	n := note{Seq: &seq, N: 9, Cursor: `k"<é>`, Initialize: fingerprint(ropeOf([]byte("x"))), InitSeq: &seq, Legacy: true, Since: true}
	got, err := decodeNote(n.encode())
	if err != nil || got.encode() != n.encode() {
		t.Errorf("%s came back as %s, %v", n.encode(), got.encode(), err)
	}
	n.Cursor = strings.Repeat("k", maxNote)
	if got := n.encode(); len(got) > maxNote || strings.Contains(string(got), "kk") {
		t.Errorf("a note of %d bytes", len(got))
	}
}

func FuzzDecodeNote(f *testing.F) {
	f.Add(`{"s":1,"n":2,"c":"k","i":"ab","q":0,"l":true}`)
	f.Add(``)
	f.Fuzz(func(t *testing.T, text string) {
		n, err := decodeNote(pluginsdk.Cursor(text))
		if err != nil {
			return
		}
		if again, err := decodeNote(n.encode()); err != nil || again.encode() != n.encode() {
			t.Errorf("%q came back as %s, %v", text, n.encode(), err)
		}
		if len(n.encode()) > maxNote && len(text) <= maxNote {
			t.Errorf("%q becomes a note of %d bytes", text, len(n.encode()))
		}
	})
}

func TestStreamIDs(t *testing.T) {
	seen := make(map[string]bool)
	for range 1000 {
		id := newStreamID()
		if len(id) != 36 || id[14] != '7' || !strings.ContainsRune("89ab", rune(id[19])) || seen[id] {
			t.Fatalf("%s is no new UUID of version 7", id)
		}
		seen[id] = true
	}
}
