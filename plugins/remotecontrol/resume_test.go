package remotecontrol

import (
	"fmt"
	"strings"
	"testing"

	pluginsdk "github.com/transporthost/transporthost/plugin-sdk"
)

// crash ends the process without a word, and starts the next one with what
// its host would know of the connection.
func (p *process) crash(id pluginsdk.ConnID, key pluginsdk.ResumeKey, cursor pluginsdk.Cursor, next pluginsdk.Seq) *process {
	p.t.Helper()
	p.detach()
	return startProcess(p.t, p.profile, pluginsdk.StartParams{Incarnation: 2, Resume: []pluginsdk.Resume{{
		Conn: id, Key: key, Cursor: cursor, Checkpoint: p.host.LastCheckpoint(id), NextSeq: next,
	}}})
}

// TestResumedProcessGoesOn: after a crash every number stands for what it
// stood for, and nothing is read twice.
func TestResumedProcessGoesOn(t *testing.T) {
	for name, profile := range bothProfiles {
		t.Run(name, func(t *testing.T) {
			p := startProcess(t, profile, pluginsdk.StartParams{})
			r := p.link()
			first := strings.Replace(initialize("c1", "s1", 7), `"seq_id"`, `"cursor":"k1","seq_id"`, 1)
			r.send("%s", first)
			id, opened := p.host.NextOpened()
			if opened.ResumeKey != `["c1","s1"]` {
				t.Errorf("the resume key is %s", opened.ResumeKey)
			}
			p.host.NextReceived(id)
			r.send(`{"type":"client_message","client_id":"c1","stream_id":"s1","seq_id":9,"cursor":"k2","message":{"id":2,"method":"x"}}`)
			_, cursor := p.host.NextCursor(id)

			large := fmt.Sprintf(`{"n":%q}`, strings.Repeat("x", 190<<10)) // several segments in profile 3
			var sent []string
			say := func(n int, payload string) {
				p.host.Send(id, []byte(payload))
				for range n {
					sent = append(sent, r.receive())
				}
			}
			segments := 1
			if profile.chunks() {
				segments = 2
			}
			say(1, `{"n":1}`)
			say(1, `{"n":2}`)
			r.send(`{"type":"ping","client_id":"c1","stream_id":"s1"}`)
			sent = append(sent, r.receive())
			say(segments, large)
			r.send(`{"type":"ack","client_id":"c1","stream_id":"s1","seq_id":1}`)
			p.host.NextAcked(id, 1)
			r.drop()

			p = p.crash(id, opened.ResumeKey, cursor, 2)
			if got := p.cursor(); got != "k2" {
				t.Errorf("the relay is read from %q, want k2", got)
			}
			if p.len() != 1 {
				t.Fatalf("%d virtual clients, want 1", p.len())
			}
			r = p.link()
			r.send(`{"type":"ping","client_id":"c1","stream_id":"s1"}`) // its pong waits for what comes before
			r.wantNothing()
			p.host.Send(id, []byte(`{"n":2}`))
			p.host.Send(id, []byte(large))
			p.host.Send(id, []byte(`{"n":4}`))
			for _, want := range sent[1:] {
				r.want(want)
			}
			r.want(`{"type":"pong","status":"active","client_id":"c1","stream_id":"s1","seq_id":5}`)
			r.want(`{"type":"server_message","message":{"n":4},"client_id":"c1","stream_id":"s1","seq_id":6}`)

			r.send("%s", first)
			r.send("%s", message("c1", "s1", 9, `{"id":2,"method":"x"}`))
			r.send("%s", message("c1", "s1", 10, `{"id":3,"method":"y"}`))
			if got := string(p.host.NextReceived(id)); got != `{"id":3,"method":"y"}` {
				t.Errorf("the host received %s", got)
			}
			r.send(`{"type":"ack","client_id":"c1","stream_id":"s1","seq_id":6}`)
			p.host.NextAcked(id, 4)
		})
	}
}

// TestAckBeforeTheHostSendsAgain: the relay had got everything.
func TestAckBeforeTheHostSendsAgain(t *testing.T) {
	p := startProcess(t, profile3, pluginsdk.StartParams{})
	r := p.link()
	id := p.open(r, "c1", "s1")
	for n := 1; n <= 3; n++ {
		p.host.Send(id, fmt.Appendf(nil, `{"n":%d}`, n))
		r.receive()
	}
	p = p.crash(id, `["c1","s1"]`, "", 1)
	r = p.link()
	r.send(`{"type":"ack","client_id":"c1","stream_id":"s1","seq_id":2}`)
	p.host.NextAcked(id, 2)
	for n := 1; n <= 4; n++ {
		p.host.Send(id, fmt.Appendf(nil, `{"n":%d}`, n))
	}
	r.want(`{"type":"server_message","message":{"n":3},"client_id":"c1","stream_id":"s1","seq_id":3}`)
	r.want(`{"type":"server_message","message":{"n":4},"client_id":"c1","stream_id":"s1","seq_id":4}`)
}

// TestStopInTheMiddleOfAMessage of a peer, which is larger than the window and
// for the rest of which the host has no room yet: the next process reads it again
// and delivers it.
func TestStopInTheMiddleOfAMessage(t *testing.T) {
	p := startProcess(t, profile2, pluginsdk.StartParams{})
	r := p.link()
	id := p.open(r, "c1", "s1")
	p.host.Stall(true)
	body := func(size int) string { return fmt.Sprintf(`{"method":"m","params":%q}`, strings.Repeat("x", size)) }
	with := func(cursor string, seq, size int) string {
		return strings.Replace(message("c1", "s1", seq, body(size)), `"seq_id"`, fmt.Sprintf(`"cursor":%q,"seq_id"`, cursor), 1)
	}
	r.send("%s", with("k1", 1, 60<<10))
	_, cursor := p.host.NextCursor(id)
	large := with("k2", 2, 300<<10)
	r.send("%s", large)
	p.host.AwaitPart(id)
	vc := p.streams["c1"]["s1"].vc
	r.drop()

	next := p.crash(id, `["c1","s1"]`, cursor, 1)
	if err := vc.conn.Checkpoint(t.Context(), nil); err != nil {
		t.Errorf("the connection has not been left to the next process: %v", err)
	}
	if got := next.cursor(); got != "k1" {
		t.Errorf("the relay is read from %q, want k1", got)
	}
	r = next.link()
	r.send("%s", large)
	if got := string(next.host.NextReceived(id)); got != body(300<<10) {
		t.Errorf("the host received %d bytes", len(got))
	}
}

// TestOwnAnswerAfterACrash: it is rebuilt from its id.
func TestOwnAnswerAfterACrash(t *testing.T) {
	p := startProcess(t, profile3, pluginsdk.StartParams{MaxMessageBytes: 1000})
	r := p.link()
	id := p.open(r, "c1", "s1")
	r.send("%s", message("c1", "s1", 1, fmt.Sprintf(`{"id":"a","method":%q}`, strings.Repeat("m", 1000))))
	const answer = `{"type":"server_message","message":{"jsonrpc":"2.0","id":"a","error":{"code":-32600,"message":"Invalid Request: the message is larger than the host allows."}},"client_id":"c1","stream_id":"s1","seq_id":1}`
	r.want(answer)
	p = p.crash(id, `["c1","s1"]`, "", 1)
	r = p.link()
	r.want(answer)
}

func TestAdoptLeavesWhatItCannotRead(t *testing.T) {
	good := pluginsdk.Resume{Conn: 7, Key: `["c1","s1"]`, NextSeq: 1}
	bad := []pluginsdk.Resume{
		{Conn: 2, Key: `["c1","s1"]`, NextSeq: 1}, // its peer initialized again
		{Conn: 3, Key: `c1`, NextSeq: 1},
		{Conn: 4, Key: `["c1"]`, NextSeq: 1},
		{Conn: 5, Key: `["c2","s1"]`, Cursor: "7", NextSeq: 1},
		{Conn: 6, Key: `["c3","s1"]`, Checkpoint: []byte("x"), NextSeq: 1},
	}
	p := startProcess(t, profile3, pluginsdk.StartParams{Resume: append([]pluginsdk.Resume{good}, bad...)})
	if id, o := p.host.NextOpened(); id != 7 || o.ResumeKey != good.Key {
		t.Errorf("adopted connection %d, %+v", id, o)
	}
	if p.len() != 1 {
		t.Errorf("%d virtual clients, want 1", p.len())
	}
}

// TestSafeCursor: after a crash the relay is read from before the first
// message that the host does not have, on whatever stream.
func TestSafeCursor(t *testing.T) {
	p := startProcess(t, profile3, pluginsdk.StartParams{})
	r := p.link()
	slow, fast := p.open(r, "c1", "s1"), p.open(r, "c2", "s1")
	p.host.Stall(true)
	at := func(client string, seq, cursor int) {
		r.send(`{"type":"client_message","client_id":%q,"stream_id":"s1","seq_id":%d,"cursor":"k%d","message":{"method":"m"}}`, client, seq, cursor)
	}
	for n := 1; n <= 127; n++ { // the window, with the initialize
		at("c1", n, n)
		p.host.NextReceived(slow)
	}
	for n := 128; n < 140; n++ {
		at("c1", n, n)
	}
	for n := 1; n < 10; n++ {
		at("c2", n, 200+n)
		_, cursor := p.host.NextCursor(fast)
		got, err := decodeNote(cursor)
		if err != nil || got.Cursor != "k127" || *got.Seq != uint64(n) {
			t.Fatalf("note %+v, %v; want cursor k127 and seq %d", got, err, n)
		}
	}
	if got := p.cursor(); got != "k209" {
		t.Errorf("the cursor of the next link is %q, want k209: the queues survive it", got)
	}
}

func TestLedger(t *testing.T) {
	var l ledger
	l.arrived("1")
	a := l.begin("2")
	l.arrived("3")
	b := l.begin("4")
	l.arrived("")
	l.arrived("6")
	want := func(n uint64, cursor string) {
		t.Helper()
		if l.safe != (place{n, cursor}) {
			t.Fatalf("safe at %+v, want %d %q", l.safe, n, cursor)
		}
	}
	want(1, "1")
	if got := l.after(b); got != (place{1, "1"}) {
		t.Errorf("with the second message: %+v", got)
	}
	if got := l.after(a); got != (place{3, "3"}) {
		t.Errorf("with the first message: %+v", got)
	}
	l.end(b)
	want(1, "1")
	if got := l.after(a); got != (place{6 + 0, "6"}) {
		t.Errorf("with both messages: %+v", got)
	}
	l.end(a)
	want(6, "6")
	c := l.begin("7")
	d := l.begin("")
	l.end(c)
	want(7, "7")
	l.end(d)
	want(7, "7")
	if l.first != nil || l.last != nil {
		t.Error("the ledger holds entries that have ended")
	}
}
