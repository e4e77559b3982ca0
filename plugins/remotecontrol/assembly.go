package remotecontrol

import (
	"encoding/base64"
	"errors"
	"fmt"
	"time"

	pluginsdk "github.com/transporthost/transporthost/plugin-sdk"
)

// An assembly is an inbound message whose segments are arriving.
type assembly struct {
	key   streamKey
	seq   uint64
	count uint64
	size  uint64
	next  uint64 // the segment that is expected
	data  rope
	touch uint64 // when the last segment came, by the assembler's count
	came  time.Time
	entry *ledgerEntry
}

// An assembler joins the segments of inbound messages, one message per client
// id at a time (spec 6.14). It is bounded by number and, unlike the reference,
// by what it holds in all; in both cases the assembly that waited longest for
// its next segment is given up. It belongs to the reader of the link, which
// does no more than decode one segment at a time.
type assembler struct {
	begin      func() *ledgerEntry  // notes that a message is on its way
	end        func(*ledgerEntry)   // notes that it was given up
	assemblies map[string]*assembly // by client id
	heap       int                  // bytes that they hold
	maxHeap    int
	clock      uint64
	swept      time.Time
}

func newAssembler(begin func() *ledgerEntry, end func(*ledgerEntry)) assembler {
	return assembler{begin: begin, end: end, assemblies: make(map[string]*assembly), maxHeap: maxAssemblyHeap}
}

// Why a chunk was dropped. Stale chunks are the relay's right.
var (
	errStaleChunk = errors.New("the segment was seen before")
	errChunk      = errors.New("the segment does not fit")
)

// A joined is a message whose last segment came.
type joined struct {
	envelope clientEnvelope
	entry    *ledgerEntry // of its first segment; ends with the message
}

// chunk takes one chunk envelope whose frame had frameBytes. done is the
// highest number of a message of the stream that was joined and taken in; nil
// if there is none. The result is a whole message if this was its last
// segment.
func (a *assembler) chunk(e clientEnvelope, frameBytes int, done *uint64) (*joined, error) {
	if e.SeqID == nil || e.StreamID == nil {
		return nil, fmt.Errorf("no seq_id or no stream_id: %w", errChunk)
	}
	key, seq, segment := streamKey{*e.ClientID, *e.StreamID}, *e.SeqID, *e.SegmentID
	running := a.assemblies[key.client]
	if done != nil && seq <= *done {
		return nil, errStaleChunk
	}
	if running != nil && running.key == key && (seq < running.seq || seq == running.seq && segment < running.next) {
		return nil, errStaleChunk
	}
	if frameBytes > maxEnvelope {
		a.dropStream(key)
		return nil, fmt.Errorf("a frame of %d bytes, limit %d: %w", frameBytes, maxEnvelope, errChunk)
	}
	count, size := *e.SegmentCount, *e.MessageSize
	if count == 0 || count > maxSegments || segment >= count || size == 0 || size > maxJoinedBytes || len(e.chunk) == 0 {
		a.dropStream(key)
		return nil, fmt.Errorf("segment %d of %d, message of %d bytes: %w", segment, count, size, errChunk)
	}
	if running != nil && running.key != key {
		a.drop(running)
		running = nil
	}
	if running != nil && (running.seq != seq || running.count != count || running.size != size) {
		a.drop(running)
		return nil, fmt.Errorf("another message than the one that was arriving: %w", errChunk)
	}
	if running == nil {
		if segment != 0 {
			return nil, fmt.Errorf("segment %d comes first: %w", segment, errChunk)
		}
		if len(a.assemblies) >= maxAssemblies {
			a.evict(nil)
		}
		running = &assembly{key: key, seq: seq, count: count, size: size, entry: a.begin()}
		a.assemblies[key.client] = running
	}
	if err := a.append(running, segment, e.chunk); err != nil {
		a.drop(running)
		return nil, err
	}
	if running.next < count {
		return nil, nil
	}
	return a.finish(running, e)
}

// append decodes one segment onto the message.
func (a *assembler) append(m *assembly, segment uint64, text []byte) error {
	if segment != m.next {
		return fmt.Errorf("segment %d, want %d: %w", segment, m.next, errChunk)
	}
	a.clock++
	m.next, m.touch, m.came = m.next+1, a.clock, time.Now()
	data := make([]byte, base64.StdEncoding.DecodedLen(len(text)))
	n, err := base64.StdEncoding.Decode(data, text)
	if err != nil {
		return fmt.Errorf("not base64: %w", errChunk)
	}
	m.data.append(data[:n])
	a.heap += n
	if n == 0 || uint64(m.data.size) > m.size {
		return fmt.Errorf("%d bytes, the message has %d: %w", m.data.size, m.size, errChunk)
	}
	for a.heap > a.maxHeap && len(a.assemblies) > 1 {
		a.evict(m)
	}
	return nil
}

// finish makes a client message of a complete assembly.
func (a *assembler) finish(m *assembly, last clientEnvelope) (*joined, error) {
	if uint64(m.data.size) != m.size {
		a.drop(m)
		return nil, fmt.Errorf("%d bytes, the message has %d: %w", m.data.size, m.size, errChunk)
	}
	e := clientEnvelope{
		Type: typeMessage, ClientID: last.ClientID, StreamID: last.StreamID, SeqID: last.SeqID, Cursor: last.Cursor,
	}
	// A large message is checked by the goroutine that delivers it, and never put
	// together: the reader has other streams to read.
	if e.large = m.data; m.data.size <= pluginsdk.LargeBytes {
		e.large, e.Message = rope{}, m.data.join()
	}
	if e.unchecked = m.data.size > checkedAtOnce; !e.unchecked && !validMessage(e.Message) {
		a.drop(m)
		return nil, fmt.Errorf("the joined message is not JSON: %w", errChunk)
	}
	if err := e.peek(); err != nil {
		a.drop(m)
		return nil, fmt.Errorf("the joined message is not JSON-RPC: %w", errChunk)
	}
	a.forget(m)
	return &joined{envelope: e, entry: m.entry}, nil
}

// drop gives a message up.
func (a *assembler) drop(m *assembly) {
	a.forget(m)
	a.end(m.entry)
}

func (a *assembler) forget(m *assembly) {
	a.heap -= m.data.size
	delete(a.assemblies, m.key.client)
}

// dropStream gives up what arrives on a stream.
func (a *assembler) dropStream(key streamKey) {
	if m := a.assemblies[key.client]; m != nil && m.key == key {
		a.drop(m)
	}
}

// dropClient gives up what arrives on any stream of a client.
func (a *assembler) dropClient(client string) {
	if m := a.assemblies[client]; m != nil {
		a.drop(m)
	}
}

// expire gives up what has waited as long as an idle client may. It would
// else hold back, for ever, from where the relay is read after a crash.
func (a *assembler) expire(now time.Time) {
	if now.Sub(a.swept) < sweepInterval {
		return
	}
	a.swept = now
	for _, m := range a.assemblies {
		if now.Sub(m.came) >= idleTimeout {
			a.drop(m)
		}
	}
}

// evict gives up the message that waited longest for its next segment.
func (a *assembler) evict(except *assembly) {
	var oldest *assembly
	for _, m := range a.assemblies { // at most maxAssemblies
		if m != except && (oldest == nil || m.touch < oldest.touch) {
			oldest = m
		}
	}
	if oldest != nil {
		a.drop(oldest)
	}
}
