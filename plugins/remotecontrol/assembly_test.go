package remotecontrol

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// A part is one chunk envelope of a test.
type part struct {
	client, stream string // "": c1, s1
	seq            uint64
	segment, count uint64
	size           int
	text           string
	raw            bool // text is not to be encoded
	frame          int  // bytes of its frame

	wantWhole, wantStale, wantError bool
}

func (p part) envelope() clientEnvelope {
	size := uint64(p.size)
	text := p.text
	if !p.raw {
		text = base64.StdEncoding.EncodeToString([]byte(p.text))
	}
	client, stream := p.client, p.stream
	if client == "" {
		client = "c1"
	}
	if stream == "" {
		stream = "s1"
	}
	return clientEnvelope{
		Type: typeChunk, ClientID: &client, StreamID: &stream, SeqID: &p.seq,
		SegmentID: &p.segment, SegmentCount: &p.count, MessageSize: &size, chunk: []byte(text),
	}
}

// TestAssembly is reassembles_client_message_chunks,
// resets_incomplete_client_assembly_when_stream_changes,
// websocket_state_drops_duplicate_client_chunks_while_pending,
// websocket_state_allows_replay_before_completed_chunk_delivery,
// websocket_state_allows_replay_after_rejected_out_of_order_chunk,
// websocket_state_allows_replay_after_later_chunk_drops,
// websocket_state_drops_oversized_client_chunk_frames,
// websocket_state_ignores_oversized_stale_chunks_without_dropping_newer_assembly and
// websocket_state_ignores_oversized_duplicate_chunks_without_dropping_current_assembly,
// each with a case of its name, and the other rules of spec 6.14.
func TestAssembly(t *testing.T) {
	const a, b = `{"method":`, `"x"}`
	const size = len(a + b)
	first := part{seq: 5, segment: 0, count: 2, size: size, text: a}
	last := part{seq: 5, segment: 1, count: 2, size: size, text: b, wantWhole: true}
	with := func(p part, change func(*part)) part {
		change(&p)
		return p
	}
	stale := func(p part) part { p.wantWhole, p.wantStale = false, true; return p }
	wrong := func(p part) part { p.wantWhole, p.wantError = false, true; return p }
	other := func(p part, change func(*part)) part { p.wantWhole = false; return with(p, change) }
	tests := []struct {
		name  string
		parts []part
	}{
		{"reassembles_client_message_chunks", []part{first, last}},
		{"drops_duplicate_client_chunks_while_pending", []part{first, stale(first), last}},
		{"a failed final chunk resets it", []part{first, wrong(other(last, func(p *part) { p.text = "%" + b; p.raw = true })), wrong(last), first, last}},
		{"allows_replay_before_completed_chunk_delivery", []part{first, last, first, last}},
		{"allows_replay_after_rejected_out_of_order_chunk", []part{wrong(last), first, last}},
		{"allows_replay_after_later_chunk_drops", []part{first, wrong(other(last, func(p *part) { p.text = "" })), first, last}},
		{"drops_oversized_client_chunk_frames", []part{wrong(with(first, func(p *part) { p.frame = maxEnvelope + 1 })), wrong(last)}},
		{"takes chunk frames of the limit", []part{with(first, func(p *part) { p.frame = maxEnvelope }), last}},
		{"an oversized chunk ends its assembly", []part{first, wrong(other(last, func(p *part) { p.frame = maxEnvelope + 1 })), wrong(last)}},
		{"ignores_oversized_stale_chunks_without_dropping_newer_assembly", []part{first, stale(with(first, func(p *part) { p.seq, p.frame = 4, maxEnvelope+1 })), last}},
		{"ignores_oversized_duplicate_chunks_without_dropping_current_assembly", []part{first, stale(with(first, func(p *part) { p.frame = maxEnvelope + 1 })), last}},
		{"resets_incomplete_client_assembly_when_stream_changes", []part{first, with(first, func(p *part) { p.stream = "s2" }), with(last, func(p *part) { p.stream = "s2" }), wrong(last)}},
		{"another count", []part{first, wrong(other(last, func(p *part) { p.count = 3 })), wrong(last)}},
		{"another size", []part{first, wrong(other(last, func(p *part) { p.size++ })), wrong(last)}},
		{"a later message", []part{first, wrong(with(first, func(p *part) { p.seq = 6 })), with(first, func(p *part) { p.seq = 6 }), with(last, func(p *part) { p.seq = 6 })}},
		{"too short", []part{first, wrong(other(last, func(p *part) { p.text = `"` }))}},
		{"too long", []part{first, wrong(other(last, func(p *part) { p.text += " " }))}},
		{"not JSON", []part{wrong(part{seq: 5, count: 1, size: 2, text: "{x"})}},
		{"not JSON-RPC", []part{wrong(part{seq: 5, count: 1, size: 2, text: "{}"})}},
		{"not UTF-8", []part{wrong(part{seq: 5, count: 1, size: 16, text: "{\"method\":\"x\xff\xff\"}"})}},
		{"no segments", []part{wrong(with(first, func(p *part) { p.count = 0 }))}},
		{"too many segments", []part{wrong(with(first, func(p *part) { p.count = maxSegments + 1 }))}},
		{"a segment behind the last", []part{wrong(with(first, func(p *part) { p.segment = 2 }))}},
		{"no size", []part{wrong(with(first, func(p *part) { p.size = 0 }))}},
		{"too large", []part{wrong(with(first, func(p *part) { p.size = maxJoinedBytes + 1 }))}},
		{"clients do not disturb each other", []part{first, with(first, func(p *part) { p.client = "c2" }), last, with(last, func(p *part) { p.client = "c2" })}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var l ledger
			asm := newAssembler(func() *ledgerEntry { return l.begin("") }, l.end)
			for i, p := range tt.parts {
				whole, err := asm.chunk(p.envelope(), p.frame, nil)
				if stale := errors.Is(err, errStaleChunk); stale != p.wantStale || (err != nil && !stale) != p.wantError {
					t.Fatalf("segment %d of the test: error %v", i, err)
				}
				if (whole != nil) != p.wantWhole {
					t.Fatalf("segment %d of the test: whole %v, want %v", i, whole != nil, p.wantWhole)
				}
				if whole != nil {
					if got := string(whole.envelope.Message); got != a+b {
						t.Errorf("joined %q", got)
					}
					l.end(whole.entry)
				}
			}
			for _, m := range asm.assemblies {
				asm.drop(m)
			}
			if asm.heap != 0 || l.first != nil {
				t.Errorf("nothing arrives, and %d bytes and the entry %+v are held", asm.heap, l.first)
			}
		})
	}
}

// TestChunksAfterCompletion is
// websocket_state_drops_replayed_client_chunks_after_completion.
func TestChunksAfterCompletion(t *testing.T) {
	var l ledger
	asm := newAssembler(func() *ledgerEntry { return l.begin("") }, l.end)
	done := uint64(5)
	for seq, want := range map[uint64]error{4: errStaleChunk, 5: errStaleChunk, 6: nil} {
		_, err := asm.chunk(part{seq: seq, count: 2, size: 9, text: "{"}.envelope(), 100, &done)
		if !errors.Is(err, want) {
			t.Errorf("a chunk of message %d: %v, want %v", seq, err, want)
		}
	}
}

func TestAssembliesAreBounded(t *testing.T) {
	var l ledger
	asm := newAssembler(func() *ledgerEntry { return l.begin("") }, l.end)
	for i := range maxAssemblies + 10 {
		if _, err := asm.chunk(part{client: fmt.Sprint(i), seq: 1, count: 2, size: 1000, text: strings.Repeat(" ", 500)}.envelope(), 1, nil); err != nil {
			t.Fatal(err)
		}
	}
	if got := len(asm.assemblies); got != maxAssemblies {
		t.Errorf("%d assemblies, want %d", got, maxAssemblies)
	}
	if asm.assemblies["9"] != nil || asm.assemblies["10"] == nil {
		t.Error("it was not the oldest that were given up")
	}
	asm.maxHeap = 10 * 500
	if _, err := asm.chunk(part{client: "new", seq: 1, count: 2, size: 1000, text: strings.Repeat(" ", 500)}.envelope(), 1, nil); err != nil {
		t.Fatal(err)
	}
	if len(asm.assemblies) != 10 || asm.heap != asm.maxHeap || asm.assemblies["new"] == nil {
		t.Errorf("%d assemblies hold %d bytes, want 10 with %d", len(asm.assemblies), asm.heap, asm.maxHeap)
	}
}

func TestAssembliesExpire(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var l ledger
		asm := newAssembler(func() *ledgerEntry { return l.begin("") }, l.end)
		for _, client := range []string{"old", "new"} {
			time.Sleep(idleTimeout - time.Second)
			if _, err := asm.chunk(part{client: client, seq: 1, count: 2, size: 9, text: "{"}.envelope(), 1, nil); err != nil {
				t.Fatal(err)
			}
			asm.expire(time.Now())
		}
		time.Sleep(sweepInterval)
		asm.expire(time.Now())
		if len(asm.assemblies) != 1 || asm.assemblies["new"] == nil {
			t.Errorf("%d assemblies are left, want the new one", len(asm.assemblies))
		}
	})
}

// FuzzChunks feeds chunk envelopes in any order.
func FuzzChunks(f *testing.F) {
	f.Add([]byte("\x00\x02\x05e30="), []byte("\x01\x02\x05e30="))
	f.Add([]byte("\x00\x01\x02e30="), []byte{})
	f.Fuzz(func(t *testing.T, first, second []byte) {
		var l ledger
		asm := newAssembler(func() *ledgerEntry { return l.begin("") }, l.end)
		for _, b := range [][]byte{first, second, first, second} {
			if len(b) < 4 {
				continue
			}
			p := part{segment: uint64(b[0]), count: uint64(b[1]), size: int(b[2]), seq: uint64(b[3] >> 4), stream: string(b[3]&1 + 'a'), text: string(b[4:]), raw: true}
			whole, _ := asm.chunk(p.envelope(), len(b), nil)
			if whole != nil {
				if len(whole.envelope.Message) != p.size || !json.Valid(whole.envelope.Message) {
					t.Errorf("joined %q", whole.envelope.Message)
				}
				l.end(whole.entry)
			}
			held := 0
			for _, m := range asm.assemblies {
				held += m.data.size
			}
			if held != asm.heap {
				t.Errorf("%d bytes are held, %d counted", held, asm.heap)
			}
		}
	})
}
