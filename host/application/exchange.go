package application

import (
	"bytes"
	"errors"
	"slices"
	"strconv"
	"sync"

	"github.com/transporthost/transporthost/shared/transport"
)

// noPeer is what the application's requests are answered with while nobody is
// there to answer.
const noPeer = "no peer is connected"

// An exchange is the bookkeeping of one application behind many peers: whose
// answer is whose. Ids of peers are replaced by ids of its own on the way in
// and restored byte by byte on the way out; everything else of a message stays
// as it is.
//
// One mutex guards it all, and is held while answers are queued on connections:
// that does not block, and nothing that it calls calls back. So what one side
// sends reaches the other in its order.
type exchange struct {
	framing transport.Framing
	wake    chan struct{} // one slot: there is something for the application

	mu     sync.Mutex // guards what follows
	peers  map[*peer]struct{}
	lastID uint64
	asked  map[uint64]*question // of peers, under the ids that the application sees
	tokens map[uint64]token     // progress tokens, under the ones that it sees
	asks   map[string]*poll     // requests of the application, under its id as spelled

	out  []byte // frames for the application
	owed []debt // what is counted as consumed once out is written
	down string // why nothing is taken; empty while the application runs or will

	start       startState
	starter     uint64 // the id under which initialize is on its way
	request     []byte // the first initialize
	result      []byte // of it
	initialized []byte // the first initialized notification; nil before
	lsp         bool   // the application is a language server
	waiting     []asker

	late    int // answers of peers that came after another's
	dropped int // answers of the application that nobody waits for
	inLine  int // requests of peers without an answer
}

type startState uint8

const (
	fresh    startState = iota // no initialize was seen, or it failed
	starting                   // it is on its way
	started                    // it was answered
	again                      // it is on its way to a new process; everything else waits
)

// A peer is one connection's half.
type peer struct {
	x    *exchange
	conn Conn

	// Guarded by x.mu.
	asked       map[string]uint64 // its open requests, as it spelled their ids
	initialized bool
	optOut      []string // notifications that it does not want
	gone        bool
}

type asker struct {
	peer *peer
	id   []byte
}

type question struct {
	asker
	token uint64 // 0: none
}

type token struct {
	peer     *peer
	original []byte
}

// A poll is a request of the application that was put to peers.
type poll struct{ open map[*peer]struct{} }

type debt struct {
	conn            Conn
	messages, bytes int
}

func newExchange(f transport.Framing) *exchange {
	return &exchange{
		framing: f, wake: make(chan struct{}, 1), peers: make(map[*peer]struct{}),
		asked: make(map[uint64]*question), tokens: make(map[uint64]token), asks: make(map[string]*poll),
	}
}

func (x *exchange) join(c Conn) *peer {
	p := &peer{x: x, conn: c, asked: make(map[string]uint64)}
	x.mu.Lock()
	defer x.mu.Unlock()
	x.peers[p] = struct{}{}
	return p
}

// toApplication queues a frame. The bytes are copied.
func (x *exchange) toApplication(p []byte) {
	x.out = transport.AppendFrame(x.out, p, x.framing)
	x.wakeUp()
}

func (x *exchange) wakeUp() {
	select {
	case x.wake <- struct{}{}:
	default:
	}
}

// owe counts a message of a peer as consumed once it is written.
func (x *exchange) owe(c Conn, size int) {
	if n := len(x.owed); n > 0 && x.owed[n-1].conn == c {
		x.owed[n-1].messages++
		x.owed[n-1].bytes += size
		return
	}
	x.owed = append(x.owed, debt{c, 1, size})
}

func (x *exchange) newID() uint64 {
	x.lastID++
	return x.lastID
}

// splice returns a copy of p with the bytes from start to end replaced.
func splice(p []byte, start, end int, by []byte) []byte {
	out := make([]byte, 0, len(p)-(end-start)+len(by))
	out = append(out, p[:start]...)
	out = append(out, by...)
	return append(out, p[end:]...)
}

func number(n uint64) []byte { return strconv.AppendUint(nil, n, 10) }

// forget takes a question off the books and returns it.
func (x *exchange) forget(id uint64) *question {
	q := x.asked[id]
	if q == nil {
		return nil
	}
	delete(x.asked, id)
	delete(x.tokens, q.token)
	x.inLine--
	return q
}

// A delivery waits for room on a lossless connection.
type delivery struct {
	conn    Conn
	payload []byte
}

// fromApplication takes one message of the application. What it returns could
// not be queued without waiting; the caller waits, in this order.
func (x *exchange) fromApplication(payload []byte, m transport.Message) (waiting []delivery) {
	x.mu.Lock()
	defer x.mu.Unlock()
	send := func(p *peer, payload []byte) {
		if errors.Is(p.conn.Send(payload), transport.ErrOverloaded) {
			waiting = append(waiting, delivery{p.conn, payload})
		}
	}
	switch m.Kind {
	case transport.Request:
		x.put(payload, m, send)
	case transport.Notification:
		x.broadcast(payload, m, send)
	default:
		x.answered(payload, m, send)
	}
	return waiting
}

// put puts a request of the application to all peers.
func (x *exchange) put(payload []byte, m transport.Message, send func(*peer, []byte)) {
	q := &poll{open: make(map[*peer]struct{})}
	for p := range x.peers {
		if p.initialized {
			q.open[p] = struct{}{}
		}
	}
	if len(q.open) == 0 {
		x.toApplication(transport.AppendError(nil, m.ID, transport.CodeInternalError, noPeer))
		return
	}
	x.asks[string(m.ID)] = q
	for p := range q.open {
		send(p, payload)
	}
}

// broadcast gives a notification to those who want it; progress, to its owner.
func (x *exchange) broadcast(payload []byte, m transport.Message, send func(*peer, []byte)) {
	if string(m.Method) == "notifications/progress" {
		start, end, ok := transport.Find(payload, "params", "progressToken")
		if !ok {
			return
		}
		n, err := strconv.ParseUint(string(payload[start:end]), 10, 64)
		t, known := x.tokens[n]
		if err != nil || !known {
			return // its request is answered, or its peer has left
		}
		send(t.peer, splice(payload, start, end, t.original))
		return
	}
	for p := range x.peers {
		if p.initialized && !slices.Contains(p.optOut, string(m.Method)) {
			send(p, payload)
		}
	}
}

// answered brings an answer of the application to its asker.
func (x *exchange) answered(payload []byte, m transport.Message, send func(*peer, []byte)) {
	id, err := strconv.ParseUint(string(m.ID), 10, 64)
	if err != nil {
		x.dropped++
		return
	}
	if id == x.starter && (x.start == starting || x.start == again) {
		x.initializeAnswered(payload, m)
		return
	}
	q := x.forget(id)
	if q == nil {
		x.dropped++
		return
	}
	delete(q.peer.asked, string(q.id))
	send(q.peer, splice(payload, m.IDAt, m.IDAt+len(m.ID), q.id))
}

func (x *exchange) initializeAnswered(payload []byte, m transport.Message) {
	replay := x.start == again
	if m.Kind != transport.Response {
		x.start = fresh
		for _, a := range x.waiting {
			if !a.peer.gone {
				_ = a.peer.conn.Send(splice(payload, m.IDAt, m.IDAt+len(m.ID), a.id))
			}
		}
		x.waiting = nil
	} else {
		x.start = started
		x.result = bytes.Clone(transport.Field(payload, "result"))
		x.answerWaiting(x.result)
	}
	if replay {
		// What waited for this comes behind the notification that the first
		// process got.
		held := x.out
		x.out = nil
		if x.initialized != nil && x.start == started {
			x.toApplication(x.initialized)
		}
		x.out = append(x.out, held...)
		x.wakeUp()
	}
}

// take returns what is to be written, and what is consumed with it. buf is used
// for what comes next.
func (x *exchange) take(buf []byte) ([]byte, []debt) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.start == again {
		return buf[:0], nil // only its initialize, which revive has returned
	}
	out, owed := x.out, x.owed
	x.out, x.owed = buf[:0], nil
	return out, owed
}

// died answers everything that the application has left open. If it will not
// come back, down says why, and requests are answered with that from now on.
func (x *exchange) died(text, down string) {
	x.mu.Lock()
	x.down = down
	for id, q := range x.asked {
		x.forget(id)
		delete(q.peer.asked, string(q.id))
		q.peer.answer(q.id, transport.CodeInternalError, text)
	}
	switch x.start {
	case starting:
		x.start = fresh
	case again:
		x.start = started // the next process gets it again
	}
	if x.start == fresh || down != "" {
		for _, a := range x.waiting {
			a.peer.answer(a.id, transport.CodeInternalError, text)
		}
		x.waiting = nil
	}
	clear(x.asks)
	clear(x.tokens)
	x.out = nil
	owed := x.owed
	x.owed = nil
	x.mu.Unlock()
	for _, d := range owed {
		d.conn.Consumed(d.messages, d.bytes)
	}
}

// revive prepares for a new process. What it returns, if anything, is the
// first frame for it: the initialize that the process before was started with.
// Everything else waits for its answer.
func (x *exchange) revive() []byte {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.down = ""
	if x.start != started {
		return nil
	}
	m, err := transport.Inspect(x.request)
	if err != nil { // it passed before
		x.start = fresh
		return nil
	}
	x.start, x.starter = again, x.newID()
	return transport.AppendFrame(nil, splice(x.request, m.IDAt, m.IDAt+len(m.ID), number(x.starter)), x.framing)
}
