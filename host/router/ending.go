package router

import (
	"time"

	"github.com/transporthost/transporthost/shared/transport"
)

// How a row ends, and what happens when its process does.

// Close implements [application.Conn].
func (w *row) Close(reason transport.CloseReason) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.closeLocked(reason)
}

func (w *row) closeLocked(reason transport.CloseReason) {
	if w.state != open {
		return
	}
	w.state, w.closing = closing, reason
	w.wakeLocked()
	if w.out.unsent() == 0 {
		w.askLocked()
		return
	}
	w.router.watch(w)
}

// abort is Close that leaves out what is queued. It is false if the connection
// was ending already.
func (w *row) abort(reason transport.CloseReason) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.abortLocked(reason)
}

func (w *row) abortLocked(reason transport.CloseReason) bool {
	if w.state == asking || w.state == ended {
		return false
	}
	w.router.counters.dropped.Add(int64(w.out.drop()))
	w.state, w.closing = closing, reason
	w.wakeLocked()
	w.askLocked()
	return true
}

func (w *row) slowLocked(why string) {
	w.router.counters.slow.Add(1)
	w.router.cfg.Logger.Warn("disconnecting slow connection", "connection", w.id, "transport", w.origin, "reason", why)
	w.abortLocked(transport.Because(transport.CloseSlow, "the peer does not read: %s", why))
}

// askLocked asks the process to end the connection.
func (w *row) askLocked() {
	w.state, w.asked = asking, time.Now()
	if w.link != nil {
		w.link.Close(w.linkID, w.closing)
	}
	w.router.watch(w)
}

func (w *row) wakeLocked() {
	if w.room != nil {
		close(w.room)
		w.room = nil
	}
}

// finish says that the peer sends no more.
func (w *row) finish() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.finished, w.progress = true, time.Now()
	w.maybeFinishLocked()
	if w.state == open {
		w.router.watch(w)
	}
}

// maybeFinishLocked closes a finished connection once everything that the peer
// sent is answered, and the answers are out.
func (w *row) maybeFinishLocked() {
	if !w.finished || w.state != open {
		return
	}
	w.progress = time.Now()
	waiting, _ := w.fromPeer.Unread()
	if w.inFlight == 0 && waiting == 0 && w.carried.Messages == 0 && w.out.empty() {
		w.closeLocked(transport.CloseReason{Code: transport.CloseNormal, Text: "end of input"})
	}
}

type verdict uint8

const (
	nothingWaits verdict = iota
	stillWaits
	abandoned
)

// check looks at a row that waits for its peer or its process.
func (w *row) check(now time.Time) verdict {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch w.state {
	case ended:
		return nothingWaits
	case asking:
		limit := closeLimit
		if !w.out.empty() {
			limit = owedLimit
		}
		if w.link != nil && now.Sub(w.asked) > limit {
			return abandoned
		}
		return stillWaits
	}
	if w.finished && w.state == open && w.out.empty() && now.Sub(w.progress) > finishQuiet {
		w.router.cfg.Logger.Warn("the input has ended and answers do not come; they are given up",
			"connection", w.id, "transport", w.origin, "requests", w.inFlight, "waited", finishQuiet.String())
		w.closeLocked(transport.Because(transport.CloseNormal, "end of input; no answer came for %v", finishQuiet))
		return stillWaits
	}
	if w.out.unsent() > 0 && w.link != nil && now.Sub(w.progress) > w.router.cfg.SlowAfter {
		if w.opened.Lossless || w.opened.ResumeKey != "" {
			// The local reader will come back, or the host is stopped; a relay may be
			// away for as long as it likes, and what its client may miss has a bound.
			return stillWaits
		}
		w.slowLocked("it took nothing for " + w.router.cfg.SlowAfter.String())
		return stillWaits
	}
	if w.out.unsent() > 0 || w.finished {
		return stillWaits
	}
	return nothingWaits
}

// idle reports whether the sweep may forget the row.
func (w *row) idle() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.state == ended || w.state == open && w.out.unsent() == 0 && !w.finished
}

// end is the end of the connection: its process has confirmed it, or is gone.
func (w *row) end(reason transport.CloseReason) {
	w.mu.Lock()
	if w.state == ended {
		w.mu.Unlock()
		return
	}
	if w.state == asking {
		reason = w.closing // what ended it, rather than how that went
	}
	w.state = ended
	w.router.counters.dropped.Add(int64(w.out.drop()))
	inFlight := w.inFlight
	w.inFlight = 0
	w.wakeLocked()
	w.ending = reason
	reading := w.reading
	w.mu.Unlock()
	if inFlight > 0 {
		w.router.answered(inFlight)
	}
	if !reading { // else the reader has the session, for longer than we may wait
		w.tellEnd()
	}
}

// tellEnd tells the application of the end. It is called once, by whoever calls
// the session at the end.
func (w *row) tellEnd() {
	w.mu.Lock()
	reason := w.ending
	w.mu.Unlock()
	w.calls.Lock()
	if !w.over {
		w.over = true
		w.session.Closed(reason)
	}
	w.calls.Unlock()
	w.router.remove(w)
}

// leave takes the row from a process that does not confirm its end.
func (w *row) leave() {
	w.mu.Lock()
	home := w.home
	w.mu.Unlock()
	home.dismiss(w.linkID)
	home.record.complain(home.log, violations, "it did not confirm the end of connection %d within %v", w.linkID, closeLimit)
	w.router.counters.violations.Add(1)
}

// detach takes the row from its process, if it can be resumed by the next. One
// that is closed goes on too, while it owes the peer something: that was accepted
// before the close.
func (w *row) detach() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.opened.ResumeKey == "" || w.state == ended || w.state != open && w.out.empty() {
		return false
	}
	if w.state == asking {
		w.state = closing
	}
	w.link = nil
	messages, bytes := w.fromPeer.Unread()
	w.carried.Messages += messages - w.held.Messages
	w.carried.Bytes += bytes - w.held.Bytes - w.joined.size
	w.forgetJoined() // the cursor is before it: the next process delivers it again
	w.held = transport.Credit{}
	w.fromPeer, w.toPeer = transport.ReceiveWindow{}, transport.SendWindow{}
	w.out.rewind()
	return true
}

// resume is the row as the next process gets it.
func (w *row) resume() transport.Resume {
	w.mu.Lock()
	defer w.mu.Unlock()
	return transport.Resume{
		Conn: w.linkID, Key: w.opened.ResumeKey, Cursor: w.cursor, Checkpoint: w.checkpoint, NextSeq: w.out.nextSeq(),
	}
}

// attach gives the row to the process that adopted it, and sends again what was
// not acknowledged.
func (w *row) attach(home *Attachment) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.home, w.link = home, home.link
	w.attached = w.out.nextSeq() - 1
	w.progress = time.Now()
	if w.state == asking { // closed meanwhile, with nothing to say
		w.askLocked()
		return
	}
	w.flushLocked()
}
