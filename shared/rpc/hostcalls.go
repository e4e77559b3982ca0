package rpc

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"

	"google.golang.org/grpc"

	"github.com/transporthost/transporthost/shared/transport"
	pb "github.com/transporthost/transporthost/shared/transportpb"
)

// HostCalls answers what one plugin instance may ask of the host. A call that
// the config does not grant returns [transport.ErrNotGranted]. All methods may
// be called concurrently; they may block, except CredentialsAccepted and
// ReportStatus.
type HostCalls interface {
	Credentials(ctx context.Context) (transport.Credentials, error)
	RecoverUnauthorized(ctx context.Context, generation uint64) (transport.Credentials, error)
	CredentialsAccepted(generation uint64)
	ClientName(ctx context.Context) (string, error)
	LoadState(ctx context.Context, key string) ([]byte, error)
	SaveState(ctx context.Context, key string, value []byte) error
	DeleteState(ctx context.Context, key string) error
	ReportStatus(s transport.Status)
}

// maxHostCalls bounds the calls of one process that are under way. A plugin
// has few reasons to ask; more is a defect, and answered as one.
const maxHostCalls = 32

// answerCalls is the host's end of the HostCalls stream.
func answerCalls(ctx context.Context, stream grpc.BidiStreamingClient[pb.HostReply, pb.HostCall], calls HostCalls) error {
	var (
		underWay sync.WaitGroup
		count    atomic.Int32
		sending  = make(chan struct{}, 1) // one Send at a time
	)
	defer underWay.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	refusals := make(chan struct{}, maxHostCalls)
	reply := func(r *pb.HostReply) {
		select {
		case sending <- struct{}{}:
			defer func() { <-sending }()
		case <-ctx.Done():
			return
		}
		_ = stream.Send(r) // the receive below sees the stream's end, and why
	}
	for {
		call, err := stream.Recv()
		if err != nil {
			return streamEnd("HostCalls", err)
		}
		switch k := call.GetKind().(type) { // what has no reply keeps its order
		case *pb.HostCall_ReportStatus:
			calls.ReportStatus(statusFromProto(k.ReportStatus))
			continue
		case *pb.HostCall_CredentialsAccepted:
			calls.CredentialsAccepted(k.CredentialsAccepted.GetGeneration())
			continue
		}
		if count.Add(1) > maxHostCalls {
			count.Add(-1)
			// One that asks on without reading what it got is no longer read from:
			// it waits, and nobody else does.
			select {
			case refusals <- struct{}{}:
			case <-ctx.Done():
				return context.Cause(ctx)
			}
			underWay.Go(func() {
				defer func() { <-refusals }()
				reply(failed(call.GetId(), fmt.Errorf("%w: more than %d host calls under way", transport.ErrOverloaded, maxHostCalls)))
			})
			continue
		}
		underWay.Go(func() {
			defer count.Add(-1)
			reply(answerCall(ctx, call, calls))
		})
	}
}

func failed(id uint64, err error) *pb.HostReply {
	name, _ := reasonOf(err)
	return &pb.HostReply{Id: id, Error: &pb.CallError{Reason: name, Text: err.Error()}}
}

func answerCall(ctx context.Context, call *pb.HostCall, calls HostCalls) *pb.HostReply {
	r := &pb.HostReply{Id: call.GetId()}
	var err error
	switch k := call.GetKind().(type) {
	case *pb.HostCall_Credentials:
		var c transport.Credentials
		if c, err = calls.Credentials(ctx); err == nil {
			r.Kind = &pb.HostReply_Credentials{Credentials: credentialsToProto(c)}
		}
	case *pb.HostCall_RecoverUnauthorized:
		var c transport.Credentials
		if c, err = calls.RecoverUnauthorized(ctx, k.RecoverUnauthorized.GetGeneration()); err == nil {
			r.Kind = &pb.HostReply_Credentials{Credentials: credentialsToProto(c)}
		}
	case *pb.HostCall_ClientName:
		var name string
		if name, err = calls.ClientName(ctx); err == nil {
			r.Kind = &pb.HostReply_ClientName{ClientName: &pb.ClientName{Name: name}}
		}
	case *pb.HostCall_LoadState:
		var v []byte
		if v, err = calls.LoadState(ctx, k.LoadState.GetKey()); err == nil {
			r.Kind = &pb.HostReply_State{State: &pb.State{Value: v}}
		}
	case *pb.HostCall_SaveState:
		if n := len(k.SaveState.GetValue()); n > transport.MaxStateBytes {
			err = fmt.Errorf("state of %d bytes, limit %d: %w", n, transport.MaxStateBytes, transport.ErrTooLarge)
			break
		}
		err = calls.SaveState(ctx, k.SaveState.GetKey(), k.SaveState.GetValue())
	case *pb.HostCall_DeleteState:
		err = calls.DeleteState(ctx, k.DeleteState.GetKey())
	default: // of a newer plugin
		err = fmt.Errorf("host call %T: %w", k, transport.ErrNotSupported)
	}
	if err != nil {
		return failed(r.Id, err)
	}
	return r
}

// asker is the plugin's end of the HostCalls stream.
type asker struct {
	mu      sync.Mutex // guards what follows, and is held for one Send at a time
	stream  grpc.BidiStreamingServer[pb.HostReply, pb.HostCall]
	closed  bool
	nextID  uint64
	waiting map[uint64]chan *pb.HostReply // one slot each
}

// take makes stream the asker's: from here on it can ask. It is false if it has
// one already.
func (a *asker) take(stream grpc.BidiStreamingServer[pb.HostReply, pb.HostCall]) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.stream != nil {
		return false
	}
	a.stream = stream
	a.waiting = make(map[uint64]chan *pb.HostReply)
	return true
}

// serve brings replies to those who wait, until the stream that was taken ends.
func (a *asker) serve(stream grpc.BidiStreamingServer[pb.HostReply, pb.HostCall]) error {
	defer a.close()
	for {
		r, err := stream.Recv()
		if err != nil {
			return err
		}
		a.mu.Lock()
		ch := a.waiting[r.GetId()]
		delete(a.waiting, r.GetId())
		a.mu.Unlock()
		if ch != nil {
			ch <- r
		}
	}
}

func (a *asker) close() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.closed = true
	for id, ch := range a.waiting {
		close(ch)
		delete(a.waiting, id)
	}
}

// ask sends a question and waits for its reply.
func (a *asker) ask(ctx context.Context, call *pb.HostCall) (*pb.HostReply, error) {
	ch := make(chan *pb.HostReply, 1)
	a.mu.Lock()
	if a.closed || a.stream == nil {
		a.mu.Unlock()
		return nil, transport.ErrLinkClosed
	}
	a.nextID++
	id := a.nextID
	call.Id = id
	a.waiting[id] = ch
	err := a.stream.Send(call)
	a.mu.Unlock()
	defer func() {
		a.mu.Lock()
		delete(a.waiting, id)
		a.mu.Unlock()
	}()
	if err != nil {
		return nil, fmt.Errorf("asking the host: %w: %w", transport.ErrLinkClosed, err)
	}
	select {
	case r, ok := <-ch:
		if !ok {
			return nil, transport.ErrLinkClosed
		}
		if e := r.GetError(); e != nil {
			return nil, errorOf(e.GetReason(), e.GetText())
		}
		return r, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// tell sends what has no reply; it goes nowhere before the stream is there, or
// after its end.
func (a *asker) tell(call *pb.HostCall) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.stream == nil || a.closed {
		return
	}
	_ = a.stream.Send(call) // serve sees the end
}
