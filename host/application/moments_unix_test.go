//go:build unix

package application

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/transporthost/transporthost/host/internal/backoff"
)

// The moments at which a shared process may die, as its peers see them: each
// keeps its connection, and what it waits for is answered with how that ended.

const diedOfItself = `application "application.test" exited with status 5`

// failure is the answer to a request whose process has died.
func failure(id, how string) string {
	return fmt.Sprintf(`{"jsonrpc":"2.0","id":%s,"error":{"code":-32603,"message":%q}}`, id, how)
}

// joinAll opens n connections.
func joinAll(app App, n int) (conns []*fakeConn, sessions []Session) {
	for range n {
		c := newFakeConn()
		conns, sessions = append(conns, c), append(sessions, app.Open(c))
	}
	return conns, sessions
}

// serves checks that every peer is answered, and that none was closed.
func serves(t *testing.T, conns []*fakeConn, sessions []Session) {
	t.Helper()
	for i, s := range sessions {
		deliver(t, s, fmt.Sprintf(`{"id":"again","method":"m","params":%d}`, i))
		if got, want := conns[i].next(t), fmt.Sprintf(`{"jsonrpc":"2.0","id":"again","result":%d}`, i); got != want {
			t.Errorf("peer %d got %s, want %s", i, got, want)
		}
		if n := len(conns[i].closed); n != 0 {
			t.Errorf("the connection of peer %d was closed", i)
		}
	}
}

// TestDeathBeforeInitializeIsAnswered: who asked, and who waits for the answer to
// another's, hear of it, and may ask again.
func TestDeathBeforeInitializeIsAnswered(t *testing.T) {
	app := sharedApp(t, backoff.Policy{})
	conns, sessions := joinAll(app, 3)
	for i, s := range sessions {
		deliver(t, s, fmt.Sprintf(`{"id":%d,"method":"initialize","params":"die"}`, i))
		// The next one may come before the death, or meet the next process: it dies
		// of it as well.
	}
	for i, c := range conns {
		if got, want := c.next(t), failure(fmt.Sprint(i), diedOfItself); !sameFailure(got, want) {
			t.Errorf("peer %d got %s, want %s", i, got, want)
		}
	}
	deliver(t, sessions[1], `{"id":"i","method":"initialize","params":{"x":1}}`)
	if got := conns[1].next(t); got != `{"jsonrpc":"2.0","id":"i","result":{"x":1}}` {
		t.Errorf("the second initialize got %s", got)
	}
	serves(t, conns, sessions)
	if st := app.Status(); !st.Ready || st.Cause != diedOfItself || st.Restarts == 0 || st.InFlight != 0 {
		t.Errorf("status %+v", st)
	}
}

// sameFailure compares answers whose text may be quoted in more than one way.
func sameFailure(got, want string) bool {
	return strings.ReplaceAll(got, `\"`, `'`) == strings.ReplaceAll(want, `\"`, `'`)
}

// TestDeathWithRequestsOfThreePeers in flight: each gets its own answers, with
// its own ids, once.
func TestDeathWithRequestsOfThreePeers(t *testing.T) {
	app := sharedApp(t, backoff.Policy{})
	conns, sessions := joinAll(app, 3)
	deliver(t, sessions[0], `{"id":0,"method":"initialize"}`)
	conns[0].next(t)
	for _, s := range sessions {
		deliver(t, s, `{"id":1,"method":"ignore"}`)
		deliver(t, s, `{"id":"1","method":"ignore"}`)
	}
	deliver(t, sessions[2], `{"id":2,"method":"exit"}`)
	for i, c := range conns {
		ids := map[string]bool{`1`: true, `"1"`: true}
		if i == 2 {
			ids[`2`] = true
		}
		for range len(ids) {
			got := c.next(t)
			for id := range ids {
				if sameFailure(got, failure(id, diedOfItself)) {
					delete(ids, id)
				}
			}
		}
		if len(ids) != 0 {
			t.Errorf("peer %d got no answer to %v", i, ids)
		}
	}
	serves(t, conns, sessions)
	for i, c := range conns {
		if n := len(c.sent); n != 0 {
			t.Errorf("peer %d got %d messages more", i, n)
		}
	}
}

// TestRequestsInAPause wait for the next process, and are served by it.
func TestRequestsInAPause(t *testing.T) {
	app := sharedApp(t, backoff.Policy{Min: 2 * time.Second, Max: 2 * time.Second, ResetAfter: time.Hour})
	conns, sessions := joinAll(app, 3)
	for range 2 { // after the second there is a pause, of 200 ms at least
		deliver(t, sessions[0], `{"id":1,"method":"exit"}`)
		if got := conns[0].next(t); !sameFailure(got, failure("1", diedOfItself)) {
			t.Errorf("got %s", got)
		}
	}
	if st := app.Status(); st.Cause != diedOfItself {
		t.Errorf("status: %+v", st)
	}
	serves(t, conns, sessions)
}

// TestGivenUp: every peer, the new ones too, is told at once why, and when it is
// tried again; and so is whoever asks for the status.
func TestGivenUp(t *testing.T) {
	app := sharedApp(t, backoff.Policy{Min: time.Millisecond, Max: time.Millisecond, ResetAfter: time.Hour, GiveUpAfter: 1, GiveUpWindow: time.Hour})
	conns, sessions := joinAll(app, 2)
	deliver(t, sessions[0], `{"id":1,"method":"exit"}`)
	conns[0].next(t)
	again := diedOfItself + "; it is tried again at "
	late, lateSession := newFakeConn(), Session(nil)
	lateSession = app.Open(late)
	conns, sessions = append(conns, late), append(sessions, lateSession)
	for i, s := range sessions {
		deliver(t, s, `{"id":2,"method":"m"}`)
		if got := strings.ReplaceAll(conns[i].next(t), `\"`, `"`); !strings.HasPrefix(got, `{"jsonrpc":"2.0","id":2,"error":{"code":-32603,"message":"`+again) {
			t.Errorf("peer %d got %s", i, got)
		}
		if len(conns[i].closed) != 0 {
			t.Errorf("the connection of peer %d was closed", i)
		}
	}
	if st := app.Status(); st.Ready || !strings.HasPrefix(st.Cause, again) || st.InFlight != 0 {
		t.Errorf("status %+v", st)
	}
}
