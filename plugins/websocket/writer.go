package websocket

import (
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/gorilla/websocket"
)

// maxPending is where a writer gives its peer up: more than a window of
// messages and their headers can only be pongs to a peer that does not read.
const maxPending = 512 << 10

const (
	smallBuffer = 4 << 10   // most messages, and most batches
	largeBuffer = 128 << 10 // a message of 64 KiB, and another on its heels
	keptBuffer  = 512 << 10 // a window of messages with their headers; larger ones are left to the collector
)

// buffers holds the buffers of writers and readers, which have one only while
// they have bytes: an idle connection holds none. There are two sizes, because
// growing a small one to 64 KiB by doubling costs more than the message.
type buffers struct{ small, large bufferPool }

func (b *buffers) get(size int) []byte {
	if size > smallBuffer {
		return b.large.get(size, largeBuffer)
	}
	return b.small.get(size, smallBuffer)
}

func (b *buffers) put(p []byte) {
	switch c := cap(p); {
	case c < smallBuffer || c > keptBuffer:
	case c < largeBuffer:
		b.small.put(p)
	default:
		b.large.put(p)
	}
}

// A bufferPool holds buffers of one size. A pool takes pointers, and making one
// for every buffer that comes back would allocate: they are kept as well.
type bufferPool struct{ full, empty sync.Pool }

func (b *bufferPool) get(size, least int) []byte {
	if box, ok := b.full.Get().(*[]byte); ok {
		p := *box
		*box = nil
		b.empty.Put(box)
		if cap(p) >= size {
			return p[:0]
		}
	}
	return make([]byte, 0, max(size, least))
}

func (b *bufferPool) put(p []byte) {
	box, ok := b.empty.Get().(*[]byte)
	if !ok {
		box = new([]byte)
	}
	*box = p
	b.full.Put(box)
}

// grow returns p with room for n more bytes, and for as many again as p has if
// that is little, half as many if it is much.
func (b *buffers) grow(p []byte, n int) []byte {
	if cap(p)-len(p) >= n {
		return p
	}
	more := cap(p)
	if more >= keptBuffer {
		more /= 2
	}
	grown := append(b.get(max(len(p)+n, cap(p)+more)), p...)
	b.put(p)
	return grown
}

// partBytes is what the goroutine of a writer writes at a time: enough for its
// system calls not to count, and what a peer that takes 1.5 KB/s takes within
// the default pong_timeout.
const partBytes = 64 << 10

// politeTime is what TLS gets to say goodbye.
const politeTime = time.Second

// A writer is the outgoing half of one socket. What is appended during a batch
// of the host leaves with one write that does not block; only what the socket
// does not take goes to a goroutine, which ends when it is through.
//
// It writes frames itself: the library's writer makes one system call per
// message and blocks.
type writer struct {
	sock    net.Conn
	bare    net.Conn        // the socket below TLS: it is closed without waiting
	raw     syscall.RawConn // nil: every write blocks (TLS), and the goroutine does it
	once    func(fd uintptr) bool
	buffers *buffers
	wg      *sync.WaitGroup // of the transport: counts the goroutine
	written func(messages, bytes int)

	// writes counts the beginnings and the ends of the goroutine's writes: it is
	// odd while one is under way.
	writes atomic.Uint64

	mu        sync.Mutex // guards what follows; held across the write that does not block
	buf       []byte     // frames to write
	queued    tally      // of buf
	sent      tally      // written, and not reported
	reporting bool       // a goroutine reports
	busy      bool       // the goroutine runs
	said      bool       // a close frame is appended: nothing may follow it
	failed    bool       // nothing more is written
	n         int        // of the last write
	err       error      // of the last write; why it failed
}

func newWriter(sock net.Conn, b *buffers, wg *sync.WaitGroup, written func(messages, bytes int)) *writer {
	w := &writer{sock: sock, bare: bare(sock), buffers: b, wg: wg, written: written}
	if s, ok := sock.(syscall.Conn); ok && canWriteOnce {
		if raw, err := s.SyscallConn(); err == nil {
			w.raw = raw
		}
	}
	w.once = func(fd uintptr) bool {
		w.n, w.err = writeOnce(fd, w.buf)
		return true // never wait
	}
	return w
}

// message appends a message of the host; it leaves with the next flush.
func (w *writer) message(p []byte) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.failed || w.said {
		return
	}
	w.appendLocked(websocket.TextMessage, p)
	w.queued.messages++
	w.queued.bytes += len(p)
}

// control appends a control frame and writes it.
func (w *writer) control(opcode int, p []byte) {
	w.mu.Lock()
	defer w.unlock()
	if w.failed || w.said {
		return
	}
	if len(w.buf)-w.queued.bytes > maxPending {
		w.failLocked(errNotRead)
		return
	}
	w.appendLocked(opcode, p)
	w.said = opcode == websocket.CloseMessage
	w.flushLocked()
}

// text appends a message of this plugin's own, and writes it.
func (w *writer) text(p []byte) { w.control(websocket.TextMessage, p) }

func (w *writer) appendLocked(opcode int, p []byte) {
	w.buf = appendFrame(w.buffers.grow(w.buf, maxFrameHeader+len(p)), opcode, p)
}

// flush writes what is pending, as far as that does not block.
func (w *writer) flush() {
	w.mu.Lock()
	defer w.unlock()
	w.flushLocked()
}

func (w *writer) flushLocked() {
	if w.busy || w.failed || len(w.buf) == 0 {
		return
	}
	if w.raw != nil {
		w.n, w.err = 0, nil
		if err := w.raw.Write(w.once); err != nil {
			w.failLocked(err)
			return
		}
		if w.err != nil && !errors.Is(w.err, syscall.EAGAIN) && !errors.Is(w.err, syscall.EINTR) {
			w.failLocked(w.err)
			return
		}
		if w.n == len(w.buf) {
			w.buffers.put(w.buf)
			w.sent.add(w.queued)
			w.buf, w.queued = nil, tally{}
			return
		}
	}
	w.busy = true
	skip := max(w.n, 0)
	w.n = 0
	w.wg.Go(func() { w.drain(skip) })
}

// unlock reports what has left, and unlocks. A report is a call out of the
// writer, so it is made without the lock; it is made by one goroutine at a
// time, so that reports come in the order of the writes.
func (w *writer) unlock() {
	for !w.reporting && w.sent != (tally{}) {
		t := w.sent
		w.sent = tally{}
		w.reporting = true
		w.mu.Unlock()
		w.written(t.messages, t.bytes)
		w.mu.Lock()
		w.reporting = false
	}
	w.mu.Unlock()
}

// drain writes until nothing is pending, a part at a time: the host is told of
// each, and sees that a slow peer takes what it gets. skip bytes are out
// already.
func (w *writer) drain(skip int) {
	w.mu.Lock()
	for len(w.buf) > 0 && !w.failed {
		buf, out := w.buf, progress{frames: w.buf, left: w.queued}
		w.buf, w.queued = nil, tally{}
		w.sent.add(out.advance(skip))
		for rest := buf[skip:]; len(rest) > 0 && !w.failed; {
			part := rest[:min(len(rest), partBytes)]
			rest = rest[len(part):]
			w.unlock()

			w.writes.Add(1)
			_, err := w.sock.Write(part)
			w.writes.Add(1)

			w.mu.Lock()
			if err != nil && !w.failed {
				w.failLocked(err)
			}
			if err == nil {
				w.sent.add(out.advance(len(part)))
			}
		}
		w.buffers.put(buf)
		skip = 0
	}
	w.busy = false
	w.unlock()
}

// failLocked ends the socket; its reader ends the connection.
func (w *writer) failLocked(err error) {
	w.failed, w.err = true, err
	w.buf, w.queued = nil, tally{}
	_ = w.bare.Close()
}

// fail is failLocked for other goroutines, and waits for nothing.
func (w *writer) fail(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.failed {
		w.failLocked(err)
	}
}

// whyFailed says why the writer closed the socket.
func (w *writer) whyFailed() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	if errors.Is(w.err, errSilent) || errors.Is(w.err, errNotRead) {
		return w.err.Error()
	}
	return socketText(w.err)
}

// stop makes the writer write nothing more, and closes the socket. It returns
// within politeTime.
func (w *writer) stop() {
	w.mu.Lock()
	polite := !w.failed && !w.busy
	if polite {
		w.failed, w.err = true, net.ErrClosed
		w.buf, w.queued = nil, tally{}
	}
	w.mu.Unlock()
	if !polite {
		w.fail(net.ErrClosed)
		return
	}
	enough := time.AfterFunc(politeTime, func() { _ = w.bare.Close() })
	defer enough.Stop()
	_ = w.sock.Close()
}
