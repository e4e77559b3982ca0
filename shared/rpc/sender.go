package rpc

import (
	"context"
	"runtime"
	"sync"

	"github.com/transporthost/transporthost/shared/transport"
)

const (
	// chunkBytes and chunkFrames bound one batch: what is measured to fill the
	// pipe without making the first frame wait for the last.
	chunkBytes  = 64 << 10
	chunkFrames = 256
	// pendingBytes is where goroutines that belong to one connection begin to
	// wait for room; half of it ends the wait. Frames of the receive loops never
	// wait: credit bounds them.
	pendingBytes = 1 << 20
	// maxAnswerBytes bounds what a receive loop has answered and nobody has read.
	// The credit of a plugin that keeps to it bounds that far below, with 65,536
	// connections too; one that sends without end and reads nothing would fill the
	// memory.
	maxAnswerBytes = 16 << 20
)

// A fullChunk is a chunk that waits to be sent.
type fullChunk struct {
	b       *[]byte
	answers int // bytes of it
}

// A batchStream is the carrier of batches in one direction: a gRPC stream
// today. send is called from one goroutine at a time.
type batchStream interface {
	SendMsg(m any) error
}

// A sender collects frames and sends them in batches: whatever is there when
// the stream can take more, so that an idle link adds no delay and a busy one
// sends full batches.
type sender struct {
	chunks *chunkPool
	wake   chan struct{} // one slot: something is pending

	mu      sync.Mutex
	full    []fullChunk   // complete chunks, oldest first
	current *[]byte       // the one being filled; nil if nothing is pending
	frames  int           // in current
	begun   int           // where the present frame begins in current
	pending int           // bytes in full and current
	answers int           // of them, those that are answers of the receive loop
	recent  int           // of those, in current
	corked  int           // while over 0, appending wakes nobody
	closed  bool          // frames go nowhere
	room    chan struct{} // closed when pending falls; nil while nobody waits
}

func newSender(chunks *chunkPool) *sender {
	return &sender{chunks: chunks, wake: make(chan struct{}, 1)}
}

// begin locks the sender and returns the chunk to append one frame of at most
// size bytes to, or nil if the sender is closed. end must follow.
func (s *sender) begin(size int) *[]byte {
	s.mu.Lock()
	if s.closed {
		return nil
	}
	if s.current != nil && (s.frames >= chunkFrames || len(*s.current) >= chunkBytes || len(*s.current)+size > cap(*s.current)) {
		if s.frames < chunkFrames && len(*s.current)+size <= chunkBytes {
			s.growLocked(size)
		} else {
			s.full = append(s.full, fullChunk{s.current, s.recent})
			s.current, s.recent = nil, 0
		}
	}
	if s.current == nil {
		s.current = s.chunks.Get(size)
		s.frames = 0
	}
	s.frames++
	s.begun = len(*s.current)
	s.pending -= s.begun
	return s.current
}

// growLocked moves the current chunk into one of full size.
func (s *sender) growLocked(size int) {
	grown := s.chunks.Get(max(smallChunk+1, len(*s.current)+size))
	*grown = append(*grown, *s.current...)
	s.chunks.Put(s.current)
	s.current = grown
}

// end accounts for what was appended since begin, wakes the sending goroutine
// and unlocks.
func (s *sender) end() {
	if s.closed {
		s.mu.Unlock()
		return
	}
	s.pending += len(*s.current)
	corked := s.corked > 0
	s.mu.Unlock()
	if !corked {
		s.wakeUp()
	}
}

// endAnswer is end for a frame that no credit bounds.
func (s *sender) endAnswer() {
	if !s.closed {
		n := len(*s.current) - s.begun
		s.answers += n
		s.recent += n
	}
	s.end()
}

// unread reports whether too many answers wait for the other side.
func (s *sender) unread() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.answers > maxAnswerBytes
}

func (s *sender) wakeUp() {
	select {
	case s.wake <- struct{}{}:
	default: // it is awake, or will be
	}
}

// cork holds back the sending goroutine until uncork: a receive loop that
// answers a batch inline wants its answers in one batch.
func (s *sender) cork() {
	s.mu.Lock()
	s.corked++
	s.mu.Unlock()
}

func (s *sender) uncork() {
	s.mu.Lock()
	s.corked--
	wake := s.corked == 0 && s.current != nil
	s.mu.Unlock()
	if wake {
		s.wakeUp()
	}
}

// waitRoom blocks while too much is pending.
func (s *sender) waitRoom(ctx context.Context) error {
	for {
		s.mu.Lock()
		if s.closed {
			s.mu.Unlock()
			return transport.ErrLinkClosed
		}
		if s.pending < pendingBytes {
			s.mu.Unlock()
			return nil
		}
		if s.room == nil {
			s.room = make(chan struct{})
		}
		room := s.room
		s.mu.Unlock()
		select {
		case <-room:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// take returns the oldest chunk, or nil if nothing is pending.
func (s *sender) take() *[]byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	var chunk *[]byte
	switch {
	case len(s.full) > 0:
		chunk = s.full[0].b
		s.answers -= s.full[0].answers
		s.full = append(s.full[:0], s.full[1:]...) // short: 16 chunks are the limit for those who wait
	case s.current != nil:
		chunk, s.current = s.current, nil
		s.answers -= s.recent
		s.recent = 0
	default:
		return nil
	}
	s.pending -= len(*chunk)
	if s.room != nil && s.pending < pendingBytes/2 {
		close(s.room)
		s.room = nil
	}
	return chunk
}

// run sends until ctx ends or the stream fails. Afterwards frames go nowhere
// and nobody waits.
func (s *sender) run(ctx context.Context, stream batchStream) error {
	defer s.close()
	var out outBatch
	for {
		select {
		case <-s.wake:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		for {
			// Those who are about to append get the chance: the batch grows, and
			// with it what one write to a socket carries.
			runtime.Gosched()
			if out.chunk = s.take(); out.chunk == nil {
				break
			}
			if err := stream.SendMsg(&out); err != nil {
				return err
			}
		}
	}
}

func (s *sender) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	s.full, s.current, s.pending, s.answers, s.recent = nil, nil, 0, 0, 0
	if s.room != nil {
		close(s.room)
		s.room = nil
	}
}
