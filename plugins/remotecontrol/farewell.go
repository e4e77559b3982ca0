package remotecontrol

import "time"

const (
	// linkGrace is how long there may be no link before the host's close of a
	// connection is confirmed although its last messages are still here. It is
	// less than what a host that stops waits for the confirmation.
	linkGrace = 2 * time.Second
	// ackGrace is how long the relay is given to acknowledge something once all
	// of it is written: what only the system has is lost if the link is closed
	// before the relay has it.
	ackGrace = 400 * time.Millisecond
	// farewellTimeout bounds the whole wait.
	farewellTimeout = 5 * time.Second
)

// A farewell is the end of a connection that the host has closed. The close is
// confirmed once what the host sent before has left, because a host that stops
// takes the link away after that.
type farewell struct {
	last uint64        // number up to which it waits
	news chan struct{} // one slot: something was written, acknowledged or dropped
}

// seeOffLocked confirms the host's close of a parked virtual client in its
// time.
func (c *clients) seeOffLocked(vc *virtualClient) {
	s := vc.stream
	f := &farewell{last: s.out.next - 1, news: make(chan struct{}, 1)}
	s.farewell = f
	c.wg.Go(func() {
		c.awaitFarewell(s, f)
		vc.conn.Close(*vc.ending)
		c.mu.Lock()
		defer c.mu.Unlock()
		if s.farewell == f { // else the stream has had another client since
			s.farewell = nil
		}
	})
}

// left tells a farewell that the outbox of its stream has changed.
func (s *stream) left() {
	if s.farewell == nil {
		return
	}
	select {
	case s.farewell.news <- struct{}{}:
	default: // it has not looked since the last time
	}
}

func (c *clients) awaitFarewell(s *stream, f *farewell) {
	limit := time.NewTimer(farewellTimeout)
	defer limit.Stop()
	for {
		wait, final := c.farewellWait(s, f)
		if wait <= 0 {
			return
		}
		look := time.NewTimer(wait)
		select {
		case <-f.news:
			look.Stop()
		case <-look.C:
			if final {
				return
			}
		case <-limit.C:
			look.Stop()
			return
		case <-c.life.Done():
			look.Stop()
			return
		}
	}
}

// farewellWait is how long to wait before looking again, unless there is news;
// 0 means no longer. final says that nothing will be better then.
func (c *clients) farewellWait(s *stream, f *farewell) (wait time.Duration, final bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	unwritten := s.out.unwritten(f.last)
	switch {
	case !s.out.retains(f.last):
		return 0, true
	case !c.linked && !unwritten:
		return 0, true // the next link has it, if one comes
	case !c.linked:
		return linkGrace - time.Since(c.unlinked), false
	case unwritten:
		return linkGrace, false
	}
	return ackGrace, true
}

// wrote notes that an envelope of a stream has been written to the link. It
// reports whether the stream is in a hurry: these are its last words.
func (c *clients) wrote(s *stream, e *envelope) (hurry bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s.out.wrote(e)
	s.left()
	return s.farewell != nil
}
