package application

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/transporthost/transporthost/shared/transport"
)

// A ledger is a connection that keeps what is sent on it.
type ledger struct {
	name      string
	sent      []string
	forgotten int
}

func (c *ledger) ID() uint64           { return 1 }
func (c *ledger) Origin() string       { return "test" }
func (c *ledger) Peer() transport.Peer { return transport.Peer{} }
func (c *ledger) Send(p []byte) error {
	c.sent = append(c.sent, string(p))
	return nil
}
func (c *ledger) SendWait(_ context.Context, p []byte) error {
	c.sent = append(c.sent, string(p))
	return nil
}
func (c *ledger) Forgotten(n int)             { c.forgotten += n }
func (c *ledger) Consumed(int, int)           {}
func (c *ledger) Close(transport.CloseReason) {}

// drain returns what was sent since the last call.
func (c *ledger) drain() string {
	s := strings.Join(c.sent, "\n")
	c.sent = nil
	return s
}

// A bench is an exchange with peers, and the application's end of it.
type bench struct {
	t    testing.TB
	x    *exchange
	conn map[string]*ledger
	peer map[string]*peer
}

func newBench(t testing.TB, peers ...string) *bench {
	b := &bench{t: t, x: newExchange(transport.NDJSON), conn: map[string]*ledger{}, peer: map[string]*peer{}}
	ctx, cancel := context.WithCancel(context.Background())
	b.x.crew.begin(ctx)
	t.Cleanup(func() {
		cancel()
		b.x.crew.dismiss()
	})
	b.x.revive()
	for _, name := range peers {
		b.conn[name] = &ledger{name: name}
		b.peer[name] = b.x.join(b.conn[name])
	}
	return b
}

// joins adds a peer on a connection of the test's.
func (b *bench) joins(name string, c Conn) {
	b.peer[name] = b.x.join(c)
}

// says is a message of a peer; it returns what the application gets.
func (b *bench) says(peer, message string) string {
	b.peer[peer].Deliver([]byte(message), transport.Message{})
	return b.application()
}

// application returns what the application got since the last call.
func (b *bench) application() string {
	var out []byte
	for items := b.x.take(nil); len(items) > 0; items = b.x.take(items) {
		for _, it := range items {
			out = transport.AppendFrame(out, it.payload, b.x.framing)
		}
		repay(items)
	}
	return strings.TrimSuffix(string(out), "\n")
}

// answers is a message of the application.
func (b *bench) answers(message string) {
	b.t.Helper()
	m, err := transport.Peek([]byte(message))
	if err != nil {
		b.t.Fatal(err)
	}
	b.x.fromApplication([]byte(message), m)
}

func (b *bench) want(what, got, want string) {
	b.t.Helper()
	if got != want {
		b.t.Errorf("%s: got\n%s\nwant\n%s", what, got, want)
	}
}

// initialize makes all peers initialized; the first of them is the one whose
// initialize the application sees.
func (b *bench) initialize(params string, peers ...string) {
	b.t.Helper()
	for i, name := range peers {
		got := b.says(name, `{"id":"init","method":"initialize","params":`+params+`}`)
		if i == 0 {
			b.answers(strings.Replace(got[:strings.Index(got, ",")]+`,"result":{"r":1}}`, `{"id"`, `{"jsonrpc":"2.0","id"`, 1))
		}
		b.want("initialize of "+name, b.conn[name].drain(), `{"jsonrpc":"2.0","id":"init","result":{"r":1}}`)
	}
}

func TestIDsAreReplacedAndRestored(t *testing.T) {
	b := newBench(t, "a", "b")
	b.want("of a", b.says("a", ` {"id" : 1,"method":"m", "params":{"id":1}}`), ` {"id" : 1,"method":"m", "params":{"id":1}}`)
	b.want("of b", b.says("b", `{"method":"m","id":"\u0031"}`), `{"method":"m","id":2}`)
	b.want("of a again", b.says("a", `{"id":1.0,"method":"m"}`), `{"id":3,"method":"m"}`)
	b.answers(`{"id":2,"result": [ 1 ]}`)
	b.answers(`{"result":{"id":1},"id":1}`)
	b.answers(`{"id":3,"error":{"code":1,"message":"no"}}`)
	b.want("a", b.conn["a"].drain(), "{\"result\":{\"id\":1},\"id\":1}\n{\"id\":1.0,\"error\":{\"code\":1,\"message\":\"no\"}}")
	b.want("b", b.conn["b"].drain(), `{"id":"\u0031","result": [ 1 ]}`)
	b.answers(`{"id":3,"result":1}`)
	b.answers(`{"id":"x","result":1}`)
	if b.x.dropped != 2 || b.x.inLine != 0 {
		t.Errorf("%d answers dropped, %d requests in flight; want 2, 0", b.x.dropped, b.x.inLine)
	}
}

func TestWhatAPeerMayNotSend(t *testing.T) {
	for _, tt := range []struct{ in, want string }{
		{`{"id":1,"method":"m","params":{]}`, `"code":-32700`},
		{`{"id":1,"id":2,"method":"m"}`, `"code":-32600`},
		{`{"id":7,"method":"m"} {"id":8,"method":"n"}`, `"code":-32700`},
	} {
		b := newBench(t, "a")
		if got := b.says("a", tt.in); got != "" {
			t.Errorf("%s reached the application as %s", tt.in, got)
		}
		if got := b.conn["a"].drain(); !strings.Contains(got, tt.want) {
			t.Errorf("%s was answered %s, want %s", tt.in, got, tt.want)
		}
	}
	b := newBench(t, "a")
	b.says("a", `{"id":1,"method":"m"}`)
	b.says("a", `{"id":1,"method":"n"}`)
	if got := b.conn["a"].drain(); !strings.Contains(got, "the id is that of a request that is not answered yet") {
		t.Errorf("the same id twice: %s", got)
	}
}

func TestInitializeIsShared(t *testing.T) {
	b := newBench(t, "a", "b", "c")
	b.want("first", b.says("a", `{"id":0,"method":"initialize","params":{}}`), `{"id":1,"method":"initialize","params":{}}`)
	b.want("second, meanwhile", b.says("b", `{"id":"b","method":"initialize","params":{}}`), "")
	b.answers(`{"jsonrpc":"2.0","result":{"x": [1]},"id":1}`)
	b.want("a", b.conn["a"].drain(), `{"jsonrpc":"2.0","id":0,"result":{"x": [1]}}`)
	b.want("b", b.conn["b"].drain(), `{"jsonrpc":"2.0","id":"b","result":{"x": [1]}}`)
	b.want("third, later", b.says("c", `{"id":5,"method":"initialize","params":{}}`), "")
	b.want("c", b.conn["c"].drain(), `{"jsonrpc":"2.0","id":5,"result":{"x": [1]}}`)
	b.says("c", `{"id":6,"method":"initialize","params":{}}`)
	b.want("again", b.conn["c"].drain(), `{"jsonrpc":"2.0","id":6,"error":{"code":-32600,"message":"Already initialized"}}`)
	b.want("initialized", b.says("a", `{"method":"notifications/initialized"}`), `{"method":"notifications/initialized"}`)
	b.want("initialized again", b.says("b", `{"method":"notifications/initialized"}`), "")
}

func TestFailedInitializeIsForgotten(t *testing.T) {
	b := newBench(t, "a", "b")
	b.says("a", `{"id":0,"method":"initialize"}`)
	b.answers(`{"id":1,"error":{"code":-1,"message":"no"}}`)
	b.want("a", b.conn["a"].drain(), `{"id":0,"error":{"code":-1,"message":"no"}}`)
	b.want("the next one", b.says("b", `{"id":9,"method":"initialize"}`), `{"id":2,"method":"initialize"}`)
}

// TestNotificationsAndOptOut is to_connection_notifications_are_dropped_for_opted_out_clients
// and to_connection_notifications_are_preserved_for_non_opted_out_clients.
func TestNotificationsAndOptOut(t *testing.T) {
	b := newBench(t, "a", "b", "c")
	b.initialize(`{}`, "a")
	b.says("b", `{"id":1,"method":"initialize","params":{"capabilities":{"optOutNotificationMethods":["noise"]}}}`)
	b.conn["b"].drain()
	b.answers(`{"method":"noise"}`)
	b.answers(`{"method":"news","params":1}`)
	b.want("a", b.conn["a"].drain(), "{\"method\":\"noise\"}\n{\"method\":\"news\",\"params\":1}")
	b.want("b, who opted out", b.conn["b"].drain(), `{"method":"news","params":1}`)
	b.want("c, not initialized", b.conn["c"].drain(), "")
}

func TestProgressReachesItsOwnerOnly(t *testing.T) {
	b := newBench(t, "a", "b")
	b.initialize(`{}`, "a", "b")
	b.want("of a", b.says("a", `{"id":1,"method":"m","params":{"_meta":{"progressToken":"t"}}}`), `{"id":2,"method":"m","params":{"_meta":{"progressToken":3}}}`)
	b.says("b", `{"id":1,"method":"m","params":{"_meta":{"progressToken":"t"}}}`)
	b.answers(`{"method":"notifications/progress","params":{"progress":1,"progressToken":3}}`)
	b.want("a", b.conn["a"].drain(), `{"method":"notifications/progress","params":{"progress":1,"progressToken":"t"}}`)
	b.want("b", b.conn["b"].drain(), "")
	b.answers(`{"id":2,"result":{}}`)
	b.conn["a"].drain()
	b.answers(`{"method":"notifications/progress","params":{"progress":2,"progressToken":3}}`)
	b.want("a, after the answer", b.conn["a"].drain(), "")
}

func TestCancelNamesTheRequestOfItsPeer(t *testing.T) {
	b := newBench(t, "a", "b")
	b.says("a", `{"id":"x","method":"m"}`)
	b.says("b", `{"id":"x","method":"m"}`)
	b.want("MCP", b.says("b", `{"method":"notifications/cancelled","params":{"requestId":"x","reason":"r"}}`), `{"method":"notifications/cancelled","params":{"requestId":2,"reason":"r"}}`)
	b.want("LSP", b.says("a", `{"method":"$/cancelRequest","params":{"id":"x"}}`), `{"method":"$/cancelRequest","params":{"id":1}}`)
	b.want("of nothing", b.says("a", `{"method":"$/cancelRequest","params":{"id":"y"}}`), "")
}

func TestRequestsOfTheApplication(t *testing.T) {
	b := newBench(t, "a", "b")
	b.answers(`{"id":"q0","method":"ask"}`)
	b.want("with nobody there", b.application(), `{"jsonrpc":"2.0","id":"q0","error":{"code":-32603,"message":"no peer is connected"}}`)
	b.initialize(`{}`, "a", "b")
	b.answers(`{"id":"q1","method":"ask"}`)
	b.want("a", b.conn["a"].drain(), `{"id":3,"method":"ask"}`)
	b.want("b", b.conn["b"].drain(), `{"id":3,"method":"ask"}`)
	b.want("the first answer", b.says("b", `{"id":3,"result":"b"}`), `{"id":"q1","result":"b"}`)
	b.want("the second", b.says("a", `{"id":3,"result":"a"}`), "")
	if b.x.late != 1 {
		t.Errorf("%d late answers, want 1", b.x.late)
	}
	b.answers(`{"id":"q2","method":"ask"}`)
	b.peer["a"].Closed(transport.CloseReason{})
	b.want("while b is there", b.application(), "")
	b.peer["b"].Closed(transport.CloseReason{})
	b.want("when all have left", b.application(), `{"jsonrpc":"2.0","id":"q2","error":{"code":-32603,"message":"no peer is connected"}}`)
}

func TestAPeerThatLeavesDisturbsNobody(t *testing.T) {
	for _, tt := range []struct{ name, params, cancel string }{
		{"MCP", `{}`, `{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":2,"reason":"the peer has left"}}`},
		{"LSP", `{"processId":null}`, `{"jsonrpc":"2.0","method":"$/cancelRequest","params":{"id":2}}`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := newBench(t, "a", "b")
			b.initialize(tt.params, "a", "b")
			b.says("a", `{"id":1,"method":"m"}`)
			b.says("b", `{"id":1,"method":"m"}`)
			b.peer["a"].Closed(transport.CloseReason{})
			b.want("the application", b.application(), tt.cancel)
			b.answers(`{"id":2,"result":1}`)
			b.answers(`{"id":3,"result":1}`)
			b.want("a", b.conn["a"].drain(), "")
			b.want("b", b.conn["b"].drain(), `{"id":1,"result":1}`)
			if b.x.dropped != 1 || b.x.inLine != 0 {
				t.Errorf("%d dropped, %d in flight", b.x.dropped, b.x.inLine)
			}
		})
	}
}

func TestOnePeersEndIsNotEverybodys(t *testing.T) {
	b := newBench(t, "a", "b")
	b.initialize(`{"rootUri":"file:///x"}`, "a", "b")
	b.want("shutdown", b.says("a", `{"id":4,"method":"shutdown"}`), "")
	b.want("its answer", b.conn["a"].drain(), `{"jsonrpc":"2.0","id":4,"result":null}`)
	b.want("exit", b.says("a", `{"method":"exit"}`), "")
}

func TestDeathAndReplay(t *testing.T) {
	b := newBench(t, "a", "b")
	b.initialize(`{}`, "a", "b")
	b.says("a", `{"method":"notifications/initialized"}`)
	b.says("a", `{"id":"r","method":"m"}`)
	b.x.died("it exited", "")
	b.want("a", b.conn["a"].drain(), `{"jsonrpc":"2.0","id":"r","error":{"code":-32603,"message":"it exited"}}`)
	b.want("what waits", b.says("b", `{"id":"s","method":"m"}`), `{"id":3,"method":"m"}`)
	b.peer["b"].Deliver([]byte(`{"id":"s2","method":"m"}`), transport.Message{}) // nobody takes it: there is no process
	first := string(b.x.revive())
	b.want("the first frame", first, "{\"id\":5,\"method\":\"initialize\",\"params\":{}}\n")
	b.want("before its answer", b.application(), "")
	b.answers(`{"id":5,"result":{"r":2}}`)
	b.want("after it", b.application(), "{\"method\":\"notifications/initialized\"}\n{\"id\":4,\"method\":\"m\"}")
	b.want("b hears nothing of it", b.conn["b"].drain(), "")
	b.x.died("it exited", "it is down")
	b.conn["b"].drain()
	b.says("b", `{"id":"t","method":"m"}`)
	b.want("while it is down", b.conn["b"].drain(), `{"jsonrpc":"2.0","id":"t","error":{"code":-32603,"message":"it is down"}}`)
}

// TestOnlyTheIDChanges: outside the id, the application gets the peer's bytes.
func TestOnlyTheIDChanges(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		b := newBench(t, "a")
		id := rapid.SampledFrom([]string{"1", `"1"`, "-0", `"\"id\":1"`, "1e99", `""`}).Draw(rt, "id")
		before := rapid.SampledFrom([]string{"", `"params":{"id":1},`, `"x":"\"id\":2", `, "\t"}).Draw(rt, "before")
		after := rapid.SampledFrom([]string{"", `,"args":["id",{"id":[]}]`, " ,\"y\":1.50"}).Draw(rt, "after")
		form := "{" + before + `"method":"m","id":%s` + after + "}"
		if got, want := b.says("a", fmt.Sprintf(form, id)), fmt.Sprintf(form, "1"); got != want {
			rt.Fatalf("the application got %s, want %s", got, want)
		}
		b.answers(fmt.Sprintf(`{"result":{"id":1},"id":1,"z":%s}`, id))
		if got, want := b.conn["a"].drain(), fmt.Sprintf(`{"result":{"id":1},"id":%s,"z":%[1]s}`, id); got != want {
			rt.Fatalf("the peer got %s, want %s", got, want)
		}
	})
}

func TestEcho(t *testing.T) {
	e := NewEcho()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- e.Run(ctx) }()
	<-e.crew.begun
	c := &ledger{}
	s := e.Open(c)
	for in, want := range map[string]string{
		`{"id":1.0,"method":"m","params":{"a" : [1]}}`: `{"jsonrpc":"2.0","id":1.0,"result":{"a" : [1]}}`,
		`{"method":"m","id":"x"}`:                      `{"jsonrpc":"2.0","id":"x","result":null}`,
		`{"method":"note"}`:                            "",
		`{"id":1,"result":2}`:                          "",
	} {
		m, err := transport.Peek([]byte(in))
		if err != nil {
			t.Fatal(err)
		}
		s.Deliver([]byte(in), m)
		if got := c.drain(); got != want {
			t.Errorf("%s was answered %s, want %s", in, got, want)
		}
	}
	cancel()
	<-done
}

func TestEchoDoesNotAllocate(t *testing.T) {
	e := NewEcho()
	s := e.Open(discard{})
	p := []byte(`{"jsonrpc":"2.0","id":123456789012,"method":"echo","params":{"pad":"xxxxxxxxxx"}}`)
	m, err := transport.Peek(p)
	if err != nil {
		t.Fatal(err)
	}
	limit := 0.0
	if raceDetector { // which makes pools forget some of what they are given
		limit = 1
	}
	if n := testing.AllocsPerRun(1000, func() { s.Deliver(p, m) }); n > limit {
		t.Errorf("%v allocations per message", n)
	}
}

type discard struct{ *ledger }

func (discard) Send([]byte) error { return nil }
func (discard) Consumed(int, int) {}
