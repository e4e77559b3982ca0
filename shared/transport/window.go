package transport

import "fmt"

// A SendWindow is the sender's account of one connection in one direction:
// what it may still send. The zero value is a full window. It does no locking.
//
// A payload travels in pieces, see [Piece]. Only one payload of
// several pieces may be on its way or unread at a time: the receiver joins its
// pieces outside the window, and must not have to join two.
type SendWindow struct {
	sent     uint64 // bytes, in all
	returned uint64 // of them
	messages int    // on their way
	largeEnd uint64 // sent, right behind the last payload of several pieces
}

// Piece is how many of the rest bytes of a payload of size bytes travel in the
// next piece.
func Piece(rest, size int) int {
	if size > PieceBytes {
		return min(rest, LargePieceBytes)
	}
	return rest
}

// Fits reports whether the next piece, of n bytes, may be sent. first is set
// for the first piece of a payload, large if the payload has several.
func (w *SendWindow) Fits(n int, first, large bool) bool {
	if first && (w.messages >= WindowMessages || large && w.returned < w.largeEnd) {
		return false
	}
	limit := uint64(WindowBytes)
	if large {
		limit = LargeWindowBytes
	}
	return w.sent-w.returned+uint64(n) <= limit
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
//
// The reader counts whole payloads, in order. The pieces of a payload that has
// more of them behind are returned as they arrive, because the receiver joins
// them outside the window; the account leaves them out when the reader counts
// them again.
type ReceiveWindow struct {
	arrived    uint64 // bytes, in all
	read       uint64 // bytes that the reader has taken, in all
	returnable uint64 // bytes that were returned or are due, in all
	messages   int    // arrived and not taken
	due        Credit // to be returned
	early      uint64 // bytes of the large payload that were returned as they came
	earlyStart uint64 // where they begin, in arrived
	largeEnd   uint64 // where the large payload ends; 0 while its pieces arrive
	joining    bool   // pieces of one are arriving
}

// creditDue is the part of a window that is worth a frame: a quarter. The rest
// of the window keeps the sender going meanwhile.
const creditDue = 4

// Arrived accounts for a piece that came in; more says that another piece of
// the same payload follows. The result is credit to send now. It fails if the
// sender had no credit for the piece.
func (w *ReceiveWindow) Arrived(n int, more bool) (Credit, error) {
	start := w.arrived
	w.arrived += uint64(n)
	unread := w.arrived - w.returnable + uint64(w.due.Bytes)
	messages := w.messages + w.due.Messages
	if unread > WindowBytes || messages >= WindowMessages && !more {
		return Credit{}, fmt.Errorf("the window was exceeded: %d bytes and %d messages unread", unread, messages)
	}
	if more {
		if !w.joining {
			w.joining, w.early, w.earlyStart, w.largeEnd = true, 0, start, 0
		}
		w.early += uint64(n)
		return w.giveBack(0, uint64(n), false), nil
	}
	w.messages++
	if w.joining {
		w.joining, w.largeEnd = false, w.arrived
	}
	return Credit{}, nil
}

// Consumed accounts for what the reader has taken: so many payloads, so many of
// their bytes. Bytes may be counted before their payload is. The result is
// credit to send now; a zero Credit is not worth a frame yet. Counting more
// than arrived is the reader's defect; the surplus is ignored.
func (w *ReceiveWindow) Consumed(messages, bytes int) Credit {
	messages = min(messages, w.messages)
	from := w.read
	to := min(from+uint64(bytes), w.arrived)
	w.read = to
	w.messages -= messages
	n := to - from
	if lo, hi := max(from, w.earlyStart), min(to, w.earlyStart+w.early); lo < hi {
		n -= hi - lo
	}
	// The end of a large payload is told at once: its sender waits for exactly
	// that before it starts another one.
	ends := from < w.largeEnd && to >= w.largeEnd
	return w.giveBack(messages, n, ends)
}

func (w *ReceiveWindow) giveBack(messages int, bytes uint64, now bool) Credit {
	w.returnable += bytes
	w.due.Bytes += int(bytes)
	w.due.Messages += messages
	if !now && w.due.Bytes < WindowBytes/creditDue && w.due.Messages < WindowMessages/creditDue {
		return Credit{}
	}
	c := w.due
	w.due = Credit{}
	return c
}

// Unread returns how many payloads arrived and were not taken, and how many of
// their bytes.
func (w *ReceiveWindow) Unread() (messages, bytes int) {
	return w.messages, int(w.arrived - w.read)
}
