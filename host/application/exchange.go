package application

import (
	"bytes"
	"encoding/json"
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

// Deliver implements [Session].
func (p *peer) Deliver(payload []byte, _ transport.Message) {
	x := p.x
	x.mu.Lock()
	defer x.mu.Unlock()
	// All of it is looked at here: what one peer sends must not be able to pass
	// for another's.
	m, err := transport.Inspect(payload)
	forwarded := false
	switch {
	case err != nil:
		code := transport.CodeInvalidRequest
		if e, ok := errors.AsType[*transport.PeekError](err); ok {
			code = e.Code
		}
		p.answer(nil, code, err.Error())
	case m.Kind == transport.Request:
		forwarded = p.ask(payload, m)
	case m.Kind == transport.Notification:
		forwarded = p.notify(payload, m)
	default:
		forwarded = p.respond(payload, m)
	}
	if forwarded {
		x.owe(p.conn, len(payload))
	} else {
		p.conn.Consumed(1, len(payload))
	}
}

// answer sends an error of this side's own.
func (p *peer) answer(id []byte, code int, text string) {
	_ = p.conn.Send(transport.AppendError(nil, id, code, text)) // it has left, or waits for room that its window bounds
}

// ask takes a request of a peer. It reports whether it goes on.
func (p *peer) ask(payload []byte, m transport.Message) bool {
	x := p.x
	if x.down != "" {
		p.answer(m.ID, transport.CodeInternalError, x.down)
		return false
	}
	if len(p.asked) >= maxPending {
		p.answer(m.ID, transport.CodeOverloaded, transport.OverloadedText)
		return false
	}
	if _, again := p.asked[string(m.ID)]; again {
		p.answer(m.ID, transport.CodeInvalidRequest, "Invalid Request: the id is that of a request that is not answered yet")
		return false
	}
	switch string(m.Method) {
	case "initialize":
		return p.initialize(payload, m)
	case "shutdown":
		if x.lsp { // one peer's end is not everybody's
			_ = p.conn.Send(answerWith(m.ID, []byte("null")))
			return false
		}
	}
	q := &question{asker: asker{p, bytes.Clone(m.ID)}}
	id := x.newID()
	text := splice(payload, m.IDAt, m.IDAt+len(m.ID), number(id))
	if start, end, ok := transport.Find(text, "params", "_meta", "progressToken"); ok {
		q.token = x.newID()
		x.tokens[q.token] = token{p, bytes.Clone(text[start:end])}
		text = splice(text, start, end, number(q.token))
	}
	x.asked[id] = q
	p.asked[string(m.ID)] = id
	x.inLine++
	x.toApplication(text)
	return true
}

// answerWith makes a response.
func answerWith(id, result []byte) []byte {
	b := append([]byte(`{"jsonrpc":"2.0","id":`), id...)
	b = append(b, `,"result":`...)
	b = append(b, result...)
	return append(b, '}')
}

// initialize takes a peer's initialize: the first goes to the application, and
// its result is everybody's.
func (p *peer) initialize(payload []byte, m transport.Message) bool {
	x := p.x
	if p.initialized || slices.ContainsFunc(x.waiting, func(a asker) bool { return a.peer == p }) {
		p.answer(m.ID, transport.CodeInvalidRequest, "Already initialized")
		return false
	}
	p.optOut = optOuts(payload)
	x.waiting = append(x.waiting, asker{p, bytes.Clone(m.ID)})
	switch x.start {
	case started:
		x.answerWaiting(x.result)
		return false
	case starting, again:
		return false
	}
	x.start, x.starter = starting, x.newID()
	x.lsp = has(payload, "params", "processId") || has(payload, "params", "rootUri")
	x.request = bytes.Clone(payload)
	x.toApplication(splice(payload, m.IDAt, m.IDAt+len(m.ID), number(x.starter)))
	return true
}

func has(p []byte, path ...string) bool {
	_, _, ok := transport.Find(p, path...)
	return ok
}

// optOuts reads which notifications a peer does not want (spec 7.4).
func optOuts(payload []byte) []string {
	var msg struct {
		Params struct {
			Capabilities struct {
				OptOut []string `json:"optOutNotificationMethods"`
			} `json:"capabilities"`
		} `json:"params"`
	}
	if json.Unmarshal(payload, &msg) != nil {
		return nil // the application will say what is wrong with it
	}
	return msg.Params.Capabilities.OptOut
}

// answerWaiting gives the result of initialize to those who wait for it.
func (x *exchange) answerWaiting(result []byte) {
	for _, a := range x.waiting {
		if !a.peer.gone {
			a.peer.initialized = true
			_ = a.peer.conn.Send(answerWith(a.id, result))
		}
	}
	x.waiting = nil
}

// notify takes a notification of a peer. It reports whether it goes on.
func (p *peer) notify(payload []byte, m transport.Message) bool {
	x := p.x
	if x.down != "" {
		return false
	}
	var path []string
	switch string(m.Method) {
	case "notifications/initialized", "initialized":
		if x.initialized != nil {
			return false
		}
		x.initialized = bytes.Clone(payload)
	case "exit":
		if x.lsp {
			return false
		}
	case "notifications/cancelled":
		path = []string{"params", "requestId"}
	case "$/cancelRequest":
		path = []string{"params", "id"}
	}
	if path != nil {
		start, end, ok := transport.Find(payload, path...)
		if !ok {
			return false
		}
		id, ok := p.asked[string(payload[start:end])]
		if !ok {
			return false // answered meanwhile, or never asked
		}
		payload = splice(payload, start, end, number(id))
	}
	x.toApplication(payload)
	return true
}

// respond takes a peer's answer to a request of the application: the first one
// counts. It reports whether it goes on.
func (p *peer) respond(payload []byte, m transport.Message) bool {
	x := p.x
	q := x.asks[string(m.ID)]
	if q == nil {
		x.late++
		return false
	}
	if _, ok := q.open[p]; !ok {
		x.late++
		return false
	}
	delete(x.asks, string(m.ID))
	x.toApplication(payload)
	return true
}

// Closed implements [Session]: what the peer alone waited for is cancelled.
func (p *peer) Closed(transport.CloseReason) {
	x := p.x
	x.mu.Lock()
	defer x.mu.Unlock()
	p.gone = true
	delete(x.peers, p)
	for _, id := range p.asked {
		x.forget(id)
		if x.down != "" {
			continue
		}
		if x.lsp {
			x.toApplication([]byte(`{"jsonrpc":"2.0","method":"$/cancelRequest","params":{"id":` + string(number(id)) + `}}`))
		} else {
			x.toApplication([]byte(`{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":` + string(number(id)) + `,"reason":"the peer has left"}}`))
		}
	}
	clear(p.asked)
	x.waiting = slices.DeleteFunc(x.waiting, func(a asker) bool { return a.peer == p })
	for id, q := range x.asks {
		delete(q.open, p)
		if len(q.open) == 0 {
			delete(x.asks, id)
			x.toApplication(transport.AppendError(nil, []byte(id), transport.CodeInternalError, noPeer))
		}
	}
}

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
