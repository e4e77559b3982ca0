package application

import (
	"bytes"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"

	"github.com/transporthost/transporthost/shared/transport"
)

// An exchange is the bookkeeping of one application behind many peers: whose
// answer is whose. Ids of peers, and those of the application, are replaced by
// ids of its own on the way in and restored byte by byte on the way out;
// everything else of a message stays as it is. Its own ids are never used
// twice, so an answer that is late meets no other question.
//
// One mutex guards the books. What costs time with a message's size (reading
// it, copying it) happens outside: nobody waits for a stranger's message.
// Nothing that is called under the mutex blocks or calls back.
type exchange struct {
	framing transport.Framing
	crew    *crew
	wake    chan struct{} // one slot: there is something for the application
	ids     atomic.Uint64 // the last one given out
	leftOut atomic.Int64  // messages that a peer, or the application, did not take in time
	targets []*peer       // of fromApplication, which uses it anew each time

	mu     sync.Mutex // guards what follows
	peers  map[*peer]struct{}
	crowd  chan struct{} // closed when a peer joins; nil while nobody waits
	asked  map[uint64]*question
	tokens map[uint64]token // progress tokens, under the ones that the application sees
	polls  polls
	in     inlet
	run    int    // how many processes there were
	alive  bool   // there is one
	down   string // why nothing is taken; empty while the application runs or will

	start       startState
	starter     uint64 // the id under which initialize is on its way
	request     []byte // the first initialize
	result      []byte // of it
	initialized []byte // the first initialized notification; nil before
	lsp         bool   // the application is a language server
	waiting     []asker

	late    int // answers of peers that came after another's
	dropped int // answers of the application that nobody waits for
	inLine  int // requests of peers that somebody waits for
}

type startState uint8

const (
	fresh    startState = iota // no initialize was seen, or it failed
	starting                   // it is on its way
	started                    // it was answered
	again                      // it is on its way to a new process; everything else waits
)

type asker struct {
	peer *peer
	id   []byte
}

// A question is a request of a peer, under the id that the application sees.
type question struct {
	asker
	id        uint64
	token     uint64 // 0: none
	sent      bool   // it has left the inlet
	cancelled bool
}

type token struct {
	peer     *peer
	original []byte
}

func newExchange(f transport.Framing) *exchange {
	return &exchange{
		framing: f, crew: newCrew(), wake: make(chan struct{}, 1), peers: make(map[*peer]struct{}),
		asked: make(map[uint64]*question), tokens: make(map[uint64]token), polls: newPolls(),
	}
}

func (x *exchange) join(c Conn) *peer {
	p := &peer{x: x, conn: c, asked: make(map[string]*question)}
	p.out = backlog{conn: c, crew: x.crew, leftOut: &x.leftOut}
	x.mu.Lock()
	defer x.mu.Unlock()
	x.peers[p] = struct{}{}
	if x.crowd != nil {
		close(x.crowd)
		x.crowd = nil
	}
	return p
}

// push queues a message for the application.
func (x *exchange) push(it inbound) {
	x.in.push(it)
	x.wakeUp()
}

// say queues words of this side for the application.
func (x *exchange) say(payload []byte) {
	if !x.in.say(payload) {
		x.leftOut.Add(1)
		return
	}
	x.wakeUp()
}

func (x *exchange) wakeUp() {
	select {
	case x.wake <- struct{}{}:
	default:
	}
}

// A cut is a part of a message that is replaced.
type cut struct {
	start, end int
	by         []byte
}

// replace returns a copy of p with the parts replaced. There are two at most.
func replace(p []byte, cuts ...cut) []byte {
	if len(cuts) == 2 && cuts[0].start > cuts[1].start {
		cuts[0], cuts[1] = cuts[1], cuts[0]
	}
	size := len(p)
	for _, c := range cuts {
		size += len(c.by) - (c.end - c.start)
	}
	out, at := make([]byte, 0, size), 0
	for _, c := range cuts {
		out = append(out, p[at:c.start]...)
		out = append(out, c.by...)
		at = c.end
	}
	return append(out, p[at:]...)
}

// idCut replaces the id of a message.
func idCut(m transport.Message, by []byte) cut { return cut{m.IDAt, m.IDAt + len(m.ID), by} }

func number(n uint64) []byte { return strconv.AppendUint(nil, n, 10) }

// forget takes a question off the books and returns it.
func (x *exchange) forget(id uint64) *question {
	q := x.asked[id]
	if q == nil {
		return nil
	}
	delete(x.asked, id)
	delete(x.tokens, q.token)
	delete(q.peer.asked, string(q.asker.id))
	if q.cancelled {
		q.peer.cancelled = slices.DeleteFunc(q.peer.cancelled, func(c *question) bool { return c == q })
	} else {
		x.inLine--
	}
	return q
}

// answer brings the answer to a question to its peer. The lock need not be
// held.
func (q *question) answer(p []byte) {
	if q.cancelled {
		q.peer.conn.Forgotten(-1)
	}
	q.peer.out.answer(p, q.asker.id)
}

// fromApplication takes one message of the application. Only one goroutine
// calls it at a time. The result, if not empty, is what went wrong with the
// application as a whole.
func (x *exchange) fromApplication(payload []byte, m transport.Message) (cause string) {
	switch m.Kind {
	case transport.Request:
		x.put(payload, m)
	case transport.Notification:
		x.broadcast(payload, m)
	default:
		return x.answered(payload, m)
	}
	return ""
}

// broadcast gives a notification to those who want it; progress, to its owner.
func (x *exchange) broadcast(payload []byte, m transport.Message) {
	if string(m.Method) == "notifications/progress" {
		x.progress(payload)
		return
	}
	if path := namesPoll(m.Method); path != nil {
		if start, end, ok := transport.Find(payload, path...); ok {
			x.closing(payload, m, start, end)
			return
		}
	}
	x.mu.Lock()
	x.targets = x.targets[:0]
	for p := range x.peers {
		if p.wants(m.Method) {
			x.targets = append(x.targets, p)
		}
	}
	x.mu.Unlock()
	x.tell(payload)
}

// tell brings a notification to the targets.
func (x *exchange) tell(payload []byte) {
	for i, p := range x.targets {
		p.out.tell(payload)
		x.targets[i] = nil
	}
}

func (x *exchange) progress(payload []byte) {
	start, end, ok := transport.Find(payload, "params", "progressToken")
	if !ok {
		return
	}
	n, err := strconv.ParseUint(string(payload[start:end]), 10, 64)
	x.mu.Lock()
	t, known := x.tokens[n]
	x.mu.Unlock()
	if err != nil || !known {
		return // its request is answered, or its peer has left
	}
	t.peer.out.tell(replace(payload, cut{start, end, t.original}))
}

// answered brings an answer of the application to its asker.
func (x *exchange) answered(payload []byte, m transport.Message) (cause string) {
	id, err := strconv.ParseUint(string(m.ID), 10, 64)
	x.mu.Lock()
	if err == nil && id == x.starter && (x.start == starting || x.start == again) {
		defer x.mu.Unlock()
		return x.initializeAnswered(payload, m)
	}
	q := x.forget(id)
	if q == nil {
		x.dropped++
	}
	x.mu.Unlock()
	if q != nil {
		q.answer(replace(payload, idCut(m, q.asker.id)))
	}
	return ""
}

func (x *exchange) initializeAnswered(payload []byte, m transport.Message) (cause string) {
	replay := x.start == again
	if m.Kind == transport.Response {
		x.start = started
		x.result = bytes.Clone(transport.Field(payload, "result"))
		x.answerWaiting(x.result)
	} else {
		x.start = fresh
		x.initialized = nil
		for _, a := range x.waiting {
			a.peer.out.answer(replace(payload, idCut(m, a.id)), a.id)
		}
		x.waiting = nil
		// For this process nobody is: the next initialize is the first.
		for p := range x.peers {
			p.initialized = false
		}
		if replay {
			cause = "refused, after its restart, the initialize that the process before had accepted; peers have to initialize again"
		}
	}
	if replay {
		// What waited for this comes behind the notification that the first
		// process got.
		if x.initialized != nil {
			x.in.queue = slices.Insert(x.in.queue, 0, inbound{payload: x.initialized, stays: true})
		}
		x.wakeUp()
	}
	return cause
}

// answerWaiting gives the result of initialize to those who wait for it.
func (x *exchange) answerWaiting(result []byte) {
	for _, a := range x.waiting {
		// First the answer, then what is for the initialized (spec 7.5).
		a.peer.out.answer(answerWith(a.id, result), a.id)
		a.peer.initialized = true
	}
	x.waiting = nil
}

// take returns what is to be written next, in buf.
func (x *exchange) take(buf []inbound) []inbound {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.start == again {
		return buf[:0] // only its initialize, which revive has returned
	}
	return x.in.take(buf)
}

// repay returns the credit for messages that are written, or never will be.
func repay(items []inbound) {
	for i := 0; i < len(items); {
		p, n, bytes := items[i].from, 0, 0
		for ; i < len(items) && items[i].from == p; i++ {
			n++
			bytes += items[i].size
		}
		if p != nil {
			p.conn.Consumed(n, bytes)
		}
	}
}

// behind returns what to wait for before more is taken from the application:
// a lossless peer that does not read, if it is the only one, or company for
// it. Both are nil if there is nothing to wait for.
func (x *exchange) behind() (room, crowd <-chan struct{}) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if len(x.peers) != 1 {
		return nil, nil
	}
	for p := range x.peers {
		room = p.out.catchUp()
	}
	if room == nil {
		return nil, nil
	}
	if x.crowd == nil {
		x.crowd = make(chan struct{})
	}
	return room, x.crowd
}

// replaying reports whether the new process has not answered its initialize.
func (x *exchange) replaying() bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.start == again
}

// died answers everything that the application has left open. If it will not
// come back, down says why, and requests are answered with that from now on.
func (x *exchange) died(text, down string) {
	x.mu.Lock()
	x.down, x.alive = down, false
	var open []*question
	for id := range x.asked {
		open = append(open, x.forget(id))
	}
	switch x.start {
	case starting:
		x.start = fresh
	case again:
		x.start = started // the next process gets it again
	}
	var waiting []asker
	if x.start == fresh || down != "" {
		waiting, x.waiting = x.waiting, nil
	}
	type ask struct {
		peer *peer
		id   uint64
	}
	var asks []ask
	for id, q := range x.polls.clear() {
		for p := range q.open {
			asks = append(asks, ask{p, id})
		}
	}
	clear(x.tokens)
	items := x.in.drain()
	lsp := x.lsp
	x.mu.Unlock()
	for _, q := range open {
		q.answer(transport.AppendError(nil, q.asker.id, transport.CodeInternalError, text))
	}
	for _, a := range waiting {
		a.peer.answer(a.id, transport.CodeInternalError, text)
	}
	for _, a := range asks {
		a.peer.out.tell(cancellation(lsp, a.id, text))
	}
	repay(items)
}

// cancellation is the notification that a request is not to be answered.
func cancellation(lsp bool, id uint64, reason string) []byte {
	if lsp {
		return fmt.Appendf(nil, `{"jsonrpc":"2.0","method":"$/cancelRequest","params":{"id":%d}}`, id)
	}
	return fmt.Appendf(nil, `{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":%d,"reason":%s}}`, id, quote(reason))
}

// revive prepares for a new process. What it returns, if anything, is the
// first frame for it: the initialize that the process before was started with.
// Everything else waits for its answer.
func (x *exchange) revive() []byte {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.down, x.alive = "", true
	x.run++
	if x.start != started {
		return nil
	}
	m, err := transport.Inspect(x.request)
	if err != nil { // it passed before
		x.start = fresh
		return nil
	}
	x.start, x.starter = again, x.ids.Add(1)
	return transport.AppendFrame(nil, replace(x.request, idCut(m, number(x.starter))), x.framing)
}
