package router

import (
	"bytes"

	"github.com/transporthost/transporthost/shared/transport"
)

// outMessage is one message for the peer.
type outMessage struct {
	seq     transport.Seq
	payload []byte   // on loan until it is queued
	large   [][]byte // owned: in place of payload, the pieces that it travels in
	size    int
	gone    int // bytes of it that are on the link
}

// copyOut makes p a message. A large one is copied here, where nobody waits and
// no lock is held, and takes its time.
func copyOut(p []byte) outMessage {
	m := outMessage{payload: p, size: len(p)}
	if m.size <= transport.LargeBytes {
		return m
	}
	var pace transport.Pace
	m.payload = nil
	for len(p) > 0 {
		n := transport.Piece(len(p), m.size)
		m.large = append(m.large, bytes.Clone(p[:n]))
		p = p[n:]
		pace.Step()
	}
	return m
}

// own makes the message the owner of its bytes.
func (m outMessage) own() outMessage {
	m.payload = append([]byte(nil), m.payload...)
	return m
}

// piece is what travels next.
func (m *outMessage) piece() []byte {
	if m.large != nil {
		return m.large[m.gone/transport.LargePieceBytes]
	}
	rest := m.payload[m.gone:]
	return rest[:transport.Piece(len(rest), m.size)]
}

// An outQueue numbers the messages of one connection and holds those that wait
// for credit and, if it keeps them, those that are not acknowledged. The zero
// value is an empty one that keeps nothing. It does no locking.
type outQueue struct {
	keep  bool // until acknowledged: the connection can be resumed
	last  transport.Seq
	queue []outMessage // not sent completely, oldest first
	kept  []outMessage // sent and not acknowledged, oldest first
	bytes int          // of both
}

// number gives out the next sequence number.
func (q *outQueue) number() transport.Seq {
	q.last++
	return q.last
}

// push queues a message.
func (q *outQueue) push(m outMessage) {
	q.queue = append(q.queue, m.own())
	q.bytes += m.size
}

// sent accounts for a message that went straight to the link.
func (q *outQueue) sent(m outMessage) {
	if q.keep {
		q.kept = append(q.kept, m.own())
		q.bytes += m.size
	}
}

// head is the message to send next, or nil.
func (q *outQueue) head() *outMessage {
	if len(q.queue) == 0 {
		return nil
	}
	return &q.queue[0]
}

// advance accounts for n bytes of the head that were sent.
func (q *outQueue) advance(n int) {
	m := &q.queue[0]
	if m.gone += n; m.gone < m.size {
		return
	}
	if q.keep {
		q.kept = append(q.kept, *m)
	} else {
		q.bytes -= m.size
	}
	q.queue[0] = outMessage{}
	if q.queue = q.queue[1:]; len(q.queue) == 0 {
		q.queue = nil // an idle connection holds no memory
	}
}

// acked forgets kept messages up to seq.
func (q *outQueue) acked(seq transport.Seq) {
	n := 0
	for n < len(q.kept) && q.kept[n].seq <= seq {
		q.bytes -= q.kept[n].size
		q.kept[n] = outMessage{}
		n++
	}
	if q.kept = q.kept[n:]; len(q.kept) == 0 {
		q.kept = nil
	}
}

// rewind makes everything that is not acknowledged wait again, from its start.
func (q *outQueue) rewind() {
	q.queue = append(q.kept, q.queue...)
	q.kept = nil
	for i := range q.queue {
		q.queue[i].gone = 0
	}
}

// nextSeq is the number of the message that is sent next.
func (q *outQueue) nextSeq() transport.Seq {
	if len(q.queue) > 0 {
		return q.queue[0].seq
	}
	return q.last + 1
}

// drop forgets everything and returns how many messages that were.
func (q *outQueue) drop() int {
	n := len(q.queue)
	q.queue, q.kept, q.bytes = nil, nil, 0
	return n
}

// unsent is the number of messages that wait for credit.
func (q *outQueue) unsent() int { return len(q.queue) }

func (q *outQueue) empty() bool { return len(q.queue) == 0 && len(q.kept) == 0 }

// full reports whether the queue has no room for another message. The oldest one
// does not count by its size: one that is larger than the bound is no reason to
// refuse what follows it. What is kept until it is acknowledged is bounded by the
// transport, which returns no credit for more, and counts half.
func (q *outQueue) full(bytes, messages int) bool {
	size := q.bytes
	switch {
	case len(q.kept) > 0:
		size -= q.kept[0].size
	case len(q.queue) > 0:
		size -= q.queue[0].size
	}
	if q.keep {
		bytes, messages = 2*bytes, 2*messages
	}
	return size >= bytes || len(q.queue)+len(q.kept) >= messages
}

// over reports whether the queue holds more than so many bytes or messages.
func (q *outQueue) over(bytes, messages int) bool {
	return q.bytes > bytes || len(q.queue)+len(q.kept) > messages
}
