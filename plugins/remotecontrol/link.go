package remotecontrol

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/gorilla/websocket"
	"golang.org/x/sync/errgroup"

	pluginsdk "github.com/transporthost/transporthost/plugin-sdk"
)

const (
	pingInterval  = 10 * time.Second
	pongTimeout   = 60 * time.Second // reset by Pong frames only
	sweepInterval = 30 * time.Second
	closeWait     = 250 * time.Millisecond // for the goodbye of a link, in all

	// segmentRest keeps large messages below 100 MB/s, which is more than most
	// wires take.
	segmentRest = time.Millisecond

	// maxFrame is the largest message and what stands around it. A larger frame
	// is skipped as it comes.
	maxFrame  = 64<<20 + 64<<10
	keptFrame = 1 << 20 // a larger buffer is not kept for the next frame
)

// Why a link ends (spec 4.7).
var (
	errPongTimeout = errors.New("remote control websocket pong timeout")
	errStreamEnded = errors.New("websocket stream ended")
)

// A disconnectedError is the relay's close frame.
type disconnectedError struct {
	code int
	text string
}

func (e *disconnectedError) Error() string {
	switch {
	case e.code == websocket.CloseNoStatusReceived:
		return "websocket disconnected"
	case e.text == "":
		return fmt.Sprintf("websocket disconnected: close code %d", e.code)
	}
	return fmt.Sprintf("websocket disconnected: close code %d, %q", e.code, e.text)
}

// A link is one WebSocket to the relay.
type link struct {
	clients *clients
	ws      *websocket.Conn
	frame   bytes.Buffer  // of the reader
	pings   chan []byte   // one slot: the last ping of the relay
	ended   chan struct{} // closed when the reader has ended
}

// serve runs one relay link until it or ctx ends, and returns why. It owns ws.
// What is unacknowledged goes out first, stream by stream. When it returns,
// the goroutines of the link have ended; those of the virtual clients go on.
//
// The cause of ctx decides which close frame the relay gets.
func (c *clients) serve(ctx context.Context, ws *websocket.Conn) error {
	l := &link{clients: c, ws: ws, pings: make(chan []byte, 1), ended: make(chan struct{})}
	l.setHandlers()
	c.sweep(time.Now()) // first, so that nothing goes out for those who are gone
	c.linkUp()
	defer c.linkDown()
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		defer close(l.ended)
		return fmt.Errorf("remote control websocket reader disconnected, err: %w", l.read())
	})
	g.Go(func() error {
		if err := l.write(gctx); err != nil {
			return fmt.Errorf("remote control websocket writer disconnected, err: %w", err)
		}
		return nil
	})
	g.Go(func() error { return l.keepAlive(gctx) })
	g.Go(func() error {
		<-gctx.Done()
		if ctx.Err() != nil {
			l.goodbye(context.Cause(ctx))
		}
		return ws.Close()
	})
	err := g.Wait()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// linkUp makes everything that is unacknowledged go out again.
func (c *clients) linkUp() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.linked = true
	for s := range c.eachLocked() {
		s.out.rewind()
		c.offerLocked(s)
	}
}

func (c *clients) linkDown() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.linked, c.unlinked = false, time.Now()
	c.ring.clear()
	c.segments.clear()
}

// setHandlers takes the answers to control frames from the reader, which waits
// for nobody, and starts the pong deadline.
func (l *link) setHandlers() {
	alive := func(string) error { return l.ws.SetReadDeadline(time.Now().Add(pongTimeout)) }
	l.ws.SetPongHandler(alive)
	_ = alive("")
	l.ws.SetPingHandler(func(data string) error {
		select {
		case <-l.pings: // only the last one needs an answer (RFC 6455, 5.5.3)
		default:
		}
		l.pings <- []byte(data)
		return nil
	})
	l.ws.SetCloseHandler(func(code int, _ string) error {
		var data []byte
		if code != websocket.CloseNoStatusReceived {
			data = websocket.FormatCloseMessage(code, "")
		}
		_ = l.ws.WriteControl(websocket.CloseMessage, data, time.Now().Add(closeWait))
		return nil
	})
}

// read takes frames until the link ends. The error is never nil.
func (l *link) read() error {
	for {
		kind, r, err := l.ws.NextReader()
		if err != nil {
			return readError(err)
		}
		if kind != websocket.TextMessage {
			l.clients.complain(&l.clients.tally.binary, "dropping unsupported binary remote-control websocket message")
			continue // the next NextReader skips it
		}
		if l.frame.Reset(); l.frame.Cap() > keptFrame {
			l.frame = bytes.Buffer{}
		}
		n, err := l.frame.ReadFrom(io.LimitReader(r, pluginsdk.LargeBytes+1))
		if err == nil && n > pluginsdk.LargeBytes {
			if err = l.readLarge(l.frame.Bytes(), r); err == nil {
				continue
			}
		}
		if err != nil {
			return readError(err)
		}
		l.clients.receive(l.frame.Bytes())
	}
}

// readError says what the end of the socket means.
func readError(err error) error {
	if ce, ok := errors.AsType[*websocket.CloseError](err); ok {
		if ce.Code == websocket.CloseAbnormalClosure {
			return errStreamEnded
		}
		return &disconnectedError{ce.Code, ce.Text}
	}
	if ne, ok := errors.AsType[net.Error](err); ok && ne.Timeout() {
		return errPongTimeout
	}
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return errStreamEnded
	}
	return fmt.Errorf("failed to read from websocket: %w", err)
}

// write sends envelopes until ctx ends, which is no error, or the socket fails.
//
// Behind a segment it rests, but for what travels whole: a large message takes a
// part of a processor and of the wire, and what others have to send is not
// behind more than one segment.
func (l *link) write(ctx context.Context) error {
	var frame []byte
	var err error
	rest := time.NewTimer(0)
	defer rest.Stop()
	var until time.Time
	for ctx.Err() == nil {
		resting := time.Now().Before(until)
		s, e, ok := l.clients.takeEnvelope(!resting)
		if !ok {
			var rested <-chan time.Time
			if resting {
				rest.Reset(time.Until(until))
				rested = rest.C
			}
			select {
			case <-l.clients.wake:
			case <-rested:
			case <-ctx.Done():
			}
			continue
		}
		if e.whole() && e.payload.size > pluginsdk.LargeBytes {
			err = l.writeLarge(&e)
		} else {
			frame = e.append(frame[:0])
			err = l.ws.WriteMessage(websocket.TextMessage, frame)
		}
		if err != nil {
			return err
		}
		if hurry := l.clients.wrote(s, &e); !hurry && !e.whole() {
			until = time.Now().Add(segmentRest)
		}
		if cap(frame) > keptFrame {
			frame = nil
		}
	}
	return nil
}

// writeLarge writes the frame of a large message that is not cut. It occupies
// the wire, and all that can be done is to leave the processor to others.
func (l *link) writeLarge(e *envelope) error {
	w, err := l.ws.NextWriter(websocket.TextMessage)
	if err != nil {
		return err
	}
	if _, err := io.WriteString(w, messageHead); err != nil {
		return err
	}
	var pace pluginsdk.Pace
	for _, p := range e.payload.pieces {
		for len(p) > 0 {
			step := p[:min(len(p), pluginsdk.StepBytes)]
			p = p[len(step):]
			if _, err := w.Write(step); err != nil {
				return err
			}
			pace.Step()
		}
	}
	if _, err := w.Write(appendTail(nil, e.tail, e.seq)); err != nil {
		return err
	}
	return w.Close()
}

// keepAlive pings the relay, answers its pings, and sweeps idle virtual
// clients.
func (l *link) keepAlive(ctx context.Context) error {
	ping, sweep := time.NewTicker(pingInterval), time.NewTicker(sweepInterval)
	defer ping.Stop()
	defer sweep.Stop()
	for {
		var err error
		select {
		case <-ctx.Done():
			return nil
		case <-ping.C:
			err = l.control(websocket.PingMessage, nil)
		case data := <-l.pings:
			err = l.control(websocket.PongMessage, data)
		case now := <-sweep.C:
			l.clients.sweep(now)
		}
		if err != nil {
			return fmt.Errorf("remote control websocket writer disconnected, err: %w", err)
		}
	}
}

// control writes a control frame between two data frames. A relay that takes
// nothing for so long gets no ping: the pong deadline judges it.
func (l *link) control(kind int, data []byte) error {
	err := l.ws.WriteControl(kind, data, time.Now().Add(pingInterval))
	if ne, ok := errors.AsType[net.Error](err); ok && ne.Timeout() {
		return nil
	}
	return err
}

// goodbye sends a close frame and waits for the relay's, both for closeWait at
// most.
func (l *link) goodbye(cause error) {
	code := websocket.CloseGoingAway
	if errors.Is(cause, errDisabled) || errors.Is(cause, errAccountChanged) {
		code = websocket.CloseNormalClosure
	}
	deadline := time.NewTimer(closeWait)
	defer deadline.Stop()
	if l.ws.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(code, ""), time.Now().Add(closeWait)) != nil {
		return
	}
	select {
	case <-l.ended:
	case <-deadline.C:
	}
}
