package rpc

import (
	"context"
	"testing"
	"testing/synctest"

	"google.golang.org/grpc"

	"github.com/transporthost/transporthost/shared/transport"
)

// A stuckStream brings batches, and takes none: the other side's receive loop
// waits for something.
type stuckStream struct {
	grpc.ServerStream
	ctx     context.Context
	batches chan []byte
}

func (s *stuckStream) Context() context.Context { return s.ctx }

func (s *stuckStream) SendMsg(any) error {
	<-s.ctx.Done()
	return context.Cause(s.ctx)
}

func (s *stuckStream) RecvMsg(m any) error {
	select {
	case b := <-s.batches:
		m.(*inBatch).b = b
		return nil
	case <-s.ctx.Done():
		return context.Cause(s.ctx)
	}
}

// repay answers every piece with credit, as a receive loop does.
type repay struct {
	Commands
	server *Server
	pieces int
}

func (r *repay) Send(conn transport.ConnID, _ transport.Seq, piece []byte, _ bool) error {
	r.pieces++
	r.server.Credit(conn, transport.Credit{Bytes: len(piece), Messages: 1})
	return nil
}

func (r *repay) EndBatch() {}

// TestReceiveLoopsNeverWait is the rule that keeps both sides from waiting for
// each other (docs/link-protocol.md): with a sender that is stuck and full, what
// comes in is still taken, and what that brings forth is queued.
func TestReceiveLoopsNeverWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		commands := &repay{}
		s := NewServer(nil, commands)
		commands.server = s
		stream := &stuckStream{ctx: ctx, batches: make(chan []byte)}
		go func() { _ = s.out.run(ctx, stream) }()
		received := make(chan error, 1)
		go func() { received <- s.receive(stream) }()

		for s.out.pending < pendingBytes { // nobody else runs in between: the sender is stuck
			s.Received(1, make([]byte, 64<<10), "", false)
			synctest.Wait()
		}
		waits := make(chan error, 1)
		go func() { waits <- s.WaitRoom(ctx) }()
		synctest.Wait()
		select {
		case err := <-waits:
			t.Fatalf("WaitRoom returned %v; want that the link is full", err)
		default:
		}
		const batches = 1000
		for range batches {
			stream.batches <- appendSend(nil, 1, 1, []byte("piece"), false)
			synctest.Wait() // a loop that waits deadlocks the bubble, which fails the test
		}
		if commands.pieces != batches {
			t.Errorf("%d of %d pieces were taken", commands.pieces, batches)
		}
		cancel()
		<-received
		<-waits
		synctest.Wait()
	})
}
