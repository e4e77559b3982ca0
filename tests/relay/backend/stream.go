package backend

import (
	"fmt"
	"math"
)

const (
	// A host keeps this much per stream without an acknowledgement.
	maxUnacked      = 128
	maxUnackedBytes = 4 << 20
	// maxHashes bounds how far back a resend is compared with what came first.
	maxHashes = 1 << 16
	// everySegment is the segment of an ack that has none.
	everySegment = math.MaxInt
)

// A streamKey names one run of messages: a client of the relay and one stream.
type streamKey struct{ client, stream string }

func (k streamKey) String() string {
	return fmt.Sprintf("client %q, stream %q", shortened(k.client), shortened(k.stream))
}

// A position is where an envelope stands in its stream.
type position struct {
	seq     uint64
	segment int
}

func (p position) before(q position) bool {
	return p.seq < q.seq || p.seq == q.seq && p.segment < q.segment
}

func (p position) String() string {
	if p.segment == 0 {
		return fmt.Sprintf("seq_id %d", p.seq)
	}
	return fmt.Sprintf("seq_id %d, segment %d", p.seq, p.segment)
}

// A frontier is how far a stream has come.
type frontier struct {
	at   position
	last bool // nothing more follows with this seq
}

// next reports whether p is what follows the frontier.
func (f frontier) next(p position) bool {
	if f.last {
		return p == position{seq: f.at.seq + 1}
	}
	return p == position{seq: f.at.seq, segment: f.at.segment + 1}
}

type retained struct {
	at    position
	bytes int
}

// A stream is what we have seen of one (client, stream) of a host.
type stream struct {
	key      streamKey
	seen     frontier
	messages int                 // server_messages, whole
	hashes   map[position]uint64 // of everything seen, as far back as maxHashes
	order    []position          // of hashes, oldest first
	unacked  []retained          // what the host must still have, oldest first
	freed    bool                // the host may have thrown away what was not acknowledged
	assembly assembly

	arrived   uint64 // whole messages, over all incarnations of the host
	delivered uint64 // of them
	turn      bell   // rung when delivered changes
}

func newStream(key streamKey) *stream {
	return &stream{key: key, seen: frontier{last: true}, hashes: map[position]uint64{}}
}

// accept decides what an envelope is. previous is the one of this stream
// before it on the same socket, nil if it is the first; restartable says that
// the host came without a cursor and may be a new process. It reports whether
// the envelope is new.
func (st *stream) accept(e *ServerEnvelope, hash uint64, previous *frontier, restartable bool) (fresh, restarted bool, problems []problem) {
	at := e.position()
	complain := func(kind ViolationKind, format string, args ...any) {
		problems = append(problems, problemf(kind, "%v: %v: %s", st.key, at, fmt.Sprintf(format, args...)))
	}
	if previous == nil && restartable && st.hasRestarted(at, hash) {
		st.forget()
		restarted = true
	}
	switch {
	case previous == nil:
		if len(st.unacked) > 0 && !st.freed && st.unacked[0].at.before(at) {
			complain(NotResent, "the first of this socket, although %v was not acknowledged", st.unacked[0].at)
		}
	case !previous.at.before(at):
		complain(SeqRepeat, "behind %v on the same socket", previous.at)
		return false, restarted, problems
	case !previous.next(at) && !st.coveredBefore(at):
		complain(SeqGap, "behind %v on the same socket", previous.at)
	}
	if at.seq == 0 {
		complain(SeqGap, "the first number of a stream is 1")
		return false, restarted, problems
	}
	if !st.seen.at.before(at) {
		if before, known := st.hashes[at]; known && before != hash {
			complain(ResendDiffers, "sent again with other bytes")
		}
		return false, restarted, problems
	}
	if !st.seen.next(at) {
		if len(problems) == 0 && (previous != nil || !st.freed) {
			complain(SeqGap, "behind %v", st.seen.at)
		}
		st.assembly = assembly{}
	}
	if st.freed {
		st.freed, st.unacked = false, nil
	}
	if at.segment == 0 {
		if weight := st.unackedBytes(); len(st.unacked) >= maxUnacked || weight >= maxUnackedBytes {
			complain(OverRetention, "a new message beyond %d envelopes with %d bytes without an ack", len(st.unacked), weight)
		}
	}
	st.seen = frontier{at: at, last: e.last()}
	st.unacked = append(st.unacked, retained{at: at, bytes: e.payloadBytes()})
	st.remember(at, hash)
	return true, restarted, problems
}

// coveredBefore reports whether the host was told that we have everything
// before at. What it was about to send again for a new socket it leaves out
// then, from the middle on.
func (st *stream) coveredBefore(at position) bool {
	reached := !st.seen.at.before(at) || st.seen.next(at)
	return reached && (len(st.unacked) == 0 || !st.unacked[0].at.before(at))
}

// forget begins anew, but for the messages that are on their way to the client.
func (st *stream) forget() {
	fresh := newStream(st.key)
	fresh.arrived, fresh.delivered, fresh.turn = st.arrived, st.delivered, st.turn
	*st = *fresh
}

// hasRestarted says whether a host without a cursor is another process than
// the one that the stream is known from. One that ever answered on it has had
// a cursor, and does not lose it while it lives.
func (st *stream) hasRestarted(at position, hash uint64) bool {
	before, known := st.hashes[at]
	return st.messages > 0 || at == position{seq: 1} && known && before != hash
}

func (st *stream) remember(at position, hash uint64) {
	st.hashes[at] = hash
	st.order = append(st.order, at)
	if len(st.order) > maxHashes {
		delete(st.hashes, st.order[0])
		st.order = st.order[1:]
	}
}

func (st *stream) unackedBytes() int {
	n := 0
	for _, r := range st.unacked {
		n += r.bytes
	}
	return n
}

// acked notes that the host was told that we have everything up to p.
func (st *stream) acked(p position) {
	for len(st.unacked) > 0 && !p.before(st.unacked[0].at) {
		st.unacked = st.unacked[1:]
	}
}

// whole is the position that acknowledges all complete messages.
func (st *stream) whole() position {
	if st.seen.last {
		return position{st.seen.at.seq, everySegment}
	}
	return position{st.seen.at.seq - 1, everySegment}
}

// collect takes a segment into the message that is under way. It returns the
// message when it is whole.
func (st *stream) collect(e *ServerEnvelope, frameBytes int) (message [][]byte, problems []problem) {
	if e.Segment.ID != st.assembly.next {
		return nil, nil // what is missing was complained of
	}
	if e.Segment.ID == 0 {
		problems = append(problems, st.checkCut(e, frameBytes)...)
	}
	done, err := st.assembly.add(e.Segment)
	if err != nil {
		return nil, append(problems, problemf(BadChunk, "%v: seq_id %d: %v", st.key, e.Seq, err))
	}
	if !done {
		return nil, problems
	}
	return st.assembly.take(), problems
}

// checkCut compares the first segment with how 6.14 cuts the message.
func (st *stream) checkCut(e *ServerEnvelope, frameBytes int) []problem {
	overhead := frameBytes - ceilDiv(len(e.Segment.Data), 3)*4
	whole := wholeBytes(e.ClientID, e.StreamID, e.Seq, e.Segment.Size)
	if whole <= maxEnvelope {
		return []problem{problemf(NeedlessChunk, "%v: seq_id %d: %d segments for an envelope of %d bytes", st.key, e.Seq, e.Segment.Count, whole)}
	}
	want, err := segmentBytes(e.Segment.Size, overhead)
	if err == nil && len(e.Segment.Data) != want {
		return []problem{problemf(BadChunk, "%v: seq_id %d: a message of %d bytes is cut into pieces of %d, want %d",
			st.key, e.Seq, e.Segment.Size, len(e.Segment.Data), want)}
	}
	return nil
}

// wholeBytes is how long the envelope of a message of size bytes is.
func wholeBytes(client, stream string, seq uint64, size int) int {
	frame := fmt.Appendf(nil, `{"type":"server_message","message":,"client_id":,"stream_id":,"seq_id":%d}`, seq)
	return len(appendJSON(appendJSON(frame, client), stream)) + size
}
