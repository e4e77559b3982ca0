package remotecontrol

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	pluginsdk "github.com/transporthost/transporthost/plugin-sdk"
)

// frameOf takes a text in pieces.
func frameOf(text string, piece int) *largeFrame {
	f := &largeFrame{check: pluginsdk.Checker{Members: make([]pluginsdk.Member, 0, maxMembers)}}
	for i := 0; i < len(text); i += piece {
		f.add([]byte(text[i:min(i+piece, len(text))]))
	}
	return f
}

func largeMessage(size int) string {
	return fmt.Sprintf(`{"method":"m","id":"x","params":{"message":%q}}`, strings.Repeat("é", size/2))
}

// TestLargeFrames agree with the decoder of small ones, wherever the message
// stands and however they are cut.
func TestLargeFrames(t *testing.T) {
	m := largeMessage(2 * pluginsdk.LargeBytes)
	for _, text := range []string{
		`{"type":"client_message","client_id":"c","stream_id":"s","seq_id":7,"cursor":"9","message":` + m + `}`,
		`{"type":"client_message","message":` + m + `,"client_id":"c","stream_id":"s","seq_id":7,"cursor":"9"}`,
		` { "message" : ` + m + ` , "other":{"message":1}, "seq_id":7, "cursor":"9", "client_id":"\u0063", "type":"client_message", "stream_id":"s" } `,
	} {
		for _, piece := range []int{1000, pluginsdk.StepBytes, len(text)} {
			e, err := frameOf(text, piece).envelope(profile2)
			if err != nil {
				t.Fatalf("%.60s: %v", text, err)
			}
			want, err := decodeEnvelope([]byte(text), profile2)
			if err != nil {
				t.Fatal(err)
			}
			if *e.ClientID != *want.ClientID || *e.StreamID != "s" || *e.SeqID != 7 || *e.Cursor != "9" || e.peeked.Kind != want.peeked.Kind || string(e.peeked.ID) != `"x"` {
				t.Errorf("%.60s: got %+v", text, e)
			}
			if e.Message != nil || e.unchecked || !bytes.Equal(e.large.join(), want.Message) {
				t.Errorf("%.60s: a message of %d bytes, want %d in pieces", text, e.large.size, len(want.Message))
			}
		}
	}
}

func TestLargeFramesThatAreWrong(t *testing.T) {
	m := largeMessage(2 * pluginsdk.LargeBytes)
	for name, text := range map[string]string{
		"not JSON":          `{"type":"client_message","client_id":"c","message":` + m,
		"not UTF-8":         `{"type":"client_message","client_id":"c","message":"` + strings.Repeat("x", pluginsdk.LargeBytes) + "\xff" + `"}`,
		"no message":        `{"type":"client_message","client_id":"c","other":` + m + `}`,
		"two messages":      `{"type":"client_message","client_id":"c","message":` + m + `,"Message":1}`,
		"much beside it":    `{"type":"client_message","client_id":"c","message":` + m + `,"other":"` + strings.Repeat("x", maxAround) + `"}`,
		"no client":         `{"type":"client_message","message":` + m + `}`,
		"another type":      `{"type":"ack","client_id":"c","message":` + m + `}`,
		"a batch":           `{"type":"client_message","client_id":"c","message":[` + m + `]}`,
		"a field ill-typed": `{"type":"client_message","client_id":7,"message":` + m + `}`,
		"an array":          `[` + m + `]`,
	} {
		if e, err := frameOf(text, pluginsdk.StepBytes).envelope(profile2); err == nil {
			t.Errorf("%s: it decodes to an envelope of type %q", name, e.Type)
		}
	}
}

// TestLargeFramesOverTheLink in both directions, among small ones.
func TestLargeFramesOverTheLink(t *testing.T) {
	p := startProcess(t, profile2, pluginsdk.StartParams{})
	r := p.link()
	id := p.open(r, "c1", "s1")
	m := largeMessage(3 * pluginsdk.LargeBytes)
	r.send("%s", message("c1", "s1", 1, m))
	r.send("%s", message("c1", "s1", 2, `{"method":"behind"}`))
	if got := p.host.NextReceived(id); string(got) != m {
		t.Errorf("the host received %d bytes, want %d", len(got), len(m))
	}
	if got := p.host.NextReceived(id); string(got) != `{"method":"behind"}` {
		t.Errorf("behind it came %.100s", got)
	}
	p.host.Send(id, []byte(m))
	var e struct {
		Seq     uint64          `json:"seq_id"`
		Message json.RawMessage `json:"message"`
	}
	if err := json.Unmarshal([]byte(r.receive()), &e); err != nil || string(e.Message) != m {
		t.Errorf("the relay got %d bytes, want %d: %v", len(e.Message), len(m), err)
	}
}

// TestRopes cuts a text in pieces and takes parts of it.
func TestRopes(t *testing.T) {
	text := []byte("0123456789abcdefghij")
	for size := 1; size <= len(text); size++ {
		var r rope
		for i := 0; i < len(text); i += size {
			r.append(text[i:min(i+size, len(text))])
		}
		if !bytes.Equal(r.join(), text) || !bytes.Equal(r.appendTo(nil), text) || !bytes.Equal(r.head(), text) || r.size != len(text) {
			t.Fatalf("in pieces of %d: %q", size, r.join())
		}
		for from := range len(text) {
			for to := from; to <= len(text); to++ {
				if got := r.slice(from, to); string(got.appendTo(nil)) != string(text[from:to]) || got.size != to-from {
					t.Fatalf("in pieces of %d, from %d to %d: %q", size, from, to, got.join())
				}
				if got := string(r.appendBase64(nil, from, to-from)); got != base64Of(text[from:to]) {
					t.Fatalf("in pieces of %d, from %d to %d: %s", size, from, to, got)
				}
			}
		}
	}
}

// TestLargeMessageOfUnknownKind: what the head does not tell is the host's to
// see, and no initialize.
func TestLargeMessageOfUnknownKind(t *testing.T) {
	var e clientEnvelope
	e.large = ropeOf([]byte(`{"params":"`+strings.Repeat("x", 2*pluginsdk.LargeBytes)+`",`), []byte(`"id":1,"method":"initialize"}`))
	if err := e.peek(); err != nil || e.peeked.Kind != 0 || e.initialize() {
		t.Errorf("it is seen as %+v, %v", e.peeked, err)
	}
	e.large = ropeOf([]byte(`[` + strings.Repeat("1,", pluginsdk.LargeBytes)))
	if err := e.peek(); err == nil || errors.Is(err, errNoMessage) {
		t.Errorf("a batch is seen as %+v, %v", e.peeked, err)
	}
}

func base64Of(p []byte) string { return base64.StdEncoding.EncodeToString(p) }
