package transport

import (
	"testing"

	"pgregory.net/rapid"
)

// TestWindowsAgree runs a sender against a receiver that reads in its own time:
// the receiver never sees its window exceeded, the sender never gets back more
// than it sent, at most one large payload is unread, and when everything is
// read the sender may go on.
func TestWindowsAgree(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var s SendWindow
		var r ReceiveWindow
		type payload struct{ rest, size int }
		var queue []payload // to send
		var unread []int    // sizes of whole payloads at the receiver
		joining := 0
		give := func(c Credit) {
			if err := s.Return(c); err != nil {
				t.Fatal(err)
			}
		}
		for range rapid.IntRange(1, 200).Draw(t, "steps") {
			switch rapid.IntRange(0, 3).Draw(t, "step") {
			case 0:
				n := rapid.SampledFrom([]int{1, 100, 60_000, PieceBytes, PieceBytes + 1, 500_000}).Draw(t, "size")
				queue = append(queue, payload{n, n})
			case 1, 2:
				for len(queue) > 0 {
					q := &queue[0]
					large, first := q.size > PieceBytes, q.rest == q.size
					n := Piece(q.rest, q.size)
					if !s.Fits(n, first, large) {
						break
					}
					last := n == q.rest
					s.Take(n, last, large)
					if large {
						joining = q.size
					}
					c, err := r.Arrived(n, !last)
					if err != nil {
						t.Fatalf("the sender kept to its window, the receiver says: %v", err)
					}
					give(c)
					if q.rest -= n; last {
						unread = append(unread, q.size)
						queue = queue[1:]
						joining = 0
					}
				}
			case 3:
				for range rapid.IntRange(0, 5).Draw(t, "reads") {
					if len(unread) == 0 {
						break
					}
					n := unread[0]
					unread = unread[1:]
					if part := rapid.IntRange(0, n).Draw(t, "part"); part > 0 { // bytes may be counted first
						give(r.Consumed(0, part))
						n -= part
					}
					give(r.Consumed(1, n))
				}
			}
			large := 0
			for _, n := range append(unread, joining) {
				if n > PieceBytes {
					large++
				}
			}
			if large > 1 {
				t.Fatalf("%d large payloads are unread or arriving", large)
			}
		}
		for _, n := range unread {
			give(r.Consumed(1, n))
		}
		if m, b := r.Unread(); len(queue) == 0 && (m != 0 || b != 0) {
			t.Fatalf("%d messages, %d bytes unread after all were read", m, b)
		}
		if len(queue) > 0 {
			q := queue[0]
			if !s.Fits(Piece(q.rest, q.size), q.rest == q.size, q.size > PieceBytes) {
				t.Fatalf("the sender is stuck before a payload of %d with everything read", q.size)
			}
		}
	})
}

func TestReturningTooMuchIsRefused(t *testing.T) {
	var s SendWindow
	s.Take(10, true, false)
	for _, c := range []Credit{{11, 1}, {10, 2}, {-1, 0}, {0, -1}} {
		if s.Return(c) == nil {
			t.Errorf("%+v was taken back, 10 bytes in 1 message are on their way", c)
		}
	}
	if err := s.Return(Credit{10, 1}); err != nil || !s.Idle() {
		t.Errorf("after the rest: %v, idle %v", err, s.Idle())
	}
}
