package websocket

import (
	"encoding/binary"
	"errors"
	"net"
	"sync"
	"syscall"

	"github.com/gorilla/websocket"

	pluginsdk "github.com/transporthost/transporthost/plugin-sdk"
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
type buffers struct{ small, large sync.Pool }

func (b *buffers) get(size int) []byte {
	pool, least := &b.small, smallBuffer
	if size > smallBuffer {
		pool, least = &b.large, largeBuffer
	}
	if p, ok := pool.Get().(*[]byte); ok && cap(*p) >= size {
		return (*p)[:0]
	}
	return make([]byte, 0, max(size, least))
}

func (b *buffers) put(p []byte) {
	switch c := cap(p); {
	case c < smallBuffer || c > keptBuffer:
	case c < largeBuffer:
		b.small.Put(&p)
	default:
		b.large.Put(&p)
	}
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

// A writer is the outgoing half of one socket. What is appended during a batch
// of the host leaves with one write that does not block; only what the socket
// does not take goes to a goroutine, which ends when it is through.
//
// It writes frames itself: the library's writer makes one system call per
// message and blocks.
type writer struct {
	sock    net.Conn
	raw     syscall.RawConn // nil: every write blocks (TLS), and the goroutine does it
	once    func(fd uintptr) bool
	buffers *buffers
	wg      *sync.WaitGroup // of the transport: counts the goroutine
	written func(messages, bytes int)

	mu       sync.Mutex // guards what follows; held across the write that does not block
	buf      []byte     // frames to write
	messages int        // of the host in buf
	bytes    int        // of their payloads
	busy     bool       // the goroutine runs
	failed   bool       // nothing more is written
	n        int        // of the last write
	err      error
}

func newWriter(sock net.Conn, b *buffers, wg *sync.WaitGroup, written func(messages, bytes int)) *writer {
	w := &writer{sock: sock, buffers: b, wg: wg, written: written}
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
	if w.failed {
		return
	}
	w.appendLocked(websocket.TextMessage, p)
	w.messages++
	w.bytes += len(p)
}

// control appends a control frame and writes it.
func (w *writer) control(opcode int, p []byte) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.failed {
		return
	}
	if len(w.buf)-w.bytes > maxPending {
		w.failLocked()
		return
	}
	w.appendLocked(opcode, p)
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
	defer w.mu.Unlock()
	w.flushLocked()
}

func (w *writer) flushLocked() {
	if w.busy || w.failed || len(w.buf) == 0 {
		return
	}
	if w.raw != nil {
		w.n, w.err = 0, nil
		if err := w.raw.Write(w.once); err != nil {
			w.failLocked()
			return
		}
		if w.err != nil && !errors.Is(w.err, syscall.EAGAIN) && !errors.Is(w.err, syscall.EINTR) {
			w.failLocked()
			return
		}
		if w.n == len(w.buf) {
			w.doneLocked(w.buf, w.messages, w.bytes)
			w.buf, w.messages, w.bytes = nil, 0, 0
			return
		}
	}
	w.busy = true
	skip := max(w.n, 0)
	w.n = 0
	w.wg.Go(func() { w.drain(skip) })
}

func (w *writer) doneLocked(buf []byte, messages, bytes int) {
	w.buffers.put(buf)
	if messages > 0 {
		w.written(messages, bytes)
	}
}

// drain writes until nothing is pending. skip bytes are out already.
func (w *writer) drain(skip int) {
	for {
		w.mu.Lock()
		buf, messages, bytes := w.buf, w.messages, w.bytes
		if len(buf) == 0 || w.failed {
			w.busy = false
			w.mu.Unlock()
			return
		}
		w.buf, w.messages, w.bytes = nil, 0, 0
		w.mu.Unlock()

		_, err := w.sock.Write(buf[skip:])
		skip = 0

		w.mu.Lock()
		if err != nil {
			w.failLocked()
			w.busy = false
			w.mu.Unlock()
			return
		}
		w.doneLocked(buf, messages, bytes)
		w.mu.Unlock()
	}
}

// failLocked ends the socket; its reader ends the connection.
func (w *writer) failLocked() {
	w.failed = true
	w.buf, w.messages, w.bytes = nil, 0, 0
	_ = w.sock.Close()
}

// maxFrameHeader is the longest header of an unmasked frame.
const maxFrameHeader = 10

// appendFrame appends one unmasked frame (RFC 6455, section 5.2).
func appendFrame(b []byte, opcode int, p []byte) []byte {
	const final = 0x80
	b = append(b, final|byte(opcode))
	switch n := len(p); {
	case n < 126:
		b = append(b, byte(n))
	case n <= 0xffff:
		b = append(b, 126)
		b = binary.BigEndian.AppendUint16(b, uint16(n))
	default:
		b = append(b, 127)
		b = binary.BigEndian.AppendUint64(b, uint64(n))
	}
	return append(b, p...)
}

// closeFrame is the payload of a close frame. Text is cut to fit.
func closeFrame(r pluginsdk.CloseReason) []byte {
	const most = 123 // 125 less the code
	return websocket.FormatCloseMessage(closeCode(r.Code), clip(r.Text, most))
}

// closeCode maps reasons to the codes of RFC 6455 and its registry.
func closeCode(c pluginsdk.CloseCode) int {
	switch c {
	case pluginsdk.CloseNormal:
		return websocket.CloseNormalClosure
	case pluginsdk.CloseGoingAway, pluginsdk.ClosePluginLost:
		return websocket.CloseGoingAway
	case pluginsdk.CloseProtocol:
		return websocket.CloseProtocolError
	case pluginsdk.CloseInvalidData:
		return websocket.CloseInvalidFramePayloadData
	case pluginsdk.CloseTooLarge:
		return websocket.CloseMessageTooBig
	case pluginsdk.CloseSlow, pluginsdk.CloseOverloaded:
		return websocket.CloseTryAgainLater
	case pluginsdk.CloseUnauthorized:
		return websocket.ClosePolicyViolation
	case pluginsdk.CloseIdle:
		return websocket.CloseGoingAway
	}
	return websocket.CloseInternalServerErr
}

// stop makes the writer write nothing more, and closes the socket.
func (w *writer) stop() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.failed {
		w.failLocked()
	}
}
