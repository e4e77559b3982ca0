package application

import (
	"bytes"
	"encoding/json"
	"strconv"

	"github.com/transporthost/transporthost/shared/transport"
)

const (
	// noPeer is what the application's requests are answered with while nobody
	// is there to answer.
	noPeer = "no peer is connected"
	// maxPolls bounds the requests of an application that peers leave without
	// an answer. More are refused as overload.
	maxPolls = 4096
	// maxSettled is how many settled ones are remembered, for notifications that
	// speak of them.
	maxSettled = 256
)

// A poll is a request of the application that was put to peers.
type poll struct {
	id   uint64 // that peers see
	app  []byte // as the application spelled it
	open map[*peer]struct{}
}

// polls are the application's requests. The lock of the exchange guards them.
type polls struct {
	open    map[uint64]*poll
	byApp   map[string]*poll // the last one of each id, settled ones too
	settled []*poll          // oldest first
}

func newPolls() polls {
	return polls{open: make(map[uint64]*poll), byApp: make(map[string]*poll)}
}

func (s *polls) add(q *poll) {
	s.open[q.id] = q
	s.byApp[string(q.app)] = q
}

// settle ends a poll and reports whether it was open.
func (s *polls) settle(q *poll) bool {
	if s.open[q.id] != q {
		return false
	}
	delete(s.open, q.id)
	s.settled = append(s.settled, q)
	if len(s.settled) > maxSettled {
		if old := s.settled[0]; s.byApp[string(old.app)] == old {
			delete(s.byApp, string(old.app))
		}
		s.settled[0] = nil
		s.settled = s.settled[1:]
	}
	return true
}

// clear forgets everything and returns what was open.
func (s *polls) clear() map[uint64]*poll {
	open := s.open
	*s = newPolls()
	return open
}

// put puts a request of the application to all peers that are not behind.
func (x *exchange) put(payload []byte, m transport.Message) {
	q := &poll{id: x.ids.Add(1), app: bytes.Clone(m.ID), open: make(map[*peer]struct{})}
	x.mu.Lock()
	there := false
	x.targets = x.targets[:0]
	for p := range x.peers {
		there = there || p.initialized
		if p.initialized && !p.out.behind() {
			x.targets = append(x.targets, p)
			q.open[p] = struct{}{}
		}
	}
	switch {
	case !there:
		x.say(transport.AppendError(nil, m.ID, transport.CodeInternalError, noPeer))
	case len(x.targets) == 0 || len(x.polls.open) >= maxPolls:
		x.say(transport.AppendError(nil, m.ID, transport.CodeOverloaded, transport.OverloadedText))
		clear(x.targets)
		x.targets = x.targets[:0]
	default:
		x.polls.add(q)
	}
	x.mu.Unlock()
	if len(x.targets) == 0 {
		return
	}
	text := replace(payload, idCut(m, number(q.id)))
	for i, p := range x.targets {
		if !p.out.tell(text) {
			x.mu.Lock()
			x.abstain(q, p)
			x.mu.Unlock()
		}
		x.targets[i] = nil
	}
}

// abstain takes a peer that will not answer out of a poll.
func (x *exchange) abstain(q *poll, p *peer) {
	if _, ok := q.open[p]; !ok {
		return
	}
	delete(q.open, p)
	if len(q.open) == 0 && x.polls.settle(q) {
		x.say(transport.AppendError(nil, q.app, transport.CodeInternalError, noPeer))
	}
}

// claim settles the poll that an answer of a peer belongs to. It returns nil
// for one that is late.
func (x *exchange) claim(p *peer, id []byte) *poll {
	n, err := strconv.ParseUint(string(id), 10, 64)
	q := x.polls.open[n]
	if err != nil || q == nil {
		x.late++
		return nil
	}
	if _, ok := q.open[p]; !ok {
		x.late++
		return nil
	}
	x.polls.settle(q)
	return q
}

// namesPoll returns where a notification of this method names a request of the
// application that is not to be answered any more; nil if it does not.
func namesPoll(method []byte) []string {
	if string(method) == "serverRequest/resolved" { // codex app-server
		return []string{"params", "requestId"}
	}
	return namesRequest(method)
}

// closing brings a notification that ends a request of the application to
// those who saw the request, with the id that they saw.
func (x *exchange) closing(payload []byte, m transport.Message, start, end int) {
	x.mu.Lock()
	q := x.polls.byApp[string(payload[start:end])]
	if q == nil { // of another process, or long ago: no peer knows the id
		x.mu.Unlock()
		return
	}
	open := x.polls.settle(q)
	resolved := namesRequest(m.Method) == nil // it is for those too who have answered
	x.targets = x.targets[:0]
	for p := range x.peers {
		if _, asked := q.open[p]; asked && p.wants(m.Method) && (open || resolved) {
			x.targets = append(x.targets, p)
		}
	}
	x.mu.Unlock()
	x.tell(replace(payload, cut{start, end, number(q.id)}))
}

// quote makes a JSON string.
func quote(s string) []byte {
	b, err := json.Marshal(s)
	if err != nil { // a string always marshals
		return []byte(`""`)
	}
	return b
}
