package router

import (
	"time"

	"github.com/transporthost/transporthost/shared/transport"
)

// flushLocked sends what the window allows.
func (w *row) flushLocked() {
	if w.link == nil {
		return
	}
	for {
		m := w.out.head()
		if m == nil {
			break
		}
		piece, large := m.piece(), m.size > transport.PieceBytes
		if !w.toPeer.Fits(len(piece), m.gone == 0, large) || m.size > transport.LargeBytes && !w.mayGoLocked() {
			break
		}
		last := m.gone+len(piece) == m.size
		w.toPeer.Take(len(piece), last, large)
		w.link.Send(w.linkID, m.seq, piece, !last)
		w.burst += len(piece)
		w.out.advance(len(piece))
	}
	if !w.out.over(holdBytes/2, holdMessages/2) {
		w.releaseLocked()
	}
	if w.room != nil && !w.out.over(waitBytes/2, w.router.cfg.OutQueueMessages/2) {
		close(w.room)
		w.room = nil
	}
	if w.state == closing && w.out.unsent() == 0 {
		w.askLocked()
	}
}

// mayGoLocked reports whether a piece of a large message may go. If it is time
// to rest, the pieces go on by themselves behind that.
func (w *row) mayGoLocked() bool {
	if w.resting {
		return false
	}
	if w.burst < transport.LargeWindowBytes {
		return true
	}
	w.burst, w.resting = 0, true
	time.AfterFunc(transport.LargeRest, func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.resting = false
		w.flushLocked()
	})
	return false
}
