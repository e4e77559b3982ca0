package application

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/transporthost/transporthost/shared/transport"
)

const (
	// maxInitializeBytes bounds the messages that are parsed and kept:
	// initialize, and the notification that ends it.
	maxInitializeBytes = 1 << 20
	// maxOptOutBytes bounds the list of notifications that a peer does not
	// want, which is kept for each peer.
	maxOptOutBytes = 64 << 10
)

// A peer is one connection's half of a shared application.
type peer struct {
	x    *exchange
	conn Conn
	out  backlog

	mu      sync.Mutex // guards what follows
	inbox   [][]byte   // while reading: what came behind a large message
	reading bool       // a goroutine takes the inbox

	// Guarded by x.mu.
	asked       map[string]*question // its open requests, as it spelled their ids
	cancelled   []*question          // of them, oldest first
	queued      int                  // messages in the inlet
	initialized bool
	optOut      []string // notifications that it does not want
	gone        bool
}

var _ Session = (*peer)(nil)

// Deliver implements [Session].
func (p *peer) Deliver(payload []byte, m transport.Message) {
	// To read a large message takes longer than others on the same receive loop
	// may wait. What comes behind it keeps its place.
	large := len(payload) > transport.PieceBytes
	if large && !p.x.admit(len(payload)) {
		p.overloaded(payload, m)
		return
	}
	p.mu.Lock()
	if !large && !p.reading {
		p.mu.Unlock()
		p.take(payload)
		return
	}
	p.inbox = append(p.inbox, bytes.Clone(payload))
	hired := p.reading || p.x.crew.hire(p.read)
	p.reading = hired
	p.mu.Unlock()
	if !hired { // the application has ended
		p.read()
	}
}

// read takes the inbox until it is empty.
func (p *peer) read() {
	for {
		p.mu.Lock()
		if len(p.inbox) == 0 {
			p.inbox, p.reading = nil, false
			p.mu.Unlock()
			return
		}
		payload := p.inbox[0]
		p.inbox[0] = nil
		p.inbox = p.inbox[1:]
		p.mu.Unlock()
		p.take(payload)
	}
}

// admit makes room for a large message of so many bytes, until it is pushed or
// released.
func (x *exchange) admit(size int) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.in.large > 0 && x.in.large+size > largeBytes {
		return false
	}
	x.in.large += size
	return true
}

// overloaded refuses a message that was not admitted.
func (p *peer) overloaded(payload []byte, m transport.Message) {
	x := p.x
	id := m.ID
	if m.Kind != transport.Request {
		id = nil // there is nothing else that its sender could read
	}
	p.answer(id, transport.CodeOverloaded, transport.OverloadedText)
	if m.Kind == transport.Response || m.Kind == transport.ErrorResponse {
		x.mu.Lock()
		if q := x.claim(p, m.ID); q != nil {
			x.say(transport.AppendError(nil, q.app, transport.CodeOverloaded, transport.OverloadedText))
		}
		x.mu.Unlock()
	}
	p.conn.Consumed(1, len(payload))
}

// take takes one message. payload is on loan.
func (p *peer) take(payload []byte) {
	// All of it is looked at here: what one peer sends must not be able to pass
	// for another's.
	m, err := transport.Inspect(payload)
	went := false
	if err == nil {
		switch m.Kind {
		case transport.Request:
			went, err = p.ask(payload, m)
		case transport.Notification:
			went, err = p.notify(payload, m)
		default:
			went = p.respond(payload, m)
		}
	}
	if err != nil {
		p.x.refuse(p, m, err)
	}
	if went {
		return
	}
	if len(payload) > transport.PieceBytes {
		p.x.mu.Lock()
		p.x.in.large -= len(payload)
		p.x.mu.Unlock()
	}
	p.conn.Consumed(1, len(payload))
}

// refuse answers what cannot go on because of what it is.
func (x *exchange) refuse(p *peer, m transport.Message, err error) {
	code := transport.CodeInvalidRequest
	if e, ok := errors.AsType[*transport.PeekError](err); ok {
		code = e.Code
	}
	if m.Kind != transport.Request || code == transport.CodeParseError {
		m.ID = nil
	}
	p.answer(m.ID, code, err.Error())
}

// invalid is why a message is refused, as its sender reads it.
func invalid(format string, args ...any) error {
	return &transport.PeekError{Code: transport.CodeInvalidRequest, Text: "Invalid Request: " + fmt.Sprintf(format, args...)}
}

// answer sends an error of this side's own.
func (p *peer) answer(id []byte, code int, text string) {
	p.out.answer(transport.AppendError(nil, id, code, text), id)
}

// wants reports whether a notification of the application is for the peer.
func (p *peer) wants(method []byte) bool {
	return p.initialized && !slices.Contains(p.optOut, string(method))
}

// enter queues a message of the peer, which had size bytes, for the
// application, and reports whether it did. The lock is held.
func (p *peer) enter(it inbound, size int) bool {
	x := p.x
	it.from, it.size = p, size
	if p.gone && (it.question != nil || !x.in.adopt(&it)) {
		x.leftOut.Add(1)
		return false
	}
	if size > transport.PieceBytes {
		x.in.large -= size // as it was admitted
		if !p.gone {
			x.in.charge(&it, &x.in.large)
		}
	}
	x.push(it)
	return true
}

// ask takes a request of a peer. It reports whether it goes on; what it returns
// as an error is not answered yet.
func (p *peer) ask(payload []byte, m transport.Message) (went bool, err error) {
	x := p.x
	if string(m.Method) == "initialize" {
		return p.initialize(payload, m)
	}
	start, end, hasToken, err := transport.FindOnly(payload, "params", "_meta", "progressToken")
	if err != nil {
		return false, err
	}
	if len(m.ID) > maxIDBytes || end-start > maxIDBytes {
		m.ID = nil
		p.answer(nil, transport.CodeInvalidRequest, longID())
		return false, nil
	}
	q := &question{asker: asker{p, bytes.Clone(m.ID)}, id: x.ids.Add(1)}
	cuts := []cut{idCut(m, number(q.id))}
	var t token
	if hasToken {
		q.token, t = x.ids.Add(1), token{p, bytes.Clone(payload[start:end])}
		cuts = append(cuts, cut{start, end, number(q.token)})
	}
	it := inbound{payload: replace(payload, cuts...), question: q}

	x.mu.Lock()
	defer x.mu.Unlock()
	if p.gone || !p.mayAsk(m.ID) {
		return false, nil
	}
	if x.lsp && string(m.Method) == "shutdown" { // one peer's end is not everybody's
		p.out.answer(answerWith(m.ID, []byte("null")), m.ID)
		return false, nil
	}
	x.asked[q.id] = q
	if hasToken {
		x.tokens[q.token] = t
	}
	p.asked[string(m.ID)] = q
	x.inLine++
	return p.enter(it, len(payload)), nil
}

// mayAsk reports whether a request with this id may go on, and answers it if
// not.
func (p *peer) mayAsk(id []byte) bool {
	if p.x.down != "" {
		p.answer(id, transport.CodeInternalError, p.x.down)
		return false
	}
	if len(p.asked)-len(p.cancelled) >= maxPending {
		p.answer(id, transport.CodeOverloaded, transport.OverloadedText)
		return false
	}
	if q, again := p.asked[string(id)]; again {
		if !q.cancelled {
			p.answer(id, transport.CodeInvalidRequest, "Invalid Request: the id is that of a request that is not answered yet")
			return false
		}
		p.x.forget(q.id)
	}
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
func (p *peer) initialize(payload []byte, m transport.Message) (went bool, err error) {
	x := p.x
	if len(m.ID) > maxIDBytes {
		p.answer(nil, transport.CodeInvalidRequest, longID())
		return false, nil
	}
	if len(payload) > maxInitializeBytes {
		return false, invalid("an initialize of %d bytes; the limit is %d bytes", len(payload), maxInitializeBytes)
	}
	optOut, size := optOuts(payload)
	if size > maxOptOutBytes {
		return false, invalid("optOutNotificationMethods has %d bytes; the limit is %d bytes", size, maxOptOutBytes)
	}
	lsp := has(payload, "params", "processId") || has(payload, "params", "rootUri")

	x.mu.Lock()
	defer x.mu.Unlock()
	if p.gone || !p.mayAsk(m.ID) {
		return false, nil
	}
	if p.initialized || slices.ContainsFunc(x.waiting, func(a asker) bool { return a.peer == p }) {
		p.answer(m.ID, transport.CodeInvalidRequest, "Already initialized")
		return false, nil
	}
	p.optOut = optOut
	x.waiting = append(x.waiting, asker{p, bytes.Clone(m.ID)})
	switch x.start {
	case started:
		x.answerWaiting(x.result)
		return false, nil
	case starting, again:
		return false, nil
	}
	x.start, x.starter = starting, x.ids.Add(1)
	x.lsp = lsp
	x.request = bytes.Clone(payload)
	return p.enter(inbound{payload: replace(payload, idCut(m, number(x.starter))), stays: true}, len(payload)), nil
}

func has(p []byte, path ...string) bool {
	_, _, ok := transport.Find(p, path...)
	return ok
}

// optOuts reads which notifications a peer does not want (spec 7.4), and how
// much that is to keep.
func optOuts(payload []byte) (methods []string, size int) {
	var msg struct {
		Params struct {
			Capabilities struct {
				OptOut []string `json:"optOutNotificationMethods"`
			} `json:"capabilities"`
		} `json:"params"`
	}
	if json.Unmarshal(payload, &msg) != nil {
		return nil, 0 // the application will say what is wrong with it
	}
	const header = 16 // of a string
	for _, method := range msg.Params.Capabilities.OptOut {
		size += len(method) + header
	}
	return msg.Params.Capabilities.OptOut, size
}

// notify takes a notification of a peer. It reports whether it goes on; what
// it returns as an error is not answered yet.
func (p *peer) notify(payload []byte, m transport.Message) (went bool, err error) {
	x := p.x
	if path := namesRequest(m.Method); path != nil {
		return p.cancel(payload, path)
	}
	it := inbound{payload: bytes.Clone(payload)}
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.down != "" {
		return false, nil
	}
	switch string(m.Method) {
	case "notifications/initialized", "initialized":
		// Only who has been initialized can say so, and it is said once.
		if !p.initialized || x.initialized != nil || x.start == fresh || x.start == starting {
			return false, nil
		}
		if len(payload) > maxInitializeBytes {
			return false, invalid("a notification %s of %d bytes; the limit is %d bytes", m.Method, len(payload), maxInitializeBytes)
		}
		x.initialized = bytes.Clone(payload)
		if !x.alive || x.start == again {
			return false, nil // it follows the initialize that the next process begins with
		}
		it.stays = true
	case "exit":
		if x.lsp {
			return false, nil
		}
	}
	return p.enter(it, len(payload)), nil
}

// cancel takes a notification that cancels a request of the peer. The request
// counts no more as one that somebody waits for.
func (p *peer) cancel(payload []byte, path []string) (went bool, err error) {
	x := p.x
	start, end, ok, err := transport.FindOnly(payload, path...)
	if err != nil || !ok {
		return false, err
	}
	x.mu.Lock()
	q := p.asked[string(payload[start:end])]
	x.mu.Unlock()
	if q == nil {
		return false, nil // answered meanwhile, or never asked
	}
	it := inbound{payload: replace(payload, cut{start, end, number(q.id)})}
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.asked[q.id] != q || x.down != "" {
		return false, nil
	}
	if !q.cancelled {
		if len(p.cancelled) == maxCancelled {
			x.forget(p.cancelled[0].id)
		}
		q.cancelled = true
		p.cancelled = append(p.cancelled, q)
		x.inLine--
		p.conn.Forgotten(1)
	}
	return p.enter(it, len(payload)), nil
}

// respond takes a peer's answer to a request of the application: the first one
// counts. It reports whether it goes on.
func (p *peer) respond(payload []byte, m transport.Message) bool {
	x := p.x
	x.mu.Lock()
	q, run := x.claim(p, m.ID), x.run
	x.mu.Unlock()
	if q == nil {
		return false
	}
	it := inbound{payload: replace(payload, idCut(m, q.app))}
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.run != run || !x.alive {
		x.late++
		return false
	}
	return p.enter(it, len(payload))
}

// Closed implements [Session]: what the peer alone waited for is cancelled.
func (p *peer) Closed(transport.CloseReason) {
	x := p.x
	x.mu.Lock()
	defer x.mu.Unlock()
	p.gone = true
	delete(x.peers, p)
	x.in.left(p, func(it inbound) {
		if it.question == nil {
			x.leftOut.Add(1)
			return
		}
		x.forget(it.question.id)
	})
	for _, q := range p.asked {
		x.forget(q.id)
		if q.sent && !q.cancelled {
			x.say(cancellation(x.lsp, q.id, "the peer has left"))
		}
	}
	x.waiting = slices.DeleteFunc(x.waiting, func(a asker) bool { return a.peer == p })
	for _, q := range x.polls.open {
		x.abstain(q, p)
	}
}
