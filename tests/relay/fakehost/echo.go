package fakehost

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/gorilla/websocket"
)

// An Echo is a host that keeps the protocol: it answers every request with its
// params, keeps what is not acknowledged, and comes back with its cursor
// whenever its socket ends.
type Echo struct {
	Host *Host

	streams  map[[2]string]*echoStream
	order    []*echoStream
	Connects int
}

type echoStream struct {
	client, stream string
	seq            uint64 // given last
	seen           uint64 // number of the last message, plus one; 0: none
	unacked        []sent
	assembly       []byte
}

type sent struct {
	seq   uint64
	frame []byte
}

// Run serves until ctx ends or the backend refuses.
func (h *Echo) Run(ctx context.Context) error {
	h.streams = map[[2]string]*echoStream{}
	if a, err := h.Host.Enroll(ctx); err != nil || h.Host.ServerID == "" {
		return errors.Join(err, fmt.Errorf("enrolling: status %d", a.Status))
	}
	for ctx.Err() == nil {
		sock, a, err := h.Host.Dial(ctx)
		if err != nil {
			if ctx.Err() != nil {
				break
			}
			return fmt.Errorf("connecting: status %d: %w", a.Status, err)
		}
		h.Connects++
		stop := context.AfterFunc(ctx, func() { _ = sock.Close() })
		h.serve(sock) // its end is what a relay does
		stop()
		_ = sock.Close()
	}
	return context.Cause(ctx)
}

// serve sends again what is not acknowledged and answers until the socket ends.
func (h *Echo) serve(sock *Socket) {
	for _, st := range h.order {
		for _, s := range st.unacked {
			if sock.WriteMessage(websocket.TextMessage, s.frame) != nil {
				return
			}
		}
	}
	for {
		if sock.SetReadDeadline(time.Now().Add(timeout)) != nil {
			return
		}
		e, err := sock.Next()
		if err != nil || !h.handle(sock, e) {
			return
		}
	}
}

func (h *Echo) handle(sock *Socket, e Envelope) bool {
	key := [2]string{e.ClientID, e.StreamID}
	st := h.streams[key]
	if st == nil {
		st = &echoStream{client: e.ClientID, stream: e.StreamID}
		h.streams[key] = st
		h.order = append(h.order, st)
	}
	switch e.Type {
	case "ack":
		// A whole message is freed at a time: segments are sent again with it.
		for len(st.unacked) > 0 && e.Segment == nil && st.unacked[0].seq <= *e.Seq {
			st.unacked = st.unacked[1:]
		}
	case "ping":
		st.seq++
		return h.send(sock, st, fmt.Appendf(nil, `{"type":"pong","status":"active","client_id":%q,"stream_id":%q,"seq_id":%d}`, st.client, st.stream, st.seq))
	case "client_message_chunk":
		if *e.Segment == 0 {
			st.assembly = nil
		}
		st.assembly = append(st.assembly, e.Chunk...)
		if *e.Segment < e.Count-1 {
			return true
		}
		e.Message = st.assembly
		fallthrough
	case "client_message":
		if *e.Seq+1 <= st.seen {
			return true // a duplicate
		}
		st.seen = *e.Seq + 1
		return h.answer(sock, st, e.Message)
	}
	return true
}

func (h *Echo) answer(sock *Socket, st *echoStream, message []byte) bool {
	var m struct {
		ID     json.RawMessage `json:"id"`
		Params json.RawMessage `json:"params"`
	}
	if json.Unmarshal(message, &m) != nil || m.ID == nil {
		return true
	}
	if m.Params == nil {
		m.Params = json.RawMessage("null")
	}
	st.seq++
	ok := true
	for _, frame := range Cut(st.client, st.stream, st.seq, fmt.Sprintf(`{"jsonrpc":"2.0","id":%s,"result":%s}`, m.ID, m.Params)) {
		ok = h.send(sock, st, frame) && ok
	}
	return ok
}

// send keeps a frame and sends it.
func (h *Echo) send(sock *Socket, st *echoStream, frame []byte) bool {
	st.unacked = append(st.unacked, sent{st.seq, frame})
	return sock.WriteMessage(websocket.TextMessage, frame) == nil
}
