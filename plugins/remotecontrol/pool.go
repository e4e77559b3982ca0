package remotecontrol

import "slices"

const (
	// retainedBytes bounds what all outboxes hold beyond reservedBytes each: half
	// of it in large messages, which is one of the largest size, half in the
	// rest. A message that finds no room waits with the host.
	retainedBytes = 128 << 20
	// reservedBytes of every stream are outside that bound, so that streams that
	// never acknowledge delay the large messages of others, and nothing else.
	reservedBytes = 64 << 10
	// poolShare is which part of the pool for the rest one stream may hold. What
	// is more is large: it waits for the large messages of others, and nobody
	// else does.
	poolShare = 4
)

// A pool bounds the bytes of many outboxes. Its fields are guarded by the mutex
// of clients.
type pool struct {
	max      int
	retained int       // bytes that streams are charged for
	queue    []*stream // that wait for room
}

// full reports whether a charge does not fit beside those of others. One that
// is alone always fits.
func (p *pool) full(others, charge int) bool { return others > 0 && others+charge > p.max }

// poolLocked is the pool that a charge counts against.
func (c *clients) poolLocked(charge int) *pool {
	if charge > c.small.max/poolShare {
		return &c.large
	}
	return &c.small
}

// chargeOf is what an outbox of so many bytes is charged.
func chargeOf(bytes int) int { return max(0, bytes-reservedBytes) }

// chargeLocked makes the stream pay for an outbox of so many bytes, or queues
// it until there is room.
func (c *clients) chargeLocked(s *stream, bytes int) bool {
	charge := chargeOf(bytes)
	if charge <= s.charged {
		return true
	}
	p := c.poolLocked(charge)
	if !s.granted && len(p.queue) > 0 || p.full(c.othersLocked(s, p), charge) {
		if s.waiting == nil {
			s.waiting = p
			p.queue = append(p.queue, s)
		}
		return false
	}
	c.moveLocked(s, charge)
	return true
}

// othersLocked is what others than the stream have in a pool.
func (c *clients) othersLocked(s *stream, p *pool) int {
	if c.poolLocked(s.charged) == p {
		return p.retained - s.charged
	}
	return p.retained
}

func (c *clients) moveLocked(s *stream, charge int) {
	c.poolLocked(s.charged).retained -= s.charged
	c.poolLocked(charge).retained += charge
	s.charged = charge
}

// rechargeLocked makes the stream pay for what its outbox holds, and lets
// those go on for whom that leaves room.
func (c *clients) rechargeLocked(s *stream) {
	charge, before := chargeOf(s.out.bytes), s.charged
	p := c.poolLocked(before)
	c.moveLocked(s, charge)
	if charge < before {
		c.grantLocked(p)
	}
}

// grantLocked lets those go on who wait for room, in the order in which they
// came.
func (c *clients) grantLocked(p *pool) {
	others := p.retained
	for len(p.queue) > 0 {
		next := p.queue[0]
		charge := next.nextCharge()
		if p.full(others, charge) {
			return
		}
		others += charge
		p.queue = p.queue[1:]
		next.waiting, next.granted = nil, true
		c.kickLocked(next)
	}
}

// withdrawLocked takes a stream that has nothing more to send out of the queue
// for room.
func (c *clients) withdrawLocked(s *stream) {
	s.granted = false
	if p := s.waiting; p != nil {
		s.waiting = nil
		p.queue = slices.DeleteFunc(p.queue, func(other *stream) bool { return other == s })
		c.grantLocked(p)
	}
}

// nextCharge is what the stream pays more for its next message.
func (s *stream) nextCharge() int {
	if vc := s.vc; vc != nil && len(vc.pending) > 0 {
		return max(0, chargeOf(s.out.bytes+vc.pending[0].payload.size+entryOverhead)-s.charged)
	}
	return 0
}
