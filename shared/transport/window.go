package transport

import "fmt"

// A SendWindow is the sender's account of one connection in one direction:
// what it may still send. The zero value is a full window. It does no locking.
//
// A payload travels in pieces of at most [PieceBytes]. Only one payload of
// several pieces may be on its way or unread at a time: the receiver joins its
// pieces outside the window, and must not have to join two.
type SendWindow struct {
	sent     uint64 // bytes, in all
	returned uint64 // of them
	messages int    // on their way
	largeEnd uint64 // sent, right behind the last payload of several pieces
}

// Fits reports whether the next piece, of n bytes, may be sent. first is set
// for the first piece of a payload, large if the payload has several.
func (w *SendWindow) Fits(n int, first, large bool) bool {
	if first && (w.messages >= WindowMessages || large && w.returned < w.largeEnd) {
		return false
	}
	return w.sent-w.returned+uint64(n) <= WindowBytes
}

// Take accounts for a piece that is sent; last is set for the last piece of a
// payload, large if the payload has several.
func (w *SendWindow) Take(n int, last, large bool) {
	w.sent += uint64(n)
	if last {
		w.messages++
		if large {
			w.largeEnd = w.sent
		}
	}
}

// Return accounts for credit that came back. It fails, changing nothing, if
// more comes back than is on its way: the other side is broken.
func (w *SendWindow) Return(c Credit) error {
	if c.Bytes < 0 || c.Messages < 0 || uint64(c.Bytes) > w.sent-w.returned || c.Messages > w.messages {
		return fmt.Errorf("credit of %d bytes and %d messages returned, %d and %d are on their way",
			c.Bytes, c.Messages, w.sent-w.returned, w.messages)
	}
	w.returned += uint64(c.Bytes)
	w.messages -= c.Messages
	return nil
}

// Idle reports whether nothing is on its way.
func (w *SendWindow) Idle() bool { return w.sent == w.returned && w.messages == 0 }

// A ReceiveWindow is the receiver's account of the same. The zero value is an
// empty one. It does no locking.
type ReceiveWindow struct {
	arrived  uint64 // bytes, in all
	consumed uint64 // of them
	messages int    // arrived and not consumed
	due      Credit // consumed, and not yet returned
	largeEnd uint64 // arrived, right behind the last payload of several pieces
	large    bool   // pieces of one are arriving
}

// creditDue is the part of a window that is worth a frame: a quarter. The rest
// of the window keeps the sender going meanwhile.
const creditDue = 4

// Arrived accounts for a piece that came in. It fails if the sender had no
// credit for it. A piece with more behind it is consumed at once: the receiver
// joins pieces outside the window. Its credit is in the result, if it is due.
func (w *ReceiveWindow) Arrived(n int, more bool) (Credit, error) {
	w.arrived += uint64(n)
	unread := w.arrived - w.consumed + uint64(w.due.Bytes)
	if unread > WindowBytes || w.messages+w.due.Messages >= WindowMessages && !more {
		return Credit{}, fmt.Errorf("the window was exceeded: %d bytes, %d messages unread", unread, w.messages+w.due.Messages)
	}
	if more {
		w.large = true
		return w.Consumed(0, n), nil
	}
	w.messages++
	if w.large {
		w.large, w.largeEnd = false, w.arrived
	}
	return Credit{}, nil
}

// Consumed accounts for what has left. It returns the credit to send now; a
// zero Credit means that it is not worth a frame yet.
func (w *ReceiveWindow) Consumed(messages, bytes int) Credit {
	before := w.consumed
	w.consumed += uint64(bytes)
	w.messages -= messages
	w.due.Bytes += bytes
	w.due.Messages += messages
	// The end of a large payload is told at once: its sender waits for exactly
	// that before it starts another one.
	large := before < w.largeEnd && w.consumed >= w.largeEnd
	if !large && w.due.Bytes < WindowBytes/creditDue && w.due.Messages < WindowMessages/creditDue {
		return Credit{}
	}
	c := w.due
	w.due = Credit{}
	return c
}

// Unread returns how much arrived and was not consumed.
func (w *ReceiveWindow) Unread() (messages, bytes int) {
	return w.messages, int(w.arrived - w.consumed)
}
