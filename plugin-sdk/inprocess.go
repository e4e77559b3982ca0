package pluginsdk

import (
	"context"
	"net"

	"github.com/hashicorp/go-hclog"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
)

// An InProcess is a transport behind a real link in this process, without
// go-plugin's handshake. It is for tests; see package pluginsdktest.
type InProcess struct {
	process *process
	server  *grpc.Server
}

// NewInProcess makes one; nothing runs before Serve.
func NewInProcess(t Transport, log hclog.Logger) *InProcess {
	p := newProcess(t, log)
	s := grpc.NewServer(p.server.ServerOptions()...)
	p.server.Register(s)
	h := health.NewServer()
	h.SetServingStatus("plugin", healthpb.HealthCheckResponse_SERVING)
	healthpb.RegisterHealthServer(s, h)
	return &InProcess{process: p, server: s}
}

// Serve answers the host on l until Close, or an error of l.
func (p *InProcess) Serve(l net.Listener) error { return p.server.Serve(l) }

// Close ends the transport and the link, as the death of the host would.
func (p *InProcess) Close() {
	p.server.Stop()
	ctx, cancel := context.WithCancelCause(context.Background())
	cancel(ErrLinkClosed)
	p.process.endWithin(ctx, lastGrace)
}
