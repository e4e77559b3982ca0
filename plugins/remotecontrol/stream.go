package remotecontrol

import (
	"container/list"
	"time"
)

const (
	// maxForgotten is how many streams without a virtual client are remembered,
	// so that one that comes back goes on with its numbers. The one that was
	// heard longest ago is forgotten first, with the pongs that it retains.
	maxForgotten = 4096
	// maxAnswers bounds the answers of this plugin's own that wait for room in
	// an outbox: a peer that goes on asking is closed as overloaded.
	maxAnswers = 128
)

// A stream is what this process knows of one stream of the relay: its numbers,
// which never restart, what it has unacknowledged, and its virtual client if
// it has one. Its fields are guarded by the mutex of clients.
type stream struct {
	key     streamKey
	out     outbox
	vc      *virtualClient // that the relay can reach; nil: none
	pong    pongStatus     // to be sent
	answers []ownAnswer    // to be sent
	note    bool           // a checkpoint is due although nothing is to be sent
	heard   time.Time      // of a stream without virtual client: when it lost it, or was pinged

	farewell *farewell // of a virtual client that the host has ended; nil: none

	pumping bool          // a pump runs
	inRing  bool          // the link's writer will come to it
	charged int           // bytes that count against a pool
	waiting *pool         // that has no room for its next message; nil: none
	granted bool          // there is room for its next message
	idle    *list.Element // in clients.idle; nil while there is a virtual client
}

// A batch is what an outbox takes in at once, after one checkpoint.
type batch struct {
	entries  []entry
	pong     bool
	answers  int // of stream.answers
	messages int // of virtualClient.pending
	bytes    int // of their payloads
}

// planLocked chooses what the outbox takes in next, and charges for it. Pongs
// and answers go first: somebody waits for them, and they are small.
func (c *clients) planLocked(s *stream, vc *virtualClient) batch {
	var b batch
	if s.out.waiting > 0 {
		return b // numbers of an earlier process come first
	}
	forced := vc != nil && vc.ending != nil
	envelopes, bytes, seq := s.out.envelopes, s.out.bytes, s.out.next
	admit := func(e entry) bool {
		n, size := e.segments(), e.bytes()
		if !forced && (envelopes > 0 && (envelopes+n > outboxEnvelopes || bytes+size > outboxBytes) || !c.chargeLocked(s, bytes+size)) {
			return false
		}
		envelopes, bytes = envelopes+n, bytes+size
		if e.kind != entrySkipped {
			seq++
		}
		b.entries = append(b.entries, e)
		return true
	}
	for _, a := range s.answers {
		if !admit(entry{kind: entryAnswer, seq: seq, answer: a}) {
			return b
		}
		b.answers++
	}
	if s.pong != noPong {
		if !admit(entry{kind: entryPong, seq: seq, status: s.pong}) {
			return b
		}
		b.pong = true
	}
	if vc == nil {
		return b
	}
	for _, m := range vc.pending {
		if m.verdict == notChecked || !admit(m.entry(seq, s.out.tail, c.profile)) {
			break
		}
		b.messages++
		b.bytes += m.payload.size
	}
	return b
}

// commitLocked is the second half: the batch is in the outbox, and may go out.
func (c *clients) commitLocked(s *stream, vc *virtualClient, b batch) {
	s.out.add(b.entries)
	s.answers = s.answers[b.answers:]
	if len(s.answers) == 0 {
		s.answers = nil
	}
	if b.pong {
		s.pong = noPong
	}
	if vc != nil {
		vc.takePending(b.messages)
	}
	s.granted = false
	c.rechargeLocked(s)
	c.offerLocked(s)
}

// kickLocked makes what waits on a stream go on, as far as it can.
func (c *clients) kickLocked(s *stream) {
	if s.pumping || c.closed {
		return
	}
	vc := s.vc
	if vc == nil {
		// Nobody adopts the numbers of a stream without a connection: there is
		// nothing to wait for.
		if b := c.planLocked(s, nil); len(b.entries) > 0 {
			c.commitLocked(s, nil, b)
		}
		return
	}
	if vc.bound && (len(vc.pending) > 0 || len(s.answers) > 0 || s.pong != noPong || s.note || vc.ending != nil) {
		s.pumping = true
		c.wg.Go(func() { c.pump(s) })
	}
}

// pump moves what waits on a stream into its outbox, each batch after its
// checkpoint, until nothing fits any more. It waits for the host, which is why
// every stream has its own.
func (c *clients) pump(s *stream) {
	for c.pumpOnce(s) {
	}
}

// pumpOnce moves one batch. When it returns false, the pump has ended.
func (c *clients) pumpOnce(s *stream) bool {
	c.mu.Lock()
	vc := s.vc
	if c.closed || vc == nil {
		s.pumping = false
		c.kickLocked(s)
		c.mu.Unlock()
		return false
	}
	if m := vc.unchecked(); m != nil {
		c.mu.Unlock()
		m.check() // takes its time for a large one
		if m.verdict == messageInvalid {
			c.complain(&c.tally.invalid, "dropping a message of the application that is not JSON", "client", s.key.client)
		}
		return true
	}
	messages, bytes := vc.fill(c.profile)
	b := c.planLocked(s, vc)
	if len(b.entries) == 0 && !s.note {
		s.pumping = false
		if vc.ending != nil {
			c.parkLocked(vc)
			c.seeOffLocked(vc)
		}
		c.offerLocked(s)
		acked := vc.ackLocked(&s.out)
		c.mu.Unlock()
		vc.tell(messages, bytes, acked)
		return false
	}
	c.offerLocked(s)
	s.note = false
	point := c.checkpointLocked(s, b.entries)
	closing := vc.ending != nil
	c.mu.Unlock()
	vc.tell(messages, bytes, 0)

	var err error
	if !closing { // else there is no next process for it
		err = vc.conn.Checkpoint(c.life, point)
	}

	c.mu.Lock()
	if err != nil || s.vc != vc {
		c.rechargeLocked(s)
		if s.vc == vc {
			s.pumping = false // the host is gone, or we are leaving
		}
		again := s.pumping
		c.mu.Unlock()
		return again
	}
	c.commitLocked(s, vc, b)
	acked := vc.ackLocked(&s.out)
	c.mu.Unlock()
	vc.tell(b.messages, b.bytes, acked)
	return true
}

func (c *clients) checkpointLocked(s *stream, entries []entry) []byte {
	p := checkpoint{next: s.out.next, host: s.out.host, place: c.ledger.safe}
	p.entries = append(append(p.entries, s.out.entries...), entries...)
	return p.append(nil)
}

// offerLocked gives a stream that has something to send to the link's writer.
func (c *clients) offerLocked(s *stream) {
	if !c.linked || s.inRing || !s.out.ready() {
		return
	}
	s.inRing = true
	if s.out.segmented() {
		c.segments.push(s)
	} else {
		c.ring.push(s)
	}
	select {
	case c.wake <- struct{}{}:
	default: // it is awake, or will be
	}
}

// maxOvertakes is how many envelopes may overtake a segment: streams that
// always have something to send must not keep it back for ever.
const maxOvertakes = 16

// takeEnvelope returns the next envelope for the link, one stream after the
// other. The segments of large messages have a ring of their own: what travels
// whole overtakes them. They are left out unless segments is set.
func (c *clients) takeEnvelope(segments bool) (*stream, envelope, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for {
		s := c.nextLocked(segments)
		if s == nil {
			return nil, envelope{}, false
		}
		s.inRing = false
		if !s.out.ready() {
			continue // acknowledged, or its client is gone
		}
		e := s.out.take()
		c.offerLocked(s)
		return s, e, true
	}
}

func (c *clients) nextLocked(segments bool) *stream {
	if segments && (len(c.ring) == 0 || c.overtakes >= maxOvertakes) {
		if s := c.segments.pop(); s != nil {
			c.overtakes = 0
			return s
		}
	}
	s := c.ring.pop()
	if s != nil {
		c.overtakes++
	}
	return s
}

// A ring is streams that wait for their turn.
type ring []*stream

func (r *ring) push(s *stream) { *r = append(*r, s) }

// pop returns the first stream, or nil.
func (r *ring) pop() *stream {
	if len(*r) == 0 {
		return nil
	}
	s := (*r)[0]
	(*r)[0] = nil
	if *r = (*r)[1:]; len(*r) == 0 {
		*r = nil // an idle table holds no memory
	}
	return s
}

// clear empties the ring.
func (r *ring) clear() {
	for _, s := range *r {
		s.inRing = false
	}
	*r = nil
}
