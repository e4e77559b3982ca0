// Package router holds the table of connections: it takes what the plugins'
// links bring, gives it to the application, and brings back the answers. It
// never waits for one connection.
package router

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/transporthost/transporthost/host/application"
	"github.com/transporthost/transporthost/shared/transport"
)

// Commands is what a router needs of the link to a process. The methods must
// not block.
type Commands interface {
	Send(conn transport.ConnID, seq transport.Seq, piece []byte, more bool)
	Close(conn transport.ConnID, reason transport.CloseReason)
	Credit(conn transport.ConnID, c transport.Credit)
	Accepted(conn transport.ConnID, cursor transport.Cursor)
	Checkpointed(conn transport.ConnID)
}

// Defaults of [Config].
const (
	// DefaultSlowAfter is how long a peer may take none of what waits for it.
	DefaultSlowAfter = 30 * time.Second
	// DefaultMaxConnections bounds the table, whatever a plugin's own limit is.
	DefaultMaxConnections = 1 << 16
	// DefaultOutQueueBytes and DefaultOutQueueMessages bound what waits for one
	// peer beyond the window. A shared application that floods a peer may fill
	// them; the built-in back-pressure stays far below.
	DefaultOutQueueBytes    = 4 << 20
	DefaultOutQueueMessages = 4096
)

const (
	// inQueueRequests is how many messages of one peer may wait for the
	// application before its requests are refused. It leaves a quarter of the
	// window to responses and notifications, which are never refused.
	inQueueRequests = transport.WindowMessages * 3 / 4
	// holdBytes and holdMessages of out-queue stop the flow of requests from the
	// same peer: who does not read is not read from.
	holdBytes    = 64 << 10
	holdMessages = 32
	// waitBytes of out-queue make SendWait wait: one window ahead of the peer.
	waitBytes = transport.WindowBytes
	// finishQuiet ends a finished connection whose last answers do not come: an
	// application may have left out the answers to what was cancelled.
	finishQuiet = 30 * time.Second
	// closeLimit is what a process gets to confirm the end of a connection.
	closeLimit = 10 * time.Second
	// owedLimit is the same while it has not acknowledged everything on a
	// connection that can be resumed. It is longer than a process that hangs stays
	// unnoticed: the next one delivers what this one did not.
	owedLimit = time.Minute
	// sweepEvery is how often connections that wait are looked at.
	sweepEvery = time.Second
)

// Config is what a router works with. The zero values of the numbers are the
// defaults above.
type Config struct {
	App              application.App
	Logger           hclog.Logger // nil: discard
	MaxMessageBytes  int
	MaxConnections   int
	OutQueueBytes    int
	OutQueueMessages int
	SlowAfter        time.Duration
	// Transports are the instances that there are, see [Router.SetTransports].
	Transports []string

	// ConnClosed is called when a connection has ended, with why, and the number
	// of those of the same instance that remain. It must not block. May be nil.
	ConnClosed func(instance string, reason transport.CloseReason, remaining int)
	// Accepted is called when the host has accepted a resumable connection's
	// messages up to a cursor. It must not block. May be nil.
	Accepted func(instance string, key transport.ResumeKey, cursor transport.Cursor)
	// ClientNamed is called for every well-formed initialize request, before the
	// application has it, with the name that the peer gives itself. It must not
	// block. May be nil.
	ClientNamed func(instance, name string)
}

func (c Config) withDefaults() Config {
	if c.Logger == nil {
		c.Logger = hclog.NewNullLogger()
	}
	c.MaxMessageBytes = cmp.Or(c.MaxMessageBytes, transport.DefaultMaxMessageBytes)
	c.MaxConnections = cmp.Or(c.MaxConnections, DefaultMaxConnections)
	c.OutQueueBytes = cmp.Or(c.OutQueueBytes, DefaultOutQueueBytes)
	c.OutQueueMessages = cmp.Or(c.OutQueueMessages, DefaultOutQueueMessages)
	c.SlowAfter = cmp.Or(c.SlowAfter, DefaultSlowAfter)
	return c
}

// leastJoinedBytes is what messages of several pieces that are arriving, or wait
// for their reader, may take in one plugin's name: a few of the largest. A peer
// holds at most one.
const leastJoinedBytes = 256 << 20

func (c Config) maxJoinedBytes() int { return max(leastJoinedBytes, 4*c.MaxMessageBytes) }

// A Router is the table of connections. Its methods may be called from any
// goroutine.
type Router struct {
	cfg      Config
	counters counters
	readers  crew
	inFlight atomic.Int64 // requests of peers without an answer
	reading  atomic.Int64 // rows with a reader: what is late may be requests too

	mu       sync.Mutex // guards what follows; may be taken before a row's, never after
	rows     map[uint64]*row
	detached map[string]map[transport.ConnID]*row // by instance: those that wait for the next process
	byOrigin map[string]int
	records  map[string]*record // by instance
	lastID   uint64
	shares   []string  // the instances that are kept a part of the table
	farewell *farewell // set by CloseAll: the table is closed

	turnMu sync.Mutex    // guards turn; taken after any other
	turn   chan struct{} // closed when a row goes, or inFlight or reading falls to 0; nil while nobody waits

	waitingMu sync.Mutex // guards waiting; taken after a row's
	waiting   map[*row]struct{}
}

// New makes a router. Nothing runs before [Router.Run].
func New(cfg Config) *Router {
	return &Router{
		cfg:      cfg.withDefaults(),
		shares:   slices.Clone(cfg.Transports),
		rows:     make(map[uint64]*row),
		detached: make(map[string]map[transport.ConnID]*row),
		byOrigin: make(map[string]int),
		records:  make(map[string]*record),
		waiting:  make(map[*row]struct{}),
	}
}

// SetTransports says which instances there are from now on. Each is kept an
// equal part of half of MaxConnections: a plugin that opens without end takes
// nothing from the others. Connections that there are stay.
func (r *Router) SetTransports(instances []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.shares = slices.Clone(instances)
}

// Run closes connections that wait for too long, until ctx ends. Then it waits
// until the application has taken the large messages that are there.
func (r *Router) Run(ctx context.Context) error {
	defer r.readers.end()
	tick := time.NewTicker(min(sweepEvery, max(r.cfg.SlowAfter/4, time.Millisecond)))
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			r.sweep(time.Now())
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// watch makes the sweep look at a row until it is idle again.
func (r *Router) watch(w *row) {
	r.waitingMu.Lock()
	r.waiting[w] = struct{}{}
	r.waitingMu.Unlock()
}

func (r *Router) sweep(now time.Time) {
	r.waitingMu.Lock()
	rows := make([]*row, 0, len(r.waiting))
	for w := range r.waiting {
		rows = append(rows, w)
	}
	r.waitingMu.Unlock()
	for _, w := range rows {
		switch w.check(now) {
		case nothingWaits:
			r.waitingMu.Lock()
			delete(r.waiting, w)
			r.waitingMu.Unlock()
			// It may have begun to wait again just before; then it is watched
			// again at its next message, or here.
			if !w.idle() {
				r.watch(w)
			}
		case abandoned:
			w.leave()
			w.end(transport.Because(transport.CloseInternal, "the plugin did not confirm the end of the connection"))
		}
	}
}

// Attach makes the router take what a new process of an instance sends.
func (r *Router) Attach(instance string, incarnation int, link Commands) *Attachment {
	return &Attachment{
		router: r, instance: instance, link: link, record: r.record(instance), rows: make(map[transport.ConnID]*row),
		dismissed: make(map[transport.ConnID]struct{}),
		log:       r.cfg.Logger.With("instance", instance, "incarnation", incarnation),
	}
}

// Resumable lists the connections that wait for the next process of instance.
func (r *Router) Resumable(instance string) []transport.Resume {
	r.mu.Lock()
	rows := make([]*row, 0, len(r.detached[instance]))
	for _, w := range r.detached[instance] {
		rows = append(rows, w)
	}
	r.mu.Unlock()
	out := make([]transport.Resume, 0, len(rows))
	for _, w := range rows {
		out = append(out, w.resume())
	}
	return out
}

// A farewell is what a connection is told that comes when all are closed.
type farewell struct{ reason transport.CloseReason }

func (f *farewell) Error() string { return f.reason.Text }

// add enters a new row, unless the table has no room for it, or is closed: then
// the error is the farewell.
func (r *Router) add(w *row) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.farewell != nil {
		return r.farewell
	}
	kept := 0 // for the others
	for _, other := range r.shares {
		if other != w.origin {
			kept += max(0, r.cfg.MaxConnections/(2*len(r.shares))-r.byOrigin[other])
		}
	}
	switch n := len(r.rows); {
	case n >= r.cfg.MaxConnections:
		return fmt.Errorf("the host has %d connections, its limit", r.cfg.MaxConnections)
	case n+kept >= r.cfg.MaxConnections:
		return fmt.Errorf("the transport has %d connections; what is left of the host's %d is kept for the others",
			r.byOrigin[w.origin], r.cfg.MaxConnections)
	}
	r.lastID++
	w.id = r.lastID
	r.rows[w.id] = w
	r.byOrigin[w.origin]++
	return nil
}

// remove takes a row out, for good.
func (r *Router) remove(w *row) {
	r.mu.Lock()
	if _, ok := r.rows[w.id]; !ok {
		r.mu.Unlock()
		return
	}
	delete(r.rows, w.id)
	delete(r.detached[w.origin], w.linkID)
	r.byOrigin[w.origin]--
	remaining := r.byOrigin[w.origin]
	r.mu.Unlock()
	r.signal()
	r.counters.closed.Add(1)
	if r.cfg.ConnClosed != nil {
		w.mu.Lock()
		reason := w.ending
		w.mu.Unlock()
		r.cfg.ConnClosed(w.origin, reason, remaining)
	}
}

func (r *Router) park(w *row) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.detached[w.origin] == nil {
		r.detached[w.origin] = make(map[transport.ConnID]*row)
	}
	r.detached[w.origin][w.linkID] = w
}

// unpark returns the row that waits under this id and key, if there is one.
func (r *Router) unpark(instance string, conn transport.ConnID, key transport.ResumeKey) *row {
	r.mu.Lock()
	defer r.mu.Unlock()
	w := r.detached[instance][conn]
	if w == nil || w.opened.ResumeKey != key {
		return nil
	}
	delete(r.detached[instance], conn)
	return w
}

// abandon closes what waits for a process of instance that will not come, or
// that came and did not adopt it.
func (r *Router) abandon(instance string, except []transport.ConnID, reason transport.CloseReason) {
	r.mu.Lock()
	kept := make(map[transport.ConnID]bool, len(r.detached[instance]))
	for conn := range r.detached[instance] {
		kept[conn] = false
	}
	r.mu.Unlock()
	for _, conn := range except { // as many as a plugin likes to name
		if _, waits := kept[conn]; waits {
			kept[conn] = true
		}
	}
	r.mu.Lock()
	var rows []*row
	for conn, w := range r.detached[instance] {
		if !kept[conn] {
			rows = append(rows, w)
			delete(r.detached[instance], conn)
		}
	}
	r.mu.Unlock()
	for _, w := range rows {
		w.end(reason)
	}
}

// Abandon closes the connections that wait for the next process of instance,
// because there will be none.
func (r *Router) Abandon(instance string, reason transport.CloseReason) {
	r.abandon(instance, nil, reason)
}

func (r *Router) answered(n int) {
	if r.inFlight.Add(int64(-n)) == 0 {
		r.signal()
	}
}

// hasRead is the end of a row's reader.
func (r *Router) hasRead() {
	if r.reading.Add(-1) == 0 {
		r.signal()
	}
}

// signal wakes those who await something.
func (r *Router) signal() {
	r.turnMu.Lock()
	defer r.turnMu.Unlock()
	if r.turn != nil {
		close(r.turn)
		r.turn = nil
	}
}

// await blocks until done is true, or ctx ends.
func (r *Router) await(ctx context.Context, done func() bool) error {
	for {
		r.turnMu.Lock()
		if r.turn == nil {
			r.turn = make(chan struct{})
		}
		turn := r.turn // taken before the look: what changes behind it is seen
		r.turnMu.Unlock()
		if done() {
			return nil
		}
		select {
		case <-turn:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// Drain blocks until no request of a peer is without an answer, or ctx ends.
// Large messages that have come and not got to the application yet, and what
// came behind them, count as requests.
func (r *Router) Drain(ctx context.Context) error {
	// In this order: a reader puts what it takes in flight before it is done.
	return r.await(ctx, func() bool { return r.reading.Load() == 0 && r.inFlight.Load() == 0 })
}

// CloseAll closes every connection after what is queued on it, and blocks
// until the plugins have confirmed all of them, or ctx ends. From then on every
// new one is closed at once: a plugin that was told to open none may have opened
// it before.
func (r *Router) CloseAll(ctx context.Context, reason transport.CloseReason) error {
	r.mu.Lock()
	r.farewell = &farewell{reason}
	rows := make([]*row, 0, len(r.rows))
	for _, w := range r.rows {
		rows = append(rows, w)
	}
	r.mu.Unlock()
	for _, w := range rows {
		w.Close(reason)
	}
	return r.await(ctx, func() bool { return r.Len() == 0 })
}
