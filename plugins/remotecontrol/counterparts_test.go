package remotecontrol

import (
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gorilla/websocket"

	pluginsdk "github.com/transporthost/transporthost/plugin-sdk"
)

// Counterparts of tests of the reference that have no other place here.

// TestInvalidatedStreams is invalidates_incomplete_stream_assemblies: with a
// stream goes what was arriving on it, and nothing else. A goodbye that names no
// stream ends none but a legacy one, and what was arriving from the client.
func TestInvalidatedStreams(t *testing.T) {
	for _, tt := range []struct {
		name, gone string
		dropped    bool // the message that arrives on stream s1 of client c1
	}{
		{"of another stream", `{"type":"client_closed","client_id":"c1","stream_id":"s2"}`, false},
		{"of the stream", `{"type":"client_closed","client_id":"c1","stream_id":"s1"}`, true},
		{"of the client", `{"type":"client_closed","client_id":"c1"}`, true},
		{"of another client", `{"type":"client_closed","client_id":"c2","stream_id":"s1"}`, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := startProcess(t, profile3, pluginsdk.StartParams{})
			r := p.link()
			chunk := func(client, stream string, segment int, text string) {
				r.send(`{"type":"client_message_chunk","client_id":%q,"stream_id":%q,"seq_id":7,"segment_id":%d,"segment_count":2,"message_size_bytes":14,"message_chunk_base64":%q}`,
					client, stream, segment, base64.StdEncoding.EncodeToString([]byte(text)))
			}
			ids := map[string]pluginsdk.ConnID{"c1": p.open(r, "c1", "s1"), "c2": p.open(r, "c2", "s1"), "c3": p.open(r, "c3", "s1")}
			p.open(r, "c1", "s2")
			for _, client := range []string{"c1", "c3"} {
				chunk(client, "s1", 0, `{"method"`)
			}
			r.send("%s", tt.gone)
			if strings.Contains(tt.gone, `"c1","stream_id":"s1"`) { // it begins anew
				ids["c1"] = p.open(r, "c1", "s1")
			}
			for _, client := range []string{"c1", "c3"} {
				chunk(client, "s1", 1, `:"x"}`)
			}
			if got := string(p.host.NextReceived(ids["c3"])); got != `{"method":"x"}` {
				t.Errorf("the other client's message is %s", got)
			}
			r.send("%s", message("c1", "s1", 8, `{"method":"y"}`))
			if !tt.dropped {
				if got := string(p.host.NextReceived(ids["c1"])); got != `{"method":"x"}` {
					t.Errorf("the client's message is %s", got)
				}
			}
			if got := string(p.host.NextReceived(ids["c1"])); got != `{"method":"y"}` {
				t.Errorf("the client's next message is %s", got)
			}
		})
	}
}

// TestAnInitializeThatIsNotTaken is in place of initialize_timeout_closes_open_connection:
// a host that takes nothing for longer than the reference waits has the
// connection nevertheless, the link goes on, and so does everybody else (spec
// 0.2, 4).
func TestAnInitializeThatIsNotTaken(t *testing.T) {
	for name, version := range bothProfiles {
		t.Run(name, func(t *testing.T) {
			p := startProcess(t, version, pluginsdk.StartParams{})
			r := p.link()
			p.host.Stall(true)
			slow := p.open(r, "c1", "s1")
			const window, more = 128, 3
			for n := 1; n < window+more; n++ { // the last ones are not on the link
				r.send("%s", message("c1", "s1", n, fmt.Sprintf(`{"method":"m","params":%d}`, n)))
			}
			p.sweep(time.Now().Add(6 * time.Second)) // the reference waits for 5 s
			other := p.open(r, "c2", "s1")
			p.host.Send(other, []byte(`{"n":1}`))
			r.want(`{"type":"server_message","message":{"n":1},"client_id":"c2","stream_id":"s1","seq_id":1}`)
			if got := p.len(); got != 2 {
				t.Errorf("%d virtual clients, want 2", got)
			}
			p.host.CatchUp()
			for n := 1; n < window+more; n++ {
				if got, want := string(p.host.NextReceived(slow)), fmt.Sprintf(`{"method":"m","params":%d}`, n); got != want {
					t.Fatalf("the host received %s, want %s", got, want)
				}
			}
		})
	}
}

// TestGoodbyeOutlivesItsLink is close_client_keeps_forwarding_after_caller_is_aborted:
// the end of a virtual client, and what it said before, reaches a slow host
// although the link that brought it is gone.
func TestGoodbyeOutlivesItsLink(t *testing.T) {
	for name, version := range bothProfiles {
		t.Run(name, func(t *testing.T) {
			p := startProcess(t, version, pluginsdk.StartParams{})
			r := p.link()
			p.host.Stall(true)
			id := p.open(r, "c1", "s1")
			const messages = 200 // more than a window
			for n := 1; n <= messages; n++ {
				r.send("%s", message("c1", "s1", n, fmt.Sprintf(`{"method":"m","params":%d}`, n)))
			}
			r.send(`{"type":"client_closed","client_id":"c1","stream_id":"s1"}`)
			r.wantNothing() // all of it is read
			r.drop()
			p.host.CatchUp()
			for n := 1; n <= messages; n++ {
				if got, want := string(p.host.NextReceived(id)), fmt.Sprintf(`{"method":"m","params":%d}`, n); got != want {
					t.Fatalf("the host received %s, want %s", got, want)
				}
			}
			if got := p.host.NextClosed(id); got.Code != pluginsdk.CloseNormal {
				t.Errorf("closed with %v, want normally", got)
			}
		})
	}
}

// TestEndsWhileTheWriterIsStuck is shutdown_cancels_blocked_outbound_forwarding,
// and where the reader ends first join_connection_workers_aborts_stuck_worker_after_timeout:
// a relay that does not read keeps nobody, and not for the reference's 5 s either.
func TestEndsWhileTheWriterIsStuck(t *testing.T) {
	for _, tt := range []struct {
		name string
		end  func(theirs *websocket.Conn, cancel func(error))
		want string
		most time.Duration
	}{
		{"shutdown", func(_ *websocket.Conn, cancel func(error)) { cancel(pluginsdk.ErrStopping) }, pluginsdk.ErrStopping.Error(), time.Second},
		{"the reader ends", func(theirs *websocket.Conn, _ func(error)) {
			_ = theirs.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(1001, ""), time.Now().Add(time.Minute))
		}, "reader disconnected", 2 * time.Second},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := bare()
				theirs, served, cancel := serveBare(t, c)
				defer cancel(errors.New("the test is over"))
				for n := range 100 {
					c.receive(fmt.Appendf(nil, `{"type":"ping","client_id":"c%d","stream_id":"s"}`, n)) // a pong each
				}
				synctest.Wait() // the writer is in the middle of the first, and nobody reads
				begun := time.Now()
				tt.end(theirs, cancel)
				if err := <-served; err == nil || !strings.Contains(err.Error(), tt.want) {
					t.Errorf("serve returned %v, want %s", err, tt.want)
				}
				if took := time.Since(begun); took > tt.most {
					t.Errorf("it took %v, want at most %v", took, tt.most)
				}
				_ = theirs.Close()
				c.close(pluginsdk.CloseReason{Code: pluginsdk.CloseGoingAway})
			})
		})
	}
}
