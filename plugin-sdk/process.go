package pluginsdk

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/transporthost/transporthost/shared/rpc"
	"github.com/transporthost/transporthost/shared/transport"
)

// A process is one plugin process: a transport, and the host's calls to it.
type process struct {
	transport Transport
	log       hclog.Logger
	server    *rpc.Server

	mu     sync.Mutex // guards what follows
	host   *Host      // nil before Start
	cancel context.CancelCauseFunc
	result error // of Serve, once served is closed

	ready  bool          // Start has succeeded
	served chan struct{} // closed when Serve has returned
	over   chan struct{} // closed when it has returned although it was ready
}

var (
	_ rpc.Plugin   = (*process)(nil)
	_ rpc.Commands = (*process)(nil)
)

func newProcess(t Transport, log hclog.Logger) *process {
	p := &process{transport: t, log: log, served: make(chan struct{}), over: make(chan struct{})}
	p.server = rpc.NewServer(p, p)
	return p
}

// Describe fills in what the SDK can see of the transport.
func (p *process) Describe() Description {
	d := p.transport.Describe()
	_, d.Capabilities.Drain = p.transport.(Drainer)
	_, d.Capabilities.SetEnabled = p.transport.(Enabler)
	_, d.Capabilities.AuthStrictness = p.transport.(StrictnessSetter)
	_, d.Capabilities.CredentialsChanged = p.transport.(CredentialsWatcher)
	_, d.Capabilities.Resume = p.transport.(Resumer)
	return d
}

// Start runs the transport's Serve in a goroutine that Stop, or the end of the
// process, waits for.
func (p *process) Start(ctx context.Context, params StartParams) (transport.StartResult, error) {
	p.mu.Lock()
	if p.host != nil {
		p.mu.Unlock()
		return transport.StartResult{}, transport.ErrAlreadyStarted
	}
	host := newHost(p.server, p.log, params)
	p.host = host
	// Serving outlives this call: its end is Stop, or the end of the link.
	serving, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	p.cancel = cancel
	p.mu.Unlock()

	go func() {
		err := p.transport.Serve(serving, host)
		host.loseAll()
		p.mu.Lock()
		defer p.mu.Unlock()
		p.result = err
		close(p.served)
		if p.ready {
			close(p.over)
		}
	}()

	select {
	case addresses := <-host.ready:
		p.becomeReady()
		return host.started(addresses), nil
	case <-p.served:
		select {
		case addresses := <-host.ready:
			// Serve became ready before it returned: that is an end, not a refusal.
			p.becomeReady()
			return host.started(addresses), nil
		default:
		}
		if err := p.outcome(); err != nil {
			return transport.StartResult{}, err
		}
		return transport.StartResult{}, errors.New("the transport ended before it was ready")
	case <-ctx.Done():
		cancel(fmt.Errorf("starting: %w", context.Cause(ctx)))
		return transport.StartResult{}, fmt.Errorf("the transport is not ready in time: %w", context.Cause(ctx))
	}
}

// becomeReady makes the return of Serve the end of the process. A transport
// that was never ready leaves that to the host, which reads its refusal first.
func (p *process) becomeReady() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ready = true
	select {
	case <-p.served:
		close(p.over)
	default:
	}
}

func (p *process) outcome() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.result
}

// end makes Serve end, and waits for it until ctx ends. It is true if nothing
// is left.
func (p *process) end(ctx context.Context, cause error) bool {
	p.mu.Lock()
	host, cancel := p.host, p.cancel
	p.mu.Unlock()
	if host == nil {
		return true
	}
	cancel(cause)
	select {
	case <-p.served:
		return true
	case <-ctx.Done():
		return false
	}
}

// endWithin is end for a process that must end because ctx has.
func (p *process) endWithin(ctx context.Context, grace time.Duration) bool {
	cause := context.Cause(ctx)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), grace)
	defer cancel()
	return p.end(ctx, cause)
}

func (p *process) Stop(ctx context.Context) error {
	if !p.end(ctx, ErrStopping) {
		return fmt.Errorf("the transport did not stop in time: %w", context.Cause(ctx))
	}
	return nil
}

func (p *process) Drain(ctx context.Context) error {
	if d, ok := p.transport.(Drainer); ok {
		return d.Drain(ctx)
	}
	return transport.ErrNotSupported
}

func (p *process) SetEnabled(ctx context.Context, enabled bool) error {
	if e, ok := p.transport.(Enabler); ok {
		return e.SetEnabled(ctx, enabled)
	}
	return transport.ErrNotSupported
}

func (p *process) SetAuthStrictness(ctx context.Context, s AuthStrictness) error {
	if t, ok := p.transport.(StrictnessSetter); ok {
		return t.SetAuthStrictness(ctx, s)
	}
	return transport.ErrNotSupported
}

func (p *process) NotifyCredentialsChanged(ctx context.Context, c CredentialsChange) error {
	if t, ok := p.transport.(CredentialsWatcher); ok {
		return t.CredentialsChanged(ctx, c)
	}
	return transport.ErrNotSupported
}

// The commands of the host. Those for a connection that is not there are late,
// and no violation: the host sent them before it saw the Closed.

func (p *process) conn(id ConnID) (*Host, *Conn) {
	p.mu.Lock()
	host := p.host
	p.mu.Unlock()
	if host == nil {
		return nil, nil
	}
	return host, host.conn(id)
}

func (p *process) Send(id ConnID, seq Seq, piece []byte, more bool) error {
	host, c := p.conn(id)
	if c == nil {
		return nil
	}
	if !c.touched {
		c.touched = true
		host.touched = append(host.touched, c)
	}
	return c.message(seq, piece, more)
}

func (p *process) Close(id ConnID, reason CloseReason) {
	if _, c := p.conn(id); c != nil {
		c.closeByHost(reason)
	}
}

func (p *process) Credit(id ConnID, credit transport.Credit) error {
	if _, c := p.conn(id); c != nil {
		return c.credit(credit)
	}
	return nil
}

// An Accepter is a [Sink] that wants to hear up to which cursor the host has
// accepted the peer's messages. Accepted must not block.
type Accepter interface {
	Accepted(cursor Cursor)
}

func (p *process) Accepted(id ConnID, cursor Cursor) {
	if _, c := p.conn(id); c != nil {
		if a, ok := c.sink.(Accepter); ok {
			a.Accepted(cursor)
		}
	}
}

func (p *process) Checkpointed(id ConnID) {
	if _, c := p.conn(id); c != nil {
		c.checkpointed()
	}
}

func (p *process) EndBatch() {
	p.mu.Lock()
	host := p.host
	p.mu.Unlock()
	if host == nil {
		return
	}
	for i, c := range host.touched {
		c.touched = false
		c.sink.Flush()
		host.touched[i] = nil
	}
	host.touched = host.touched[:0]
}
