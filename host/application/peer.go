package application

import (
	"bytes"
	"encoding/json"
	"errors"
	"slices"

	"github.com/transporthost/transporthost/shared/transport"
)

// What peers send to a shared application. The lock of the exchange is held
// throughout.

var _ Session = (*peer)(nil)

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
