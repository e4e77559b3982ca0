package rpc

import (
	"context"
	"io"
	"testing"

	"google.golang.org/grpc"

	"github.com/transporthost/transporthost/shared/transport"
	pb "github.com/transporthost/transporthost/shared/transportpb"
)

// An answeringStream is a host that has saved nothing.
type answeringStream struct {
	grpc.BidiStreamingServer[pb.HostReply, pb.HostCall]
	calls chan *pb.HostCall // closed by the test: the end of the stream
}

func (s answeringStream) Send(c *pb.HostCall) error {
	s.calls <- c
	return nil
}

func (s answeringStream) Recv() (*pb.HostReply, error) {
	c, ok := <-s.calls
	if !ok {
		return nil, io.EOF
	}
	return &pb.HostReply{Id: c.GetId()}, nil
}

// A hastyPlugin asks the host as soon as it starts.
type hastyPlugin struct {
	Plugin
	server *Server
}

func (p *hastyPlugin) Start(ctx context.Context, _ transport.StartParams) (transport.StartResult, error) {
	_, err := p.server.LoadState(ctx, "key")
	return transport.StartResult{}, err
}

// TestAskingAtTheStart: a Start that waited for the streams of the host can ask
// it, however short the time between the two is.
func TestAskingAtTheStart(t *testing.T) {
	for range 2000 {
		p := &hastyPlugin{}
		p.server = NewServer(p, nil)
		if err := p.server.attach(&p.server.exchanging); err != nil {
			t.Fatal(err)
		}
		stream := answeringStream{calls: make(chan *pb.HostCall, 1)}
		ended := make(chan error, 1)
		go func() { ended <- p.server.HostCalls(stream) }()
		if _, err := p.server.Start(t.Context(), &pb.StartRequest{}); err != nil {
			t.Fatalf("asking at the start: %v", err)
		}
		if err := p.server.HostCalls(stream); err == nil {
			t.Fatal("a second stream of host calls was taken")
		}
		close(stream.calls)
		if err := <-ended; err != nil {
			t.Fatalf("the stream ended with %v", err)
		}
	}
}
