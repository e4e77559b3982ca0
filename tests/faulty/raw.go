package main

import (
	"context"
	"io"
	"os"
	"sync"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/go-plugin"
	"google.golang.org/grpc"

	"github.com/transporthost/transporthost/shared/rpc"
	"github.com/transporthost/transporthost/shared/transport"
)

// A raw plugin speaks the link without the SDK, and so without its care: it
// says what its functions say, whenever they say it. What is nil behaves well.
type raw struct {
	describe func() transport.Description
	start    func(ctx context.Context, p transport.StartParams) (transport.StartResult, error)
	drain    func(ctx context.Context) error
	stop     func(ctx context.Context) error
	serve    func(r *raw) // in a goroutine of its own, once Start has answered

	// told is called from the receive loop for every command that arrives.
	told    func(r *raw, c command)
	options []grpc.ServerOption

	server *rpc.Server
	params transport.StartParams
	once   sync.Once
}

// A command is one of the host, as far as a defect may want to know it.
type command struct {
	kind   string // "send", "close", "credit", "accepted", "checkpointed"
	conn   transport.ConnID
	credit transport.Credit
}

var (
	_ rpc.Plugin   = (*raw)(nil)
	_ rpc.Commands = (*raw)(nil)
)

// main serves until the host asks the process to end, or is gone.
func (r *raw) main() int {
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	}()
	return r.stubbornMain()
}

// stubbornMain does not watch its lifeline.
func (r *raw) stubbornMain() int {
	r.server = rpc.NewServer(r, r)
	cfg, _ := r.server.ServeConfig()
	cfg.Logger = hclog.NewNullLogger()
	inner := cfg.GRPCServer
	cfg.GRPCServer = func(opts []grpc.ServerOption) *grpc.Server { return inner(append(opts, r.options...)) }
	plugin.Serve(cfg)
	return 0
}

func (r *raw) Describe() transport.Description {
	if r.describe != nil {
		return r.describe()
	}
	return description()
}

func description() transport.Description {
	return transport.Description{
		Name: "faulty", Version: "1.0.0", Locality: transport.Local, Capabilities: transport.Capabilities{Drain: true},
	}
}

func (r *raw) Start(ctx context.Context, p transport.StartParams) (res transport.StartResult, err error) {
	r.params = p
	if r.start != nil {
		res, err = r.start(ctx, p)
	}
	if err == nil && r.serve != nil {
		r.once.Do(func() { go r.serve(r) })
	}
	return res, err
}

func (r *raw) SetAuthStrictness(context.Context, transport.AuthStrictness) error { return nil }
func (r *raw) NotifyCredentialsChanged(context.Context, transport.CredentialsChange) error {
	return nil
}
func (r *raw) SetEnabled(context.Context, bool) error { return nil }

func (r *raw) Drain(ctx context.Context) error {
	if r.drain != nil {
		return r.drain(ctx)
	}
	return nil
}

func (r *raw) Stop(ctx context.Context) error {
	if r.stop != nil {
		return r.stop(ctx)
	}
	return nil
}

func (r *raw) tell(c command) {
	if r.told != nil {
		r.told(r, c)
	}
}

func (r *raw) Send(conn transport.ConnID, _ transport.Seq, _ []byte, _ bool) error {
	r.tell(command{kind: "send", conn: conn})
	return nil
}

func (r *raw) Close(conn transport.ConnID, _ transport.CloseReason) {
	if r.told != nil {
		r.tell(command{kind: "close", conn: conn})
		return
	}
	r.server.Closed(conn, transport.CloseReason{Code: transport.CloseNormal})
}

func (r *raw) Credit(conn transport.ConnID, c transport.Credit) error {
	r.tell(command{kind: "credit", conn: conn, credit: c})
	return nil
}

func (r *raw) Accepted(conn transport.ConnID, _ transport.Cursor) {
	r.tell(command{kind: "accepted", conn: conn})
}

func (r *raw) Checkpointed(conn transport.ConnID) {
	r.tell(command{kind: "checkpointed", conn: conn})
}

func (r *raw) EndBatch() {}
