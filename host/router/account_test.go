package router

import (
	"strings"
	"testing"
	"testing/synctest"

	"github.com/transporthost/transporthost/shared/transport"
)

// TestWhatIsLateIsBounded: large messages count until the application has taken
// them, not only while they arrive, whatever a plugin's processes do meanwhile.
func TestWhatIsLateIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		goOn := make(chan struct{})
		_, a, w, app := setUp(t, func(s *session, p []byte, _ transport.Message) {
			<-goOn
			s.conn.Consumed(1, len(p))
		}, Config{MaxMessageBytes: 64 << 20})
		message := `{"method":"m","params":"` + strings.Repeat("x", 63<<20) + `"}`
		const conns, room = 6, 4
		for i := range conns {
			conn := transport.ConnID(i + 1)
			a.Opened(conn, transport.Opened{})
			receiveLarge(a, conn, message, "")
		}
		if got := a.joined.bytes.Load(); got != int64(room*len(message)) || len(w.closes) != conns-room {
			t.Errorf("%d MiB count; closed were %v", got>>20, w.closes)
		}
		for _, c := range w.closes {
			if c.Code != transport.CloseOverloaded {
				t.Errorf("closed with %v, want as overloaded", c)
			}
		}
		if err := a.EndBatch(); err != nil {
			t.Errorf("the plugin is blamed: %v", err)
		}
		close(goOn)
		synctest.Wait()
		if got := a.joined.bytes.Load(); got != 0 {
			t.Errorf("%d bytes count when all are taken", got)
		}
		receiveLarge(a, 1, message, "")
		synctest.Wait()
		if got := app.sessions[0].got; len(got) != 2 || len(w.closes) != conns-room {
			t.Errorf("%d messages got to the application, want a second one; closed were %v", len(got), w.closes)
		}
	})
}

// TestWhatIsLateIsGivenBackOnce, to the account of the process that brought it,
// however the row fares.
func TestWhatIsLateIsGivenBackOnce(t *testing.T) {
	end := transport.CloseReason{Code: transport.ClosePluginLost}
	for name, fate := range map[string]func(*Router, *Attachment, *Attachment){
		"taken": func(*Router, *Attachment, *Attachment) {},
		"ended": func(_ *Router, a, _ *Attachment) { a.Closed(1, end) },
		"ended as its pieces arrive": func(_ *Router, a, _ *Attachment) {
			a.Received(1, make([]byte, transport.PieceBytes), "", true)
			a.Closed(1, end)
		},
		"closing": func(_ *Router, a, _ *Attachment) { a.CloseAll(end) },
		"adopted": func(_ *Router, a, b *Attachment) {
			a.Received(1, make([]byte, transport.PieceBytes), "", true)
			a.Detach(end, true)
			b.Opened(1, transport.Opened{ResumeKey: "k"})
			receiveLarge(b, 1, largeRequest(3), "9")
		},
		"adopted and ended": func(_ *Router, a, b *Attachment) {
			a.Detach(end, true)
			b.Opened(1, transport.Opened{ResumeKey: "k"})
			receiveLarge(b, 1, largeRequest(3), "9")
			b.Closed(1, end)
		},
		"waiting for a process that does not come": func(r *Router, a, _ *Attachment) {
			a.Detach(end, true)
			r.Abandon("ws", end)
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				goOn := make(chan struct{})
				r, a, _, _ := setUp(t, func(s *session, p []byte, _ transport.Message) {
					<-goOn
					s.conn.Consumed(1, len(p))
				}, Config{})
				open1(a, transport.Opened{ResumeKey: "k"})
				receiveLarge(a, 1, largeRequest(1), "7")
				receiveLarge(a, 1, largeRequest(2), "8")
				want := int64(len(largeRequest(1)) + len(largeRequest(2)))
				if got := a.joined.bytes.Load(); got != want {
					t.Fatalf("%d bytes count, want %d", got, want)
				}
				b := r.Attach("ws", 2, &wire{})
				fate(r, a, b)
				close(goOn)
				synctest.Wait()
				if x, y := a.joined.bytes.Load(), b.joined.bytes.Load(); x != 0 || y != 0 {
					t.Errorf("%d bytes are left in the account, %d in that of the next process", x, y)
				}
			})
		})
	}
}
