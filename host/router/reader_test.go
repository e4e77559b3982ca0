package router

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/transporthost/transporthost/shared/transport"
)

// receiveLarge brings a message of several pieces.
func receiveLarge(a *Attachment, conn transport.ConnID, message string, cursor transport.Cursor) {
	for rest := []byte(message); len(rest) > 0; {
		n := transport.Piece(len(rest), len(message))
		a.Received(conn, rest[:n], cursor, n < len(rest))
		rest = rest[n:]
	}
}

func largeRequest(id int) string {
	return fmt.Sprintf(`{"id":%d,"method":"m","params":%q}`, id, strings.Repeat("x", transport.LargeBytes))
}

// TestReceiveLoopGivesLargeMessagesAway: whatever the application does with a
// large message of one peer, the receive loop brings what is for others, and
// ends the connection itself. What came behind it keeps its place.
func TestReceiveLoopGivesLargeMessagesAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		working, goOn := make(chan struct{}), make(chan struct{})
		r, a, _, app := setUp(t, func(s *session, p []byte, _ transport.Message) {
			if len(p) > transport.LargeBytes {
				close(working)
				<-goOn
			}
			s.conn.Consumed(1, len(p))
		}, Config{})
		a.Opened(1, transport.Opened{})
		a.Opened(2, transport.Opened{})
		receiveLarge(a, 1, largeRequest(1), "")
		<-working
		a.Received(1, []byte(`{"method":"behind it"}`), "", false)
		a.Rejected(1, transport.Rejection{})
		a.Received(1, []byte(`{"method":"at the end"}`), "", false)
		a.Received(2, []byte(`{"method":"of another"}`), "", false)
		if got := app.sessions[1].got; len(got) != 1 {
			t.Fatalf("the other connection got %q while a large message is worked on", got)
		}
		if got := app.sessions[0].got; len(got) != 1 {
			t.Fatalf("%d messages got to the application, want the large one first", len(got))
		}
		close(goOn)
		synctest.Wait()
		if got := app.sessions[0].got; len(got) != 3 || got[1] != `{"method":"behind it"}` || got[2] != `{"method":"at the end"}` {
			t.Errorf("behind the large message came %q", got[1:])
		}
		a.Closed(1, transport.CloseReason{Code: transport.CloseNormal})
		if app.sessions[0].closed == nil || r.Len() != 1 {
			t.Error("the session has not heard of the end")
		}
	})
}

// TestEndDuringALargeMessage does not wait for it, and is told behind it, once.
func TestEndDuringALargeMessage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		working, goOn := make(chan struct{}), make(chan struct{})
		ended := 0
		r, a, _, app := setUp(t, func(s *session, _ []byte, _ transport.Message) {
			close(working)
			<-goOn
		}, Config{ConnClosed: func(string, transport.CloseReason, int) { ended++ }})
		a.Opened(1, transport.Opened{})
		receiveLarge(a, 1, largeRequest(1), "")
		<-working
		a.Received(1, []byte(`{"method":"not wanted any more"}`), "", false)
		a.Closed(1, transport.CloseReason{Code: transport.ClosePeerGone})
		if app.sessions[0].closed != nil {
			t.Error("the session heard of the end in the middle of a message")
		}
		close(goOn)
		synctest.Wait()
		s := app.sessions[0]
		if s.closed == nil || s.closed.Code != transport.ClosePeerGone || len(s.got) != 1 || ended != 1 || r.Len() != 0 {
			t.Errorf("the session got %d messages and heard %v of the end; the router said so %d times, and has %d connections", len(s.got), s.closed, ended, r.Len())
		}
	})
}

// TestLargeMessagesSurviveTheirProcess: what the host has accepted is the
// application's, although its process died before it was taken.
func TestLargeMessagesSurviveTheirProcess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		goOn := make(chan struct{})
		r, a, _, app := setUp(t, func(s *session, p []byte, _ transport.Message) {
			<-goOn
			s.conn.Consumed(1, len(p))
		}, Config{})
		open1(a, transport.Opened{ResumeKey: "k"})
		receiveLarge(a, 1, largeRequest(1), "7")
		a.EndBatch()
		a.Detach(transport.CloseReason{Code: transport.ClosePluginLost}, true)
		next := &wire{}
		b := r.Attach("ws", 2, next)
		b.Opened(1, transport.Opened{ResumeKey: "k"})
		b.Started([]transport.ConnID{1})
		b.Received(1, []byte(`{"method":"of the next process"}`), "8", false)
		close(goOn)
		synctest.Wait()
		if got := app.sessions[0].got; len(got) != 2 || got[0] != largeRequest(1) || got[1] != `{"method":"of the next process"}` {
			t.Errorf("%d messages arrived, want the large one and the one behind it", len(got))
		}
		for _, w := range r.rows {
			if messages, bytes := w.fromPeer.Unread(); messages != 0 || bytes != 0 || w.carried != (transport.Credit{}) {
				t.Errorf("%d messages with %d bytes count as unread, %+v as carried", messages, bytes, w.carried)
			}
		}
	})
}

// TestRunWaitsForReaders, and nothing starts behind its end.
func TestRunWaitsForReaders(t *testing.T) {
	var c crew
	goOn := make(chan struct{})
	done := false
	if !c.start(func() { <-goOn; done = true }) {
		t.Fatal("a reader did not start")
	}
	close(goOn)
	c.end()
	if !done || c.start(func() {}) {
		t.Errorf("done %v; something started behind the end", done)
	}
}

// TestLargeMessagesTravelInPieces: they are cut once, outside of locks, and sent
// again alike.
func TestLargeMessagesTravelInPieces(t *testing.T) {
	q := outQueue{keep: true}
	message := []byte(strings.Repeat("0123456789", transport.LargeBytes/8))
	m := copyOut(message)
	m.seq = q.number()
	q.push(m)
	for range 2 {
		var sent []byte
		for h := q.head(); h != nil; h = q.head() {
			piece := h.piece()
			if want := transport.Piece(len(message)-len(sent), len(message)); len(piece) != want {
				t.Fatalf("a piece of %d bytes, want %d", len(piece), want)
			}
			sent = append(sent, piece...)
			q.advance(len(piece))
		}
		if string(sent) != string(message) || q.bytes != len(message) {
			t.Fatalf("%d bytes were sent of %d, %d are kept", len(sent), len(message), q.bytes)
		}
		q.rewind()
	}
	q.advance(len(message))
	q.acked(1)
	if !q.empty() || q.bytes != 0 {
		t.Errorf("%d bytes are left", q.bytes)
	}
}

// TestDrainWaitsForWhatIsLate: a large request that the host has accepted, and
// what waits behind it, is answered before the connections are closed.
func TestDrainWaitsForWhatIsLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		working, goOn := make(chan struct{}), make(chan struct{})
		r, a, w, _ := setUp(t, func(s *session, p []byte, m transport.Message) {
			if m.Kind != transport.Request { // the large one, which nobody has in flight
				close(working)
				<-goOn
			}
			answer(s, p, m)
		}, Config{})
		open1(a, transport.Opened{})
		receiveLarge(a, 1, strings.Replace(largeRequest(1), `"id":1,`, "", 1), "")
		<-working
		a.Received(1, []byte(`{"id":2,"method":"behind it"}`), "", false)
		if n := r.Counters().InFlight; n != 0 {
			t.Fatalf("%d requests are in flight: this test shows nothing", n)
		}
		drained := make(chan error, 1)
		go func() { drained <- r.Drain(t.Context()) }()
		synctest.Wait()
		select {
		case err := <-drained:
			t.Errorf("Drain returned %v before the request behind the large message was answered", err)
			drained <- err
		default:
		}
		close(goOn)
		if err := <-drained; err != nil || len(w.sent) != 1 || w.sent[0] != `{"id":2,"result":1}` {
			t.Errorf("Drain: %v; the peer got %q", err, w.sent)
		}
	})
}

// TestWhatAClosingRowLeavesOutIsCounted, and is not in flight for ever.
func TestWhatAClosingRowLeavesOutIsCounted(t *testing.T) {
	for name, end := range map[string]func(*Attachment){
		"closing": func(a *Attachment) { a.CloseAll(transport.CloseReason{Code: transport.CloseGoingAway}) },
		"ended":   func(a *Attachment) { a.Closed(1, transport.CloseReason{Code: transport.ClosePeerGone}) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				working, goOn := make(chan struct{}), make(chan struct{})
				r, a, _, app := setUp(t, func(*session, []byte, transport.Message) {
					close(working)
					<-goOn
				}, Config{})
				open1(a, transport.Opened{})
				receiveLarge(a, 1, largeRequest(1), "")
				<-working
				a.Received(1, []byte(`{"id":2,"method":"m"}`), "", false)
				a.Received(1, []byte(`{"id":3,"method":"m"}`), "", false)
				end(a)
				close(goOn)
				synctest.Wait()
				if got, n := app.sessions[0].got, r.Counters().Dropped; len(got) != 1 || n != 2 {
					t.Errorf("the application got %d messages, %d count as dropped", len(got), n)
				}
				a.Closed(1, transport.CloseReason{Code: transport.ClosePeerGone})
				if err := r.Drain(t.Context()); err != nil || r.Counters().InFlight != 0 {
					t.Errorf("Drain: %v; %d in flight", err, r.Counters().InFlight)
				}
			})
		})
	}
}

// TestEndWhileALargeMessageIsJoined: the application does not get it, and it is
// not in flight.
func TestEndWhileALargeMessageIsJoined(t *testing.T) {
	r, a, _, app := setUp(t, keepAll, Config{})
	open1(a, transport.Opened{})
	w := a.row(1)
	a.Closed(1, transport.CloseReason{Code: transport.ClosePeerGone})
	w.take([]byte(largeRequest(1))) // what its reader does when it has joined
	if c := r.Counters(); c.InFlight != 0 || c.Dropped != 1 || len(app.sessions[0].got) != 0 {
		t.Errorf("%d in flight, %d dropped; the application got %d messages", c.InFlight, c.Dropped, len(app.sessions[0].got))
	}
}
