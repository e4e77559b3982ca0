package stdio

import (
	"context"
	"fmt"
	"os"
	"sync"

	pluginsdk "github.com/transporthost/transporthost/plugin-sdk"
)

// A writer is the sink of the one connection. One goroutine writes what is
// pending, all of it at a time, and then tells the host so. The window of the
// connection bounds what is pending.
type writer struct {
	out     *os.File
	framing pluginsdk.Framing
	conn    *pluginsdk.Conn
	wake    chan struct{} // one slot

	mu       sync.Mutex // guards what follows
	buf      []byte
	messages int
	bytes    int // of payload
	last     pluginsdk.Seq
	ending   *pluginsdk.CloseReason // of the host
}

var (
	_ pluginsdk.Sink   = (*writer)(nil)
	_ pluginsdk.Binder = (*writer)(nil)
)

func newWriter(out *os.File, f pluginsdk.Framing) *writer {
	return &writer{out: out, framing: f, wake: make(chan struct{}, 1)}
}

// Bind implements [pluginsdk.Binder].
func (w *writer) Bind(c *pluginsdk.Conn) { w.conn = c }

// Message implements [pluginsdk.Sink].
func (w *writer) Message(seq pluginsdk.Seq, p []byte) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.buf = pluginsdk.AppendFrame(w.buf, p, w.framing)
	w.messages++
	w.bytes += len(p)
	w.last = seq
}

// Flush implements [pluginsdk.Sink].
func (w *writer) Flush() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// Close implements [pluginsdk.Sink].
func (w *writer) Close(reason pluginsdk.CloseReason) {
	w.mu.Lock()
	w.ending = &reason
	w.mu.Unlock()
	w.Flush()
}

// run writes until ctx ends or stdout fails. When the host has closed the
// connection and everything is written, it ends the connection.
func (w *writer) run(ctx context.Context) error {
	var buf []byte
	for {
		select {
		case <-w.wake:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		for {
			w.mu.Lock()
			buf, w.buf = w.buf, buf[:0]
			messages, bytes, last, ending := w.messages, w.bytes, w.last, w.ending
			w.messages, w.bytes = 0, 0
			w.mu.Unlock()
			if len(buf) == 0 {
				if ending != nil {
					w.conn.Close(*ending)
				}
				break
			}
			if _, err := w.out.Write(buf); err != nil {
				if ctx.Err() != nil {
					return context.Cause(ctx)
				}
				w.conn.Close(pluginsdk.CloseReason{Code: pluginsdk.ClosePeerGone, Text: "Failed to write to stdout: " + err.Error()})
				return fmt.Errorf("writing to stdout: %w", err)
			}
			if messages > 0 {
				w.conn.Written(messages, bytes)
				w.conn.Ack(last)
			}
			if cap(buf) > keptBuffer {
				buf = nil
			}
		}
	}
}

// keptBuffer is the largest buffer that is used again.
const keptBuffer = 512 << 10
