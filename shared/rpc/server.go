package rpc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"

	"github.com/transporthost/transporthost/shared/transport"
	pb "github.com/transporthost/transporthost/shared/transportpb"
)

// A Plugin answers the host's unary calls. The methods may be called
// concurrently.
type Plugin interface {
	Describe() transport.Description
	Start(ctx context.Context, p transport.StartParams) (transport.StartResult, error)
	SetAuthStrictness(ctx context.Context, s transport.AuthStrictness) error
	NotifyCredentialsChanged(ctx context.Context, c transport.CredentialsChange) error
	SetEnabled(ctx context.Context, enabled bool) error
	Drain(ctx context.Context) error
	Stop(ctx context.Context) error
}

// Commands takes what the host sends. The methods are called from the link's
// receive loop, one at a time, and must not block. Byte slices are on loan
// until the method returns. An error is a violation and ends the link.
type Commands interface {
	Send(conn transport.ConnID, seq transport.Seq, piece []byte, more bool) error
	Close(conn transport.ConnID, reason transport.CloseReason)
	Credit(conn transport.ConnID, c transport.Credit) error
	Accepted(conn transport.ConnID, cursor transport.Cursor)
	Checkpointed(conn transport.ConnID)
	// EndBatch follows the last command of a batch.
	EndBatch()
}

// A Server is the plugin's half of the link. Its methods may be called from
// any goroutine. Events never block, except Received, and go nowhere once the
// link has ended.
type Server struct {
	pb.UnimplementedTransportServer

	plugin   Plugin
	commands Commands
	chunks   *chunkPool
	codec    *codec
	out      *sender
	asker    asker

	exchanging atomic.Bool
	asking     atomic.Bool
	attached   chan struct{} // closed when the host opened both streams
	attachOnce sync.Once
	done       chan struct{} // closed when the first of them ended
	doneOnce   sync.Once
}

// NewServer makes the plugin's half.
func NewServer(p Plugin, c Commands) *Server {
	chunks := &chunkPool{}
	return &Server{
		plugin: p, commands: c, chunks: chunks, codec: newCodec(chunks), out: newSender(chunks),
		attached: make(chan struct{}), done: make(chan struct{}),
	}
}

// Done is closed when the link has ended: the host is gone, or has let go.
func (s *Server) Done() <-chan struct{} { return s.done }

func (s *Server) ended() { s.doneOnce.Do(func() { close(s.done) }) }

// attach says that one of the streams can be used now; Start may follow at once
// in another goroutine.
func (s *Server) attach(which *atomic.Bool) error {
	if !which.CompareAndSwap(false, true) {
		return openedBefore()
	}
	if s.exchanging.Load() && s.asking.Load() {
		s.attachOnce.Do(func() { close(s.attached) })
	}
	return nil
}

func openedBefore() error {
	return toStatus(fmt.Errorf("%w: the stream was opened before", transport.ErrAlreadyStarted))
}

// Describe implements the service.
func (s *Server) Describe(context.Context, *pb.DescribeRequest) (*pb.DescribeResponse, error) {
	return descriptionToProto(s.plugin.Describe()), nil
}

// Start implements the service. It waits for the streams: the host opens them
// first, but gRPC may deliver them in another order.
func (s *Server) Start(ctx context.Context, r *pb.StartRequest) (*pb.StartResponse, error) {
	select {
	case <-s.attached:
	case <-ctx.Done():
		return nil, toStatus(fmt.Errorf("waiting for the streams of the host: %w", context.Cause(ctx)))
	}
	res, err := s.plugin.Start(ctx, startFromProto(r))
	if err != nil {
		return nil, toStatus(err)
	}
	out := &pb.StartResponse{Addresses: res.Addresses}
	for _, conn := range res.Adopted {
		out.Adopted = append(out.Adopted, uint64(conn))
	}
	return out, nil
}

// SetAuthStrictness implements the service.
func (s *Server) SetAuthStrictness(ctx context.Context, r *pb.SetAuthStrictnessRequest) (*pb.SetAuthStrictnessResponse, error) {
	err := s.plugin.SetAuthStrictness(ctx, strictnessFromProto(r.GetAuthStrictness()))
	return &pb.SetAuthStrictnessResponse{}, toStatus(err)
}

// NotifyCredentialsChanged implements the service.
func (s *Server) NotifyCredentialsChanged(ctx context.Context, r *pb.NotifyCredentialsChangedRequest) (*pb.NotifyCredentialsChangedResponse, error) {
	err := s.plugin.NotifyCredentialsChanged(ctx, transport.CredentialsChange{Generation: r.GetGeneration(), Reason: r.GetReason()})
	return &pb.NotifyCredentialsChangedResponse{}, toStatus(err)
}

// SetEnabled implements the service.
func (s *Server) SetEnabled(ctx context.Context, r *pb.SetEnabledRequest) (*pb.SetEnabledResponse, error) {
	return &pb.SetEnabledResponse{}, toStatus(s.plugin.SetEnabled(ctx, r.GetEnabled()))
}

// Drain implements the service.
func (s *Server) Drain(ctx context.Context, _ *pb.DrainRequest) (*pb.DrainResponse, error) {
	return &pb.DrainResponse{}, toStatus(s.plugin.Drain(ctx))
}

// Stop implements the service.
func (s *Server) Stop(ctx context.Context, _ *pb.StopRequest) (*pb.StopResponse, error) {
	return &pb.StopResponse{}, toStatus(s.plugin.Stop(ctx))
}

// Exchange implements the service.
func (s *Server) Exchange(stream grpc.BidiStreamingServer[pb.CommandBatch, pb.EventBatch]) error {
	if err := s.attach(&s.exchanging); err != nil {
		return err
	}
	defer s.ended()
	defer s.out.close()
	// The server frees the stream's receiver only when this returns, so the
	// receive loop is not waited for: it ends when the stream's context does.
	g, ctx := errgroup.WithContext(stream.Context())
	received := make(chan error, 1)
	go func() { received <- s.receive(stream) }()
	g.Go(func() error { return s.out.run(ctx, stream) })
	g.Go(func() error {
		select {
		case err := <-received:
			return err
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	})
	if err := g.Wait(); !errors.Is(err, io.EOF) {
		return err
	}
	return nil
}

// receive is the receive loop: it never waits for anything but the stream.
func (s *Server) receive(stream grpc.ServerStream) error {
	var in inBatch
	defer in.release()
	var f frame
	for {
		if err := stream.RecvMsg(&in); err != nil {
			return err
		}
		s.out.cork()
		err := s.dispatch(in.b, &f)
		s.commands.EndBatch()
		s.out.uncork()
		if err != nil {
			return err
		}
	}
}

func (s *Server) dispatch(b []byte, f *frame) (err error) {
	for len(b) > 0 {
		if b, err = f.next(b); err != nil {
			return fmt.Errorf("decoding commands: %w", err)
		}
		switch f.kind {
		case commandSend:
			err = s.commands.Send(f.conn, transport.Seq(f.n2), f.payload, f.more)
		case commandCredit:
			err = s.commands.Credit(f.conn, f.credit())
		case commandClose:
			s.commands.Close(f.conn, f.reason())
		case commandAccepted:
			s.commands.Accepted(f.conn, transport.Cursor(f.payload))
		case commandCheckpointed:
			s.commands.Checkpointed(f.conn)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// HostCalls implements the service.
func (s *Server) HostCalls(stream grpc.BidiStreamingServer[pb.HostReply, pb.HostCall]) error {
	if !s.asker.take(stream) {
		return openedBefore()
	}
	defer s.ended()
	if err := s.attach(&s.asking); err != nil {
		return err
	}
	if err := s.asker.serve(stream); !errors.Is(err, io.EOF) {
		return err
	}
	return nil
}

// Opened announces a connection.
func (s *Server) Opened(conn transport.ConnID, o transport.Opened) {
	p := o.Peer
	size := len(p.RemoteAddr) + len(p.LocalAddr) + len(p.Identity) + len(p.UserAgent) + len(p.ClientName) + len(o.ResumeKey)
	if b := s.out.begin(size + 2*frameOverhead); b != nil {
		*b = appendOpened(*b, conn, o)
	}
	s.out.end()
}

// WaitRoom blocks while too much is queued on the link. Goroutines that belong
// to one connection call it before Received. It returns
// [transport.ErrLinkClosed] after the link's end, or the cause of ctx.
func (s *Server) WaitRoom(ctx context.Context) error { return s.out.waitRoom(ctx) }

// Received queues one piece of a message of the peer; the caller has the credit
// for it. piece is copied.
func (s *Server) Received(conn transport.ConnID, piece []byte, cursor transport.Cursor, more bool) {
	if b := s.out.begin(len(piece) + len(cursor) + frameOverhead); b != nil {
		*b = appendReceived(*b, conn, piece, cursor, more)
	}
	s.out.end()
}

// Acked says that messages up to seq are safely out.
func (s *Server) Acked(conn transport.ConnID, seq transport.Seq) {
	if b := s.out.begin(frameOverhead); b != nil {
		*b = appendNumber(*b, conn, eventAcked, uint64(seq))
	}
	s.out.end()
}

// Checkpoint hands the host what to remember of a connection.
func (s *Server) Checkpoint(conn transport.ConnID, data []byte) {
	if b := s.out.begin(len(data) + frameOverhead); b != nil {
		*b = appendData(*b, conn, eventCheckpoint, data)
	}
	s.out.end()
}

// Finished says that the peer sends no more.
func (s *Server) Finished(conn transport.ConnID) {
	if b := s.out.begin(frameOverhead); b != nil {
		*b = appendData(*b, conn, eventFinished, "")
	}
	s.out.end()
}

// Rejected says that the peer sent what is no message; the caller has the
// credit of a message without bytes.
func (s *Server) Rejected(conn transport.ConnID, r transport.Rejection) {
	if b := s.out.begin(len(r.Cursor) + len(r.Text) + frameOverhead); b != nil {
		*b = appendRejected(*b, conn, r)
	}
	s.out.end()
}

// Closed says that a connection has ended.
func (s *Server) Closed(conn transport.ConnID, r transport.CloseReason) {
	if b := s.out.begin(len(r.Text) + frameOverhead); b != nil {
		*b = appendReason(*b, conn, eventClosed, r)
	}
	s.out.end()
}

// Credit returns room to the host.
func (s *Server) Credit(conn transport.ConnID, c transport.Credit) {
	if b := s.out.begin(frameOverhead); b != nil {
		*b = appendCredit(*b, conn, eventCredit, c)
	}
	s.out.end()
}

// ReportStatus tells the host how the plugin is.
func (s *Server) ReportStatus(st transport.Status) {
	s.asker.tell(&pb.HostCall{Kind: &pb.HostCall_ReportStatus{ReportStatus: statusToProto(st)}})
}

// CredentialsAccepted tells the host that the other side has accepted the
// credentials of a generation.
func (s *Server) CredentialsAccepted(generation uint64) {
	s.asker.tell(&pb.HostCall{Kind: &pb.HostCall_CredentialsAccepted{
		CredentialsAccepted: &pb.CredentialsAcceptedCall{Generation: generation}}})
}

// Credentials asks the host for credentials.
func (s *Server) Credentials(ctx context.Context) (transport.Credentials, error) {
	r, err := s.asker.ask(ctx, &pb.HostCall{Kind: &pb.HostCall_Credentials{Credentials: &pb.CredentialsCall{}}})
	return credentialsFromProto(r.GetCredentials()), err
}

// RecoverUnauthorized tells the host that the credentials of a generation were
// refused, and asks for better ones.
func (s *Server) RecoverUnauthorized(ctx context.Context, generation uint64) (transport.Credentials, error) {
	r, err := s.asker.ask(ctx, &pb.HostCall{Kind: &pb.HostCall_RecoverUnauthorized{
		RecoverUnauthorized: &pb.RecoverUnauthorizedCall{Generation: generation}}})
	return credentialsFromProto(r.GetCredentials()), err
}

// ClientName asks the host for the name of the program at its terminal.
func (s *Server) ClientName(ctx context.Context) (string, error) {
	r, err := s.asker.ask(ctx, &pb.HostCall{Kind: &pb.HostCall_ClientName{ClientName: &pb.ClientNameCall{}}})
	return r.GetClientName().GetName(), err
}

// LoadState reads what was saved under key.
func (s *Server) LoadState(ctx context.Context, key string) ([]byte, error) {
	r, err := s.asker.ask(ctx, &pb.HostCall{Kind: &pb.HostCall_LoadState{LoadState: &pb.LoadStateCall{Key: key}}})
	return r.GetState().GetValue(), err
}

// SaveState stores value under key.
func (s *Server) SaveState(ctx context.Context, key string, value []byte) error {
	_, err := s.asker.ask(ctx, &pb.HostCall{Kind: &pb.HostCall_SaveState{SaveState: &pb.SaveStateCall{Key: key, Value: value}}})
	return err
}

// DeleteState forgets what is under key.
func (s *Server) DeleteState(ctx context.Context, key string) error {
	_, err := s.asker.ask(ctx, &pb.HostCall{Kind: &pb.HostCall_DeleteState{DeleteState: &pb.DeleteStateCall{Key: key}}})
	return err
}
