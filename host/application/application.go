// Package application drives the application behind the host: a child process
// per connection, one shared child, a Go handler, or the built-in echo.
package application

import (
	"context"

	"github.com/transporthost/transporthost/shared/transport"
)

// An App takes the connections that the router opens.
type App interface {
	// Run runs the application until ctx ends, and returns when nothing that it
	// started remains. It is called once. Open may be called before Run is.
	Run(ctx context.Context) error

	// Open tells the application of a new connection. It must not block: what
	// takes long (starting a child) happens behind the returned Session, which
	// queues meanwhile.
	Open(c Conn) Session

	// Status is the application's line in `transporthost status`.
	Status() Status
}

// A Session is the application's half of one connection. Its methods are called
// one at a time, from the receive loop of the connection's plugin, and must not
// block.
type Session interface {
	// Deliver takes one message. p and the slices of m are on loan until it
	// returns. When the application has taken the message, the session calls
	// [Conn.Consumed]; until then the message counts against the peer's window.
	Deliver(p []byte, m transport.Message)

	// Closed says that the connection has ended; no other call follows, and
	// what is sent on it goes nowhere.
	Closed(reason transport.CloseReason)
}

// A Conn is the router's half of one connection, as sessions see it. All
// methods may be called from any goroutine, also after the connection ended;
// only SendWait blocks.
type Conn interface {
	// ID is unique in this host while it runs.
	ID() uint64

	// Origin is the name of the transport instance: "websocket", "phone".
	Origin() string

	// Peer is what the transport told of the peer when it opened.
	Peer() transport.Peer

	// Send queues one message for the peer; p is copied. It returns
	// [transport.ErrConnClosed] if the connection has ended, or ends now
	// because its out-queue is full and the peer is slow. A lossless connection
	// (stdio) never ends that way: Send returns [transport.ErrOverloaded],
	// having queued nothing, and the caller uses SendWait.
	Send(p []byte) error

	// SendWait is Send for callers that may wait for room: it returns once p is
	// queued, with ErrConnClosed if the connection ends first, or with the
	// cause of ctx.
	SendWait(ctx context.Context, p []byte) error

	// Forgotten takes n requests of the peer out of those in flight without an
	// answer: the peer has cancelled them, and they may never get one. A negative
	// n puts them back, right before an answer that comes after all is sent.
	Forgotten(n int)

	// Consumed says that so many delivered messages, of so many bytes together,
	// have been taken by the application: the peer may send as much again.
	Consumed(messages, bytes int)

	// Close ends the connection after what was queued on it has left.
	Close(reason transport.CloseReason)
}

// A Status is what is known of the application.
type Status struct {
	Driver   string `json:"driver"`            // "per-connection", "shared", "echo", "handler", "dial"
	Command  string `json:"command,omitempty"` // the program's name, without its arguments
	Ready    bool   `json:"ready"`
	Children int    `json:"children"`        // processes that run now
	InFlight int    `json:"in_flight"`       // requests of peers without an answer yet
	Restarts int    `json:"restarts"`        // of a shared child
	Late     int    `json:"late_answers"`    // of peers of a shared child, to what another had answered or nobody asks any more
	Dropped  int    `json:"dropped_answers"` // of a shared child, to what no peer asks
	LeftOut  int    `json:"left_out"`        // messages that a lossless peer did not take in time, or an application did not read
	Cause    string `json:"cause,omitempty"` // of the last failure, one line
}
