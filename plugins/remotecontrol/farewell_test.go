package remotecontrol

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	pluginsdk "github.com/transporthost/transporthost/plugin-sdk"
	"github.com/transporthost/transporthost/plugin-sdk/pluginsdktest"
)

// TestStopDoesNotLoseAResponse: a relay that reads slowly has all of it when the
// host hears that the connection is closed, and takes the link away.
func TestStopDoesNotLoseAResponse(t *testing.T) {
	p := startProcess(t, profile3, pluginsdk.StartParams{})
	r := p.link()
	if sock, ok := r.ws.NetConn().(*net.TCPConn); !ok || sock.SetReadBuffer(512<<10) != nil {
		t.Fatal("the relay's socket takes as much as it likes")
	}
	id := p.open(r, "c1", "s1")
	m := append(append([]byte(`{"m":"`), bytes.Repeat([]byte("x"), 4<<20)...), `"}`...)
	p.host.Send(id, m)
	r.receive() // it is under way, and fills the socket
	p.host.Close(id, pluginsdk.CloseReason{Code: pluginsdk.CloseGoingAway, Text: "the host is stopping"})
	got := make(chan int, 1)
	go func() { // the relay acknowledges each segment
		n, segments := 1, 2
		for ; n < segments; n++ {
			_, b, err := r.ws.ReadMessage()
			if err != nil {
				break
			}
			var e struct {
				Count   int `json:"segment_count"`
				Segment int `json:"segment_id"`
			}
			if json.Unmarshal(b, &e) == nil {
				segments = e.Count
			}
			if n%16 == 0 {
				time.Sleep(5 * time.Millisecond) // of real time: a slow socket
			}
			ack := fmt.Appendf(nil, `{"type":"ack","client_id":"c1","stream_id":"s1","seq_id":1,"segment_id":%d}`, e.Segment)
			if err := r.ws.WriteMessage(websocket.TextMessage, ack); err != nil {
				break
			}
		}
		got <- segments - n
	}()
	p.host.NextClosed(id)
	r.cancel(pluginsdk.ErrStopping)
	if missing := <-got; missing != 0 {
		t.Errorf("%d segments did not arrive", missing)
	}
}

// TestFarewellIsBounded, with a relay that takes nothing and without one.
func TestFarewellIsBounded(t *testing.T) {
	for _, linked := range []bool{true, false} {
		p := startProcess(t, profile3, pluginsdk.StartParams{})
		r := p.link()
		id := p.open(r, "c1", "s1")
		if !linked {
			r.drop()
		}
		size := 1 << 20
		if linked {
			size = 32 << 20 // more than the socket takes
		}
		p.host.Send(id, []byte(`{"m":"`+strings.Repeat("x", size)+`"}`))
		if linked {
			r.receive() // it is under way
		}
		begun := time.Now()
		p.host.Close(id, pluginsdk.CloseReason{Code: pluginsdk.CloseGoingAway})
		p.host.NextClosed(id)
		want := linkGrace
		if linked {
			want = farewellTimeout
		}
		// The message has to get here first, which takes as long as it takes.
		if took := time.Since(begun); took < want-time.Second || took > pluginsdktest.Timeout {
			t.Errorf("linked %v: confirmed after %v, want about %v", linked, took, want)
		}
	}
}

// TestFarewellOfAnEmptyOutbox waits for nothing.
func TestFarewellOfAnEmptyOutbox(t *testing.T) {
	p := startProcess(t, profile3, pluginsdk.StartParams{})
	r := p.link()
	id := p.open(r, "c1", "s1")
	p.host.Send(id, []byte(`{"n":1}`))
	r.receive()
	r.send(`{"type":"ack","client_id":"c1","stream_id":"s1","seq_id":1}`)
	p.host.NextAcked(id, 1)
	begun := time.Now()
	p.host.Close(id, pluginsdk.CloseReason{Code: pluginsdk.CloseGoingAway})
	p.host.NextClosed(id)
	if took := time.Since(begun); took > ackGrace {
		t.Errorf("confirmed after %v, want at once", took)
	}
}
