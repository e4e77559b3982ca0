package backend_test

import (
	"bytes"
	"errors"
	"fmt"
	"testing"

	"github.com/transporthost/transporthost/tests/relay/backend"
	"github.com/transporthost/transporthost/tests/relay/fakehost"
)

// fits is how long a message may be that travels in one envelope of a host.
var fits = 150<<10 - (len(fakehost.Message("c1", "s1", 1, "{}")) - 2)

// TestSegmentsFromHost sends messages around the limits.
func TestSegmentsFromHost(t *testing.T) {
	for _, size := range []int{100, fits - 1, fits, fits + 1, 200 << 10, 200<<10 + 1, 1 << 20, 9<<20 + 7} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			b := newBench(t, backend.Options{})
			sock := b.dial()
			c := b.open(backend.ClientOptions{ID: "c1", StreamID: "s1"})
			b.send(c, initialize)
			b.next(sock, "client_message")
			message := fakehost.Padded(size)
			frames := fakehost.Cut("c1", "s1", 1, message)
			if whole := size <= fits; whole != (len(frames) == 1) {
				t.Fatalf("%d bytes are cut into %d pieces", size, len(frames))
			}
			for i, frame := range frames {
				b.must(sock.WriteMessage(1, frame))
				ack := b.next(sock, "ack")
				if last := i == len(frames)-1; *ack.Seq != 1 || (ack.Segment == nil) != last || !last && *ack.Segment != i {
					t.Fatalf("segment %d got the ack %s", i, ack.Text)
				}
			}
			if m := b.receive(c); string(m.Payload) != message {
				t.Errorf("the client got %d bytes, want the %d that were sent", len(m.Payload), len(message))
			}
			b.Verify(t)
		})
	}
}

func TestSegmentsToHost(t *testing.T) {
	tests := []struct {
		name       string
		profile    backend.Profile
		o          backend.ClientOptions
		size       int
		wantPieces int
	}{
		{"small", backend.Profile3, backend.ClientOptions{StreamID: "s1"}, 1000, 1},
		{"below the limit", backend.Profile3, backend.ClientOptions{StreamID: "s1"}, 152 << 10, 2},
		{"large", backend.Profile3, backend.ClientOptions{StreamID: "s1"}, 1 << 20, 11},
		{"very large", backend.Profile3, backend.ClientOptions{StreamID: "s1"}, 8<<20 + 1, 82},
		{"chosen pieces", backend.Profile3, backend.ClientOptions{StreamID: "s1", SegmentBytes: 100}, 1001, 11},
		{"without a stream", backend.Profile3, backend.ClientOptions{}, 1 << 20, 1},
		{"profile 2", backend.Profile2, backend.ClientOptions{StreamID: "s1"}, 1 << 20, 1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b := newBench(t, backend.Options{Profile: tt.profile})
			sock := b.dial()
			c := b.open(tt.o)
			message := fakehost.Padded(tt.size)
			b.send(c, message)
			var whole []byte
			for i := range tt.wantPieces {
				e := b.next(sock, "")
				if tt.wantPieces == 1 {
					whole = e.Message
					break
				}
				if e.Type != "client_message_chunk" || *e.Segment != i || e.Count != tt.wantPieces || e.Size != tt.size || *e.Seq != 0 {
					t.Fatalf("segment %d is %.200s", i, e.Text)
				}
				if last := i == tt.wantPieces-1; (e.Cursor != "") != last {
					t.Errorf("segment %d has the cursor %q", i, e.Cursor)
				}
				if len(e.Text) > 150<<10 || len(e.Chunk) == 0 {
					t.Errorf("segment %d has %d bytes in an envelope of %d", i, len(e.Chunk), len(e.Text))
				}
				whole = append(whole, e.Chunk...)
			}
			if string(whole) != message {
				t.Errorf("the host got %d bytes, want the %d that were sent", len(whole), len(message))
			}
		})
	}
}

func TestMessagesTooLarge(t *testing.T) {
	b := newBench(t, backend.Options{})
	c := b.open(backend.ClientOptions{ID: "c1", StreamID: "s1"})
	if err := c.Send([]byte(fakehost.Padded(100<<20 + 1))); !errors.Is(err, backend.ErrMessageTooLarge) {
		t.Errorf("100 MiB and a byte: got %v, want %v", err, backend.ErrMessageTooLarge)
	}
	tiny := b.open(backend.ClientOptions{ID: "c2", StreamID: "s1", SegmentBytes: 10})
	if err := tiny.Send([]byte(fakehost.Padded(10*1024 + 1))); !errors.Is(err, backend.ErrMessageTooLarge) {
		t.Errorf("1025 segments: got %v, want %v", err, backend.ErrMessageTooLarge)
	}
	if err := c.Send([]byte(`[1]`)); err == nil {
		t.Error("what is no JSON-RPC message was sent")
	}
}

// TestNobodyWaitsForSegments lets a small message overtake a large one. The
// cursor of the small one must not cover the large one, which comes again.
func TestNobodyWaitsForSegments(t *testing.T) {
	b := newBench(t, backend.Options{})
	large := b.open(backend.ClientOptions{ID: "large", StreamID: "s"})
	small := b.open(backend.ClientOptions{ID: "small", StreamID: "s"})
	b.send(large, fakehost.Padded(1<<20))
	b.send(small, initialize)
	sock := b.dial()
	segments := 0
	for {
		e := b.next(sock, "")
		if e.Type == "client_message" {
			break
		}
		segments++
	}
	if segments > 2 {
		t.Errorf("the small message came behind %d segments of another client", segments)
	}
	b.must(sock.Close())

	again := b.dial()
	var whole bytes.Buffer
	for i := range 11 {
		e := b.next(again, "client_message_chunk")
		if *e.Segment != i {
			t.Fatalf("got segment %d, want %d", *e.Segment, i)
		}
		whole.Write(e.Chunk)
	}
	if whole.Len() != 1<<20 {
		t.Errorf("the large message has %d bytes, want %d", whole.Len(), 1<<20)
	}
	b.Verify(t)
}

func TestEarlyCursors(t *testing.T) {
	b := newBench(t, backend.Options{})
	b.EarlyCursors()
	c := b.open(backend.ClientOptions{ID: "c1", StreamID: "s1"})
	other := b.open(backend.ClientOptions{ID: "c2", StreamID: "s1"})
	b.send(c, fakehost.Padded(300<<10))
	sock := b.dial()
	first, err := sock.Peek()
	b.must(err)
	b.send(other, initialize)
	if first.Cursor == "" {
		t.Error("the first segment has no cursor")
	}
	b.must(sock.Close())
	b.host.Cursor = first.Cursor // a host that takes it up too early
	again := b.dial()
	cursors := map[string]bool{}
	for i := range 3 {
		e := b.next(again, "client_message_chunk")
		if *e.Segment != i || e.Cursor == "" || cursors[e.Cursor] {
			t.Errorf("segment %d is %d with the cursor %q", i, *e.Segment, e.Cursor)
		}
		cursors[e.Cursor] = true
	}
	if e := b.next(again, "client_message"); e.ClientID != "c2" {
		t.Errorf("got %s behind the segments", e.Text)
	}
	b.Verify(t)
}
