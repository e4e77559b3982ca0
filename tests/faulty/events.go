package main

import (
	"fmt"
	"strings"
	"sync"

	"github.com/transporthost/transporthost/shared/transport"
)

// request is a message that an application answers.
const request = `{"jsonrpc":"2.0","id":1,"method":"m"}`

// inItsEvents are defects in what the plugin tells of its connections.
func inItsEvents() map[string]func() int {
	serving := func(serve func(r *raw)) func() int {
		return func() int { return (&raw{serve: serve}).main() }
	}
	gone := transport.CloseReason{Code: transport.ClosePeerGone, Text: "\x1b[2Jgone"}
	return map[string]func() int{
		"floods-events": serving(func(r *raw) {
			r.server.Opened(1, transport.Opened{})
			for i := 0; r.server.WaitRoom(background()) == nil; i++ {
				r.server.Credit(1, transport.Credit{})
				r.server.Acked(1, transport.Seq(i))
				r.server.Acked(transport.ConnID(i), 1)
			}
		}),
		"opens-and-closes": serving(func(r *raw) {
			for i := transport.ConnID(1); r.server.WaitRoom(background()) == nil; i++ {
				r.server.Opened(i, transport.Opened{})
				r.server.Closed(i, gone)
			}
		}),
		"sends-unknown-connections": serving(func(r *raw) {
			for i := transport.ConnID(1); i <= 100_000 && r.server.WaitRoom(background()) == nil; i++ {
				r.server.Received(i, []byte(request), "", false)
				r.server.Credit(i, transport.Credit{Bytes: 1, Messages: 1})
				r.server.Acked(i, 1)
				r.server.Checkpoint(i, []byte("x"))
				r.server.Finished(i)
				r.server.Rejected(i, transport.Rejection{Text: "no"})
				r.server.Closed(i, gone)
			}
		}),
		"opens-100000-connections": serving(func(r *raw) {
			for i := transport.ConnID(1); i <= 100_000 && r.server.WaitRoom(background()) == nil; i++ {
				r.server.Opened(i, transport.Opened{Peer: transport.Peer{
					RemoteAddr: "\x1b[2J", UserAgent: strings.Repeat("x", 4<<10), ClientName: strings.Repeat("y", 4<<10),
				}})
			}
		}),
		// It is asked to close what is too large for its host, and does not.
		"never-confirms-a-close": func() int {
			p := &pusher{deaf: true}
			return (&raw{told: p.told, serve: func(r *raw) {
				for i := transport.ConnID(1); i <= 20; i++ {
					p.push(r, i, r.params.MaxMessageBytes+1)
				}
			}}).main()
		},
		"violates-credit": serving(func(r *raw) {
			r.server.Opened(1, transport.Opened{})
			for r.server.WaitRoom(background()) == nil {
				r.server.Received(1, make([]byte, transport.PieceBytes), "", true)
				r.server.Received(1, []byte(request), "", false)
			}
		}),
		"returns-credit-that-it-has-not": serving(func(r *raw) {
			r.server.Opened(1, transport.Opened{})
			r.server.Credit(1, transport.Credit{Bytes: 1 << 30, Messages: 1 << 20})
		}),
		"opens-twice": serving(func(r *raw) {
			r.server.Opened(1, transport.Opened{})
			r.server.Opened(1, transport.Opened{})
		}),
		"closes-twice": serving(func(r *raw) {
			r.server.Opened(1, transport.Opened{})
			for range 3 {
				r.server.Closed(1, gone)
			}
		}),
		"resumes-what-is-not-its-own": serving(func(r *raw) {
			for i, key := range []transport.ResumeKey{"stdio", "terminal", "stdin", "0", "1"} {
				r.server.Opened(transport.ConnID(i+1), transport.Opened{ResumeKey: key, Lossless: true})
				r.server.Received(transport.ConnID(i+1), []byte(request), "999999", false)
				r.server.Acked(transport.ConnID(i+1), 1<<40)
			}
			r.server.ReportStatus(transport.Status{State: "done", Ready: true})
		}),
		"sends-too-large-messages": func() int {
			p := &pusher{}
			return (&raw{told: p.told, serve: func(r *raw) { p.push(r, 1, r.params.MaxMessageBytes+1) }}).main()
		},
		"sends-pieces-without-end": func() int {
			p := &pusher{}
			return (&raw{told: p.told, serve: func(r *raw) {
				for i := transport.ConnID(1); ; i++ {
					p.push(r, i, 1<<40)
				}
			}}).main()
		},
		"sends-empty-pieces": serving(func(r *raw) {
			r.server.Opened(1, transport.Opened{})
			for r.server.WaitRoom(background()) == nil {
				r.server.Received(1, nil, "", true)
			}
		}),
		"has-long-keys": serving(func(r *raw) {
			r.server.Opened(1, transport.Opened{ResumeKey: transport.ResumeKey(strings.Repeat("k", 1<<20))})
		}),
		"has-long-checkpoints": serving(func(r *raw) {
			r.server.Opened(1, transport.Opened{})
			r.server.Checkpoint(1, make([]byte, 1<<20))
		}),
		"has-long-cursors": serving(func(r *raw) {
			r.server.Opened(1, transport.Opened{ResumeKey: "k"})
			r.server.Received(1, []byte(request), transport.Cursor(strings.Repeat("c", 1<<20)), false)
		}),
		"tells-no-json": serving(func(r *raw) {
			r.server.Opened(1, transport.Opened{})
			for i := range 100 {
				r.server.Received(1, fmt.Appendf(nil, "\x00\xff{%d", i), "", false)
			}
		}),
	}
}

// A pusher sends pieces of one message, as many as it has credit for, on one
// connection after the other.
type pusher struct {
	deaf bool // to what the host wants closed

	mu     sync.Mutex // guards what follows
	conn   transport.ConnID
	window transport.SendWindow
	closed bool
	wake   chan struct{}
}

// push sends a message of n bytes on conn, until it is out or closed.
func (p *pusher) push(r *raw, conn transport.ConnID, n int) {
	p.mu.Lock()
	p.conn, p.window, p.closed, p.wake = conn, transport.SendWindow{}, false, make(chan struct{}, 1)
	wake := p.wake
	p.mu.Unlock()
	r.server.Opened(conn, transport.Opened{})
	piece := make([]byte, transport.PieceBytes)
	for first := true; n > 0; {
		size := min(n, len(piece))
		p.mu.Lock()
		closed, fits := p.closed, p.window.Fits(size, first, true)
		if fits {
			p.window.Take(size, n == size, true)
		}
		p.mu.Unlock()
		switch {
		case closed:
			return
		case fits:
			r.server.Received(conn, piece[:size], "", n > size)
			n, first = n-size, false
		default:
			<-wake
		}
	}
}

// told takes credit, and confirms a close.
func (p *pusher) told(r *raw, c command) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch c.kind {
	case "credit":
		if c.conn == p.conn {
			_ = p.window.Return(c.credit)
		}
	case "close":
		if !p.deaf {
			r.server.Closed(c.conn, transport.CloseReason{Code: transport.CloseNormal})
		}
		if c.conn == p.conn {
			p.closed = true
		}
	default:
		return
	}
	if p.wake != nil {
		select {
		case p.wake <- struct{}{}:
		default:
		}
	}
}
