package load

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"
)

// answerTimeout is how long a peer waits for the next answer while it has
// requests outstanding. A server that takes longer has lost them.
const answerTimeout = 20 * time.Second

// A peer is one connection that keeps requests outstanding.
type peer struct {
	number int
	socket *Socket
	clock  *clock
	verify bool

	mu      sync.Mutex // guards what follows; the pacer and the reader both send
	request request
	slots   []slot
	free    []int       // slots without a request
	due     []time.Time // open loop: when requests were due that found no slot
	sent    uint64
	open    int  // requests outstanding
	closing bool // send no more

	tally tally // of the reader alone
}

// A slot is one of the requests that a peer has outstanding.
type slot struct {
	id    uint64 // 0: free
	began time.Time
}

// A tally is what one peer saw in the measured time.
type tally struct {
	latency    Histogram
	errors     uint64 // answers with an error
	corrupt    uint64 // answers without the whole padding
	unexpected uint64 // answers to nothing, or to the same request again
	unanswered uint64 // requests without an answer, over the whole run
}

func (t *tally) add(other *tally) {
	t.latency.Add(&other.latency)
	t.errors += other.errors
	t.corrupt += other.corrupt
	t.unexpected += other.unexpected
	t.unanswered += other.unanswered
}

func newPeer(number int, socket *Socket, o Options, c *clock) *peer {
	p := &peer{number: number, socket: socket, clock: c, verify: o.Verify,
		request: newRequest(number, o.Size, o.Method), slots: make([]slot, o.Window)}
	for i := range p.slots {
		p.free = append(p.free, i)
	}
	return p
}

// start fills the window of a peer in a closed loop.
func (p *peer) start() error {
	for range len(p.slots) {
		if err := p.send(time.Time{}); err != nil {
			return err
		}
	}
	return nil
}

// send sends one request if a slot is free. Otherwise, in an open loop, it
// notes that one is due since then, and the wait counts as latency. due is
// zero for a request that is not late.
func (p *peer) send(due time.Time) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closing {
		return nil
	}
	if len(p.free) == 0 {
		p.due = append(p.due, time.Now())
		return nil
	}
	i := p.free[len(p.free)-1]
	p.free = p.free[:len(p.free)-1]
	id := firstID + p.sent*uint64(len(p.slots)) + uint64(i)
	p.sent++
	p.open++
	p.slots[i] = slot{id: id, began: due}
	if due.IsZero() {
		p.slots[i].began = time.Now()
	}
	// Held during the write: two writers of one socket would tear frames.
	return p.socket.Write(p.request.withID(id))
}

// stop ends the sending; answers are still awaited.
func (p *peer) stop() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closing = true
	p.due = nil
	if p.open == 0 {
		_ = p.socket.Close() // nothing would end the reader
	}
}

// read takes answers until stop and the last of them. In a closed loop every
// answer causes the next request; in an open loop only one that is overdue.
func (p *peer) read(ctx context.Context, closedLoop bool) error {
	var renewed time.Time // once a second: a deadline per message would show in the numbers
	for {
		if now := time.Now(); now.Sub(renewed) > time.Second {
			renewed = now
			if err := p.socket.conn.SetReadDeadline(now.Add(answerTimeout)); err != nil {
				return p.end(ctx, err)
			}
		}
		message, err := p.socket.Next()
		if err != nil {
			return p.end(ctx, err)
		}
		again, due, last := p.take(message, closedLoop)
		if again {
			if err := p.send(due); err != nil {
				return p.end(ctx, err)
			}
		}
		if last {
			return nil
		}
	}
}

// end says what a failed read or write means.
func (p *peer) end(ctx context.Context, err error) error {
	p.mu.Lock()
	open, closing := p.open, p.closing
	p.mu.Unlock()
	p.tally.unanswered = uint64(open)
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case closing && open == 0:
		return nil
	case errors.Is(err, os.ErrDeadlineExceeded) && open > 0:
		return fmt.Errorf("peer %d: %d requests without an answer for %v", p.number, open, answerTimeout)
	case errors.Is(err, os.ErrDeadlineExceeded):
		return nil // an open loop that is slower than one request in the timeout
	}
	return fmt.Errorf("peer %d: %w", p.number, err)
}

// take accounts one message. It reports whether to send another request, since
// when that is due, and whether this was the last answer.
func (p *peer) take(message []byte, closedLoop bool) (again bool, due time.Time, last bool) {
	a := readAnswer(message)
	if !a.hasID {
		return false, due, false // a notification
	}
	now := time.Now()
	measured := p.clock.measuring()
	p.mu.Lock()
	defer p.mu.Unlock()
	i := int((a.id - firstID) % uint64(len(p.slots)))
	if a.id < firstID || p.slots[i].id != a.id {
		p.tally.unexpected++
		return false, due, false
	}
	if measured {
		switch {
		case !a.success:
			p.tally.errors++
		case p.verify && !p.request.carries(message):
			p.tally.corrupt++
		default:
			p.tally.latency.Record(now.Sub(p.slots[i].began))
		}
	}
	p.slots[i].id = 0
	p.free = append(p.free, i)
	p.open--
	if p.closing {
		return false, due, p.open == 0
	}
	if len(p.due) > 0 {
		due = p.due[0]
		p.due = p.due[1:]
		return true, due, false
	}
	return closedLoop, due, false
}
