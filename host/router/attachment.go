package router

import (
	"errors"
	"fmt"
	"sync"

	"github.com/hashicorp/go-hclog"

	"github.com/transporthost/transporthost/shared/rpc"
	"github.com/transporthost/transporthost/shared/transport"
)

// An Attachment is the connections of one process. It takes the events of the
// process's link, from the link's receive loop.
type Attachment struct {
	router   *Router
	instance string
	link     Commands
	log      hclog.Logger

	record *record

	// Of the receive loop.
	accepted []*row // whose cursor is to be confirmed
	broken   error  // how the plugin broke the rules of the link, first

	joined account

	mu        sync.Mutex // guards what follows
	rows      map[transport.ConnID]*row
	dismissed map[transport.ConnID]struct{} // have no row, and may still be spoken of
}

var _ rpc.Events = (*Attachment)(nil)

func (a *Attachment) row(conn transport.ConnID) *row {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.rows[conn]
}

// Opened implements [rpc.Events].
func (a *Attachment) Opened(conn transport.ConnID, o transport.Opened) {
	if conn == 0 || a.row(conn) != nil {
		a.violation(conn, errors.New("opened twice, or without a number"))
		return
	}
	if n := len(o.ResumeKey); n > transport.MaxCursorBytes {
		a.violation(conn, fmt.Errorf("resume key of %d bytes, limit %d", n, transport.MaxCursorBytes))
		return
	}
	o.Peer = clipPeer(o.Peer)
	if w := a.adopt(conn, o); w != nil {
		w.attach(a)
		return
	}
	w := newRow(a, conn, o)
	if err := a.router.add(w); err != nil {
		if f, ok := errors.AsType[*farewell](err); ok {
			a.dismiss(conn)
			a.link.Close(conn, f.reason)
			return
		}
		a.router.counters.refused.Add(1)
		a.record.complain(a.log, refused, "a connection was refused: %v", err)
		a.dismiss(conn)
		a.link.Close(conn, transport.Because(transport.CloseOverloaded, "%v", err))
		return
	}
	a.mu.Lock()
	a.rows[conn] = w
	a.mu.Unlock()
	a.router.counters.opened.Add(1)
	w.open()
}

// longestPeerText bounds what is kept and shown of what a transport tells of a
// peer: headers are the peer's own words.
const longestPeerText = 256

func clipPeer(p transport.Peer) transport.Peer {
	for _, s := range []*string{&p.RemoteAddr, &p.LocalAddr, &p.Identity, &p.UserAgent, &p.ClientName} {
		*s = transport.Line(*s, longestPeerText)
	}
	return p
}

func (a *Attachment) adopt(conn transport.ConnID, o transport.Opened) *row {
	if o.ResumeKey == "" {
		return nil
	}
	w := a.router.unpark(a.instance, conn, o.ResumeKey)
	if w == nil {
		return nil
	}
	a.mu.Lock()
	a.rows[conn] = w
	a.mu.Unlock()
	return w
}

// Started says that the process is ready, and which connections it goes on
// with. The events of the adoption may still be on their way; what is not among
// them is lost.
func (a *Attachment) Started(adopted []transport.ConnID) {
	reason := transport.Because(transport.ClosePluginLost, "the next process of %q did not resume the connection", a.instance)
	a.router.abandon(a.instance, adopted, reason)
}

// Received implements [rpc.Events].
func (a *Attachment) Received(conn transport.ConnID, piece []byte, cursor transport.Cursor, more bool) {
	w := a.row(conn)
	if w == nil {
		a.stray(conn, "Received")
		return
	}
	if err := w.received(piece, more); err != nil {
		a.violation(conn, err)
		return
	}
	if !more {
		a.accept(w, cursor)
	}
}

// Rejected implements [rpc.Events].
func (a *Attachment) Rejected(conn transport.ConnID, r transport.Rejection) {
	w := a.row(conn)
	if w == nil {
		a.stray(conn, "Rejected")
		return
	}
	if err := w.rejected(r); err != nil {
		a.violation(conn, err)
		return
	}
	a.accept(w, r.Cursor)
}

// accept notes how far the transport has read, to be confirmed when the batch
// ends.
func (a *Attachment) accept(w *row, cursor transport.Cursor) {
	if cursor == "" {
		return
	}
	if len(cursor) > transport.MaxCursorBytes {
		a.violation(w.linkID, fmt.Errorf("cursor of %d bytes, limit %d", len(cursor), transport.MaxCursorBytes))
		return
	}
	if len(a.accepted) == 0 || a.accepted[len(a.accepted)-1] != w {
		a.accepted = append(a.accepted, w)
	}
	w.accept(cursor)
}

// violation notes that the plugin broke the link's rules. Who miscounts is not
// believed in what follows: the batch's end ends the link, and with it the
// process. A message that is too large ends its connection only; a peer may be
// the cause of that, and the other peers shall not pay for it.
func (a *Attachment) violation(conn transport.ConnID, err error) {
	a.router.counters.violations.Add(1)
	a.record.complain(a.log, violations, "connection %d: %v", conn, err)
	w := a.row(conn)
	if errors.Is(err, transport.ErrTooLarge) {
		if w != nil {
			w.abort(transport.Because(transport.CloseTooLarge, "%v", err))
		}
		return
	}
	if w != nil { // nor is it resumed by a process that would do the same
		w.abort(transport.Because(transport.CloseProtocol, "the plugin broke the rules of the link: %v", err))
	}
	if a.broken == nil {
		a.broken = fmt.Errorf("it broke the rules of the link: connection %d: %w", conn, err)
	}
}

// stray notes an event of a connection that is not open. It is late if the host
// has given the connection up, and else the plugin's invention; either way there
// is nothing that it could change.
func (a *Attachment) stray(conn transport.ConnID, event string) {
	a.mu.Lock()
	_, known := a.dismissed[conn]
	a.mu.Unlock()
	if !known {
		a.record.complain(a.log, strays, "%s of connection %d, which is not open", event, conn)
	}
}

// dismiss forgets the row of a connection that the process has not closed yet.
func (a *Attachment) dismiss(conn transport.ConnID) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.rows, conn)
	if len(a.dismissed) < mostDismissed {
		a.dismissed[conn] = struct{}{}
	}
}

// mostDismissed bounds what is remembered for a process that opens and does not
// close. Beyond it, what is late counts as stray.
const mostDismissed = 1 << 16

// Acked implements [rpc.Events].
func (a *Attachment) Acked(conn transport.ConnID, seq transport.Seq) {
	w := a.row(conn)
	if w == nil {
		a.stray(conn, "Acked")
		return
	}
	w.acked(seq)
}

// Checkpoint implements [rpc.Events].
func (a *Attachment) Checkpoint(conn transport.ConnID, data []byte) {
	w := a.row(conn)
	if w == nil {
		a.stray(conn, "Checkpoint")
		return
	}
	if len(data) > transport.MaxCheckpointBytes {
		a.violation(conn, fmt.Errorf("checkpoint of %d bytes, limit %d", len(data), transport.MaxCheckpointBytes))
		return
	}
	w.store(data)
	a.link.Checkpointed(conn)
}

// Finished implements [rpc.Events].
func (a *Attachment) Finished(conn transport.ConnID) {
	w := a.row(conn)
	if w == nil {
		a.stray(conn, "Finished")
		return
	}
	w.finish()
}

// Closed implements [rpc.Events].
func (a *Attachment) Closed(conn transport.ConnID, reason transport.CloseReason) {
	a.mu.Lock()
	w := a.rows[conn]
	delete(a.rows, conn)
	_, known := a.dismissed[conn]
	delete(a.dismissed, conn)
	a.mu.Unlock()
	switch {
	case w != nil:
		w.forgetJoined()
		w.end(reason)
	case !known:
		a.stray(conn, "Closed")
	}
}

// Credit implements [rpc.Events].
func (a *Attachment) Credit(conn transport.ConnID, c transport.Credit) {
	w := a.row(conn)
	if w == nil {
		a.stray(conn, "Credit")
		return
	}
	if err := w.credit(c); err != nil {
		a.violation(conn, err)
	}
}

// Unknown implements [rpc.Events].
func (a *Attachment) Unknown(conn transport.ConnID) {
	a.record.complain(a.log, unknown, "it speaks of connection %d in an event that this host does not know, as a newer one may", conn)
}

// EndBatch implements [rpc.Events].
func (a *Attachment) EndBatch() error {
	for i, w := range a.accepted {
		a.link.Accepted(w.linkID, w.cursor)
		if f := a.router.cfg.Accepted; f != nil {
			f(a.instance, w.opened.ResumeKey, w.cursor)
		}
		a.accepted[i] = nil
	}
	a.accepted = a.accepted[:0]
	return a.broken
}

// Delivered says that the terminal got so many messages from this process. It is
// called between the link's end and Detach.
func (a *Attachment) Delivered(messages int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, w := range a.rows {
		if w.opened.ResumeKey != "" && w.opened.Lossless {
			w.delivered(messages)
			return // the terminal has one connection
		}
	}
}

// Detach takes the connections from a process that is gone. Those that can be
// resumed wait for the next one, if resume is set; the others are closed. The
// link's Run has returned.
func (a *Attachment) Detach(reason transport.CloseReason, resume bool) {
	a.mu.Lock()
	rows := make([]*row, 0, len(a.rows))
	for _, w := range a.rows {
		rows = append(rows, w)
	}
	clear(a.rows)
	a.mu.Unlock()
	for _, w := range rows {
		if resume && w.detach() {
			a.router.park(w)
			continue
		}
		w.end(reason)
	}
}

// Connections is how many the process carries now.
func (a *Attachment) Connections() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.rows)
}

// CloseAll closes the connections of the process, each after what is queued on
// it. It does not wait for the process to confirm that.
func (a *Attachment) CloseAll(reason transport.CloseReason) {
	a.mu.Lock()
	rows := make([]*row, 0, len(a.rows))
	for _, w := range a.rows {
		rows = append(rows, w)
	}
	a.mu.Unlock()
	for _, w := range rows {
		w.Close(reason)
	}
}
