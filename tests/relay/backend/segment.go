package backend

import (
	"errors"
	"fmt"
)

// Limits of the segmented messages (6.14).
const (
	segmentTarget  = 100 << 10 // bytes of message in one segment
	maxEnvelope    = 150 << 10 // bytes of one envelope of profile 3
	maxMessage     = 100 << 20 // bytes of a message that travels in segments
	maxSegments    = 1024
	envelopeMargin = 64 // what a cursor adds to an envelope that we measure without
)

// ErrMessageTooLarge is returned for a message that no number of segments can
// carry.
var ErrMessageTooLarge = errors.New("the message is too large for the relay")

// A Segment is a part of a message.
type Segment struct {
	ID    int // from 0
	Count int
	Size  int // bytes of the whole message
	Data  []byte
}

// segmentBytes says into pieces of how many bytes a message of size bytes is
// cut. overhead is the length of a chunk's envelope without data.
func segmentBytes(size, overhead int) (int, error) {
	if size > maxMessage {
		return 0, fmt.Errorf("a message of %d bytes, limit %d: %w", size, maxMessage, ErrMessageTooLarge)
	}
	for count := max(2, ceilDiv(size, segmentTarget)); count <= maxSegments && count <= max(size, 2); count++ {
		piece := ceilDiv(size, count)
		if overhead+ceilDiv(piece, 3)*4 <= maxEnvelope {
			return piece, nil
		}
	}
	return 0, fmt.Errorf("a message of %d bytes in more than %d segments: %w", size, maxSegments, ErrMessageTooLarge)
}

func ceilDiv(a, b int) int { return (a + b - 1) / b }

// cut is segment id of a message that is cut into pieces.
func cut(message []byte, piece, id int) Segment {
	return Segment{ID: id, Count: ceilDiv(len(message), piece), Size: len(message),
		Data: message[id*piece : min((id+1)*piece, len(message))]}
}

// An assembly puts the segments of one message together. They must arrive in
// order: a WebSocket does not reorder them.
type assembly struct {
	count int
	size  int
	piece int // bytes of each segment but the last
	next  int
	bytes int
	data  [][]byte // not joined: that takes long, and Backend.mu is held
}

// add takes the next segment, whose numbers are within the limits. It reports
// whether the message is whole. After an error the assembly is empty.
func (a *assembly) add(s Segment) (whole bool, err error) {
	if a.next == 0 {
		*a = assembly{count: s.Count, size: s.Size, piece: len(s.Data)}
	}
	if err := a.fits(s); err != nil {
		*a = assembly{}
		return false, err
	}
	a.data = append(a.data, s.Data)
	a.bytes += len(s.Data)
	a.next++
	return a.next == a.count, nil
}

func (a *assembly) fits(s Segment) error {
	last := s.ID == s.Count-1
	switch {
	case s.ID != a.next:
		return fmt.Errorf("segment %d, want %d", s.ID, a.next)
	case s.Count != a.count || s.Size != a.size:
		return fmt.Errorf("segment %d says %d segments and %d bytes, the first said %d and %d", s.ID, s.Count, s.Size, a.count, a.size)
	case len(s.Data) > segmentTarget:
		return fmt.Errorf("segment %d has %d bytes, limit %d", s.ID, len(s.Data), segmentTarget)
	case !last && len(s.Data) != a.piece, len(s.Data) > a.piece:
		return fmt.Errorf("segment %d has %d bytes, the first had %d", s.ID, len(s.Data), a.piece)
	case a.bytes+len(s.Data) > a.size:
		return fmt.Errorf("segment %d goes beyond the %d bytes of the message", s.ID, a.size)
	case last && a.bytes+len(s.Data) != a.size:
		return fmt.Errorf("the segments have %d bytes, the message %d", a.bytes+len(s.Data), a.size)
	}
	return nil
}

// take returns the message in its parts and empties the assembly.
func (a *assembly) take() [][]byte {
	message := a.data
	*a = assembly{}
	return message
}
