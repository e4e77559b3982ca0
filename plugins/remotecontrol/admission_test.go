package remotecontrol

import (
	"fmt"
	"strings"
	"testing"
	"time"

	pluginsdk "github.com/transporthost/transporthost/plugin-sdk"
)

const overloadedAnswer = `"error":{"code":-32001,"message":"Server overloaded; retry later."}`

// TestClientsAreBounded: one too many hears of it, and gets in once another has
// left. One that begins anew takes its own place.
func TestClientsAreBounded(t *testing.T) {
	p := startProcess(t, profile3, pluginsdk.StartParams{})
	p.maxClients = 2
	r := p.link()
	first := p.open(r, "c1", "s1")
	p.open(r, "c2", "s1")
	r.send("%s", initialize("c3", "s1", 0))
	r.want(`{"type":"server_message","message":{"jsonrpc":"2.0","id":1,` + overloadedAnswer + `},"client_id":"c3","stream_id":"s1","seq_id":1}`)
	r.send(`{"type":"client_message","client_id":"c4","message":{"id":"x","method":"initialize"}}`) // of no stream
	if got := r.receive(); !strings.Contains(got, `"id":"x",`+overloadedAnswer) {
		t.Errorf("got %s", got)
	}
	r.send("%s", initialize("c2", "s1", 5))
	again, _ := p.host.NextOpened()
	p.host.NextReceived(again)
	if p.len() != 2 || p.tally.details()["refused_clients"] != "2" {
		t.Errorf("%d virtual clients, the details are %v", p.len(), p.tally.details())
	}
	r.send(`{"type":"client_closed","client_id":"c1","stream_id":"s1"}`)
	p.host.NextClosed(first)
	p.open(r, "c3", "s1")
}

// TestRefusalsAreBounded: who goes on asking and acknowledges nothing costs no
// more memory.
func TestRefusalsAreBounded(t *testing.T) {
	p := startProcess(t, profile3, pluginsdk.StartParams{})
	p.maxClients = 1
	r := p.link()
	id := p.open(r, "c1", "s1")
	for n := range 20 * maxRefusals {
		r.send("%s", initialize("c2", "s1", n))
	}
	for range maxRefusals {
		r.receive()
	}
	r.wantNothing()
	r.send("%s", message("c1", "s1", 1, `{"method":"x"}`))
	p.host.NextReceived(id)
}

// TestOpensAreSpaced: a peer that initializes without end does not flood the
// host with the connections that come and go.
func TestOpensAreSpaced(t *testing.T) {
	p := startProcess(t, profile3, pluginsdk.StartParams{})
	r := p.link()
	const asked = 10 * opensBurst
	opened, refused := 0, 0
	began := time.Now()
	for n := range asked {
		r.send("%s", message("c1", "s1", n, fmt.Sprintf(`{"id":%d,"method":"initialize"}`, n)))
	}
	r.send(`{"type":"ping","client_id":"c2","stream_id":"s1"}`)
	for got := ""; !strings.Contains(got, `"c2"`); refused++ {
		got = r.receive()
	}
	p.mu.Lock()
	opened = asked - int(p.tally.refused.Load())
	retained := p.streams["c1"]["s1"].out.envelopes
	p.mu.Unlock()
	most := opensBurst + 1 + int(time.Since(began).Seconds()*opensPerSecond)
	if opened < opensBurst || opened > most {
		t.Errorf("%d connections were opened, want %d to %d", opened, opensBurst, most)
	}
	if retained > outboxEnvelopes || p.len() == 0 {
		t.Errorf("%d envelopes are retained, %d virtual clients", retained, p.len())
	}
	if refused < 2 {
		t.Error("no refusal was answered")
	}
}

// TestInitializeDoesNotDropWhatCameBefore: the old connection gets its last
// messages, and the new one does not wait for that (spec 6.5).
func TestInitializeDoesNotDropWhatCameBefore(t *testing.T) {
	for _, left := range []bool{false, true} {
		p := startProcess(t, profile3, pluginsdk.StartParams{})
		r := p.link()
		old := p.open(r, "c1", "s1")
		p.wg.Wait()
		p.mu.Lock()
		leaves := p.streams["c1"]["s1"].vc
		leaves.delivers = true // as if the host had no room for more
		p.mu.Unlock()
		const messages = 100
		for n := 1; n <= messages; n++ {
			r.send("%s", message("c1", "s1", n, fmt.Sprintf(`{"method":"m","params":%d}`, n)))
		}
		if left {
			r.send(`{"type":"client_closed","client_id":"c1","stream_id":"s1"}`)
		}
		r.send("%s", initialize("c1", "s1", messages+1))
		again, _ := p.host.NextOpened()
		if got := string(p.host.NextReceived(again)); !strings.Contains(got, "initialize") {
			t.Fatalf("the new connection began with %s", got)
		}
		if p.len() != 2 {
			t.Errorf("%d virtual clients, want the one that leaves, too", p.len())
		}
		p.host.Send(again, []byte(`{"n":1}`))
		r.want(`{"type":"server_message","message":{"n":1},"client_id":"c1","stream_id":"s1","seq_id":1}`)
		p.host.Send(old, []byte(`{"n":2}`)) // for nobody
		r.wantNothing()
		p.wg.Go(leaves.deliver)
		for n := 1; n <= messages; n++ {
			if got, want := string(p.host.NextReceived(old)), fmt.Sprintf(`{"method":"m","params":%d}`, n); got != want {
				t.Fatalf("the old connection got %s, want %s", got, want)
			}
		}
		if got := p.host.NextClosed(old); got.Code != pluginsdk.CloseNormal {
			t.Errorf("closed with %v", got)
		}
		r.send("%s", message("c1", "s1", messages+2, `{"method":"x"}`))
		if got := string(p.host.NextReceived(again)); got != `{"method":"x"}` {
			t.Errorf("the new connection got %s", got)
		}
		r.wantNothing()
	}
}
