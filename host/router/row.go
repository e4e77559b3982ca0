package router

import (
	"bytes"
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/transporthost/transporthost/host/application"
	"github.com/transporthost/transporthost/shared/transport"
)

// A row is one connection: the application's [application.Conn], and the place
// where the accounts of both directions are kept.
type row struct {
	router *Router
	id     uint64
	origin string
	linkID transport.ConnID
	opened transport.Opened
	since  time.Time

	// Of the receive loop of the process.
	home   *Attachment // of the process; read elsewhere under mu
	joined joined

	calls   sync.Mutex // one call into the session at a time; taken before mu
	session application.Session
	over    bool // the session has heard of the end

	mu         sync.Mutex // guards what follows; held while frames are queued on the link, never across other calls
	state      state
	late       []late   // for the reader of the row
	reading    bool     // it runs
	link       Commands // nil while no process carries the connection
	clientName string
	toPeer     transport.SendWindow
	fromPeer   transport.ReceiveWindow
	carried    transport.Credit // taken from an earlier process and not consumed yet
	held       transport.Credit // consumed, and withheld while the peer does not read
	out        outQueue
	burst      int                   // bytes of large messages that went since the last rest
	resting    bool                  // no piece of a large message goes
	attached   transport.Seq         // the last number before those that the present process was sent
	closing    transport.CloseReason // with which the connection ends once out is empty
	ending     transport.CloseReason // with which it has ended
	asked      time.Time             // when the process was asked to end the connection
	progress   time.Time             // when something left for the peer last, while out is not empty
	room       chan struct{}         // closed when out has room; nil while nobody waits
	inFlight   int                   // requests of the peer without an answer
	messages   uint64                // messages
	finished   bool                  // the peer sends no more
	cursor     transport.Cursor
	checkpoint []byte
}

type state uint8

const (
	open    state = iota
	closing       // ends when out is empty: nothing more is taken in or sent
	asking        // the process was asked to end it
	ended
)

var _ application.Conn = (*row)(nil)

func newRow(a *Attachment, conn transport.ConnID, o transport.Opened) *row {
	return &row{
		router: a.router, origin: a.instance, linkID: conn, link: a.link, home: a, opened: o, since: time.Now(), clientName: o.Peer.ClientName,
		out: outQueue{keep: o.ResumeKey != ""},
	}
}

// open tells the application.
func (w *row) open() {
	w.calls.Lock()
	defer w.calls.Unlock()
	w.session = w.router.cfg.App.Open(w)
}

// ID implements [application.Conn].
func (w *row) ID() uint64 { return w.id }

// Origin implements [application.Conn].
func (w *row) Origin() string { return w.origin }

// Peer implements [application.Conn].
func (w *row) Peer() transport.Peer { return w.opened.Peer }

// received takes one piece from the process. An error is the plugin's
// violation. It is called by the receive loop, and does not wait.
func (w *row) received(piece []byte, more bool) error {
	w.mu.Lock()
	c, err := w.fromPeer.Arrived(len(piece), more)
	live, reading := w.state == open, w.reading
	if err == nil && c != (transport.Credit{}) {
		w.link.Credit(w.linkID, c)
	}
	w.mu.Unlock()
	if err != nil || !live {
		w.forgetJoined()
		return err
	}
	if !more && w.joined.size == 0 {
		w.router.counters.received.Add(1)
		if reading {
			w.postpone(late{pieces: [][]byte{bytes.Clone(piece)}})
			return nil
		}
		w.take(piece)
		return nil
	}
	if size := w.joined.size + len(piece); size > w.router.cfg.MaxMessageBytes {
		w.forgetJoined()
		return fmt.Errorf("message of more than %d bytes: %w", w.router.cfg.MaxMessageBytes, transport.ErrTooLarge)
	}
	if !w.home.joined.take(len(piece), w.router.cfg.maxJoinedBytes()) {
		w.forgetJoined()
		w.abort(transport.Because(transport.CloseOverloaded, "the host joins messages of %d MiB for this transport, its limit; retry later",
			w.router.cfg.maxJoinedBytes()>>20))
		return nil
	}
	w.joined.add(piece)
	if more {
		return nil
	}
	whole := late{pieces: w.joined.pieces, size: w.joined.size}
	w.router.counters.received.Add(1)
	if reading || whole.size > transport.LargeBytes {
		whole.account, w.joined = &w.home.joined, joined{} // goes on counting there
		w.postpone(whole)
		return nil
	}
	w.forgetJoined()
	w.take(bytes.Join(whole.pieces, nil))
	return nil
}

// forgetJoined lets go of the pieces that have arrived.
func (w *row) forgetJoined() {
	w.home.joined.give(w.joined.size)
	w.joined = joined{}
}

// rejected takes what the transport read and could not deliver, like a message
// without bytes.
func (w *row) rejected(r transport.Rejection) error {
	w.mu.Lock()
	_, err := w.fromPeer.Arrived(0, false)
	live := w.state == open
	w.mu.Unlock()
	if err != nil || !live {
		return err
	}
	if w.isReading() {
		w.postpone(late{rejected: &r})
		return nil
	}
	w.reject(r)
	return nil
}

// reject answers what the transport could not deliver.
func (w *row) reject(r transport.Rejection) {
	if r.Text == "" {
		w.Consumed(1, 0)
		return
	}
	w.router.counters.invalid.Add(1)
	code := transport.CodeInvalidRequest
	if r.Unparsable {
		code = transport.CodeParseError
	}
	w.refuse(nil, code, r.Text, 0)
}

// take gives one whole message to the application, or answers it.
func (w *row) take(p []byte) {
	m, err := transport.Peek(p)
	if err != nil {
		w.router.counters.invalid.Add(1)
		code, text := transport.CodeInvalidRequest, err.Error()
		if e, ok := err.(*transport.PeekError); ok {
			code = e.Code
		}
		w.refuse(nil, code, text, len(p))
		return
	}
	w.mu.Lock()
	if w.state != open { // it closed while the message was joined: nobody would answer
		w.mu.Unlock()
		w.router.counters.dropped.Add(1)
		return
	}
	w.messages++
	waiting, _ := w.fromPeer.Unread()
	if m.Kind == transport.Request {
		// A lossless wire is a local pipe whose writer can wait as well as we can.
		if waiting > inQueueRequests && !w.opened.Lossless {
			w.mu.Unlock()
			w.router.counters.overloaded.Add(1)
			w.refuse(m.ID, transport.CodeOverloaded, transport.OverloadedText, len(p))
			return
		}
		w.inFlight++
		w.router.inFlight.Add(1)
	}
	w.mu.Unlock()
	if m.Kind == transport.Request && string(m.Method) == "initialize" && len(p) <= largestNoted {
		w.noteClient(p)
	}
	w.calls.Lock()
	defer w.calls.Unlock()
	if !w.over {
		w.session.Deliver(p, m)
	}
}

// refuse answers a message that does not reach the application.
func (w *row) refuse(id []byte, code int, text string, size int) {
	answer := transport.AppendError(nil, id, code, text)
	if err := w.send(answer, transport.Message{}, true); err != nil {
		w.router.counters.dropped.Add(1)
	}
	w.Consumed(1, size)
}

// largestNoted bounds the initialize requests that are looked into: this is the
// receive loop, and everybody on this plugin waits meanwhile.
const largestNoted = 32 << 10

// noteClient remembers the name that the peer gives itself, and tells the host
// of it.
func (w *row) noteClient(p []byte) {
	name, wellFormed := clientName(p)
	if name == "" {
		return // the application will say what is wrong with it
	}
	w.mu.Lock()
	w.clientName = name
	w.mu.Unlock()
	if f := w.router.cfg.ClientNamed; f != nil && wellFormed {
		f(w.origin, name)
	}
}

// Consumed implements [application.Conn].
func (w *row) Consumed(messages, bytes int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	// What an earlier process brought in is out of this one's window.
	m, b := min(messages, w.carried.Messages), min(bytes, w.carried.Bytes)
	w.carried.Messages -= m
	w.carried.Bytes -= b
	w.held.Messages += messages - m
	w.held.Bytes += bytes - b
	if !w.out.over(holdBytes, holdMessages) {
		w.releaseLocked()
	}
	w.maybeFinishLocked()
}

// Forgotten implements [application.Conn].
func (w *row) Forgotten(n int) {
	w.mu.Lock()
	if n = min(n, w.inFlight); w.state == ended {
		n = 0
	}
	w.inFlight -= n
	w.maybeFinishLocked()
	w.mu.Unlock()
	if n != 0 {
		w.router.answered(n)
	}
}

// releaseLocked returns the credit that was held.
func (w *row) releaseLocked() {
	if w.held == (transport.Credit{}) {
		return
	}
	c := w.fromPeer.Consumed(w.held.Messages, w.held.Bytes)
	w.held = transport.Credit{}
	if c != (transport.Credit{}) && w.link != nil && w.state == open {
		w.link.Credit(w.linkID, c)
	}
}

// Send implements [application.Conn].
func (w *row) Send(p []byte) error {
	m, err := transport.Peek(p)
	if err != nil {
		m = transport.Message{} // the application's words are its own
	}
	return w.send(p, m, false)
}

// send queues p. force is set for answers of the router itself, which do not
// count against the out-queue of a lossless connection: the window bounds them.
func (w *row) send(p []byte, m transport.Message, force bool) error {
	out := copyOut(p)
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.state != open {
		return transport.ErrConnClosed
	}
	if w.out.full(w.router.cfg.OutQueueBytes, w.router.cfg.OutQueueMessages) && !force {
		if w.opened.Lossless {
			return transport.ErrOverloaded
		}
		w.slowLocked("its out-queue is full")
		return transport.ErrConnClosed
	}
	w.queueLocked(out, m)
	return nil
}

// SendWait implements [application.Conn].
func (w *row) SendWait(ctx context.Context, p []byte) error {
	m, err := transport.Peek(p)
	if err != nil {
		m = transport.Message{}
	}
	out := copyOut(p)
	for {
		w.mu.Lock()
		if w.state != open {
			w.mu.Unlock()
			return transport.ErrConnClosed
		}
		if !w.out.over(waitBytes, w.router.cfg.OutQueueMessages) {
			w.queueLocked(out, m)
			w.mu.Unlock()
			return nil
		}
		if w.room == nil {
			w.room = make(chan struct{})
		}
		room := w.room
		w.mu.Unlock()
		select {
		case <-room:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func (w *row) queueLocked(out outMessage, m transport.Message) {
	w.router.counters.sent.Add(1)
	// An error without an id answers no request.
	if (m.Kind == transport.Response || m.Kind == transport.ErrorResponse) && len(m.ID) > 0 && w.inFlight > 0 {
		w.inFlight--
		w.router.answered(1)
	}
	out.seq = w.out.number()
	if n := out.size; w.link != nil && w.out.unsent() == 0 && n <= transport.PieceBytes && w.toPeer.Fits(n, true, false) {
		w.toPeer.Take(n, true, false)
		w.link.Send(w.linkID, out.seq, out.payload, false)
		w.out.sent(out)
	} else {
		if w.out.unsent() == 0 {
			w.progress = time.Now()
			w.router.watch(w)
		}
		w.out.push(out)
		w.flushLocked()
	}
	w.maybeFinishLocked()
}

// credit takes what the process returned. An error is its violation.
func (w *row) credit(c transport.Credit) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.toPeer.Return(c); err != nil {
		return err
	}
	if w.out.unsent() > 0 {
		w.progress = time.Now()
		w.flushLocked()
	}
	w.maybeFinishLocked()
	return nil
}

// acked forgets what is safely out.
func (w *row) acked(seq transport.Seq) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.out.acked(seq)
	if !w.out.over(holdBytes/2, holdMessages/2) {
		w.releaseLocked()
	}
	if w.room != nil && !w.out.over(waitBytes/2, w.router.cfg.OutQueueMessages/2) {
		close(w.room)
		w.room = nil
	}
	w.maybeFinishLocked()
}

// delivered acknowledges the first messages that the present process was sent.
func (w *row) delivered(messages int) {
	w.mu.Lock()
	last := w.attached + transport.Seq(messages)
	w.mu.Unlock()
	w.acked(last)
}

func (w *row) accept(cursor transport.Cursor) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.cursor = cursor
}

func (w *row) store(checkpoint []byte) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.checkpoint = append([]byte(nil), checkpoint...)
}
