package application

import "github.com/transporthost/transporthost/shared/transport"

// What waits for a shared application that is slow to read. A connected peer's
// part is bounded by its window, but for its one message of several pieces;
// everything else is bounded here, for all peers together.
const (
	// largeBytes bounds the messages of several pieces: a few of the largest.
	// More are refused as overload.
	largeBytes = 4 * transport.DefaultMaxMessageBytes
	// orphanBytes bounds the notifications and answers of peers that have left.
	// Their requests are dropped: nobody waits for the answer.
	orphanBytes = 16 << 20
	// ownBytes bounds what this side has to say: cancellations, and answers to
	// the application's requests. An application that reads none of 30,000 does
	// not miss the next.
	ownBytes = 4 << 20
	// frameCost is what a waiting message costs beside its bytes.
	frameCost = 128
	// takeBytes are written at a time.
	takeBytes = transport.WindowBytes
)

// An inbound is a message on its way to a shared application.
type inbound struct {
	payload  []byte    // owned
	from     *peer     // whose window size counts against; nil: nobody's
	size     int       // as the peer sent it
	question *question // of a request; nil for everything else
	stays    bool      // it is everybody's, whoever sent it
	charged  *int      // the account of the inlet that it counts against; may be nil
	cost     int       // there
}

// An inlet is the queue in front of a shared application. The lock of the
// exchange guards it.
type inlet struct {
	queue               []inbound
	large, orphans, own int // bytes; see the constants
}

func (in *inlet) charge(it *inbound, account *int) {
	in.discharge(it)
	it.charged, it.cost = account, len(it.payload)+frameCost
	*account += it.cost
}

func (in *inlet) discharge(it *inbound) {
	if it.charged != nil {
		*it.charged -= it.cost
		it.charged = nil
	}
}

func (in *inlet) push(it inbound) {
	if it.from != nil {
		it.from.queued++
	}
	in.queue = append(in.queue, it)
}

// say queues words of this side and reports whether there was room.
func (in *inlet) say(payload []byte) bool {
	it := inbound{payload: payload}
	if in.own+len(payload)+frameCost > ownBytes {
		return false
	}
	in.charge(&it, &in.own)
	in.push(it)
	return true
}

// adopt makes a message of a peer that has left an orphan, and reports whether
// there was room.
func (in *inlet) adopt(it *inbound) bool {
	in.discharge(it)
	it.from = nil
	if it.stays {
		return true
	}
	if in.orphans+len(it.payload)+frameCost > orphanBytes {
		return false
	}
	in.charge(it, &in.orphans)
	return true
}

// left drops the requests of a peer that has left, and what has no room as an
// orphan. drop is called with each.
func (in *inlet) left(p *peer, drop func(inbound)) {
	if p.queued == 0 {
		return
	}
	p.queued = 0
	kept := in.queue[:0]
	for _, it := range in.queue {
		if it.from == p && (it.question != nil || !in.adopt(&it)) {
			in.discharge(&it)
			drop(it)
			continue
		}
		kept = append(kept, it)
	}
	clear(in.queue[len(kept):])
	in.queue = kept
}

// take moves what is to be written next to buf, and returns it.
func (in *inlet) take(buf []inbound) []inbound {
	n, bytes := 0, 0
	for n < len(in.queue) && (n == 0 || bytes+len(in.queue[n].payload) <= takeBytes) {
		it := &in.queue[n]
		bytes += len(it.payload)
		in.discharge(it)
		if it.question != nil {
			it.question.sent = true
		}
		if it.from != nil {
			it.from.queued--
		}
		n++
	}
	buf = append(buf[:0], in.queue[:n]...)
	clear(in.queue[:n])
	if in.queue = in.queue[n:]; len(in.queue) == 0 {
		in.queue = nil // an idle application holds no memory
	}
	return buf
}

// drain empties the inlet and returns what was in it.
func (in *inlet) drain() []inbound {
	queue := in.queue
	for i := range queue {
		in.discharge(&queue[i])
		if p := queue[i].from; p != nil {
			p.queued--
		}
	}
	in.queue = nil
	return queue
}
