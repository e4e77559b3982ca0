package backend

import (
	"bytes"
	"encoding/json"
	"testing"

	"github.com/transporthost/transporthost/tests/relay/fakehost"
)

// FuzzServerEnvelope decodes what a host may send. What is accepted has ids,
// numbers within the limits, and a message that is JSON.
func FuzzServerEnvelope(f *testing.F) {
	f.Add(fakehost.Message("c1", "s1", 1, `{"id":1,"result":{}}`))
	f.Add(fakehost.Segment("c1", "s1", 1<<63, 0, 2, 200000, []byte("abc")))
	f.Add([]byte(`{"type":"pong","status":"active","client_id":"c1","stream_id":"s1","seq_id":2}`))
	f.Add([]byte(`{"seq_id":2,"type":"pong","status":"unknown","client_id":"\u0000","stream_id":"\ud800"}`))
	f.Add([]byte(`{"type":"server_message_chunk","segment_id":18446744073709551615,"segment_count":1,"message_size_bytes":1e9,"message_chunk_base64":"=","client_id":null}`))
	f.Add([]byte(`[{}]`))
	f.Fuzz(func(t *testing.T, text []byte) {
		e, problems, ok := decodeEnvelope(text)
		if !ok {
			if len(problems) == 0 {
				t.Fatal("an envelope was refused without a problem")
			}
			return
		}
		if e.ClientID == "" || e.StreamID == "" {
			t.Error("an envelope without ids was accepted")
		}
		switch e.Type {
		case serverMessage:
			if !json.Valid(e.Message) || !bytes.Contains(text, e.Message) {
				t.Errorf("the message is not what the envelope has: %q", e.Message)
			}
		case serverMessageChunk:
			s := e.Segment
			if s.Count < 1 || s.Count > maxSegments || s.ID < 0 || s.ID >= s.Count || s.Size < 1 || s.Size > maxMessage || len(s.Data) < 1 || len(s.Data) > s.Size {
				t.Errorf("a segment beyond the limits was accepted: %d of %d, %d of %d bytes", s.ID, s.Count, len(s.Data), s.Size)
			}
		}
		again, _, ok := decodeEnvelope(text)
		if !ok || again.key() != e.key() || again.position() != e.position() {
			t.Error("the same envelope was read in another way")
		}
	})
}

// FuzzAssembly feeds segments in any order and of any size. It never holds
// more than the message that they announce.
func FuzzAssembly(f *testing.F) {
	f.Add([]byte{0, 3, 9, 3, 1, 3, 9, 3, 2, 3, 9, 3})
	f.Add([]byte{0, 2, 4, 4, 1, 2, 4, 1})
	f.Add([]byte{0, 2, 9, 3, 0, 2, 9, 3, 1, 2, 9, 6})
	f.Fuzz(func(t *testing.T, script []byte) {
		var a assembly
		for ; len(script) >= 4; script = script[4:] {
			s := Segment{ID: int(script[0]), Count: int(script[1]), Size: int(script[2]), Data: make([]byte, script[3])}
			if s.ID >= s.Count || len(s.Data) == 0 || len(s.Data) > s.Size {
				continue // refused by the decoder
			}
			whole, err := a.add(s)
			if err != nil && (a.next != 0 || len(a.data) != 0) {
				t.Fatal("an assembly is not empty after an error")
			}
			if a.bytes > a.size {
				t.Fatalf("an assembly of %d bytes holds %d", a.size, a.bytes)
			}
			if whole {
				if got := join(a.take()); len(got) != s.Size {
					t.Fatalf("a message has %d bytes, want %d", len(got), s.Size)
				}
			}
		}
	})
}

// FuzzCut cuts a message and puts it together again.
func FuzzCut(f *testing.F) {
	f.Add([]byte("abcdefghij"), 3)
	f.Add([]byte("a"), 1)
	f.Fuzz(func(t *testing.T, message []byte, piece int) {
		if len(message) == 0 || piece < 1 {
			return
		}
		var a assembly
		count := ceilDiv(len(message), min(piece, len(message)))
		for id := range count {
			whole, err := a.add(cut(message, min(piece, len(message)), id))
			if err != nil || whole != (id == count-1) {
				t.Fatalf("segment %d of %d: whole %v, %v", id, count, whole, err)
			}
		}
		if got := join(a.take()); !bytes.Equal(got, message) {
			t.Errorf("got %d bytes, want the %d that were cut", len(got), len(message))
		}
	})
}
