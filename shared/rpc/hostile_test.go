package rpc

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/synctest"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/transporthost/transporthost/shared/transport"
	pb "github.com/transporthost/transporthost/shared/transportpb"
)

// What the host's half does with a plugin that is broken, or means ill.

// A hostileStream brings the same batch again and again, and takes nothing.
type hostileStream struct {
	grpc.ClientStream
	batch []byte
	err   error // instead of a batch, if it is set
	read  int
}

func (s *hostileStream) RecvMsg(m any) error {
	if s.err != nil {
		return s.err
	}
	s.read++
	m.(*inBatch).b = s.batch
	return nil
}

// answerEvents answers every checkpoint, as the router does.
type answerEvents struct {
	nullEvents
	link   *Link
	broken error
}

func (e answerEvents) Checkpoint(conn transport.ConnID, _ []byte) { e.link.Checkpointed(conn) }
func (e answerEvents) EndBatch() error                            { return e.broken }

// TestAnswersThatNobodyReads end the link before they fill the memory.
func TestAnswersThatNobodyReads(t *testing.T) {
	l := NewLink(nil)
	stream := &hostileStream{batch: appendData(nil, 1, eventCheckpoint, "x")}
	for len(stream.batch) < 10_000 {
		stream.batch = append(stream.batch, stream.batch...)
	}
	err := l.receive(stream, answerEvents{link: l})
	if _, broken := errors.AsType[*BrokenError](err); !broken || !strings.Contains(err.Error(), "does not read what the host answers: more than 16 MiB") {
		t.Errorf("the link ended with %v", err)
	}
	if got := l.out.pending; got < maxAnswerBytes || got > maxAnswerBytes+100_000 {
		t.Errorf("%d bytes are pending", got)
	}
}

// TestOnlyUnreadAnswersCount: taken ones do not, nor do messages, which credit
// bounds.
func TestOnlyUnreadAnswersCount(t *testing.T) {
	l := NewLink(nil)
	piece := make([]byte, transport.PieceBytes)
	for range maxAnswerBytes / len(piece) * 2 {
		l.Send(1, 1, piece, false)
		l.Credit(1, transport.Credit{Bytes: 1})
	}
	if l.out.unread() {
		t.Errorf("%d bytes of answers among %d are too many", l.out.answers, l.out.pending)
	}
	before := l.out.answers
	for range 10 {
		l.out.take()
	}
	if l.out.answers >= before {
		t.Errorf("%d bytes of answers after some chunks were taken, %d before", l.out.answers, before)
	}
	for l.out.take() != nil {
	}
	if l.out.answers != 0 || l.out.pending != 0 {
		t.Errorf("%d bytes of answers and %d pending after all was taken", l.out.answers, l.out.pending)
	}
}

// TestHowALinkEnds: what the plugin did wrong is told from that it is gone.
func TestHowALinkEnds(t *testing.T) {
	rules := errors.New("it broke a rule")
	for _, tt := range []struct {
		name   string
		stream *hostileStream
		broken error
		want   string
		gone   bool
	}{
		{"rules", &hostileStream{}, rules, "it broke a rule", false},
		{"garbage", &hostileStream{batch: []byte{0x0a, 0xff}}, nil, "decoding events: malformed batch", false},
		{"too much", &hostileStream{err: status.Error(codes.ResourceExhausted, "received message larger than max")}, nil,
			"Exchange: received message larger than max", false},
		{"the end", &hostileStream{err: io.EOF}, nil, "link closed: the plugin ended Exchange", true},
		{"death", &hostileStream{err: status.Error(codes.Unavailable, "\x1b[2Jgone\nfor good")}, nil, "link closed: Exchange: [2Jgone; for good", true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l := NewLink(nil)
			err := l.receive(tt.stream, answerEvents{link: l, broken: tt.broken})
			_, broken := errors.AsType[*BrokenError](err)
			if err == nil || err.Error() != tt.want || broken == tt.gone || errors.Is(err, transport.ErrLinkClosed) != tt.gone {
				t.Errorf("got %v, want %q, from a plugin that is gone: %v", err, tt.want, tt.gone)
			}
		})
	}
}

// A questionStream asks without end, and reads no answer.
type questionStream struct {
	grpc.BidiStreamingClient[pb.HostReply, pb.HostCall]
	ctx   context.Context
	asked int
}

func (s *questionStream) Recv() (*pb.HostCall, error) {
	if s.ctx.Err() != nil {
		return nil, context.Cause(s.ctx)
	}
	s.asked++
	return &pb.HostCall{Id: uint64(s.asked), Kind: &pb.HostCall_LoadState{LoadState: &pb.LoadStateCall{Key: "x"}}}, nil
}

func (s *questionStream) Send(*pb.HostReply) error {
	<-s.ctx.Done()
	return context.Cause(s.ctx)
}

type noCalls struct{ HostCalls }

func (noCalls) LoadState(context.Context, string) ([]byte, error) { return nil, nil }

// TestQuestionsWhoseAnswersNobodyReads are no longer read.
func TestQuestionsWhoseAnswersNobodyReads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		stream := &questionStream{ctx: ctx}
		done := make(chan error, 1)
		go func() { done <- answerCalls(ctx, stream, noCalls{}) }()
		synctest.Wait()
		if want := 2*maxHostCalls + 1; stream.asked != want {
			t.Errorf("%d questions were taken, want %d", stream.asked, want)
		}
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("it ended with %v", err)
		}
	})
}

// TestWordsOfAStranger: an error that came over the link can be shown.
func TestWordsOfAStranger(t *testing.T) {
	long := strings.Repeat("x", 1<<20)
	for _, err := range []error{
		toStatus(errors.New("\x1b[2Jthe moon\nis full" + long)),
		toStatus(transport.ErrPermissionDenied),
		status.Error(codes.InvalidArgument, "\x1b[2J\n"+long),
		status.Error(codes.Unavailable, "\x1b[2J\n"+long),
		status.Error(codes.Unimplemented, "\x1b[2J\n"+long),
	} {
		got := fromStatus("Start", err).Error()
		if len(got) > maxWords+100 || got != transport.Line(got, 2*maxWords) {
			t.Errorf("%d bytes: %.100q", len(got), got)
		}
	}
}
