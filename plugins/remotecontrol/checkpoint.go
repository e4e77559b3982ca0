package remotecontrol

import (
	"encoding/binary"
	"errors"
	"fmt"

	pluginsdk "github.com/transporthost/transporthost/plugin-sdk"
)

const (
	// maxCheckpoint is the SDK's limit for [pluginsdk.Conn.Checkpoint].
	maxCheckpoint = 4 << 10
	// maxCheckpointEntries bounds what a checkpoint may claim: an outbox at its
	// limit, what a closing host forces in, and room to spare.
	maxCheckpointEntries = 4096
	checkpointVersion    = 1
)

// A checkpoint is what the next process must know of a stream to go on with
// its numbers: which entry has which. Payloads are with the host. It is stored
// before the entries go out.
//
// An answer of this plugin's own is rebuilt from its id. If there are so many
// that the ids do not fit, they become gaps: after a crash those answers are
// not sent again, and their numbers are not used for anything else.
type checkpoint struct {
	next    uint64        // number of the entry behind the last one
	host    pluginsdk.Seq // the last message of the host that was taken in
	place   place         // how far the relay was read, over all streams
	entries []entry
}

// The runs that a checkpoint consists of. All but skipped take numbers of the
// wire; messages, dropped and skipped take numbers of the host.
const (
	runMessages = 'm' // count
	runDropped  = 'd' // count
	runSkipped  = 's' // count
	runGap      = 'g' // count
	runActive   = 'p' // count
	runUnknown  = 'u' // count
	runAnswer   = 'a' // kind, length of the id, id
)

var errCheckpoint = errors.New("not a checkpoint of this version")

// append encodes c: version, number of the first entry, host number of the
// first message, place, runs.
func (c *checkpoint) append(b []byte) []byte {
	if len(c.place.cursor) > maxNote {
		c.place = place{} // as in [note.encode]
	}
	start := len(b)
	if b = c.appendRuns(b, true); len(b)-start > maxCheckpoint {
		b = c.appendRuns(b[:start], false)
	}
	return b
}

func (c *checkpoint) appendRuns(b []byte, answers bool) []byte {
	first, host := c.next, c.host+1
	for i := len(c.entries) - 1; i >= 0; i-- {
		if c.entries[i].kind != entrySkipped {
			first = c.entries[i].seq
		}
		if c.entries[i].host != 0 {
			host = c.entries[i].host
		}
	}
	b = append(b, checkpointVersion)
	b = binary.AppendUvarint(b, first)
	b = binary.AppendUvarint(b, uint64(host))
	b = binary.AppendUvarint(b, c.place.n)
	b = binary.AppendUvarint(b, uint64(len(c.place.cursor)))
	b = append(b, c.place.cursor...)
	for i := 0; i < len(c.entries); {
		e := &c.entries[i]
		run := runOf(e, answers)
		if run == runAnswer {
			b = append(b, run, byte(e.answer.kind))
			b = binary.AppendUvarint(b, uint64(len(e.answer.id)))
			b = append(b, e.answer.id...)
			i++
			continue
		}
		count := uint64(0)
		for i < len(c.entries) && runOf(&c.entries[i], answers) == run {
			count++
			i++
		}
		b = append(b, run)
		b = binary.AppendUvarint(b, count)
	}
	return b
}

func runOf(e *entry, answers bool) byte {
	switch {
	case e.kind == entrySkipped:
		return runSkipped
	case e.kind == entryDropped && e.host != 0:
		return runDropped
	case e.host != 0:
		return runMessages // what stands in its place follows from its payload
	case e.kind == entryPong && e.status == pongActive:
		return runActive
	case e.kind == entryPong:
		return runUnknown
	case e.kind == entryAnswer && answers:
		return runAnswer
	}
	return runGap
}

// decodeCheckpoint is the reverse. Messages come out awaited.
func decodeCheckpoint(b []byte) (checkpoint, error) {
	if len(b) == 0 {
		return checkpoint{next: 1}, nil // nothing was ever sent
	}
	if b[0] != checkpointVersion || len(b) > maxCheckpoint {
		return checkpoint{}, errCheckpoint
	}
	r := varintReader{b: b[1:]}
	var c checkpoint
	seq := r.uvarint()
	host := pluginsdk.Seq(r.uvarint())
	c.place.n = r.uvarint()
	c.place.cursor = string(r.bytes(maxCheckpoint))
	if seq == 0 || host == 0 || seq > 1<<62 || host > 1<<62 || c.place.n > 1<<62 {
		return checkpoint{}, errCheckpoint
	}
	for len(r.b) > 0 && !r.failed {
		run, count := r.byte(), uint64(1)
		e := entry{}
		switch run {
		case runMessages:
			e.kind = entryMessage
		case runDropped:
			e.kind = entryDropped
		case runSkipped:
			e.kind = entrySkipped
		case runGap:
			e.kind = entryGap
		case runActive:
			e.kind, e.status = entryPong, pongActive
		case runUnknown:
			e.kind, e.status = entryPong, pongUnknown
		case runAnswer:
			e.kind, e.answer.kind = entryAnswer, answerKind(r.byte())
			e.answer.id = append([]byte(nil), r.bytes(maxAnswerID)...)
			if e.answer.kind < answerOverloaded || e.answer.kind > answerNotSent {
				return checkpoint{}, errCheckpoint
			}
		default:
			return checkpoint{}, errCheckpoint
		}
		if run != runAnswer {
			count = r.uvarint()
		}
		if count > maxCheckpointEntries || len(c.entries)+int(count) > maxCheckpointEntries {
			return checkpoint{}, fmt.Errorf("more than %d entries: %w", maxCheckpointEntries, errCheckpoint)
		}
		for range count {
			e := e
			if e.kind == entrySkipped {
				e.seq = seq - 1
			} else {
				e.seq = seq
				seq++
			}
			if run == runMessages || run == runDropped || run == runSkipped {
				e.host = host
				host++
			}
			c.entries = append(c.entries, e)
		}
	}
	if r.failed {
		return checkpoint{}, errCheckpoint
	}
	c.next, c.host = seq, host-1
	return c, nil
}

// acknowledged takes out what the relay has acknowledged: everything up to the
// last message before next, the first that the host will send again.
func (c *checkpoint) acknowledged(next pluginsdk.Seq) {
	n := 0
	for i := range c.entries {
		if h := c.entries[i].host; h != 0 && h < next {
			n = i + 1
		}
	}
	c.entries = c.entries[n:]
}

// A varintReader reads from bytes that may be anything.
type varintReader struct {
	b      []byte
	failed bool
}

func (r *varintReader) uvarint() uint64 {
	v, n := binary.Uvarint(r.b)
	if n <= 0 {
		r.failed, r.b = true, nil
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *varintReader) byte() byte {
	if len(r.b) == 0 {
		r.failed = true
		return 0
	}
	v := r.b[0]
	r.b = r.b[1:]
	return v
}

// bytes reads a length and so many bytes, at most limit.
func (r *varintReader) bytes(limit int) []byte {
	n := r.uvarint()
	if n > uint64(min(limit, len(r.b))) {
		r.failed, r.b = true, nil
		return nil
	}
	v := r.b[:n]
	r.b = r.b[n:]
	return v
}
