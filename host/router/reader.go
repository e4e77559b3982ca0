package router

import (
	"bytes"
	"sync"
	"sync/atomic"

	"github.com/transporthost/transporthost/shared/transport"
)

// A late is something of a peer that came on the receive loop and is taken by
// the reader of its row: a large message, in the pieces that it came in, or
// what came behind one.
type late struct {
	pieces   [][]byte // owned
	size     int
	account  *account             // that the size is in, until it is taken; nil: the window bounds it
	rejected *transport.Rejection // in place of a message
}

// free ends that the pieces count.
func (l *late) free() {
	if l.account != nil {
		l.account.give(l.size)
		l.account = nil
	}
}

// join puts a message together, in buf if that is large enough. It takes its
// time for a large one.
func (l *late) join(buf []byte) []byte {
	if cap(buf) < l.size {
		buf = make([]byte, 0, l.size)
	}
	var pace transport.Pace
	for _, piece := range l.pieces {
		buf = pace.Append(buf, piece)
	}
	return buf
}

// postpone gives a message to the reader of the row. It is called by the receive
// loop.
func (w *row) postpone(l late) {
	w.mu.Lock()
	w.late = append(w.late, l)
	start := !w.reading
	if start {
		w.reading = true
		w.router.reading.Add(1)
	}
	w.mu.Unlock()
	if start && !w.router.readers.start(w.read) {
		w.read() // the router has ended: nobody else waits
	}
}

// read gives the application what is late, one after the other, until there is
// nothing. It is the body of the goroutine that a row has while it has a large
// message: what is done with one takes longer than others on the receive loop
// may wait. The window of the connection bounds what is late, but for large
// messages, which are in the account of their process.
func (w *row) read() {
	defer w.router.hasRead()
	for {
		w.mu.Lock()
		if len(w.late) == 0 || w.state == ended {
			w.router.counters.dropped.Add(int64(len(w.late)))
			for i := range w.late {
				w.late[i].free()
			}
			w.late, w.reading = nil, false
			over := w.state == ended
			w.mu.Unlock()
			if over {
				w.tellEnd()
			}
			return
		}
		l := w.late[0]
		w.late[0] = late{}
		w.late = w.late[1:]
		live := w.state == open
		w.mu.Unlock()
		switch {
		case !live: // it is closing, and what comes in is not wanted
			w.router.counters.dropped.Add(1)
		case l.rejected != nil:
			w.reject(*l.rejected)
		case len(l.pieces) == 1:
			w.take(l.pieces[0])
		default:
			w.router.readers.takeJoined(w, &l)
		}
		l.free()
	}
}

// isReading reports whether what comes next must be postponed, to keep its
// place.
func (w *row) isReading() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.reading
}

// A crew is the readers of all rows.
type crew struct {
	mu    sync.Mutex // guards ended; held while wg counts up
	ended bool
	wg    sync.WaitGroup

	// What large messages were joined in: to clear 64 MiB for the next one is a
	// step that cannot be cut.
	buffers sync.Pool
}

func (c *crew) takeJoined(w *row, l *late) {
	buf, ok := c.buffers.Get().(*[]byte)
	if !ok {
		buf = new([]byte)
	}
	*buf = l.join((*buf)[:0])
	l.pieces = nil
	w.take(*buf)
	c.buffers.Put(buf)
}

// start runs work in a goroutine. It is false after end.
func (c *crew) start(work func()) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ended {
		return false
	}
	c.wg.Go(work)
	return true
}

// end blocks until everybody is done; nobody starts any more.
func (c *crew) end() {
	c.mu.Lock()
	c.ended = true
	c.mu.Unlock()
	c.wg.Wait()
}

// An account is what the messages of several pieces take that one process has
// brought and the application has not taken. The receive loop alone takes from
// the bound; what was taken is given back to the same account, once, whichever
// process has the row by then.
type account struct{ bytes atomic.Int64 }

// take reports whether n bytes more are within the limit, and counts them if so.
func (a *account) take(n, limit int) bool {
	if a.bytes.Load()+int64(n) > int64(limit) {
		return false
	}
	a.bytes.Add(int64(n))
	return true
}

func (a *account) give(n int) { a.bytes.Add(int64(-n)) }

// A joined is a message whose pieces are arriving.
type joined struct {
	pieces [][]byte // owned
	size   int
}

// smallPiece is up to which size pieces are put together as they come: a plugin
// may cut a message into single bytes, or send pieces of none without end, and
// what is kept of a piece beside its bytes is in no account.
const smallPiece = 4 << 10

func (j *joined) add(piece []byte) {
	j.size += len(piece)
	if n := len(j.pieces); n > 0 && len(j.pieces[n-1])+len(piece) <= smallPiece {
		j.pieces[n-1] = append(j.pieces[n-1], piece...)
		return
	}
	j.pieces = append(j.pieces, bytes.Clone(piece))
}
