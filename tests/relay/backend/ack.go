package backend

import (
	"errors"
	"fmt"
	"slices"
)

// An AckPolicy says what a virtual client acknowledges by itself.
type AckPolicy uint8

const (
	_           AckPolicy = iota // the zero value means AckSegments
	AckSegments                  // every envelope, and every segment of a large message
	AckMessages                  // whole messages and pongs
	AckNothing                   // nothing: the test calls Ack
)

// ErrNoLink is returned if no host is connected that could take something.
var ErrNoLink = errors.New("no host is connected")

// dueAck notes what a stream's client acknowledges now. b.mu is held.
func (b *Backend) dueAck(l *link, st *stream) {
	policy := AckSegments
	if c := b.addressee(st.key, true); c != nil {
		policy = c.acks
	}
	if b.faults.noAcks || policy == AckNothing {
		return
	}
	to := st.whole()
	if !st.seen.last && policy == AckSegments {
		to = st.seen.at
	}
	if to.seq == 0 && to.segment == everySegment {
		return // the first message is not whole
	}
	l.queueAck(st.key, to)
}

// queueAck makes an ack due, or raises the one that is.
func (l *link) queueAck(key streamKey, to position) {
	at := slices.IndexFunc(l.acks, func(due dueAck) bool { return due.key == key })
	if at < 0 {
		l.acks = append(l.acks, dueAck{key, to})
	} else if l.acks[at].to.before(to) {
		l.acks[at].to = to
	}
	l.stir()
}

// ackAll makes the acks due that a fault withheld. b.mu is held.
func (b *Backend) ackAll() {
	for key, st := range b.streams {
		for _, l := range b.links {
			if _, here := l.last[key]; here {
				b.dueAck(l, st)
			}
		}
	}
}

// ack encodes a due ack and notes that the host is told. b.mu is held.
func (b *Backend) ack(l *link, due dueAck) []byte {
	e := clientEnvelope{kind: ackEnvelope, clientID: due.key.client, streamID: due.key.stream, seq: &due.to.seq, cursor: b.cursor(l.sentUpTo)}
	if due.to.segment != everySegment && b.opts.Profile.chunks() {
		e.ackTo = &due.to.segment
	}
	if st := b.streams[due.key]; st != nil {
		st.acked(due.to)
	} else if due.key.stream == "" {
		for key, st := range b.streams {
			if key.client == due.key.client {
				st.acked(due.to)
			}
		}
	}
	return e.encode()
}

// Ack acknowledges all envelopes of the client's stream up to seq.
func (c *Client) Ack(seq uint64) error { return c.ackTo(c.streamID(), position{seq, everySegment}) }

// AckSegment acknowledges the envelopes before seq and its segments up to this
// one.
func (c *Client) AckSegment(seq uint64, segment int) error {
	return c.ackTo(c.streamID(), position{seq, segment})
}

// AckAllStreams sends an ack without a stream: it counts for all streams of
// the client id.
func (c *Client) AckAllStreams(seq uint64) error { return c.ackTo("", position{seq, everySegment}) }

func (c *Client) ackTo(stream string, to position) error {
	b := c.b
	b.mu.Lock()
	defer b.mu.Unlock()
	l := b.carrier(c)
	if l == nil {
		return fmt.Errorf("acknowledging: %w", ErrNoLink)
	}
	return l.queue(controlFrame{websocketText, b.ack(l, dueAck{streamKey{c.id, stream}, to})})
}
