package remotecontrol

import (
	"errors"
	"time"

	pluginsdk "github.com/transporthost/transporthost/plugin-sdk"
)

// What follows handles what the relay sends. It is called by the reader of the
// link, and waits for nobody.

// receive takes one text frame. What is wrong with it is counted and logged,
// and concerns nobody else.
func (c *clients) receive(frame []byte) {
	e, err := decodeEnvelope(frame, c.profile)
	if err != nil {
		c.complain(&c.tally.malformed, "failed to deserialize remote-control client event", "err", err)
		return
	}
	c.dropStale()
	switch e.Type {
	case typeMessage:
		c.message(&e, nil)
	case typeChunk:
		c.chunk(e, len(frame))
	case typePing:
		c.ping(&e)
	case typeAck:
		c.ack(&e)
	case typeClosed:
		c.clientClosed(&e)
	}
}

// dropStale drops what arrives on streams whose virtual clients have ended, or
// has stopped arriving.
func (c *clients) dropStale() {
	c.mu.Lock()
	stale := c.stale
	c.stale = nil
	c.mu.Unlock()
	for _, key := range stale {
		c.assembler.dropStream(key)
	}
	c.assembler.expire(time.Now())
}

// passLocked is for an envelope that nothing is to be done for any more. first
// is the entry of the first segment, if it came in several.
func (c *clients) passLocked(e *clientEnvelope, first *ledgerEntry) {
	cursor := e.cursor()
	c.ledger.arrived(cursor)
	if cursor != "" {
		c.subscribed = cursor
	}
	if first != nil {
		c.ledger.end(first)
	}
}

// keyLocked finds out which stream an envelope is of (spec 6.4). fresh makes
// one up for an envelope that needs an answer. It is false if the envelope is
// to be dropped.
func (c *clients) keyLocked(e *clientEnvelope, fresh bool) (streamKey, bool) {
	key := streamKey{client: *e.ClientID}
	switch {
	case e.StreamID != nil:
		key.stream = *e.StreamID
	case c.legacy[key.client] != "":
		key.stream = c.legacy[key.client]
	case fresh:
		key.stream = newStreamID()
	}
	return key, key.stream != ""
}

// chunk takes one segment. The subscribe cursor waits for the whole message.
func (c *clients) chunk(e clientEnvelope, frameBytes int) {
	var done *uint64
	if e.StreamID != nil {
		c.mu.Lock()
		if s := c.streams[*e.ClientID][*e.StreamID]; s != nil && s.vc != nil {
			done = s.vc.joined
		}
		c.mu.Unlock()
	}
	whole, err := c.assembler.chunk(e, frameBytes, done)
	switch {
	case errors.Is(err, errStaleChunk):
		c.tally.repeated.Add(1)
	case err != nil:
		c.complain(&c.tally.segments, "dropping a segment of a remote-control client message", "err", err)
	case whole != nil:
		c.message(&whole.envelope, whole.entry)
	}
}

// message takes one whole message.
func (c *clients) message(e *clientEnvelope, first *ledgerEntry) {
	initialize := e.initialize()
	c.mu.Lock()
	key, ok := c.keyLocked(e, initialize)
	var vc *virtualClient
	if s := c.streams[key.client][key.stream]; ok && s != nil {
		vc = s.vc
	}
	if initialize && ok && (vc == nil || !vc.repeats(e)) {
		c.mu.Unlock()
		c.open(key, e, first)
		return
	}
	defer c.mu.Unlock()
	switch {
	case vc == nil:
		c.tally.homeless.Add(1)
		c.passLocked(e, first)
		return
	case initialize, e.SeqID != nil && vc.note.Seq != nil && *e.SeqID <= *vc.note.Seq:
		c.tally.repeated.Add(1)
		c.passLocked(e, first)
		return
	}
	vc.heard = time.Now()
	vc.note.Since = true
	if e.SeqID != nil {
		vc.note.Seq = e.SeqID
	}
	c.takeInLocked(vc, e, first)
}

// takeInLocked queues a message. It unlocks meanwhile if it must close the
// virtual client.
func (c *clients) takeInLocked(vc *virtualClient, e *clientEnvelope, first *ledgerEntry) {
	if first != nil {
		vc.joined = e.SeqID
	}
	if vc.queueLocked(e, first) {
		return
	}
	c.closeLocked(vc)
	c.mu.Unlock()
	vc.conn.Close(pluginsdk.CloseReason{Code: pluginsdk.CloseOverloaded, Text: "the peer sends faster than the host takes"})
	c.mu.Lock()
}

// open makes a virtual client for an initialize. One that the stream has
// already leaves: its peer has begun anew, and wants to hear nothing of the old
// one. The host may get the last messages of that one after the new one's first.
func (c *clients) open(key streamKey, e *clientEnvelope, first *ledgerEntry) {
	c.mu.Lock()
	s := c.streamLocked(key)
	old := s.vc
	if !c.admitLocked(old) {
		c.refuseLocked(s, e, first)
		c.mu.Unlock()
		return
	}
	again := pluginsdk.CloseReason{Code: pluginsdk.CloseNormal, Text: "the peer initialized again"}
	if old == nil {
		c.freeLocked(s)
	} else if c.leaveLocked(old, again) {
		old = nil // its last messages are on their way
	}
	vc := &virtualClient{clients: c, stream: s, heard: time.Now()}
	vc.note = note{Initialize: fingerprint(e.body()), InitSeq: e.SeqID, Legacy: e.StreamID == nil}
	if !vc.note.Legacy {
		vc.note.Seq = e.SeqID
	}
	vc.initID = newAnswer(answerOverloaded, e.peeked.ID).id
	c.attachLocked(s, vc)
	if vc.note.Legacy {
		c.legacy[key.client] = key.stream
	}
	c.mu.Unlock()

	if old != nil {
		old.conn.Close(again)
	}
	_, err := c.host.Open(pluginsdk.Opened{
		Peer:      pluginsdk.Peer{RemoteAddr: c.relay, Identity: key.client},
		ResumeKey: key.resumeKey(),
	}, vc)

	c.mu.Lock()
	defer c.mu.Unlock()
	if err != nil { // the host is gone
		c.closeLocked(vc)
		c.passLocked(e, first)
		return
	}
	vc.bound = true
	if vc.closed {
		c.passLocked(e, first)
		return
	}
	if s.out.next > 1 {
		// The next process must not number from 1 again.
		s.note = true
	}
	c.takeInLocked(vc, e, first)
	c.kickLocked(s)
}

// ping answers whether a stream has a virtual client (spec 6.6).
func (c *clients) ping(e *clientEnvelope) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.passLocked(e, nil)
	key, ok := c.keyLocked(e, true)
	if !ok {
		return
	}
	s := c.streamLocked(key)
	if vc := s.vc; vc != nil {
		vc.heard = time.Now()
		s.pong = pongActive
	} else {
		s.pong = pongUnknown
		if s.vc == nil {
			c.idleLocked(s)
		}
	}
	c.kickLocked(s)
}

// ack frees what the relay has got. Without a stream it counts for all streams
// of its client.
func (c *clients) ack(e *clientEnvelope) {
	type told struct {
		vc  *virtualClient
		seq pluginsdk.Seq
	}
	var news []told
	c.mu.Lock()
	c.passLocked(e, nil)
	one := func(s *stream) {
		if s == nil || e.SeqID == nil || !s.out.ack(*e.SeqID, e.SegmentID) {
			return
		}
		s.left()
		c.rechargeLocked(s)
		if vc := s.vc; vc != nil {
			if seq := vc.ackLocked(&s.out); seq > 0 {
				news = append(news, told{vc, seq})
			}
		}
		c.kickLocked(s)
		c.offerLocked(s)
	}
	if e.StreamID != nil {
		one(c.streams[*e.ClientID][*e.StreamID])
	} else {
		for _, s := range c.streams[*e.ClientID] {
			one(s)
		}
	}
	c.mu.Unlock()
	for _, n := range news {
		n.vc.conn.Ack(n.seq)
	}
}

// clientClosed ends a virtual client once the host has what it sent, and frees
// what was to be sent to it.
func (c *clients) clientClosed(e *clientEnvelope) {
	if e.StreamID == nil {
		c.assembler.dropClient(*e.ClientID)
	}
	c.mu.Lock()
	c.passLocked(e, nil)
	key, _ := c.keyLocked(e, false)
	s := c.streams[key.client][key.stream]
	if s == nil {
		c.mu.Unlock()
		return
	}
	vc := s.vc
	if vc == nil {
		c.freeLocked(s)
		c.mu.Unlock()
		return
	}
	reason := pluginsdk.CloseReason{Code: pluginsdk.CloseNormal, Text: "closed by the peer"}
	lingers := c.leaveLocked(vc, reason)
	c.mu.Unlock()
	if !lingers {
		vc.conn.Close(reason)
	}
}
