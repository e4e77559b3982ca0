package rpc

import (
	"bytes"
	"testing"

	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"github.com/transporthost/transporthost/shared/transport"
	pb "github.com/transporthost/transporthost/shared/transportpb"
)

// event is one event in both forms: as the hand codec writes it, and as the
// generated code does.
func drawEvent(t *rapid.T) (hand []byte, generated *pb.Event) {
	conn := transport.ConnID(rapid.Uint64().Draw(t, "conn"))
	payload := rapid.SliceOf(rapid.Byte()).Draw(t, "payload")
	text := rapid.String().Draw(t, "text")
	n := rapid.IntRange(0, 1<<30).Draw(t, "n")
	flag := rapid.Bool().Draw(t, "flag")
	e := &pb.Event{Conn: uint64(conn)}
	switch rapid.IntRange(0, 7).Draw(t, "kind") {
	case 0:
		e.Kind = &pb.Event_Received{Received: &pb.Received{Payload: payload, Cursor: []byte(text), More: flag}}
		return appendReceived(nil, conn, payload, transport.Cursor(text), flag), e
	case 1:
		e.Kind = &pb.Event_Credit{Credit: &pb.Credit{Bytes: uint64(n), Messages: uint64(n / 2)}}
		return appendCredit(nil, conn, eventCredit, transport.Credit{Bytes: n, Messages: n / 2}), e
	case 2:
		e.Kind = &pb.Event_Acked{Acked: &pb.Acked{Seq: uint64(n)}}
		return appendNumber(nil, conn, eventAcked, uint64(n)), e
	case 3:
		e.Kind = &pb.Event_Checkpoint{Checkpoint: &pb.Checkpoint{Data: payload}}
		return appendData(nil, conn, eventCheckpoint, payload), e
	case 4:
		e.Kind = &pb.Event_Closed{Closed: &pb.Closed{Code: uint32(transport.CloseSlow), Text: text}}
		return appendReason(nil, conn, eventClosed, transport.CloseReason{Code: transport.CloseSlow, Text: text}), e
	case 5:
		e.Kind = &pb.Event_Finished{Finished: &pb.Finished{}}
		return appendData(nil, conn, eventFinished, ""), e
	case 6:
		e.Kind = &pb.Event_Rejected{Rejected: &pb.Rejected{Cursor: []byte(text), Text: text, Unparsable: flag}}
		return appendRejected(nil, conn, transport.Rejection{Cursor: transport.Cursor(text), Text: text, Unparsable: flag}), e
	default:
		p := transport.Peer{RemoteAddr: text, LocalAddr: "l", Identity: text, UserAgent: "u", ClientName: text}
		e.Kind = &pb.Event_Opened{Opened: &pb.Opened{Peer: &pb.Peer{
			RemoteAddr: p.RemoteAddr, LocalAddr: p.LocalAddr, Identity: p.Identity, UserAgent: p.UserAgent, ClientName: p.ClientName,
		}, ResumeKey: text, Lossless: flag}}
		return appendOpened(nil, conn, transport.Opened{Peer: p, ResumeKey: transport.ResumeKey(text), Lossless: flag}), e
	}
}

// TestHandCodecIsProtobuf pins down that other languages can use generated
// code: what we write by hand is what protobuf-go writes, and what it writes
// we read.
func TestHandCodecIsProtobuf(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var hand []byte
		var batch pb.EventBatch
		for range rapid.IntRange(1, 5).Draw(t, "frames") {
			h, e := drawEvent(t)
			hand = append(hand, h...)
			batch.Events = append(batch.Events, e)
		}
		want, err := proto.MarshalOptions{Deterministic: true}.Marshal(&batch)
		if err != nil { // a string that is not UTF-8
			t.Skip(err)
		}
		if !bytes.Equal(hand, want) {
			t.Fatalf("hand codec wrote %x, protobuf %x for %v", hand, want, &batch)
		}
	})
}

func TestSendIsProtobuf(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		conn, seq := rapid.Uint64().Draw(t, "conn"), rapid.Uint64().Draw(t, "seq")
		payload, more := rapid.SliceOf(rapid.Byte()).Draw(t, "payload"), rapid.Bool().Draw(t, "more")
		hand := appendSend(nil, transport.ConnID(conn), transport.Seq(seq), payload, more)
		want, err := proto.Marshal(&pb.CommandBatch{Commands: []*pb.Command{{Conn: conn, Kind: &pb.Command_Send{
			Send: &pb.Send{Payload: payload, Seq: seq, More: more}}}}})
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(hand, want) {
			t.Fatalf("hand codec wrote %x, protobuf %x", hand, want)
		}
		var f frame
		rest, err := f.next(hand)
		if err != nil || len(rest) != 0 || f.kind != commandSend || uint64(f.conn) != conn || f.n2 != seq || f.more != more || !bytes.Equal(f.payload, payload) {
			t.Fatalf("decoding %x gave %+v, rest %x, error %v", hand, f, rest, err)
		}
	})
}

// TestDecodeToleratesNewerSenders sends a field and a kind that do not exist.
func TestDecodeToleratesNewerSenders(t *testing.T) {
	known := appendCredit(nil, 7, eventCredit, transport.Credit{Bytes: 5, Messages: 1})
	var greased []byte
	greased = append(greased, 0x9a, 0x06, 2, 0xff, 0xff) // batch field 99, bytes
	greased = append(greased, batchFrames<<3|2, 6, frameConn<<3, 9, 15<<3|2, 2, 1, 2)
	greased = append(greased, known...)
	var f frame
	rest, err := f.next(greased)
	if err != nil || f.conn != 9 || f.kind != 0 {
		t.Fatalf("the unknown kind came as %+v, error %v", f, err)
	}
	rest, err = f.next(rest)
	if err != nil || f.conn != 7 || f.kind != eventCredit || f.credit() != (transport.Credit{Bytes: 5, Messages: 1}) || len(rest) != 0 {
		t.Fatalf("the known frame came as %+v, rest %x, error %v", f, rest, err)
	}
}

type nullEvents struct{}

func (nullEvents) Opened(transport.ConnID, transport.Opened)                 {}
func (nullEvents) Received(transport.ConnID, []byte, transport.Cursor, bool) {}
func (nullEvents) Acked(transport.ConnID, transport.Seq)                     {}
func (nullEvents) Checkpoint(transport.ConnID, []byte)                       {}
func (nullEvents) Finished(transport.ConnID)                                 {}
func (nullEvents) Closed(transport.ConnID, transport.CloseReason)            {}
func (nullEvents) Credit(transport.ConnID, transport.Credit)                 {}
func (nullEvents) Rejected(transport.ConnID, transport.Rejection)            {}
func (nullEvents) Unknown(transport.ConnID)                                  {}
func (nullEvents) EndBatch() error                                           { return nil }

// FuzzDecode compares with the generated code: what protobuf accepts we accept,
// with as many frames; what it refuses may only be refused.
func FuzzDecode(f *testing.F) {
	f.Add(appendReceived(nil, 1, []byte(`{"id":1}`), "c", true))
	f.Add(appendOpened(nil, 1, transport.Opened{Peer: transport.Peer{RemoteAddr: "a"}}))
	f.Add([]byte{0x0a, 0xff, 0xff, 0xff, 0xff, 0x0f})
	f.Fuzz(func(t *testing.T, b []byte) {
		var fr frame
		ours := dispatchEvents(b, &fr, nullEvents{})
		var batch pb.EventBatch
		theirs := proto.Unmarshal(b, &batch)
		if theirs == nil && ours != nil {
			t.Errorf("protobuf reads %x as %v, we refuse it: %v", b, &batch, ours)
		}
	})
}
