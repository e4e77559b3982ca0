package pluginsdktest

import (
	"context"

	"github.com/transporthost/transporthost/shared/rpc"
	"github.com/transporthost/transporthost/shared/transport"
)

// This file is what the link calls: the host's end of both streams.
var (
	_ rpc.Events    = (*Host)(nil)
	_ rpc.HostCalls = (*Host)(nil)
)

// Opened implements [rpc.Events].
func (h *Host) Opened(conn transport.ConnID, o transport.Opened) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.windows[conn] == nil {
		h.windows[conn] = &windows{}
	}
	h.add(Event{Conn: conn, Opened: &o})
}

// Received implements [rpc.Events].
func (h *Host) Received(conn transport.ConnID, piece []byte, cursor transport.Cursor, more bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	w := h.windows[conn]
	if w == nil {
		h.t.Errorf("message on connection %d, which is not open", conn)
		return
	}
	credit, err := w.fromPeer.Arrived(len(piece), more)
	if err != nil {
		h.t.Errorf("connection %d: %v", conn, err)
		return
	}
	h.returnLocked(conn, credit)
	whole := append(h.joined[conn], piece...)
	if more {
		h.joined[conn] = whole
		h.stir()
		return
	}
	delete(h.joined, conn)
	if !h.stalled {
		h.returnLocked(conn, w.fromPeer.Consumed(1, len(whole)))
	}
	h.add(Event{Conn: conn, Message: whole, Cursor: cursor})
}

func (h *Host) returnLocked(conn transport.ConnID, c transport.Credit) {
	if c != (transport.Credit{}) {
		h.link.Credit(conn, c)
	}
}

// Acked implements [rpc.Events].
func (h *Host) Acked(conn transport.ConnID, seq transport.Seq) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.add(Event{Conn: conn, Acked: seq})
}

// Checkpoint implements [rpc.Events].
func (h *Host) Checkpoint(conn transport.ConnID, data []byte) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.add(Event{Conn: conn, Check: append([]byte{}, data...)})
	h.link.Checkpointed(conn)
}

// Rejected implements [rpc.Events]. It consumes the rejection, as a host does
// that has answered it.
func (h *Host) Rejected(conn transport.ConnID, r transport.Rejection) {
	h.mu.Lock()
	defer h.mu.Unlock()
	w := h.windows[conn]
	if w == nil {
		h.t.Errorf("rejection on connection %d, which is not open", conn)
		return
	}
	if _, err := w.fromPeer.Arrived(0, false); err != nil {
		h.t.Errorf("connection %d: %v", conn, err)
		return
	}
	if !h.stalled {
		h.returnLocked(conn, w.fromPeer.Consumed(1, 0))
	}
	h.add(Event{Conn: conn, Rejected: &r, Cursor: r.Cursor})
}

// Finished implements [rpc.Events].
func (h *Host) Finished(conn transport.ConnID) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.add(Event{Conn: conn, Finish: true})
}

// Closed implements [rpc.Events].
func (h *Host) Closed(conn transport.ConnID, r transport.CloseReason) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.windows, conn)
	h.add(Event{Conn: conn, Closed: &r})
}

// Credit implements [rpc.Events].
func (h *Host) Credit(conn transport.ConnID, c transport.Credit) {
	h.mu.Lock()
	defer h.mu.Unlock()
	w := h.windows[conn]
	if w == nil {
		return
	}
	if err := w.toPeer.Return(c); err != nil {
		h.t.Errorf("connection %d: %v", conn, err)
	}
	h.add(Event{Conn: conn, Credit: &c})
	h.flushLocked(conn, w)
}

// Unknown implements [rpc.Events].
func (h *Host) Unknown(conn transport.ConnID) {
	h.t.Errorf("unknown event on connection %d", conn)
}

// EndBatch implements [rpc.Events].
func (h *Host) EndBatch() error { return nil }

// Answers are what the scripted host says to the questions of the transport.
// Without a function it grants no credentials, and has no terminal.
type Answers struct {
	Credentials         func(ctx context.Context) (transport.Credentials, error)
	RecoverUnauthorized func(ctx context.Context, generation uint64) (transport.Credentials, error)
	CredentialsAccepted func(generation uint64)
	ClientName          func(ctx context.Context) (string, error)
}

// Answer makes a what the host says from now on.
func (h *Host) Answer(a Answers) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.answers = a
}

func (h *Host) answer() Answers {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.answers
}

// Credentials implements [rpc.HostCalls].
func (h *Host) Credentials(ctx context.Context) (transport.Credentials, error) {
	if f := h.answer().Credentials; f != nil {
		return f(ctx)
	}
	return transport.Credentials{}, transport.ErrNotGranted
}

// RecoverUnauthorized implements [rpc.HostCalls].
func (h *Host) RecoverUnauthorized(ctx context.Context, generation uint64) (transport.Credentials, error) {
	if f := h.answer().RecoverUnauthorized; f != nil {
		return f(ctx, generation)
	}
	return transport.Credentials{}, transport.ErrNotGranted
}

// CredentialsAccepted implements [rpc.HostCalls].
func (h *Host) CredentialsAccepted(generation uint64) {
	if f := h.answer().CredentialsAccepted; f != nil {
		f(generation)
	}
}

// ClientName implements [rpc.HostCalls].
func (h *Host) ClientName(ctx context.Context) (string, error) {
	if f := h.answer().ClientName; f != nil {
		return f(ctx)
	}
	return "", nil
}

// LoadState implements [rpc.HostCalls].
func (h *Host) LoadState(_ context.Context, key string) ([]byte, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	v, ok := h.state[key]
	if !ok {
		return nil, transport.ErrNotFound
	}
	return v, nil
}

// SaveState implements [rpc.HostCalls].
func (h *Host) SaveState(_ context.Context, key string, value []byte) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.state[key] = value
	return nil
}

// DeleteState implements [rpc.HostCalls].
func (h *Host) DeleteState(_ context.Context, key string) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.state, key)
	return nil
}

// ReportStatus implements [rpc.HostCalls].
func (h *Host) ReportStatus(s transport.Status) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.statuses = append(h.statuses, s)
}
