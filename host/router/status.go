package router

import (
	"slices"
	"sync/atomic"
	"time"

	"github.com/transporthost/transporthost/shared/transport"
)

type counters struct {
	opened, closed, refused   atomic.Int64
	received, sent            atomic.Int64
	overloaded, invalid, slow atomic.Int64
	dropped, violations       atomic.Int64
}

// Counters are totals since the router was made.
type Counters struct {
	Opened     int64 `json:"opened"`     // connections
	Closed     int64 `json:"closed"`     // of them
	Refused    int64 `json:"refused"`    // connections over the host's limit
	Received   int64 `json:"received"`   // messages of peers
	Sent       int64 `json:"sent"`       // messages to peers
	Overloaded int64 `json:"overloaded"` // requests answered with -32001
	Invalid    int64 `json:"invalid"`    // messages answered with -32700 or -32600
	Slow       int64 `json:"slow"`       // connections closed because their peer did not read
	Dropped    int64 `json:"dropped"`    // messages whose connection closed before they left, or before the application had them
	Violations int64 `json:"violations"` // breaches of the link's rules by plugins
	InFlight   int64 `json:"in_flight"`  // requests without an answer, now
}

// Counters returns the totals.
func (r *Router) Counters() Counters {
	c := &r.counters
	return Counters{
		Opened: c.opened.Load(), Closed: c.closed.Load(), Refused: c.refused.Load(),
		Received: c.received.Load(), Sent: c.sent.Load(), Overloaded: c.overloaded.Load(), Invalid: c.invalid.Load(),
		Slow: c.slow.Load(), Dropped: c.dropped.Load(), Violations: c.violations.Load(), InFlight: r.inFlight.Load(),
	}
}

// ConnInfo is one connection, for status.
type ConnInfo struct {
	ID         uint64         `json:"id"`
	Transport  string         `json:"transport"` // the instance
	Peer       transport.Peer `json:"peer"`
	Since      time.Time      `json:"since"`
	State      string         `json:"state"` // "open", "closing", "waiting for the plugin"
	Received   uint64         `json:"received"`
	Sent       uint64         `json:"sent"`
	InFlight   int            `json:"in_flight"`
	QueueBytes int            `json:"queue_bytes"` // for the peer
}

// Len returns the number of connections.
func (r *Router) Len() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.rows)
}

// Connections lists the connections, oldest first.
func (r *Router) Connections() []ConnInfo {
	r.mu.Lock()
	rows := make([]*row, 0, len(r.rows))
	for _, w := range r.rows {
		rows = append(rows, w)
	}
	r.mu.Unlock()
	out := make([]ConnInfo, 0, len(rows))
	for _, w := range rows {
		out = append(out, w.info())
	}
	slices.SortFunc(out, func(a, b ConnInfo) int { return int(a.ID) - int(b.ID) })
	return out
}

func (w *row) info() ConnInfo {
	w.mu.Lock()
	defer w.mu.Unlock()
	i := ConnInfo{
		ID: w.id, Transport: w.origin, Peer: w.opened.Peer, Since: w.since, State: "open",
		Received: w.messages, Sent: uint64(w.out.last), InFlight: w.inFlight, QueueBytes: w.out.bytes,
	}
	i.Peer.ClientName = w.clientName
	switch {
	case w.state != open:
		i.State = "closing"
	case w.link == nil:
		i.State = "waiting for the plugin"
	}
	return i
}
