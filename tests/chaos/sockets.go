//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"syscall"
	"time"

	"github.com/transporthost/transporthost/tests/load"
)

const (
	// visitInterval is how often somebody new comes.
	visitInterval = 250 * time.Millisecond
	// redialPause is between two attempts of a peer whose upgrade broke.
	redialPause = 20 * time.Millisecond
)

// A socketPeer is a peer over WebSocket. When its socket breaks, as it may if
// somebody touches the transport, it comes back at once.
type socketPeer struct {
	name   string
	url    string
	seed   uint64
	record *record
	census *census

	mu      sync.Mutex // guards what follows
	talk    *conversation
	socket  *load.Socket // nil while it is away
	leaving bool         // it has closed its socket itself
}

// run comes and stays until ctx ends.
func (p *socketPeer) run(ctx context.Context) {
	for n := 1; ctx.Err() == nil; n++ {
		id := p.census.begin()
		socket, ok := p.connect(ctx)
		if !ok {
			p.census.end(id)
			return
		}
		born := time.Now()
		talk := newConversation(fmt.Sprintf("%s.%d", p.name, n), websocket, p.record, p.seed+uint64(n))
		err := p.stay(ctx, id, socket, talk)
		p.census.end(id)
		p.mu.Lock()
		left := p.leaving
		p.socket, p.talk, p.leaving = nil, nil, false
		p.mu.Unlock()
		talk.end()
		_ = socket.Close() // broken, or not needed any more
		if ctx.Err() == nil && !left {
			p.broke(talk, born, err)
		}
	}
}

// replacedReason is what the host says to peers of a process that it has
// replaced, when the time is over that they get.
const replacedReason = "the transport was replaced; connect again"

// broke judges the end of a socket that was opened at born.
func (p *socketPeer) broke(talk *conversation, born time.Time, err error) {
	if closed, ok := errors.AsType[*load.ClosedError](err); ok && closed.Reason == replacedReason && p.record.retired(born) {
		p.record.count(func(n *counts) { n.retired++ })
		p.record.event("%s: its process has retired", talk.name)
		return
	}
	if !p.record.exposure.touched(websocket, time.Now().Add(-breakGrace)) {
		talk.fail("the socket broke, although nobody touched the transport: %v", err)
		return
	}
	p.record.count(func(n *counts) { n.broken++ })
	p.record.event("%s: the socket broke: %v", talk.name, err)
}

// breakGrace is how far the reader of a socket may be behind the break.
const breakGrace = 500 * time.Millisecond

// connect dials until there is a socket. It must never be refused; an upgrade
// may break if the transport is touched meanwhile.
func (p *socketPeer) connect(ctx context.Context) (socket *load.Socket, ok bool) {
	for ctx.Err() == nil {
		began := time.Now()
		socket, err := load.Dial(ctx, p.url, nil, 16<<10)
		switch {
		case err == nil:
			p.record.count(func(n *counts) { n.connects++ })
			p.record.answered(connecting, websocket, began)
			return socket, true
		case ctx.Err() != nil:
			return nil, false
		case errors.Is(err, syscall.ECONNREFUSED):
			p.record.fail("%s: a connect is refused: %v", p.name, err)
			return nil, false
		case !p.record.exposure.touched(websocket, began):
			p.record.fail("%s: an upgrade failed, although nobody touched the transport: %v", p.name, err)
			return nil, false
		}
		p.record.count(func(n *counts) { n.retried++ })
		if !pause(ctx, redialPause) {
			return nil, false
		}
	}
	return nil, false
}

// connecting is the row of how long it takes to connect over WebSocket.
const connecting row = "websocket connect"

// stay talks until the socket breaks or ctx ends.
func (p *socketPeer) stay(ctx context.Context, id int, socket *load.Socket, talk *conversation) error {
	unblock := context.AfterFunc(ctx, func() { _ = socket.Close() })
	defer unblock()
	if err := socket.Write(load.AppendFrame(nil, []byte(initializeRequest(p.name)))); err != nil {
		return fmt.Errorf("initializing: %w", err)
	}
	for begun := false; ; {
		message, err := socket.Next()
		if err != nil {
			return err
		}
		if begun {
			talk.take(message)
			continue
		}
		if !isInitialized(message) {
			continue
		}
		begun = true
		p.census.served(id)
		p.mu.Lock()
		err = socket.Write(load.AppendFrame(nil, []byte(initializedNotification)))
		p.socket, p.talk = socket, talk
		p.mu.Unlock()
		if err != nil {
			return err
		}
	}
}

// say sends a statement, if the peer is there.
func (p *socketPeer) say(due time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.socket == nil {
		return
	}
	// A failed write shows in the reader as well.
	_ = p.socket.Write(load.AppendFrame(nil, p.talk.next(due)))
}

// renew lets the peer leave and come again.
func (p *socketPeer) renew() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.socket != nil {
		p.leaving = true
		_ = p.socket.Close() // which its reader sees
		p.socket = nil
	}
}

// there reports whether the peer is connected.
func (p *socketPeer) there() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.socket != nil
}

// visit comes, asks once, and goes, again and again until ctx ends.
func (p *socketPeer) visit(ctx context.Context, g *gate) {
	for n := 1; pause(ctx, visitInterval); n++ {
		if g.pass(ctx); ctx.Err() != nil {
			return
		}
		id := p.census.begin()
		socket, ok := p.connect(ctx)
		if !ok {
			p.census.end(id)
			return
		}
		born := time.Now()
		talk := newConversation(fmt.Sprintf("%s.%d", p.name, n), websocket, p.record, p.seed+uint64(n))
		err := p.askOnce(ctx, id, socket, talk)
		p.census.end(id)
		talk.end()
		_ = socket.Close() // broken, or done
		if err != nil && ctx.Err() == nil {
			p.broke(talk, born, err)
		}
	}
}

func (p *socketPeer) askOnce(ctx context.Context, id int, socket *load.Socket, talk *conversation) error {
	unblock := context.AfterFunc(ctx, func() { _ = socket.Close() })
	defer unblock()
	if err := socket.Write(load.AppendFrame(nil, talk.make(time.Now(), smallBytes, false))); err != nil {
		return fmt.Errorf("asking: %w", err)
	}
	for {
		message, err := socket.Next()
		if err != nil {
			return fmt.Errorf("waiting for the answer: %w", err)
		}
		if talk.take(message) {
			p.census.served(id)
			return nil
		}
	}
}
