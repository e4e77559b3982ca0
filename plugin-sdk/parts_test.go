package pluginsdk_test

import (
	"bytes"
	"testing"

	pluginsdk "github.com/transporthost/transporthost/plugin-sdk"
	"github.com/transporthost/transporthost/plugin-sdk/pluginsdktest"
	"github.com/transporthost/transporthost/shared/transport"
)

// A pieceSink takes pieces and whole messages apart.
type pieceSink struct{ pieces, whole chan [][]byte }

func (s *pieceSink) Message(_ pluginsdk.Seq, p []byte)   { s.whole <- [][]byte{bytes.Clone(p)} }
func (s *pieceSink) Pieces(_ pluginsdk.Seq, pp [][]byte) { s.pieces <- pp }
func (s *pieceSink) Flush()                              {}
func (s *pieceSink) Close(pluginsdk.CloseReason)         {}

// TestPieceSinkGetsPieces of what travels in several, and nothing joins them on
// the receive loop.
func TestPieceSinkGetsPieces(t *testing.T) {
	tr := newPipes()
	h := pluginsdktest.Start(t, tr, pluginsdk.StartParams{})
	sink := &pieceSink{make(chan [][]byte, 1), make(chan [][]byte, 1)}
	if _, err := (<-tr.host).Open(pluginsdk.Opened{}, sink); err != nil {
		t.Fatal(err)
	}
	id, _ := h.NextOpened()
	large := bytes.Repeat([]byte("0123456789"), 50_000)
	h.Send(id, large)
	got := <-sink.pieces
	if !bytes.Equal(bytes.Join(got, nil), large) {
		t.Errorf("the pieces are not the message")
	}
	for i, p := range got {
		if len(p) > transport.LargePieceBytes {
			t.Errorf("piece %d has %d bytes", i, len(p))
		}
	}
}

// TestMessageInOnePieceIsNone for a PieceSink.
func TestMessageInOnePieceIsNone(t *testing.T) {
	tr := newPipes()
	h := pluginsdktest.Start(t, tr, pluginsdk.StartParams{})
	sink := &pieceSink{make(chan [][]byte, 1), make(chan [][]byte, 1)}
	if _, err := (<-tr.host).Open(pluginsdk.Opened{}, sink); err != nil {
		t.Fatal(err)
	}
	id, _ := h.NextOpened()
	h.Send(id, []byte("small"))
	if got := <-sink.whole; string(got[0]) != "small" {
		t.Errorf("got %q", got)
	}
}

// TestDeliverParts makes one message of parts of any size.
func TestDeliverParts(t *testing.T) {
	tr := newPipes()
	h := pluginsdktest.Start(t, tr, pluginsdk.StartParams{})
	conn, _, err := (<-tr.host).OpenInbox(pluginsdk.Opened{})
	if err != nil {
		t.Fatal(err)
	}
	id, _ := h.NextOpened()
	for _, sizes := range [][]int{{3}, {0, 3}, {1, 2, 3}, {transport.PieceBytes - 1, 1}, {transport.PieceBytes, 1}, {1, 0, 500_000, 7}, {100 << 10, 100 << 10, 100 << 10}} {
		var parts [][]byte
		for i, n := range sizes {
			parts = append(parts, bytes.Repeat([]byte{byte('a' + i)}, n))
		}
		if err := conn.DeliverParts(t.Context(), parts, ""); err != nil {
			t.Fatal(err)
		}
		if got := h.NextReceived(id); !bytes.Equal(got, bytes.Join(parts, nil)) {
			t.Errorf("parts of %v bytes: %d bytes came", sizes, len(got))
		}
	}
}
