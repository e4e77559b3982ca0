package host

import (
	"context"
	"fmt"

	"github.com/transporthost/transporthost/host/router"
	"github.com/transporthost/transporthost/host/supervisor"
	"github.com/transporthost/transporthost/shared/rpc"
	"github.com/transporthost/transporthost/shared/transport"
)

// sessions is the router as the supervisor sees it.
type sessions struct{ r *router.Router }

var _ supervisor.Sessions = sessions{}

func (s sessions) Attach(instance string, incarnation int, link *rpc.Link) supervisor.Attachment {
	return s.r.Attach(instance, incarnation, link)
}

func (s sessions) Resumable(instance string) []transport.Resume { return s.r.Resumable(instance) }

func (s sessions) Abandon(instance string, reason transport.CloseReason) {
	s.r.Abandon(instance, reason)
}

// hostCalls answers what plugins may ask. No transport of this host is granted
// credentials or state.
type hostCalls struct{ report func(transport.Status) }

var _ rpc.HostCalls = hostCalls{}

func notGranted(what string) error {
	return fmt.Errorf("%s: %w by the configuration of this host", what, transport.ErrNotGranted)
}

func (hostCalls) Credentials(context.Context) (transport.Credentials, error) {
	return transport.Credentials{}, notGranted("credentials")
}

func (hostCalls) RecoverUnauthorized(context.Context, uint64) (transport.Credentials, error) {
	return transport.Credentials{}, notGranted("credentials")
}

func (hostCalls) CredentialsAccepted(uint64) {}

func (hostCalls) ClientName(context.Context) (string, error) {
	return "", notGranted("the client's name")
}

func (hostCalls) LoadState(context.Context, string) ([]byte, error) {
	return nil, notGranted("state")
}

func (hostCalls) SaveState(context.Context, string, []byte) error { return notGranted("state") }

func (hostCalls) DeleteState(context.Context, string) error { return notGranted("state") }

func (c hostCalls) ReportStatus(s transport.Status) { c.report(s) }
