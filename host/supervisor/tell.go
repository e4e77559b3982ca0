package supervisor

import (
	"context"

	"github.com/transporthost/transporthost/shared/rpc"
	"github.com/transporthost/transporthost/shared/transport"
)

// What a process is told while it runs. Every call has a deadline.

// ready returns the link of the ready process, and what it can do.
func (p *Plugin) ready() (*rpc.Link, transport.Capabilities) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.link, p.caps
}

// SetAuthStrictness tells the process, if there is one and it wants to know.
func (p *Plugin) SetAuthStrictness(ctx context.Context, s transport.AuthStrictness) error {
	link, caps := p.ready()
	if link == nil || !caps.AuthStrictness {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, transport.NotifyTimeout)
	defer cancel()
	return link.SetAuthStrictness(ctx, s)
}

// NotifyCredentialsChanged tells the process, if there is one and it wants to
// know.
func (p *Plugin) NotifyCredentialsChanged(ctx context.Context, c transport.CredentialsChange) error {
	link, caps := p.ready()
	if link == nil || !caps.CredentialsChanged {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, transport.NotifyTimeout)
	defer cancel()
	return link.NotifyCredentialsChanged(ctx, c)
}
