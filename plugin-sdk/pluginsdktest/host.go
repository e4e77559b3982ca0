// Package pluginsdktest runs a transport in the test's own process, behind a
// real link, against a host that the test scripts.
package pluginsdktest

import (
	"context"
	"net"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	pluginsdk "github.com/transporthost/transporthost/plugin-sdk"
	"github.com/transporthost/transporthost/shared/rpc"
	"github.com/transporthost/transporthost/shared/transport"
)

// Timeout bounds every wait of a [Host]: long, because it only passes when the
// test fails.
const Timeout = 20 * time.Second

// An Event is one thing that the transport told the host.
type Event struct {
	Conn    transport.ConnID
	Opened  *transport.Opened
	Message []byte // a whole one, if not nil
	Cursor  transport.Cursor
	Acked   transport.Seq
	Check   []byte
	Finish  bool
	Closed  *transport.CloseReason

	Credit   *transport.Credit    // what has left for the peer
	Rejected *transport.Rejection // what the peer sent is no message
}

// A Host is the scripted host. Its methods fail the test when something does
// not come in time, and must be called from the test's goroutine.
type Host struct {
	t      testing.TB
	link   *rpc.Link
	result transport.StartResult

	wake chan struct{} // one slot

	mu       sync.Mutex                   // guards what follows
	events   map[transport.ConnID][]Event // 0: connections that opened
	statuses []transport.Status
	state    map[string][]byte
	joined   map[transport.ConnID][]byte
	answers  Answers
	windows  map[transport.ConnID]*windows
	stalled  bool // messages are not consumed
}

// windows are the accounts of one connection, and what waits for room in them.
type windows struct {
	toPeer   transport.SendWindow
	fromPeer transport.ReceiveWindow
	queue    []queued
	seq      transport.Seq
}

type queued struct {
	seq   transport.Seq
	rest  []byte
	size  int
	first bool
	large bool
	close *transport.CloseReason
}

// Serve runs tr behind a link without starting it. Everything ends with the
// test.
func Serve(t testing.TB, tr pluginsdk.Transport) *Host {
	t.Helper()
	h := &Host{
		t: t, wake: make(chan struct{}, 1), state: make(map[string][]byte), events: make(map[transport.ConnID][]Event),
		joined: make(map[transport.ConnID][]byte), windows: make(map[transport.ConnID]*windows),
	}
	log := hclog.New(&hclog.LoggerOptions{Name: "plugin", Level: hclog.Debug, Output: testWriter{t}})
	socket := filepath.Join(t.TempDir(), "link")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatalf("listening for the link: %v", err)
	}
	inProcess := pluginsdk.NewInProcess(tr, log)
	served := make(chan error, 1)
	go func() { served <- inProcess.Serve(l) }()

	conn, err := grpc.NewClient("unix:"+socket, append(rpc.DialOptions(), grpc.WithTransportCredentials(insecure.NewCredentials()))...)
	if err != nil {
		t.Fatalf("dialling the link: %v", err)
	}
	h.link = rpc.NewLink(conn)
	ctx, cancel := context.WithCancel(context.Background())
	ran := make(chan error, 1)
	go func() { ran <- h.link.Run(ctx, h, h) }()
	t.Cleanup(func() {
		cancel()
		<-ran
		_ = conn.Close()
		inProcess.Close()
		<-served
	})
	return h
}

// Start runs tr with p and waits until it is ready.
func Start(t testing.TB, tr pluginsdk.Transport, p transport.StartParams) *Host {
	t.Helper()
	h := Serve(t, tr)
	if err := h.TryStart(p); err != nil {
		t.Fatalf("starting the transport: %v", err)
	}
	return h
}

// TryStart starts the transport and returns its refusal, if it refuses.
func (h *Host) TryStart(p transport.StartParams) error {
	h.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), Timeout)
	defer cancel()
	if p.Instance == "" {
		p.Instance = "test"
	}
	if p.Incarnation == 0 {
		p.Incarnation = 1
	}
	if p.AuthStrictness == 0 {
		p.AuthStrictness = transport.AllowRecoverable
	}
	h.mu.Lock()
	for _, r := range p.Resume {
		h.windows[r.Conn] = &windows{seq: max(r.NextSeq, 1) - 1}
	}
	h.mu.Unlock()
	r, err := h.link.Start(ctx, p)
	h.result = r
	return err
}

// Describe asks the transport who it is.
func (h *Host) Describe() transport.Description {
	h.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), Timeout)
	defer cancel()
	d, err := h.link.Describe(ctx)
	if err != nil {
		h.t.Fatalf("Describe: %v", err)
	}
	return d
}

// Addresses are where peers reach the transport.
func (h *Host) Addresses() []string { return h.result.Addresses }

// Link is the raw link, for calls that the Host has no method for.
func (h *Host) Link() *rpc.Link { return h.link }

// next takes the first event of a connection that match accepts out of its
// queue; the others stay.
func (h *Host) next(conn transport.ConnID, what string, match func(Event) bool) Event {
	h.t.Helper()
	deadline := time.NewTimer(Timeout)
	defer deadline.Stop()
	for {
		h.mu.Lock()
		events := h.events[conn]
		for i, e := range events {
			if match(e) {
				h.events[conn] = slices.Delete(events, i, i+1)
				h.mu.Unlock()
				return e
			}
		}
		h.mu.Unlock()
		select {
		case <-h.wake:
		case <-deadline.C:
			h.t.Fatalf("no %s within %v", what, Timeout)
		}
	}
}

// NextOpened waits for a connection to open.
func (h *Host) NextOpened() (transport.ConnID, transport.Opened) {
	h.t.Helper()
	e := h.next(0, "connection", func(e Event) bool { return e.Opened != nil })
	return e.Conn, *e.Opened
}

// NextReceived waits for the next message of a connection.
func (h *Host) NextReceived(conn transport.ConnID) []byte {
	h.t.Helper()
	return h.next(conn, "message", func(e Event) bool { return e.Message != nil }).Message
}

// AwaitPart waits until the host has a part of a message, and not its end.
func (h *Host) AwaitPart(conn transport.ConnID) {
	h.t.Helper()
	deadline := time.NewTimer(Timeout)
	defer deadline.Stop()
	for {
		h.mu.Lock()
		part := len(h.joined[conn])
		h.mu.Unlock()
		if part > 0 {
			return
		}
		select {
		case <-h.wake:
		case <-deadline.C:
			h.t.Fatalf("no part of a message within %v", Timeout)
		}
	}
}

// NextCursor waits for the next message of a connection, with its cursor.
func (h *Host) NextCursor(conn transport.ConnID) ([]byte, transport.Cursor) {
	h.t.Helper()
	e := h.next(conn, "message", func(e Event) bool { return e.Message != nil })
	return e.Message, e.Cursor
}

// NextCredit waits until the transport returns credit, or tells with none that
// bytes have left.
func (h *Host) NextCredit(conn transport.ConnID) transport.Credit {
	h.t.Helper()
	return *h.next(conn, "credit", func(e Event) bool { return e.Credit != nil }).Credit
}

// NextRejected waits until the transport rejects something of the peer.
func (h *Host) NextRejected(conn transport.ConnID) transport.Rejection {
	h.t.Helper()
	return *h.next(conn, "rejection", func(e Event) bool { return e.Rejected != nil }).Rejected
}

// NextAcked waits until the transport acknowledges up to seq.
func (h *Host) NextAcked(conn transport.ConnID, seq transport.Seq) {
	h.t.Helper()
	h.next(conn, "acknowledgement", func(e Event) bool { return e.Acked >= seq })
}

// NextFinished waits until the transport says that the peer sends no more.
func (h *Host) NextFinished(conn transport.ConnID) {
	h.t.Helper()
	h.next(conn, "finish", func(e Event) bool { return e.Finish })
}

// NextClosed waits for the end of a connection.
func (h *Host) NextClosed(conn transport.ConnID) transport.CloseReason {
	h.t.Helper()
	return *h.next(conn, "end of the connection", func(e Event) bool { return e.Closed != nil }).Closed
}

// LastCheckpoint is the last that the transport stored with a connection, or nil.
func (h *Host) LastCheckpoint(conn transport.ConnID) []byte {
	h.mu.Lock()
	defer h.mu.Unlock()
	var last []byte
	for _, e := range h.events[conn] {
		if e.Check != nil {
			last = e.Check
		}
	}
	return last
}

// Stall makes the host consume nothing from now on, or again.
func (h *Host) Stall(on bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.stalled = on
}

// CatchUp ends a stall: the host consumes again, and also what it has not
// consumed meanwhile.
func (h *Host) CatchUp() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.stalled = false
	for conn, w := range h.windows {
		messages, bytes := w.fromPeer.Unread()
		h.returnLocked(conn, w.fromPeer.Consumed(messages, bytes-len(h.joined[conn])))
	}
}

// Send queues a message for the peer and returns its number. It is cut into
// pieces and sent as the transport gives credit.
func (h *Host) Send(conn transport.ConnID, payload []byte) transport.Seq {
	h.t.Helper()
	h.mu.Lock()
	defer h.mu.Unlock()
	w := h.windows[conn]
	if w == nil {
		h.t.Fatalf("sending on connection %d, which is not open", conn)
	}
	w.seq++
	w.queue = append(w.queue, queued{seq: w.seq, rest: payload, size: len(payload), first: true, large: len(payload) > transport.PieceBytes})
	h.flushLocked(conn, w)
	return w.seq
}

// Close asks the transport to end a connection after what was sent on it.
func (h *Host) Close(conn transport.ConnID, reason transport.CloseReason) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if w := h.windows[conn]; w != nil {
		w.queue = append(w.queue, queued{close: &reason})
		h.flushLocked(conn, w)
	}
}

// Unwritten returns how many messages are queued for want of credit.
func (h *Host) Unwritten(conn transport.ConnID) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	if w := h.windows[conn]; w != nil {
		return len(w.queue)
	}
	return 0
}

func (h *Host) flushLocked(conn transport.ConnID, w *windows) {
	for len(w.queue) > 0 {
		q := &w.queue[0]
		if q.close != nil {
			h.link.Close(conn, *q.close)
			w.queue = w.queue[1:]
			continue
		}
		piece := q.rest[:transport.Piece(len(q.rest), q.size)]
		if !w.toPeer.Fits(len(piece), q.first, q.large) {
			return
		}
		last := len(piece) == len(q.rest)
		w.toPeer.Take(len(piece), last, q.large)
		h.link.Send(conn, q.seq, piece, !last)
		q.rest, q.first = q.rest[len(piece):], false
		if last {
			w.queue = w.queue[1:]
		}
	}
}

// Drain makes the transport accept nothing new.
func (h *Host) Drain() {
	h.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), Timeout)
	defer cancel()
	if err := h.link.Drain(ctx); err != nil {
		h.t.Fatalf("Drain: %v", err)
	}
}

// Stop ends the transport.
func (h *Host) Stop() {
	h.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), Timeout)
	defer cancel()
	if err := h.link.Stop(ctx); err != nil {
		h.t.Fatalf("Stop: %v", err)
	}
}

// Statuses are what the transport reported so far.
func (h *Host) Statuses() []transport.Status {
	h.mu.Lock()
	defer h.mu.Unlock()
	return append([]transport.Status(nil), h.statuses...)
}

func (h *Host) add(e Event) {
	queue := e.Conn
	if e.Opened != nil {
		queue = 0
	}
	h.events[queue] = append(h.events[queue], e)
	h.stir()
}

// stir makes the test's goroutine look again.
func (h *Host) stir() {
	select {
	case h.wake <- struct{}{}:
	default:
	}
}

type testWriter struct{ t testing.TB }

func (w testWriter) Write(p []byte) (int, error) {
	if w.t.Context().Err() == nil { // after the test's end, Log panics
		w.t.Logf("%s", p)
	}
	return len(p), nil
}
