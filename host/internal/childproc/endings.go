package childproc

import (
	"context"
	"sync"
	"time"

	"github.com/transporthost/transporthost/host/internal/lineage"
)

const (
	// endLimit is what the descendants of a child get to be gone once they have
	// been killed. Only what hangs in the kernel takes longer.
	endLimit = 2 * time.Second
	// What looking for descendants costs, beyond lookBurst, is one part in
	// lookShare of a processor at most: if many children end, their looks are
	// fewer.
	lookShare = 5
	lookBurst = 20 * time.Millisecond
	minPause  = 2 * time.Millisecond
)

// The endings are the children whose descendants are being ended. All that wait
// share each look at the system.
type endings struct {
	wake chan struct{}      // one slot
	over func(child uint32) // nothing is left of it

	mu     sync.Mutex // guards what follows
	queue  []*ending
	closed bool // nothing is looked for any more
}

// An ending is one of them.
type ending struct {
	child uint32
	clean int // looks in a row that found nothing
	since time.Time
	left  chan int
}

// add asks for the end of what descends from child. The result is how many
// processes are left, usually none.
func (e *endings) add(child uint32) <-chan int {
	x := &ending{child: child, since: time.Now(), left: make(chan int, 1)}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		e.tell(x, 0)
		return x.left
	}
	e.queue = append(e.queue, x)
	select {
	case e.wake <- struct{}{}:
	default:
	}
	return x.left
}

// run ends what add was asked for, until ctx ends; then what is still there of
// the whole run.
func (e *endings) run(ctx context.Context, run lineage.Run) {
	var pending []*ending
	allowance, last := lookBurst, time.Now()
	for len(pending) > 0 || e.await(ctx) {
		e.mu.Lock()
		pending = append(pending, e.queue...)
		e.queue = nil
		e.mu.Unlock()
		began := time.Now()
		pending = e.look(run, pending)
		now := time.Now()
		allowance = min(lookBurst, allowance+now.Sub(last)/lookShare) - now.Sub(began)
		last = now
		if !sleep(ctx, max(minPause, -allowance*lookShare)) {
			break // the end is for all of them
		}
	}
	e.mu.Lock()
	e.closed = true
	pending = append(pending, e.queue...)
	e.queue = nil
	e.mu.Unlock()
	left := run.End(endLimit)
	for _, x := range pending {
		e.tell(x, left)
	}
}

// tell says how many processes are left.
func (e *endings) tell(x *ending, left int) {
	if left == 0 {
		e.over(x.child)
	}
	x.left <- left
}

// await waits for something to do, and reports whether there is, or ctx ended.
func (e *endings) await(ctx context.Context) bool {
	select {
	case <-e.wake:
		return true
	case <-ctx.Done():
		return false
	}
}

// sleep reports false if ctx ended before d.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// look kills what descends from the pending, and returns those that are to be
// looked for again.
func (e *endings) look(run lineage.Run, pending []*ending) []*ending {
	found := make(map[uint32]int, len(pending))
	for _, x := range pending {
		found[x.child] = 0
	}
	for _, m := range run.Members() {
		if _, wanted := found[m.Child]; wanted && m.Kill() {
			found[m.Child]++
		}
	}
	again := pending[:0]
	for _, x := range pending {
		n := found[x.child]
		if x.clean++; n > 0 {
			x.clean = 0
		}
		if x.clean < 2 && (n == 0 || time.Since(x.since) < endLimit) {
			again = append(again, x)
			continue
		}
		e.tell(x, n)
	}
	clear(pending[len(again):])
	return again
}
