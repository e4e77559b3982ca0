package router

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/transporthost/transporthost/shared/transport"
)

var (
	done = transport.CloseReason{Code: transport.CloseNormal, Text: "done"}
	lost = transport.CloseReason{Code: transport.ClosePluginLost, Text: "killed"}
)

// TestWhatWasSaidBeforeTheCloseOutlivesTheProcess: what the host took from the
// application before that closed a resumable connection reaches the peer through
// the next process, whatever the dead one had got of it; then the connection
// ends, with the application's reason.
func TestWhatWasSaidBeforeTheCloseOutlivesTheProcess(t *testing.T) {
	large := strings.Repeat("x", 3*transport.PieceBytes)
	for _, tt := range []struct {
		name      string
		unclosed  bool // the connection is closed only while no process carries it
		said      []string
		acked     transport.Seq
		want      string // that the next process is sent
		wantFirst transport.Seq
	}{
		{"sent, and not acknowledged", false, []string{"a", "b", "c"}, 1, "[b c]", 2},
		{"waiting for credit", false, []string{strings.Repeat("y", transport.WindowBytes), "b"}, 0, "[" + strings.Repeat("y", transport.WindowBytes) + " b]", 1},
		{"half on its way", false, []string{"a", large}, 1, "[" + large + "]", 2},
		{"closed without a process", true, []string{"a", "b"}, 1, "[b]", 2},
		{"all acknowledged, closed without a process", true, []string{"a"}, 1, "[]", 2},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r, a, _, app := setUp(t, consume, Config{})
			open1(a, transport.Opened{ResumeKey: "k"})
			s := app.sessions[0]
			for _, p := range tt.said {
				if err := s.conn.Send([]byte(p)); err != nil {
					t.Fatal(err)
				}
			}
			a.Acked(1, tt.acked)
			if !tt.unclosed {
				s.conn.Close(done)
			}
			a.Detach(lost, true)
			s.conn.Close(done)
			if err := s.conn.Send([]byte("late")); err == nil {
				t.Error("something was taken in behind the close")
			}
			if s.closed != nil {
				t.Fatalf("the connection ended with the process: %v", s.closed)
			}
			resume := r.Resumable("ws")
			if len(resume) != 1 || resume[0].NextSeq != tt.wantFirst {
				t.Fatalf("Resumable = %+v, want one from number %d", resume, tt.wantFirst)
			}

			next := &wire{}
			b := r.Attach("ws", 2, next)
			b.Opened(1, transport.Opened{ResumeKey: "k"})
			b.Started([]transport.ConnID{1})
			for len(next.closed()) == 0 {
				before := len(next.sent)
				next.giveBack(b, 1)
				if len(next.sent) == before && len(next.closed()) == 0 && next.unread == (transport.Credit{}) {
					t.Fatal("nothing goes on")
				}
			}
			if got := fmt.Sprint(next.sent); got != tt.want {
				t.Errorf("the next process was sent %.60s, want %.60s", got, tt.want)
			}
			if got := next.closed(); len(got) != 1 || got[0] != done {
				t.Errorf("it was asked to close with %v, want once with %v", got, done)
			}
			b.Closed(1, transport.CloseReason{Code: transport.CloseNormal})
			if s.closed == nil || *s.closed != done {
				t.Errorf("the application heard %v, want %v", s.closed, done)
			}
			if r.Len() != 0 {
				t.Errorf("%d connections remain", r.Len())
			}
		})
	}
}

// TestWhatEndsWithTheProcess: a closed connection that owes its peer nothing, or
// that no other process can carry on.
func TestWhatEndsWithTheProcess(t *testing.T) {
	for _, tt := range []struct {
		name   string
		key    transport.ResumeKey
		resume bool
		end    func(a *Attachment, s *session)
		want   transport.CloseReason
	}{
		{"all acknowledged", "k", true, func(a *Attachment, s *session) { a.Acked(1, 1); s.conn.Close(done) }, done},
		{"cannot be resumed", "", true, func(_ *Attachment, s *session) { s.conn.Close(done) }, done},
		{"no process will come", "k", false, func(_ *Attachment, s *session) { s.conn.Close(done) }, done},
		{"the plugin broke the rules", "k", true, func(a *Attachment, _ *session) { a.Credit(1, transport.Credit{Messages: 7}) },
			transport.CloseReason{Code: transport.CloseProtocol}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r, a, _, app := setUp(t, consume, Config{})
			open1(a, transport.Opened{ResumeKey: tt.key})
			s := app.sessions[0]
			if err := s.conn.Send([]byte("a")); err != nil {
				t.Fatal(err)
			}
			tt.end(a, s)
			a.Detach(lost, tt.resume)
			if s.closed == nil || s.closed.Code != tt.want.Code {
				t.Errorf("the application heard %v, want %v", s.closed, tt.want)
			}
			if got := r.Resumable("ws"); len(got) != 0 || r.Len() != 0 {
				t.Errorf("%d connections remain, %+v wait", r.Len(), got)
			}
		})
	}
}

// TestAHungProcessIsOutlived: a process that confirms nothing is given up by its
// supervisor, which needs longer than a close may take. What it was sent, and
// did not acknowledge, waits for that; what owes nothing does not.
func TestAHungProcessIsOutlived(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, a, _, app := setUp(t, consume, Config{})
		ctx, cancel := context.WithCancel(t.Context())
		defer func() { cancel(); synctest.Wait() }()
		go func() { _ = r.Run(ctx) }()
		a.Opened(1, transport.Opened{ResumeKey: "k1"})
		a.Opened(2, transport.Opened{ResumeKey: "k2"})
		for i, s := range app.sessions {
			if err := s.conn.Send([]byte("a")); err != nil {
				t.Fatal(err)
			}
			if i == 1 {
				a.Acked(2, 1)
			}
			s.conn.Close(done)
		}
		time.Sleep(closeLimit + 2*sweepEvery)
		synctest.Wait()
		if app.sessions[1].closed == nil {
			t.Error("the connection that owes nothing waits on")
		}
		if app.sessions[0].closed != nil {
			t.Error("a message that nobody has acknowledged was given up")
		}
		a.Detach(lost, true)
		next := &wire{}
		b := r.Attach("ws", 2, next)
		b.Opened(1, transport.Opened{ResumeKey: "k1"})
		b.Started([]transport.ConnID{1})
		if fmt.Sprint(next.sent) != "[a]" || len(next.closed()) != 1 {
			t.Errorf("the next process was sent %q and asked to close %d times", next.sent, len(next.closed()))
		}
		time.Sleep(owedLimit + 2*sweepEvery) // but nobody waits for ever
		synctest.Wait()
		if c := app.sessions[0].closed; c == nil || r.Len() != 0 {
			t.Errorf("the application heard %v, %d connections remain", c, r.Len())
		}
	})
}
