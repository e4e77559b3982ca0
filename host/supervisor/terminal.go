package supervisor

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"sync"
	"time"

	"github.com/transporthost/transporthost/shared/transport"
)

// A Terminal is the user's stdin and stdout. The host keeps both, and gives
// each process of the stdio plugin a pair of pipes: what the user wrote is fed
// again to the next process from where the host had accepted it, and only
// whole frames reach the user, each once, wherever a process dies.
type Terminal struct {
	in      io.Reader
	framing transport.Framing
	limit   int // of one message
	screen  *screen
	line    int // of the goroutine that reads: bytes of the line that is arriving

	mu      sync.Mutex // guards what follows
	kept    []byte     // input that is not accepted yet
	start   int64      // offset of kept in what processes read
	ended   error      // of the input: io.EOF, or why it cannot be read
	changed chan struct{}
}

// keptSlack is what is kept of the input beyond one message of the largest
// size.
const keptSlack = 1 << 20

// NewTerminal makes one; nothing is read before Run.
func NewTerminal(in io.Reader, out io.Writer, f transport.Framing, maxMessageBytes int) *Terminal {
	return &Terminal{in: in, screen: newScreen(out), framing: f, limit: maxMessageBytes, changed: make(chan struct{})}
}

// signalLocked wakes everybody who waits for a change.
func (t *Terminal) signalLocked() {
	close(t.changed)
	t.changed = make(chan struct{})
}

// Run reads the input until its end or ctx's, and writes what processes say. It
// returns with ctx; a read or a write that cannot be interrupted (a terminal's)
// goes on until the process ends.
func (t *Terminal) Run(ctx context.Context) error {
	done := make(chan struct{})
	go func() {
		defer close(done)
		t.read(ctx)
	}()
	err := t.screen.run(ctx)
	if f, ok := t.in.(interface{ SetReadDeadline(time.Time) error }); ok && f.SetReadDeadline(time.Now()) == nil {
		<-done
	}
	return err
}

// Flush returns when the user has got everything that processes said, or ctx
// ends.
func (t *Terminal) Flush(ctx context.Context) error { return t.screen.flush(ctx) }

func (t *Terminal) read(ctx context.Context) {
	buf := make([]byte, 64<<10)
	for {
		for {
			t.mu.Lock()
			full, changed := len(t.kept) >= t.limit+keptSlack, t.changed
			t.mu.Unlock()
			if !full {
				break
			}
			select {
			case <-changed:
			case <-ctx.Done():
				return
			}
		}
		n, err := t.in.Read(buf)
		if ctx.Err() != nil {
			return
		}
		t.mu.Lock()
		t.kept = t.feed(t.kept, buf[:n])
		if err != nil {
			t.ended = err
		}
		t.signalLocked()
		t.mu.Unlock()
		if err != nil {
			return
		}
	}
}

// feed appends what a process is to read of b. Of a line over the limit that is
// enough for it to be refused, and the line's end: what is kept has a bound, and
// nothing of such a line is accepted before its end. Empty lines are no frames.
func (t *Terminal) feed(dst, b []byte) []byte {
	if t.framing != transport.NDJSON {
		return append(dst, b...)
	}
	for len(b) > 0 {
		text, rest, ended := bytes.Cut(b, []byte("\n"))
		if room := t.limit + keptSlack/2 - t.line; room > 0 {
			dst = append(dst, text[:min(len(text), room)]...)
		}
		t.line += len(text)
		if ended {
			if t.line > 0 {
				dst = append(dst, '\n')
			}
			t.line = 0
		}
		b = rest
	}
	return dst
}

// Accepted says that the host has the messages up to cursor, the offset in the
// input that the plugin told.
func (t *Terminal) Accepted(cursor transport.Cursor) {
	offset, err := strconv.ParseInt(string(cursor), 10, 64)
	if err != nil {
		return // another plugin's cursor; nothing is forgotten
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	n := offset - t.start
	if n <= 0 || n > int64(len(t.kept)) {
		return
	}
	// What lies before is freed when the slice grows out of its array.
	if t.kept = t.kept[n:]; len(t.kept) == 0 {
		t.kept = nil
	}
	t.start = offset
	t.signalLocked()
}

// A terminalPipes is the terminal of one process.
type terminalPipes struct {
	t             *Terminal
	stdin, stdout *os.File // the process's ends, until it has them
	feed          *os.File // our end of its stdin
	drain         *os.File // our end of its stdout
	pumps         sync.WaitGroup
	cancel        context.CancelFunc
	dead          chan struct{} // closed when the process is gone: then its last words wait for nobody
	once          sync.Once
	frames        int // of pumpOut: whole ones that were passed on
}

// pipes makes the pipes of a process. Nothing flows before start: the process
// before this one may still be there.
func (t *Terminal) pipes() (*terminalPipes, error) {
	p := &terminalPipes{t: t, dead: make(chan struct{}), cancel: func() {}}
	var err error
	if p.stdin, p.feed, err = os.Pipe(); err != nil {
		return nil, fmt.Errorf("making the pipes of the terminal: %w", err)
	}
	if p.drain, p.stdout, err = os.Pipe(); err != nil {
		closeAll([]*os.File{p.stdin, p.feed})
		return nil, fmt.Errorf("making the pipes of the terminal: %w", err)
	}
	return p, nil
}

// start connects the process to the terminal, until disconnect. The input begins
// with what is not accepted.
func (p *terminalPipes) start(ctx context.Context) {
	ctx, p.cancel = context.WithCancel(context.WithoutCancel(ctx))
	p.pumps.Go(func() { p.pumpIn(ctx) })
	p.pumps.Go(p.pumpOut)
}

// given closes the process's ends here, once it has them.
func (p *terminalPipes) given() { closeAll([]*os.File{p.stdin, p.stdout}) }

// disconnect ends the pumps, once the process is gone. What it wrote before its
// death still reaches the user, as far as it is whole. It returns how many
// frames of the process were passed on; it may be called twice.
func (p *terminalPipes) disconnect() (frames int) {
	p.once.Do(func() {
		p.given()
		p.cancel()
		close(p.dead)
		_ = p.feed.SetWriteDeadline(time.Now())
		// A grandchild may hold the write end: the rest is not waited for.
		_ = p.drain.SetReadDeadline(time.Now().Add(outputGrace))
		p.pumps.Wait()
		closeAll([]*os.File{p.feed, p.drain})
	})
	return p.frames
}

func (p *terminalPipes) pumpIn(ctx context.Context) {
	t := p.t
	t.mu.Lock()
	offset := t.start
	t.mu.Unlock()
	var buf []byte
	for {
		t.mu.Lock()
		// What is accepted was written here, or to a process before this one.
		offset = max(offset, t.start)
		fresh := t.kept[offset-t.start:]
		ended, changed := t.ended, t.changed
		buf = append(buf[:0], fresh[:min(len(fresh), 64<<10)]...)
		t.mu.Unlock()
		switch {
		case len(buf) > 0:
			n, err := p.feed.Write(buf)
			offset += int64(n)
			if err != nil {
				return // the process is gone; the next one gets it
			}
		case ended != nil:
			_ = p.feed.Close() // the process sees the end of its input
			return
		default:
			select {
			case <-changed:
			case <-ctx.Done():
				return
			}
		}
	}
}

func (p *terminalPipes) pumpOut() {
	// A process whose output is not wanted any more gets an error for it, and ends:
	// blocked in a write it would answer probes, and the terminal stay silent.
	defer p.drain.Close()
	if p.t.framing == transport.ContentLength {
		p.pumpFrames()
		return
	}
	var rest []byte // of a line that is not complete
	buf := make([]byte, 64<<10)
	for {
		n, err := p.drain.Read(buf)
		whole := bytes.LastIndexByte(buf[:n], '\n') + 1
		if whole > 0 {
			p.write(append(rest, buf[:whole]...), bytes.Count(buf[:whole], []byte("\n")))
			rest = nil
		}
		if rest = append(rest, buf[whole:n]...); len(rest) > p.t.limit+keptSlack {
			return // the host sends no such message: the plugin is defective
		}
		if err != nil {
			return
		}
	}
}

func (p *terminalPipes) pumpFrames() {
	r := transport.NewFrameReader(p.drain, transport.ContentLength, p.t.limit+keptSlack)
	var frame []byte
	for {
		payload, err := r.Next()
		if _, tooLarge := errors.AsType[*transport.OversizeError](err); tooLarge {
			continue // the host sends none; a defective plugin's is not passed on
		}
		if err != nil {
			return
		}
		frame = transport.AppendFrame(frame[:0], payload, transport.ContentLength)
		p.write(frame, 1)
	}
}

// write waits for the user while the process lives.
func (p *terminalPipes) write(b []byte, frames int) {
	p.t.screen.put(b, p.dead)
	p.frames += frames
}
