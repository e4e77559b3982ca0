package supervisor

import (
	"context"
	"io"
	"sync"
	"time"
)

// A screen is the user's stdout. One goroutine writes to it, so that nobody else
// ever waits in a write that cannot be interrupted.
type screen struct {
	out io.Writer

	mu      sync.Mutex // guards what follows
	pending []byte
	writing bool
	written int64         // writes that have returned
	failed  bool          // nobody reads any more: what comes is thrown away
	ended   bool          // run has returned
	changed chan struct{} // closed and replaced at every change
}

const (
	// screenBytes is what may wait for the user before the process waits too.
	screenBytes = 256 << 10
	// screenGrace is how long a user who reads nothing is waited for when the
	// host stops.
	screenGrace = time.Second
)

func newScreen(out io.Writer) *screen { return &screen{out: out, changed: make(chan struct{})} }

func (s *screen) signalLocked() {
	close(s.changed)
	s.changed = make(chan struct{})
}

// put queues a copy of b. It waits for room until dead is closed: what comes
// then is the rest of a pipe.
func (s *screen) put(b []byte, dead <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(s.pending) >= screenBytes && !s.failed && !s.ended {
		changed := s.changed
		s.mu.Unlock()
		select {
		case <-changed:
			s.mu.Lock()
			continue
		case <-dead:
		}
		s.mu.Lock()
		break
	}
	if s.failed || s.ended {
		return
	}
	s.pending = append(s.pending, b...)
	s.signalLocked()
}

// run writes until ctx ends and everything is written, or the user does not
// read.
func (s *screen) run(ctx context.Context) error {
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.write()
	}()
	<-ctx.Done()
	for last := int64(-1); ; {
		s.mu.Lock()
		idle, written, changed := len(s.pending) == 0 && !s.writing, s.written, s.changed
		s.mu.Unlock()
		if idle || written == last {
			break
		}
		last = written
		t := time.NewTimer(screenGrace)
		for waits := true; waits; {
			select {
			case <-changed:
				s.mu.Lock()
				waits = s.written == last && (s.writing || len(s.pending) > 0)
				changed = s.changed
				s.mu.Unlock()
			case <-t.C:
				waits = false
			}
		}
		t.Stop()
	}
	s.mu.Lock()
	s.ended = true
	stuck := s.writing
	s.signalLocked()
	s.mu.Unlock()
	if !stuck {
		<-done
	}
	return context.Cause(ctx)
}

// write is the goroutine that writes.
func (s *screen) write() {
	var buf []byte
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		for len(s.pending) == 0 || s.failed {
			if s.ended {
				return
			}
			changed := s.changed
			s.mu.Unlock()
			<-changed
			s.mu.Lock()
		}
		if s.ended {
			return
		}
		buf, s.pending = s.pending, buf[:0]
		s.writing = true
		s.signalLocked()
		s.mu.Unlock()
		_, err := s.out.Write(buf)
		s.mu.Lock()
		s.writing = false
		s.written++
		if err != nil {
			s.failed, s.pending = true, nil
		}
		s.signalLocked()
		if cap(buf) > 2*screenBytes {
			buf = nil
		}
	}
}

// flush returns when nothing waits, or ctx ends.
func (s *screen) flush(ctx context.Context) error {
	for {
		s.mu.Lock()
		idle, changed := len(s.pending) == 0 && !s.writing || s.failed || s.ended, s.changed
		s.mu.Unlock()
		if idle {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}
