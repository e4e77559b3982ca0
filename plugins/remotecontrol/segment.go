package remotecontrol

import (
	"encoding/base64"
	"strconv"
)

// Sizes of messages that are split over several envelopes (spec 6.14).
const (
	segmentBytes    = 100 << 10 // of a message in one envelope, before base64
	maxEnvelope     = 150 << 10 // of one serialised envelope; larger ones are split
	maxJoinedBytes  = 100 << 20 // of a message that is split
	maxSegments     = 1024
	maxAssemblies   = 128       // inbound messages whose segments are arriving
	maxAssemblyHeap = 256 << 20 // what they hold in all; the reference has no such bound
	checkedAtOnce   = 64 << 10  // of a joined message: some hundred microseconds of the reader
)

// A split is how a message travels: in count envelopes of at most size bytes
// of it each.
type split struct{ count, size int }

// whole is the split of a message that travels in one envelope.
func whole(size int) split { return split{1, size} }

// splitMessage decides how a message of size bytes travels with number seq.
// The answer is the same whenever it is asked again, in another process too,
// so that a message is sent again with the same bytes. It is false for a
// message that cannot travel.
func splitMessage(size int, tail string, seq uint64, p profile) (split, bool) {
	if !p.chunks() || messageEnvelopeBytes(size, tail, seq) <= maxEnvelope {
		return whole(size), true
	}
	if size > maxJoinedBytes {
		return split{}, false
	}
	for count := max(2, ceilDiv(size, segmentBytes)); count <= maxSegments; count++ {
		s := split{size: ceilDiv(size, count)}
		s.count = ceilDiv(size, s.size)
		if chunkEnvelopeBytes(s, size, tail, seq) <= maxEnvelope {
			return s, true
		}
		if s.size == 1 {
			break // the ids alone are too long
		}
	}
	return split{}, false
}

func ceilDiv(a, b int) int { return (a + b - 1) / b }

// The parts of a chunk envelope between its values.
const (
	chunkHead  = `{"type":"server_message_chunk","segment_id":`
	chunkCount = `,"segment_count":`
	chunkSize  = `,"message_size_bytes":`
	chunkData  = `,"message_chunk_base64":"`
)

// chunkEnvelopeBytes is the length of the longest chunk envelope of a split.
func chunkEnvelopeBytes(s split, size int, tail string, seq uint64) int {
	return len(chunkHead) + digits(uint64(s.count-1)) + len(chunkCount) + digits(uint64(s.count)) +
		len(chunkSize) + digits(uint64(size)) + len(chunkData) + base64.StdEncoding.EncodedLen(s.size) + 1 +
		len(tail) + digits(seq) + 1
}

// appendChunk appends the envelope of segment i of message.
func appendChunk(b []byte, message rope, s split, i int, tail string, seq uint64) []byte {
	b = append(b, chunkHead...)
	b = strconv.AppendInt(b, int64(i), 10)
	b = append(b, chunkCount...)
	b = strconv.AppendInt(b, int64(s.count), 10)
	b = append(b, chunkSize...)
	b = strconv.AppendInt(b, int64(message.size), 10)
	b = append(b, chunkData...)
	b = message.appendBase64(b, i*s.size, min(s.size, message.size-i*s.size))
	b = append(b, '"')
	return appendTail(b, tail, seq)
}
