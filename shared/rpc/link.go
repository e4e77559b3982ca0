package rpc

import (
	"context"
	"errors"
	"fmt"
	"io"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"github.com/transporthost/transporthost/shared/transport"
	pb "github.com/transporthost/transporthost/shared/transportpb"
)

// Events takes what a plugin process sends. The methods are called from the
// link's receive loop, one at a time, and must not block. Byte slices are on
// loan until the method returns.
type Events interface {
	Opened(conn transport.ConnID, o transport.Opened)
	// Received brings one piece of a message; more says that another follows.
	Received(conn transport.ConnID, piece []byte, cursor transport.Cursor, more bool)
	Acked(conn transport.ConnID, seq transport.Seq)
	Checkpoint(conn transport.ConnID, data []byte)
	Finished(conn transport.ConnID)
	Rejected(conn transport.ConnID, r transport.Rejection)
	Closed(conn transport.ConnID, reason transport.CloseReason)
	Credit(conn transport.ConnID, c transport.Credit)
	// Unknown is called for an event of a newer plugin.
	Unknown(conn transport.ConnID)
	// EndBatch follows the last event of a batch. An error says that the plugin
	// broke the rules of the link; it ends the link, and Run returns it.
	EndBatch() error
}

// A Link is the host's half of the link to one process. Its methods may be
// called from any goroutine. The unary calls need a deadline in ctx; the
// commands never block, and go nowhere once Run has returned.
type Link struct {
	client pb.TransportClient
	health healthpb.HealthClient
	codec  *codec
	out    *sender
}

// A BrokenError says that this side has ended the link, because of what the
// plugin sent.
type BrokenError struct{ Err error }

func (e *BrokenError) Error() string { return e.Err.Error() }
func (e *BrokenError) Unwrap() error { return e.Err }

// NewLink makes the host's half over conn, which must have been dialled with
// [DialOptions].
func NewLink(conn grpc.ClientConnInterface) *Link {
	chunks := &chunkPool{}
	return &Link{
		client: pb.NewTransportClient(conn),
		health: healthpb.NewHealthClient(conn),
		codec:  newCodec(chunks),
		out:    newSender(chunks),
	}
}

// Describe asks the plugin who it is.
func (l *Link) Describe(ctx context.Context) (transport.Description, error) {
	d, err := l.client.Describe(ctx, &pb.DescribeRequest{})
	if err != nil {
		return transport.Description{}, fromStatus("Describe", err)
	}
	return descriptionFromProto(d), nil
}

// Start begins the plugin's work. It returns once peers can reach it. Run must
// be running.
func (l *Link) Start(ctx context.Context, p transport.StartParams) (transport.StartResult, error) {
	r, err := l.client.Start(ctx, startToProto(p))
	if err != nil {
		return transport.StartResult{}, fromStatus("Start", err)
	}
	res := transport.StartResult{Addresses: r.GetAddresses()}
	for _, conn := range r.GetAdopted() {
		res.Adopted = append(res.Adopted, transport.ConnID(conn))
	}
	return res, nil
}

// SetAuthStrictness tells the plugin how strict to be from now on.
func (l *Link) SetAuthStrictness(ctx context.Context, s transport.AuthStrictness) error {
	_, err := l.client.SetAuthStrictness(ctx, &pb.SetAuthStrictnessRequest{AuthStrictness: strictnessToProto(s)})
	return fromStatus("SetAuthStrictness", err)
}

// NotifyCredentialsChanged tells the plugin that the host has other credentials.
func (l *Link) NotifyCredentialsChanged(ctx context.Context, c transport.CredentialsChange) error {
	_, err := l.client.NotifyCredentialsChanged(ctx, &pb.NotifyCredentialsChangedRequest{Generation: c.Generation, Reason: c.Reason})
	return fromStatus("NotifyCredentialsChanged", err)
}

// SetEnabled switches the plugin off or on.
func (l *Link) SetEnabled(ctx context.Context, enabled bool) error {
	_, err := l.client.SetEnabled(ctx, &pb.SetEnabledRequest{Enabled: enabled})
	return fromStatus("SetEnabled", err)
}

// Drain makes the plugin accept nothing new.
func (l *Link) Drain(ctx context.Context) error {
	_, err := l.client.Drain(ctx, &pb.DrainRequest{})
	return fromStatus("Drain", err)
}

// Stop ends the plugin's work.
func (l *Link) Stop(ctx context.Context) error {
	_, err := l.client.Stop(ctx, &pb.StopRequest{})
	return fromStatus("Stop", err)
}

// Probe asks whether the process is alive.
func (l *Link) Probe(ctx context.Context) error {
	r, err := l.health.Check(ctx, &healthpb.HealthCheckRequest{Service: healthService})
	if err != nil {
		return fromStatus("health check", err)
	}
	if r.GetStatus() != healthpb.HealthCheckResponse_SERVING {
		return fmt.Errorf("health check: the plugin answers %s", r.GetStatus())
	}
	return nil
}

// Run carries both streams until ctx ends or the process is gone, and returns
// why; the error is never nil. It is called once. When it returns, no method
// of ev or calls is running and none will be called.
func (l *Link) Run(ctx context.Context, ev Events, calls HostCalls) error {
	defer l.out.close()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil) // of what did not come as far as the group
	g, gctx := errgroup.WithContext(ctx)
	exchange, err := l.client.Exchange(gctx, grpc.ForceCodecV2(l.codec))
	if err != nil {
		return fromStatus("Exchange", err)
	}
	questions, err := l.client.HostCalls(gctx)
	if err != nil {
		return fromStatus("HostCalls", err)
	}
	g.Go(func() error { return l.receive(exchange, ev) })
	g.Go(func() error { return l.out.run(gctx, exchange) })
	g.Go(func() error { return answerCalls(gctx, questions, calls) })
	err = g.Wait()
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	return err
}

// receive is the receive loop: it never waits for anything but the stream.
func (l *Link) receive(stream grpc.ClientStream, ev Events) error {
	var in inBatch
	defer in.release()
	var f frame
	for {
		if err := stream.RecvMsg(&in); err != nil {
			return streamEnd("Exchange", err)
		}
		l.out.cork()
		err := dispatchEvents(in.b, &f, ev)
		broken := ev.EndBatch()
		l.out.uncork()
		switch {
		case err != nil:
			return &BrokenError{err}
		case broken != nil:
			return &BrokenError{broken}
		case l.out.unread():
			return &BrokenError{fmt.Errorf("the plugin does not read what the host answers: more than %d MiB wait for it", maxAnswerBytes>>20)}
		}
	}
}

func dispatchEvents(b []byte, f *frame, ev Events) (err error) {
	for len(b) > 0 {
		if b, err = f.next(b); err != nil {
			return fmt.Errorf("decoding events: %w", err)
		}
		switch f.kind {
		case eventReceived:
			ev.Received(f.conn, f.payload, transport.Cursor(f.second), f.more)
		case eventCredit:
			ev.Credit(f.conn, f.credit())
		case eventAcked:
			ev.Acked(f.conn, transport.Seq(f.n1))
		case eventOpened:
			o, err := f.opened()
			if err != nil {
				return err
			}
			ev.Opened(f.conn, o)
		case eventClosed:
			ev.Closed(f.conn, f.reason())
		case eventCheckpoint:
			ev.Checkpoint(f.conn, f.payload)
		case eventFinished:
			ev.Finished(f.conn)
		case eventRejected:
			ev.Rejected(f.conn, transport.Rejection{
				Cursor: transport.Cursor(f.payload), Text: string(f.second), Unparsable: f.more,
			})
		default:
			if f.conn != 0 {
				ev.Unknown(f.conn)
			}
		}
	}
	return nil
}

// streamEnd says that a stream of the link has ended.
func streamEnd(stream string, err error) error {
	if errors.Is(err, io.EOF) {
		return fmt.Errorf("%w: the plugin ended %s", transport.ErrLinkClosed, stream)
	}
	if st, ok := status.FromError(err); ok {
		text := words(st)
		if st.Code() == codes.ResourceExhausted || st.Code() == codes.Internal {
			return &BrokenError{fmt.Errorf("%s: %s", stream, text)} // it is not over, it is wrong
		}
		return fmt.Errorf("%w: %s: %s", transport.ErrLinkClosed, stream, text)
	}
	return fmt.Errorf("%w: %s: %w", transport.ErrLinkClosed, stream, err)
}

// Send queues one piece of the message with number seq; more says that another
// follows. The caller has the credit for it. piece is copied.
func (l *Link) Send(conn transport.ConnID, seq transport.Seq, piece []byte, more bool) {
	if b := l.out.begin(len(piece) + frameOverhead); b != nil {
		*b = appendSend(*b, conn, seq, piece, more)
	}
	l.out.end()
}

// Close asks the plugin to end a connection after what was sent on it.
func (l *Link) Close(conn transport.ConnID, reason transport.CloseReason) {
	if b := l.out.begin(len(reason.Text) + frameOverhead); b != nil {
		*b = appendReason(*b, conn, commandClose, reason)
	}
	l.out.endAnswer()
}

// Credit returns room to the plugin.
func (l *Link) Credit(conn transport.ConnID, c transport.Credit) {
	if b := l.out.begin(frameOverhead); b != nil {
		*b = appendCredit(*b, conn, commandCredit, c)
	}
	l.out.endAnswer()
}

// Accepted says that everything up to cursor is the host's now.
func (l *Link) Accepted(conn transport.ConnID, cursor transport.Cursor) {
	if b := l.out.begin(len(cursor) + frameOverhead); b != nil {
		*b = appendData(*b, conn, commandAccepted, cursor)
	}
	l.out.endAnswer()
}

// Checkpointed says that the last checkpoint is stored.
func (l *Link) Checkpointed(conn transport.ConnID) {
	if b := l.out.begin(frameOverhead); b != nil {
		*b = appendData(*b, conn, commandCheckpointed, "")
	}
	l.out.endAnswer()
}
