package application

import (
	"context"
	"errors"
	"sync"

	"github.com/transporthost/transporthost/shared/transport"
)

// Echo is the built-in application: it answers every request with its params
// as they were written. It answers inside Deliver, without a goroutine and
// without allocating.
type Echo struct {
	buffers sync.Pool
	large   sync.Pool // of answers to large messages
	crew    *crew     // waits for room on lossless connections
}

var _ App = (*Echo)(nil)

// NewEcho makes the application.
func NewEcho() *Echo { return &Echo{crew: newCrew()} }

// Run implements [App].
func (e *Echo) Run(ctx context.Context) error {
	e.crew.begin(ctx)
	<-ctx.Done()
	e.crew.dismiss()
	return context.Cause(ctx)
}

// Open implements [App].
func (e *Echo) Open(c Conn) Session { return &echoSession{app: e, conn: c} }

// Status implements [App].
func (e *Echo) Status() Status { return Status{Driver: "echo", Ready: true} }

type echoSession struct {
	app  *Echo
	conn Conn

	mu     sync.Mutex // guards what follows
	queue  []lateAnswer
	closed bool
}

// A lateAnswer waits for room on a lossless connection.
type lateAnswer struct {
	payload []byte
	size    int // of the request
}

// Deliver implements [Session].
func (s *echoSession) Deliver(p []byte, m transport.Message) {
	if m.Kind != transport.Request {
		s.conn.Consumed(1, len(p))
		return
	}
	pool := &s.app.buffers
	if len(p) > transport.LargeBytes {
		pool = &s.app.large
	}
	b, ok := pool.Get().(*[]byte)
	if !ok {
		b = new([]byte)
	}
	if n := len(p) + len(m.ID) + echoOverhead; len(p) > transport.LargeBytes && cap(*b) < n {
		*b = make([]byte, 0, n)
	}
	*b = appendEcho((*b)[:0], p, m.ID)
	if !s.sendLate(*b, len(p)) {
		s.conn.Consumed(1, len(p))
	}
	pool.Put(b)
}

// echoOverhead is more than what stands around id and params in an answer.
const echoOverhead = 64

// appendEcho appends the answer to a request.
func appendEcho(b, request, id []byte) []byte {
	params := transport.Field(request, "params")
	if params == nil {
		params = []byte("null")
	}
	b = append(b, `{"jsonrpc":"2.0","id":`...)
	b = append(b, id...)
	b = append(b, `,"result":`...)
	if len(params) > transport.LargeBytes {
		var pace transport.Pace
		b = pace.Append(b, params)
	} else {
		b = append(b, params...)
	}
	return append(b, '}')
}

// sendLate sends an answer and reports whether it has to wait. Then it is
// sent, and its request counted as consumed, by a goroutine that ends when
// nothing waits any more; the window of the connection bounds what waits.
func (s *echoSession) sendLate(answer []byte, size int) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.queue) == 0 {
		if !errors.Is(s.conn.Send(answer), transport.ErrOverloaded) {
			return false
		}
		if !s.app.crew.hire(s.flush) {
			return false // the application has ended
		}
	}
	s.queue = append(s.queue, lateAnswer{payload: append([]byte(nil), answer...), size: size})
	return true
}

func (s *echoSession) flush() {
	<-s.app.crew.begun
	for {
		s.mu.Lock()
		if len(s.queue) == 0 || s.closed {
			s.queue = nil
			s.mu.Unlock()
			return
		}
		a := s.queue[0]
		s.mu.Unlock()
		if s.conn.SendWait(s.app.crew.life, a.payload) == nil {
			s.conn.Consumed(1, a.size)
		}
		s.mu.Lock()
		s.queue = s.queue[1:]
		s.mu.Unlock()
		if s.app.crew.life.Err() != nil {
			s.Closed(transport.CloseReason{})
		}
	}
}

// Closed implements [Session].
func (s *echoSession) Closed(transport.CloseReason) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
}
