//go:build linux

package main

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"
)

// A talk is a conversation in a test, with an application that behaves unless
// it is told otherwise.
type talk struct {
	t *testing.T
	*conversation
	known map[string]*seen
	due   time.Time
}

func newTalk(t *testing.T) *talk {
	r := newRecord(func(error) {})
	return &talk{t: t, conversation: newConversation("peer", stdio, r, 1), known: map[string]*seen{}, due: time.Now()}
}

// ask returns a request's answer, which nobody has taken yet.
func (k *talk) ask() []byte {
	k.t.Helper()
	return k.answer(k.make(k.due, 10, false))
}

// note lets the application have a note.
func (k *talk) note() { k.answer(k.make(k.due, 10, true)) }

// answer gives a message to the application.
func (k *talk) answer(message []byte) []byte {
	k.t.Helper()
	var m incoming
	var s statement
	if err := json.Unmarshal(message, &m); err != nil {
		k.t.Fatal(err)
	}
	if err := json.Unmarshal(m.Params, &s); err != nil {
		k.t.Fatal(err)
	}
	text, err := json.Marshal(outgoing{ID: m.ID, Result: account(k.known, s)})
	if err != nil {
		k.t.Fatal(err)
	}
	return text
}

// lastError is what the host answers a request with whose application ended.
func lastError(n int, text string) []byte {
	return fmt.Appendf(nil, `{"jsonrpc":"2.0","id":%d,"error":{"code":-32603,"message":%q}}`, n, text)
}

// another makes the next process of the application.
func (k *talk) another(answer []byte) []byte {
	return []byte(strings.Replace(string(answer), `"pid":`, `"pid":9`, 1))
}

const killedText = `application "chaos" was killed by SIGKILL`

// TestConversationFindsWhatIsWrong: each kind of loss, and nothing else.
func TestConversationFindsWhatIsWrong(t *testing.T) {
	for _, tt := range []struct {
		name string
		do   func(k *talk)
		want string // "" for nothing
	}{
		{"all is well", func(k *talk) {
			k.take(k.ask())
			k.note()
			first, second := k.ask(), k.ask()
			k.take(first)
			k.take(second)
		}, ""},
		{"a request lost", func(k *talk) {
			k.make(k.due, 10, false)
			k.take(k.ask())
		}, "overtook that to 1"},
		{"a request lost later", func(k *talk) {
			k.take(k.ask())
			k.make(k.due, 10, false)
			k.take(k.ask())
		}, "has 2 of 3, and 0 were refused: the rest is lost"},
		{"a note lost", func(k *talk) {
			k.take(k.ask())
			k.make(k.due, 10, true)
			k.take(k.ask())
		}, "has 2 of 3"},
		{"an answer lost", func(k *talk) {
			k.ask()
			k.take(k.ask())
		}, "overtook that to 1"},
		{"an answer doubled", func(k *talk) {
			a := k.ask()
			k.take(a)
			k.take(a)
		}, "a second answer, 1"},
		{"a request doubled", func(k *talk) {
			m := k.make(k.due, 10, false)
			k.answer(m)
			k.take(k.answer(m))
		}, "statement 1 came behind 1"},
		{"answers reordered", func(k *talk) {
			a, b := k.ask(), k.ask()
			k.take(b)
			k.take(a)
		}, "the answer to 2 overtook that to 1"},
		{"requests reordered", func(k *talk) {
			k.take(k.ask())
			a, b := k.make(k.due, 10, false), k.make(k.due, 10, false)
			k.answer(b)
			k.take(k.answer(a))
		}, "statement 2 came behind 3"},
		{"torn", func(k *talk) {
			a := k.ask()
			k.take(a[:len(a)-3])
		}, "a message is torn"},
		{"two lines mixed", func(k *talk) {
			k.take([]byte(strings.Replace(string(k.ask()), "peer.1.", "peer.9.", 1)))
		}, "is torn, or another one's"},
		{"an answer to nobody", func(k *talk) { k.take(lastError(7, killedText)) }, "what was never asked, 7"},
		{"an error for nothing", func(k *talk) {
			k.make(k.due, 10, false)
			k.take(lastError(1, killedText))
		}, "although nobody touched the application"},
		{"an error that says nothing", func(k *talk) {
			k.record.exposure.touch(application)
			k.make(k.due, 10, false)
			k.take(lastError(1, "internal error"))
		}, "does not name how the application ended"},
		{"the application was killed", func(k *talk) {
			k.take(k.ask())
			k.record.exposure.touch(application)
			k.make(k.due, 10, false)
			k.make(k.due, 10, true) // gone with it
			k.take(lastError(2, killedText))
			clear(k.known)
			k.take(k.another(k.ask()))
			k.take(k.another(k.ask()))
		}, ""},
		{"a request forgotten by its end", func(k *talk) {
			k.take(k.ask())
			k.record.exposure.touch(application)
			k.make(k.due, 10, false)
			clear(k.known)
			k.take(k.another(k.ask()))
		}, "overtook that to 2"},
		{"a notification lost", func(k *talk) {
			k.take([]byte(`{"method":"tick","params":{"pid":7,"n":1}}`))
			k.take([]byte(`{"method":"tick","params":{"pid":7,"n":3}}`))
		}, "notification 3 of process 7 comes behind 1"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			k := newTalk(t)
			tt.do(k)
			failures, _ := k.record.told()
			got := strings.Join(failures, "\n")
			if tt.want == "" && got != "" || !strings.Contains(got, tt.want) {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

// TestRetiredSockets: one may end with its process if that has had its time.
func TestRetiredSockets(t *testing.T) {
	r := newRecord(func(error) {})
	born := time.Now()
	if r.retired(born) {
		t.Error("retired without an upgrade")
	}
	r.upgraded()
	if r.retired(born) {
		t.Error("retired before its time")
	}
	r.upgrades[0] = time.Now().Add(-retireTimeout)
	if !r.retired(r.upgrades[0].Add(-time.Second)) || r.retired(born) {
		t.Error("want that only sockets that are older than the upgrade have had their time")
	}
	for range maxRetiring {
		r.upgraded()
	}
	if !r.retired(r.upgrades[0].Add(-time.Second)) {
		t.Error("want that the oldest of too many has had its time")
	}
}

func TestOutstandingIsWhatIsNotAnswered(t *testing.T) {
	k := newTalk(t)
	k.due = time.Now().Add(-time.Minute)
	k.make(k.due, 10, false)
	k.make(time.Now().Add(time.Minute), 10, false)
	text, oldest := k.record.outstanding(stdio, time.Now())
	if text != "1 of peer" || !oldest.Equal(k.due) {
		t.Errorf("got %q since %v, want the one that was due a minute ago", text, oldest)
	}
	if text, _ := k.record.outstanding(websocket, time.Now()); text != "" {
		t.Errorf("of another transport: %q", text)
	}
	k.end()
	if text, _ := k.record.outstanding(stdio, time.Now()); text != "" {
		t.Errorf("of a connection that has ended: %q", text)
	}
}
