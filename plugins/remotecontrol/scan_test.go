package remotecontrol

import (
	"encoding/base64"
	"encoding/json"
	"reflect"
	"strings"
	"testing"
)

var scanned = []string{
	`{"type":"client_message_chunk","client_id":"c","stream_id":"s","seq_id":1,"segment_id":0,"segment_count":2,"message_size_bytes":9,"message_chunk_base64":"eA==","cursor":"7"}`,
	` { "type" : "ack" , "client_id" : "ä" , "seq_id" : 0 } `,
	`{"type":"ping","client_id":"c"}`, `{"type":"client_closed","client_id":""}`,
	`{"type":"ack","client_id":"c","seq_id":9999999999999999999}`,
}

var notScanned = []string{
	``, `{}`, `{`, `[]`, `{"type":"ack"`, `{"type":"ack",}`, `{"type":"ack"} x`, `{"type":"ack" "client_id":"c"}`,
	`{"type":"ack","client_id":null}`, `{"type":"ack","client_id":1}`, `{"type":1}`, `{"Type":"ack"}`, `{"typ\u0065":"ack"}`, `{"other":1}`,
	`{"type":"ack","type":"ack"}`, `{"type":"","type":"ack"}x`, `{"client_id":"a","client_id":"b"}`, `{"seq_id":1,"seq_id":2}`, `{"message_chunk_base64":"","message_chunk_base64":""}`,
	`{"seq_id":01}`, `{"seq_id":-1}`, `{"seq_id":1.0}`, `{"seq_id":1e3}`, `{"seq_id":18446744073709551615}`, `{"seq_id":"1"}`, `{"seq_id":}`,
	`{"client_id":"a\"b"}`, "{\"client_id\":\"a\nb\"}", `{"client_id":"` + strings.Repeat("x", maxIDBytes+1) + `"}`,
	`{"message_chunk_base64":"` + strings.Repeat("x", maxIDBytes) + `\/"}`, "{\"message_chunk_base64\":\"" + strings.Repeat("x", maxIDBytes) + "\n\"}",
	`{"type":"client_message","client_id":"c","message":{}}`,
}

// TestScanAgrees with the decoder in what it decodes, and leaves the rest to it.
func TestScanAgrees(t *testing.T) {
	for _, text := range scanned {
		if !agrees(t, text) {
			t.Errorf("%s was not scanned", text)
		}
	}
	for _, text := range notScanned {
		if agrees(t, text) {
			t.Errorf("%.100s was scanned", text)
		}
	}
}

// agrees reports whether a frame was scanned.
func agrees(t *testing.T, text string) bool {
	t.Helper()
	var got, want clientEnvelope
	if !got.scan([]byte(text)) {
		return false
	}
	if err := json.Unmarshal([]byte(text), &want); err != nil {
		if _, wrong := base64.StdEncoding.DecodeString(string(got.chunk)); wrong == nil {
			t.Errorf("%q was scanned, and is not JSON: %v", text, err)
		}
		return true // it goes no further than the decoder of its chunk
	}
	if want.Chunk != nil {
		want.chunk, want.Chunk = []byte(*want.Chunk), nil
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%q was scanned to %+v, want %+v", text, got, want)
	}
	return true
}

func FuzzScan(f *testing.F) {
	for _, text := range append(append([]string{}, scanned...), notScanned...) {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if strings.ToValidUTF8(text, "") == text {
			agrees(t, text)
		}
	})
}

// TestLargeMessagesAreNotJoined: the reader of the link does not touch what has
// come before, however large a message gets, and finds out what it is.
func TestLargeMessagesAreNotJoined(t *testing.T) {
	var l ledger
	asm := newAssembler(func() *ledgerEntry { return l.begin("") }, l.end)
	segment := strings.Repeat("x", segmentBytes)
	const count = 200
	head, end := `{"method":"m","id":1,"params":"`, `"}`
	size := len(head) + (count-2)*segmentBytes + len(end)
	var whole *joined
	for i := range uint64(count) {
		p := part{seq: 1, segment: i, count: count, size: size, text: segment}
		switch i {
		case 0:
			p.text = head
		case count - 1:
			p.text = end
		}
		var err error
		if whole, err = asm.chunk(p.envelope(), 100<<10, nil); err != nil {
			t.Fatal(err)
		}
	}
	if whole == nil || whole.envelope.Message != nil || len(whole.envelope.large.pieces) != count {
		t.Fatalf("%d segments of a large message give %+v, want their bytes in as many pieces", count, whole)
	}
	if e := whole.envelope; string(e.peeked.Method) != "m" || !e.unchecked || !e.large.valid() || e.large.size != size {
		t.Errorf("the message has %d bytes and is seen as %+v", e.large.size, e.peeked)
	}
}
