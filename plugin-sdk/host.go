package pluginsdk

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"sync"

	"github.com/hashicorp/go-hclog"

	"github.com/transporthost/transporthost/shared/rpc"
	"github.com/transporthost/transporthost/shared/transport"
)

// A Host is the host as a [Transport] sees it while it serves. Its methods may
// be called from any goroutine, until Serve returns.
type Host struct {
	server *rpc.Server
	log    hclog.Logger
	params StartParams
	ready  chan []string // one slot, filled by the first Ready

	touched []*Conn // of the receive loop: sinks to flush when the batch ends

	mu      sync.Mutex // guards what follows
	conns   map[ConnID]*Conn
	lastID  ConnID
	lost    bool         // the link has ended
	taken   map[int]bool // inherited files that were handed out, by descriptor
	adopted []ConnID
}

func newHost(server *rpc.Server, log hclog.Logger, p StartParams) *Host {
	if p.MaxMessageBytes <= 0 {
		p.MaxMessageBytes = transport.DefaultMaxMessageBytes
	}
	h := &Host{
		server: server,
		log:    log.With("instance", p.Instance, "incarnation", p.Incarnation),
		params: p,
		ready:  make(chan []string, 1),
		conns:  make(map[ConnID]*Conn),
		taken:  make(map[int]bool),
	}
	for _, r := range p.Resume {
		h.lastID = max(h.lastID, r.Conn)
	}
	return h
}

// Params returns what the host gave to begin with.
func (h *Host) Params() StartParams { return h.params }

// Logger returns a logger whose lines reach the host's log.
func (h *Host) Logger() hclog.Logger { return h.log }

// DecodeConfig decodes the configuration of this instance into v, a pointer to
// a struct with JSON tags. A key that v does not have is an error, as is a
// value of another type; both wrap [ErrInvalidConfig].
func (h *Host) DecodeConfig(v any) error {
	config := h.params.Config
	if len(bytes.TrimSpace(config)) == 0 {
		return nil
	}
	d := json.NewDecoder(bytes.NewReader(config))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return fmt.Errorf("transport %q: %w: %w", h.params.Instance, ErrInvalidConfig, err)
	}
	if _, err := d.Token(); err != io.EOF {
		return fmt.Errorf("transport %q: %w: text behind the configuration", h.params.Instance, ErrInvalidConfig)
	}
	return nil
}

// Ready says that peers can reach the transport now, and where. Only the first
// call counts.
func (h *Host) Ready(addresses ...string) {
	select {
	case h.ready <- slices.Clone(addresses):
	default:
	}
}

// ReportStatus tells the host how the transport is, for its status and its log.
// It does not block for long: one small message on the link.
func (h *Host) ReportStatus(s Status) { h.server.ReportStatus(s) }

// Open announces a new connection. What the host sends on it goes to sink,
// perhaps before Open has returned (see [Binder]). It returns [ErrLinkClosed]
// if the host is gone.
func (h *Host) Open(o Opened, sink Sink) (*Conn, error) {
	return h.add(0, o.ResumeKey, sink, func(id ConnID) { h.server.Opened(id, o) })
}

// Adopt takes over a connection of an earlier process, as [StartParams].Resume
// lists it. What the host still has for it follows at once. Connections that
// are not adopted before [Host.Ready] are closed by the host.
func (h *Host) Adopt(r Resume, sink Sink) (*Conn, error) {
	if r.Conn == 0 || !slices.ContainsFunc(h.params.Resume, func(have Resume) bool { return have.Conn == r.Conn }) {
		return nil, fmt.Errorf("adopting connection %d, which is not in StartParams.Resume: %w", r.Conn, ErrConnClosed)
	}
	return h.add(r.Conn, r.Key, sink, func(id ConnID) {
		h.adopted = append(h.adopted, id)
		h.server.Opened(id, Opened{ResumeKey: r.Key})
	})
}

func (h *Host) add(id ConnID, key ResumeKey, sink Sink, announce func(ConnID)) (*Conn, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.lost {
		return nil, ErrLinkClosed
	}
	if id == 0 {
		h.lastID++
		id = h.lastID
	}
	c := &Conn{host: h, id: id, sink: sink, resumable: key != ""}
	if b, ok := sink.(Binder); ok {
		b.Bind(c)
	}
	h.conns[id] = c
	// under the lock: the events of a connection begin with this one, and
	// another goroutine may have seen the connection as soon as it is unlocked
	announce(id)
	return c, nil
}

// started is the answer to the host's Start: the host closes what is not in it.
func (h *Host) started(addresses []string) transport.StartResult {
	h.mu.Lock()
	defer h.mu.Unlock()
	return transport.StartResult{Addresses: addresses, Adopted: slices.Clone(h.adopted)}
}

func (h *Host) forget(id ConnID) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.conns, id)
}

func (h *Host) conn(id ConnID) *Conn {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.conns[id]
}

// loseAll ends all connections, because the link has.
func (h *Host) loseAll() {
	h.mu.Lock()
	h.lost = true
	conns := make([]*Conn, 0, len(h.conns))
	for _, c := range h.conns {
		conns = append(conns, c)
	}
	clear(h.conns)
	h.mu.Unlock()
	for _, c := range conns {
		c.lose()
	}
}

// Credentials asks the host for the account's access token. It needs a grant in
// the host's configuration ([ErrNotGranted]), and returns [ErrNoCredentials],
// with the cause as its text, while there are none that can be used.
func (h *Host) Credentials(ctx context.Context) (Credentials, error) {
	return h.server.Credentials(ctx)
}

// RecoverUnauthorized tells the host that the backend refused the credentials
// of a generation, and returns better ones, or ErrNoCredentials with the cause.
func (h *Host) RecoverUnauthorized(ctx context.Context, generation uint64) (Credentials, error) {
	return h.server.RecoverUnauthorized(ctx, generation)
}

// CredentialsAccepted tells the host that the backend has accepted the
// credentials of a generation: the next refusal is recovered from with the first
// step again. It does not block for long, and nothing is answered.
func (h *Host) CredentialsAccepted(generation uint64) { h.server.CredentialsAccepted(generation) }

// ClientName returns what the program at the host's terminal calls itself in
// its initialize request. It waits for that request; a host without a terminal
// answers at once, with "". [ErrNotFound] says that the terminal's peer left
// without a name.
func (h *Host) ClientName(ctx context.Context) (string, error) { return h.server.ClientName(ctx) }

// LoadState returns what this instance saved under key, or [ErrNotFound].
func (h *Host) LoadState(ctx context.Context, key string) ([]byte, error) {
	return h.server.LoadState(ctx, key)
}

// SaveState stores up to 64 KiB under key, for this instance, for good.
func (h *Host) SaveState(ctx context.Context, key string, value []byte) error {
	return h.server.SaveState(ctx, key, value)
}

// DeleteState forgets what is under key; there need not be anything.
func (h *Host) DeleteState(ctx context.Context, key string) error {
	return h.server.DeleteState(ctx, key)
}
