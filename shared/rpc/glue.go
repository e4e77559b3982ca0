package rpc

import (
	"context"
	"errors"

	"github.com/hashicorp/go-plugin"
	"google.golang.org/grpc"

	pb "github.com/transporthost/transporthost/shared/transportpb"
)

const (
	// PluginName is what the host dispenses.
	PluginName = "transport"
	// ProtocolVersion is the version of the link, in go-plugin's negotiation.
	ProtocolVersion = 1
	// CookieKey is in the environment of every plugin process. It keeps people
	// from running a plugin by hand, and is no security measure.
	CookieKey = "TRANSPORTHOST_PLUGIN"

	cookieValue   = "b41c9d0f-transport-v1"
	healthService = "plugin" // go-plugin registers it under this name

	// windowStream and windowConn are gRPC's flow control windows. Any value of
	// 64 KiB and more switches off its bandwidth estimator, whose pings cost an
	// idle link a syscall per message.
	windowStream = 1 << 20
	windowConn   = 4 << 20
	// maxCallBytes bounds a unary call: a Start with many connections to resume.
	maxCallBytes = 32 << 20
)

// Handshake returns what host and plugin agree on before they speak.
func Handshake() plugin.HandshakeConfig {
	return plugin.HandshakeConfig{ProtocolVersion: ProtocolVersion, MagicCookieKey: CookieKey, MagicCookieValue: cookieValue}
}

// HostPlugins is the host's plugin.ClientConfig.VersionedPlugins. Dispensing
// [PluginName] gives a [*Link].
func HostPlugins() map[int]plugin.PluginSet {
	return map[int]plugin.PluginSet{ProtocolVersion: {PluginName: &glue{}}}
}

// DialOptions are the host's plugin.ClientConfig.GRPCDialOptions.
func DialOptions() []grpc.DialOption {
	return []grpc.DialOption{
		grpc.WithInitialWindowSize(windowStream),
		grpc.WithInitialConnWindowSize(windowConn),
		grpc.WithDisableRetry(),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxCallBytes), grpc.MaxCallSendMsgSize(maxCallBytes)),
	}
}

// ServeConfig returns the plugin's half for plugin.Serve, which blocks until
// the process is asked to end, or stop is called.
func (s *Server) ServeConfig() (cfg *plugin.ServeConfig, stop func()) {
	made := make(chan *grpc.Server, 1)
	cfg = &plugin.ServeConfig{
		HandshakeConfig:  Handshake(),
		VersionedPlugins: map[int]plugin.PluginSet{ProtocolVersion: {PluginName: &glue{server: s}}},
		GRPCServer: func(opts []grpc.ServerOption) *grpc.Server {
			srv := grpc.NewServer(append(opts, s.ServerOptions()...)...)
			made <- srv
			return srv
		},
	}
	return cfg, func() {
		select {
		case srv := <-made:
			srv.Stop()
			made <- srv
		default: // plugin.Serve has not come that far
		}
	}
}

// ServerOptions are what the plugin's gRPC server needs.
func (s *Server) ServerOptions() []grpc.ServerOption {
	return []grpc.ServerOption{
		grpc.InitialWindowSize(windowStream),
		grpc.InitialConnWindowSize(windowConn),
		grpc.MaxRecvMsgSize(maxCallBytes),
		grpc.MaxSendMsgSize(maxCallBytes),
		grpc.ForceServerCodecV2(s.codec),
	}
}

// Register adds the link's service to a gRPC server, for those that go-plugin
// does not make (tests).
func (s *Server) Register(r grpc.ServiceRegistrar) { pb.RegisterTransportServer(r, s) }

// glue is both halves as go-plugin wants them. The broker is not used.
type glue struct {
	plugin.NetRPCUnsupportedPlugin
	server *Server
}

var _ plugin.GRPCPlugin = (*glue)(nil)

func (g *glue) GRPCServer(_ *plugin.GRPCBroker, srv *grpc.Server) error {
	if g.server == nil {
		return errors.New("the host does not serve")
	}
	g.server.Register(srv)
	return nil
}

func (g *glue) GRPCClient(_ context.Context, _ *plugin.GRPCBroker, conn *grpc.ClientConn) (any, error) {
	return NewLink(conn), nil
}
