package remotecontrol

import (
	"bytes"
	"errors"
	"slices"
	"time"

	pluginsdk "github.com/transporthost/transporthost/plugin-sdk"
)

// Bounds of what a virtual client may have on its way to the host. At these a
// request is answered with -32001; notifications and responses, which nothing
// can answer, are taken up to twice as much, and then the virtual client is
// closed as overloaded. One message is always taken, so that the largest fits.
const (
	inboundMessages = 128
	inboundBytes    = 8 << 20
	// inboundTotal bounds all of them together, in the same way.
	inboundTotal = 256 << 20
)

// An inbound is a message on its way to the host.
type inbound struct {
	payload rope
	note    note         // of the stream behind it; the place is added when it goes
	entry   *ledgerEntry // of its envelope
	first   *ledgerEntry // of the first of its segments; nil if it came whole
	check   bool         // it may not be JSON
}

// A virtualClient makes one stream look like a connection: the sink of one
// [pluginsdk.Conn]. Its fields are guarded by the mutex of clients, but for
// conn, which is set once.
type virtualClient struct {
	clients *clients
	stream  *stream
	conn    *pluginsdk.Conn
	bound   bool // the connection exists

	heard     time.Time // a message or a ping
	note      note      // how far the stream was read
	joined    *uint64   // last seq_id that came in segments
	initID    []byte    // id of the initialize, until the host has said anything
	queue     []inbound
	bytes     int  // in queue, and in the hand of deliver
	delivers  bool // a goroutine empties the queue
	pending   []*hostMessage
	told      pluginsdk.Seq          // acknowledged to the host
	ending    *pluginsdk.CloseReason // of the host: ends once pending is in the outbox
	leaving   *pluginsdk.CloseReason // of the peer: has no stream any more, and ends once queue is empty
	leftSince time.Time
	closed    bool // nothing more goes in or out
}

var (
	_ pluginsdk.Sink      = (*virtualClient)(nil)
	_ pluginsdk.PieceSink = (*virtualClient)(nil)
	_ pluginsdk.Binder    = (*virtualClient)(nil)
)

// Bind implements [pluginsdk.Binder].
func (vc *virtualClient) Bind(conn *pluginsdk.Conn) { vc.conn = conn }

// Message implements [pluginsdk.Sink].
func (vc *virtualClient) Message(seq pluginsdk.Seq, p []byte) {
	vc.take(seq, ropeOf(bytes.Clone(p)))
}

// Pieces implements [pluginsdk.PieceSink].
func (vc *virtualClient) Pieces(seq pluginsdk.Seq, pieces [][]byte) { vc.take(seq, ropeOf(pieces...)) }

func (vc *virtualClient) take(seq pluginsdk.Seq, p rope) {
	m := &hostMessage{seq: seq, payload: p}
	vc.clients.mu.Lock()
	unwanted := vc.closed || vc.leaving != nil
	if !unwanted {
		vc.initID = nil
		vc.pending = append(vc.pending, m)
	}
	vc.clients.mu.Unlock()
	if unwanted {
		vc.conn.Written(1, p.size) // the peer is gone; what it said last is still being taken
	}
}

// Flush implements [pluginsdk.Sink].
func (vc *virtualClient) Flush() {
	vc.clients.mu.Lock()
	defer vc.clients.mu.Unlock()
	vc.bound = true
	if !vc.closed {
		vc.clients.kickLocked(vc.stream)
	}
}

// Close implements [pluginsdk.Sink]. What the host has sent goes into the
// outbox, whatever it holds, and on the wire from there; the relay has no word
// for the end of a connection, so it hears of none.
func (vc *virtualClient) Close(reason pluginsdk.CloseReason) {
	c := vc.clients
	c.mu.Lock()
	var left *virtualClient
	vc.bound = true
	switch {
	case vc.closed:
	case vc.leaving != nil:
		c.closeLocked(vc)
		left = vc
	default:
		if reason.Code == pluginsdk.CloseOverloaded && vc.initID != nil {
			// The host has no room for another connection: its peer must hear of it.
			vc.stream.answers = append(vc.stream.answers, newAnswer(answerOverloaded, vc.initID))
			vc.initID = nil
		}
		vc.ending = &reason
		c.kickLocked(vc.stream)
	}
	c.mu.Unlock()
	if left != nil {
		left.conn.Close(reason)
	}
}

// unchecked is the first message that nobody has looked at yet.
func (vc *virtualClient) unchecked() *hostMessage {
	for _, m := range vc.pending {
		if m.verdict == notChecked {
			return m
		}
	}
	return nil
}

// takePending drops the first n messages.
func (vc *virtualClient) takePending(n int) {
	if vc.pending = slices.Delete(vc.pending, 0, n); len(vc.pending) == 0 {
		vc.pending = nil
	}
}

// fill gives entries of an earlier process their payloads, and drops messages
// that the relay has acknowledged meanwhile. The result is the host's credit.
func (vc *virtualClient) fill(p profile) (messages, size int) {
	out := &vc.stream.out
	n := 0
	for _, m := range vc.pending {
		if m.seq > out.host {
			break // a new one
		}
		out.fill(*m, p)
		n++
		size += m.payload.size
	}
	if n < len(vc.pending) || vc.ending != nil {
		out.giveUp() // the host sends in order: it will not send those before
	}
	if n > 0 {
		vc.takePending(n)
		vc.clients.rechargeLocked(vc.stream)
	}
	return n, size
}

// ackLocked returns up to where the host may forget its messages; 0 is no news.
func (vc *virtualClient) ackLocked(out *outbox) pluginsdk.Seq {
	if done := out.done(); done > vc.told {
		vc.told = done
		return done
	}
	return 0
}

// tell returns credit to the host and acknowledges.
func (vc *virtualClient) tell(messages, size int, acked pluginsdk.Seq) {
	if messages > 0 {
		vc.conn.Written(messages, size)
	}
	if acked > 0 {
		vc.conn.Ack(acked)
	}
}

// repeats reports whether an initialize is the one that opened this virtual
// client, sent again. The numbers of a client that names no stream say nothing
// (spec 6.5): its is a repetition only if nothing came in between.
func (vc *virtualClient) repeats(e *clientEnvelope) bool {
	n := &vc.note
	if e.SeqID == nil || n.InitSeq == nil || *e.SeqID != *n.InitSeq || n.Legacy && n.Since {
		return false
	}
	return n.Initialize == fingerprint(e.body())
}

// queueLocked takes one message in, or answers it. It is false if the virtual
// client must be closed as overloaded.
func (vc *virtualClient) queueLocked(e *clientEnvelope, first *ledgerEntry) bool {
	c, s := vc.clients, vc.stream
	refuse := func(kind answerKind) bool {
		c.passLocked(e, first)
		if e.peeked.Kind != pluginsdk.Request {
			return true
		}
		s.answers = append(s.answers, newAnswer(kind, e.peeked.ID))
		c.kickLocked(s)
		return len(s.answers) <= maxAnswers
	}
	body := e.body()
	if body.size > c.maxMessage {
		c.tally.tooLarge.Add(1)
		return refuse(answerTooLarge)
	}
	over := func(times int) bool {
		return len(vc.queue) >= times*inboundMessages || vc.bytes >= times*inboundBytes || c.inbound >= times*inboundTotal
	}
	if e.peeked.Kind == pluginsdk.Request && over(1) {
		c.tally.overloaded.Add(1)
		return refuse(answerOverloaded)
	}
	if over(2) {
		c.tally.overloaded.Add(1)
		c.passLocked(e, first)
		return false
	}
	vc.bytes += body.size
	c.inbound += body.size
	cursor := e.cursor()
	if cursor != "" {
		c.subscribed = cursor
	}
	vc.queue = append(vc.queue, inbound{payload: body, note: vc.note, entry: c.ledger.begin(cursor), first: first, check: e.unchecked})
	if !vc.delivers && !c.closed {
		vc.delivers = true
		c.wg.Go(vc.deliver)
	}
	return true
}

// deliver gives the host what is queued, and ends when nothing is. It waits
// for the host's credit, which is why every virtual client has its own.
func (vc *virtualClient) deliver() {
	c := vc.clients
	for {
		c.mu.Lock()
		if vc.closed || c.closed || len(vc.queue) == 0 {
			vc.delivers = false
			left := !vc.closed && !c.closed && vc.leaving != nil
			if left {
				c.closeLocked(vc)
			}
			c.mu.Unlock()
			if left {
				vc.conn.Close(*vc.leaving)
			}
			return
		}
		m := vc.queue[0]
		if vc.queue = slices.Delete(vc.queue, 0, 1); len(vc.queue) == 0 {
			vc.queue = nil
		}
		// If the message came in segments, the place stays where it was until the
		// next one: it is behind two envelopes.
		safe := c.ledger.safe
		if m.first == nil {
			safe = c.ledger.after(m.entry)
		}
		m.note.N, m.note.Cursor = safe.n, safe.cursor
		c.mu.Unlock()

		var err error
		if m.check && !m.payload.valid() {
			c.complain(&c.tally.malformed, "dropping a message of a client that is not JSON", "client", vc.stream.key.client)
		} else {
			err = vc.conn.DeliverParts(c.life, m.payload.pieces, m.note.encode())
		}

		c.mu.Lock()
		vc.releaseLocked(&m)
		switch {
		case err == nil:
		case errors.Is(err, pluginsdk.ErrTooLarge):
			c.tally.tooLarge.Add(1) // only a host that changed its mind says this
		default:
			// The host ends the connection, which its Close follows, or is gone, or
			// we are leaving.
			vc.dropQueueLocked()
		}
		c.mu.Unlock()
	}
}

// releaseLocked accounts for a message that is not on its way any more.
func (vc *virtualClient) releaseLocked(m *inbound) {
	c := vc.clients
	vc.bytes -= m.payload.size
	c.inbound -= m.payload.size
	if c.closed {
		return // it was perhaps not handed over: the next process must get it again
	}
	c.ledger.end(m.entry)
	if m.first != nil {
		c.ledger.end(m.first)
	}
}

func (vc *virtualClient) dropQueueLocked() {
	for i := range vc.queue {
		vc.releaseLocked(&vc.queue[i])
	}
	vc.queue = nil
}
