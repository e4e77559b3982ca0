package remotecontrol

import (
	"slices"

	pluginsdk "github.com/transporthost/transporthost/plugin-sdk"
)

// What one stream may have unacknowledged (spec 0.2). A message that is larger
// than that may be there alone.
const (
	outboxEnvelopes = 128
	outboxBytes     = 4 << 20
	entryOverhead   = 256 // bytes of an entry beside its payload
)

// An entryKind is what stands behind a number of the wire.
type entryKind uint8

const (
	_            entryKind = iota
	entryMessage           // a message of the host
	entryPong              // the answer to a ping
	entryAnswer            // an answer of this plugin's own
	entryDropped           // a message of the host that cannot travel: its number is used up
	entrySkipped           // a message of the host that is none: it has no number
	entryGap               // an answer of an earlier process whose content is not known any more
)

// An entry is one thing in an outbox.
type entry struct {
	kind    entryKind
	seq     uint64        // on the wire; of an entrySkipped, the last one before it
	host    pluginsdk.Seq // of a message of the host; 0 for the rest
	payload rope          // of a message; none: the host will send it again
	split   split         // of a message with payload
	acked   int           // segments of it
	status  pongStatus    // of an entryPong
	answer  ownAnswer     // of an entryAnswer
}

// awaited reports whether the payload is still with the host.
func (e *entry) awaited() bool { return e.kind == entryMessage && e.payload.pieces == nil }

// segments is the number of envelopes that the entry travels in.
func (e *entry) segments() int {
	switch e.kind {
	case entryMessage:
		return max(1, e.split.count)
	case entryPong, entryAnswer:
		return 1
	}
	return 0
}

// bytes is what the entry costs in memory.
func (e *entry) bytes() int { return e.payload.size + len(e.answer.id) + entryOverhead }

// An envelope is one segment of an entry, to be sent.
type envelope struct {
	entry
	segment int
	tail    string
}

// whole reports whether it is no segment.
func (e *envelope) whole() bool { return e.split.count <= 1 }

// append appends what goes over the wire. The same envelope is the same bytes.
func (e *envelope) append(b []byte) []byte {
	switch {
	case e.kind == entryPong:
		return appendPong(b, e.status, e.tail, e.seq)
	case e.kind == entryAnswer:
		return appendMessage(b, ropeOf(e.answer.message()), e.tail, e.seq)
	case e.split.count > 1:
		return appendChunk(b, e.payload, e.split, e.segment, e.tail, e.seq)
	}
	return appendMessage(b, e.payload, e.tail, e.seq)
}

// An outbox numbers what goes out on one stream, and retains it until the
// relay acknowledges it. It does no locking.
type outbox struct {
	tail    string // the end of every envelope
	next    uint64 // number of the next entry; numbers begin at 1
	entries []entry
	host    pluginsdk.Seq // the last message of the host that was taken in

	envelopes int // that are retained
	bytes     int
	waiting   int // entries that are awaited

	// Where the link is. What was sent on any link is behind sentSeq, or the
	// first sentSegments segments of it.
	at           int // in entries
	segment      int // of that entry
	sentSeq      uint64
	sentSegments int

	// What a link's writer has written to its socket is up to wroteSegments
	// segments of wroteSeq.
	wroteSeq      uint64
	wroteSegments int
}

func newOutbox(key streamKey) outbox { return outbox{tail: envelopeTail(key), next: 1} }

// add takes in entries that are numbered from next, without a gap.
func (o *outbox) add(entries []entry) {
	for _, e := range entries {
		o.envelopes += e.segments()
		o.bytes += e.bytes()
		if e.kind != entrySkipped {
			o.next = e.seq + 1
		}
		if e.host != 0 {
			o.host = e.host
		}
		o.entries = append(o.entries, e)
	}
	o.trim()
}

// resume takes over the entries of an earlier process, which may have sent
// all of them. next is the number that follows them.
func (o *outbox) resume(entries []entry, next uint64, host pluginsdk.Seq) {
	o.add(entries)
	o.next, o.host = next, max(o.host, host)
	for i := range entries {
		if entries[i].awaited() {
			o.waiting++
		}
	}
	o.sentSeq, o.sentSegments = next-1, maxSegments
}

// fill gives an awaited entry its payload. It is false if the message is not
// wanted: it is acknowledged.
func (o *outbox) fill(m hostMessage, p profile) bool {
	for i := range o.entries {
		e := &o.entries[i]
		if !e.awaited() || e.host > m.seq {
			continue
		}
		o.waiting--
		o.envelopes -= e.segments()
		o.bytes -= e.bytes()
		found := e.host == m.seq
		// It travels as it did before: these are the very same arguments. What the
		// host has not sent before a later one is lost to its own rules (a limit,
		// an abort), and its number stays unused.
		filled := entry{kind: entryDropped, seq: e.seq, host: e.host}
		if found && m.verdict != messageInvalid {
			filled = m.entry(e.seq, o.tail, p)
		}
		*e = filled
		o.envelopes += e.segments()
		o.bytes += e.bytes()
		if found {
			o.trim()
			return true
		}
	}
	o.trim()
	return false
}

// giveUp leaves the numbers unused whose messages the host does not send again.
func (o *outbox) giveUp() {
	for i := range o.entries {
		if e := &o.entries[i]; e.awaited() {
			o.waiting--
			o.envelopes -= e.segments()
			e.kind = entryDropped
		}
	}
	o.trim()
}

// ready reports whether take has something to send.
func (o *outbox) ready() bool {
	o.settle()
	return o.at < len(o.entries) && !o.entries[o.at].awaited()
}

// segmented reports whether the next thing to send is a segment. It may be
// called when ready.
func (o *outbox) segmented() bool { return o.entries[o.at].split.count > 1 }

// settle moves the position over what does not travel.
func (o *outbox) settle() {
	for o.at < len(o.entries) && o.segment >= o.entries[o.at].segments() {
		o.at++
		o.segment = 0
		if o.at < len(o.entries) {
			o.segment = o.entries[o.at].acked
		}
	}
}

// take returns the next envelope to send. It may be called when ready.
func (o *outbox) take() envelope {
	e := envelope{entry: o.entries[o.at], segment: o.segment, tail: o.tail}
	o.segment++
	switch {
	case e.seq > o.sentSeq:
		o.sentSeq, o.sentSegments = e.seq, o.segment
	case e.seq == o.sentSeq:
		o.sentSegments = max(o.sentSegments, o.segment)
	}
	return e
}

// wrote notes that an envelope of take is in the hands of the system.
func (o *outbox) wrote(e *envelope) {
	switch {
	case e.seq > o.wroteSeq:
		o.wroteSeq, o.wroteSegments = e.seq, e.segment+1
	case e.seq == o.wroteSeq:
		o.wroteSegments = max(o.wroteSegments, e.segment+1)
	}
}

// retains reports whether something up to a number is not acknowledged.
func (o *outbox) retains(seq uint64) bool { return len(o.entries) > 0 && o.entries[0].seq <= seq }

// unwritten reports whether something up to a number has been on no link of
// this process.
func (o *outbox) unwritten(seq uint64) bool {
	for i := len(o.entries) - 1; i >= 0; i-- {
		e := &o.entries[i]
		if e.seq > seq || e.segments() == 0 {
			continue
		}
		return e.seq > o.wroteSeq || e.seq == o.wroteSeq && o.wroteSegments < e.segments()
	}
	return false
}

// rewind begins again with the first segment that is not acknowledged: there is
// a new link.
func (o *outbox) rewind() {
	o.at, o.segment = 0, 0
	if len(o.entries) > 0 {
		o.segment = o.entries[0].acked
	}
}

// ack forgets everything up to a segment of a number; without a segment, all
// segments of it that were sent. What acknowledges more than was ever sent is
// not of this stream, and ignored. It reports whether anything was forgotten.
func (o *outbox) ack(seq uint64, segment *uint64) bool {
	if seq > o.sentSeq {
		return false
	}
	segments := maxSegments
	if seq == o.sentSeq {
		segments = o.sentSegments
	}
	if segment != nil {
		if *segment >= uint64(segments) {
			return false
		}
		segments = int(*segment) + 1
	}
	envelopes, n := o.envelopes, 0
	for n < len(o.entries) && o.entries[n].seq < seq {
		o.release(&o.entries[n])
		n++
	}
	if n < len(o.entries) && o.entries[n].seq == seq {
		e := &o.entries[n]
		if e.awaited() && segment != nil {
			return o.settleAck(n, envelopes) // in how many segments it travels is not known yet
		}
		if acked := min(segments, e.segments()); acked >= e.segments() {
			o.release(e)
			n++
		} else if acked > e.acked {
			o.envelopes -= acked - e.acked
			e.acked = acked
			if o.at == n {
				o.segment = max(o.segment, acked)
			}
		}
	}
	return o.settleAck(n, envelopes)
}

// settleAck drops the first n entries, and reports whether fewer envelopes are
// retained than before.
func (o *outbox) settleAck(n, before int) bool {
	o.drop(n)
	o.trim()
	return o.envelopes < before
}

// release accounts for an entry that is about to be dropped.
func (o *outbox) release(e *entry) {
	o.envelopes -= e.segments() - e.acked
	o.bytes -= e.bytes()
	if e.awaited() {
		o.waiting--
	}
}

// trim drops what needs no acknowledgement once it is the oldest.
func (o *outbox) trim() {
	n := 0
	for n < len(o.entries) && o.entries[n].segments() == 0 {
		o.release(&o.entries[n])
		n++
	}
	o.drop(n)
}

func (o *outbox) drop(n int) {
	if n == 0 {
		return
	}
	o.entries = slices.Delete(o.entries, 0, n)
	if o.at -= n; o.at < 0 {
		o.at, o.segment = 0, 0
		if len(o.entries) > 0 {
			o.segment = o.entries[0].acked
		}
	}
	if len(o.entries) == 0 {
		o.entries = nil // an idle stream holds no memory
	}
}

// done is the last message of the host that is behind everything retained.
func (o *outbox) done() pluginsdk.Seq {
	for i := range o.entries {
		if h := o.entries[i].host; h != 0 {
			return h - 1
		}
	}
	return o.host
}

// clear forgets everything but the numbers that were used. What was never sent
// on any link has used none.
func (o *outbox) clear() {
	*o = outbox{
		tail: o.tail, next: o.sentSeq + 1, sentSeq: o.sentSeq, sentSegments: o.sentSegments,
		wroteSeq: o.wroteSeq, wroteSegments: o.wroteSegments,
	}
}
