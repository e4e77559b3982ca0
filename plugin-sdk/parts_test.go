package pluginsdk_test

import (
	"bytes"
	"context"
	"errors"
	"strings"
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

// TestDeliveryGivenUpHalfway: a process that stops in the middle of a large
// message leaves a connection that can be resumed to the next one, and says
// nothing more on it that the host would take for the rest.
func TestDeliveryGivenUpHalfway(t *testing.T) {
	for _, key := range []pluginsdk.ResumeKey{"", "k"} {
		t.Run("resume key "+string(key), func(t *testing.T) {
			tr := newPipes()
			h := pluginsdktest.Start(t, tr, pluginsdk.StartParams{})
			conn, _, err := (<-tr.host).OpenInbox(pluginsdk.Opened{ResumeKey: key})
			if err != nil {
				t.Fatal(err)
			}
			id, _ := h.NextOpened()
			h.Stall(true)
			// With this unread, there is room for one piece of a large one.
			if err := conn.Deliver(t.Context(), make([]byte, transport.LargeWindowBytes-transport.LargePieceBytes)); err != nil {
				t.Fatal(err)
			}
			ctx, stop := context.WithCancelCause(t.Context())
			delivered := make(chan error, 1)
			go func() { delivered <- conn.Deliver(ctx, make([]byte, 300<<10)) }()
			h.AwaitPart(id)
			stop(pluginsdk.ErrStopping)
			if err := <-delivered; !errors.Is(err, pluginsdk.ErrStopping) {
				t.Errorf("the delivery ended with %v, want the cause of its context", err)
			}
			h.CatchUp()
			if err := conn.Deliver(t.Context(), []byte("more")); !errors.Is(err, pluginsdk.ErrConnClosed) {
				t.Errorf("another delivery: %v, want none", err)
			}
			if err := conn.Reject(t.Context(), pluginsdk.Rejection{}); !errors.Is(err, pluginsdk.ErrConnClosed) {
				t.Errorf("a rejection: %v, want none", err)
			}
			err = conn.Checkpoint(t.Context(), []byte("note"))
			if key != "" {
				if err != nil {
					t.Errorf("the connection has not been left to the next process: %v", err)
				}
				return
			}
			if r := h.NextClosed(id); r.Code != pluginsdk.CloseInternal || !strings.Contains(r.Text, "halfway") {
				t.Errorf("closed with %v", r)
			}
		})
	}
}
