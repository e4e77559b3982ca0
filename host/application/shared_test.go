package application

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/transporthost/transporthost/shared/transport"
)

func (b *bench) leaves(peer string) { b.peer[peer].Closed(transport.CloseReason{}) }

// held is what the inlet holds, in bytes.
func (x *exchange) held() (bytes int) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, it := range x.in.queue {
		bytes += len(it.payload)
	}
	return bytes
}

// TestWhatThePeersOfADeafApplicationLeaveIsBounded: the application reads
// nothing, and peers come, send and leave.
func TestWhatThePeersOfADeafApplicationLeaveIsBounded(t *testing.T) {
	for _, tt := range []struct {
		name, message     string
		size, peers, each int
		limit             int
	}{
		{"requests", `{"id":%d,"method":"m","params":"%s"}`, 1 << 20, 40, 1, 0},
		{"notifications", `{"method":"m","params":[%d,"%s"]}`, 1 << 20, 40, 1, orphanBytes},
		{"small notifications", `{"method":"m","params":[%d,"%s"]}`, 16 << 10, 300, 4, orphanBytes},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBench(t)
				pad := strings.Repeat("x", tt.size)
				for i := range tt.peers {
					b.joins("a", &ledger{})
					for range tt.each {
						b.peer["a"].Deliver(fmt.Appendf(nil, tt.message, i, pad), transport.Message{})
					}
					synctest.Wait()
					b.leaves("a")
				}
				if n := b.x.held(); n > tt.limit {
					t.Errorf("%d bytes are held for peers that have left, limit %d", n, tt.limit)
				}
				in := &b.x.in
				if in.large != 0 || in.own != 0 || in.orphans > orphanBytes || b.x.inLine != 0 || len(b.x.asked) != 0 {
					t.Errorf("large %d, own %d, orphans %d, in flight %d, asked %d", in.large, in.own, in.orphans, b.x.inLine, len(b.x.asked))
				}
				b.application()
				if in.orphans != 0 {
					t.Errorf("%d bytes are still counted for orphans after all was taken", in.orphans)
				}
			})
		})
	}
}

// TestLargeMessagesAreBoundedTogether, and what has no room is refused so that
// its sender can read it.
func TestLargeMessagesAreBoundedTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, "a", "b", "c")
		if !b.x.admit(largeBytes - 1<<20) { // of others
			t.Fatal("there is no room")
		}
		deliver := func(name, message string) {
			p := fmt.Appendf(nil, message, strings.Repeat("x", 600<<10))
			m, err := transport.Peek(p)
			if err != nil {
				t.Fatal(err)
			}
			b.peer[name].Deliver(p, m)
			synctest.Wait()
		}
		deliver("a", `{"id":"r","method":"m","params":"%s"}`)
		deliver("b", `{"id":"r","method":"m","params":"%s"}`)
		deliver("c", `{"method":"m","params":"%s"}`)
		if n := len(b.x.in.queue); n != 1 {
			t.Errorf("%d messages wait, want 1", n)
		}
		for name, id := range map[string]string{"b": `"r"`, "c": "null"} {
			b.want("over the limit, "+name, b.conn[name].drain(), `{"jsonrpc":"2.0","id":`+id+`,"error":{"code":-32001,"message":"Server overloaded; retry later."}}`)
		}
		b.joins("small", &ledger{})
		b.peer["small"].Deliver([]byte(`{"id":1,"method":"m"}`), transport.Message{})
		if n := len(b.x.in.queue); n != 2 {
			t.Errorf("%d messages wait, want a small one beside the large", n)
		}
		b.x.died("it exited", "")
		if b.x.in.large != largeBytes-1<<20 {
			t.Errorf("%d bytes are still counted", b.x.in.large)
		}
	})
}

// TestALargeMessageKeepsItsPlace among those behind it.
func TestALargeMessageKeepsItsPlace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, "a")
		for i := range 10 {
			pad := ""
			if i%3 == 0 {
				pad = strings.Repeat("x", 100<<10)
			}
			b.peer["a"].Deliver(fmt.Appendf(nil, `{"method":"m","params":[%d,%q]}`, i, pad), transport.Message{})
		}
		synctest.Wait()
		for i, line := range strings.Split(b.application(), "\n") {
			if want := fmt.Sprintf(`{"method":"m","params":[%d,`, i); !strings.HasPrefix(line, want) {
				t.Errorf("message %d is %.60s", i, line)
			}
		}
		if b.x.in.large != 0 {
			t.Errorf("%d bytes are still counted", b.x.in.large)
		}
	})
}

func TestWhatThisSideSaysIsBounded(t *testing.T) {
	b := newBench(t)
	for i := range 30_000 { // with nobody there, and read by nobody
		b.answers(fmt.Sprintf(`{"id":%d,"method":"ask"}`, i))
	}
	if n := b.x.held(); n > ownBytes || n < ownBytes/4 || b.x.leftOut.Load() == 0 {
		t.Errorf("%d bytes are held and %d messages left out, limit %d", n, b.x.leftOut.Load(), ownBytes)
	}
	b.application()
	if b.x.in.own != 0 {
		t.Errorf("%d bytes are still counted", b.x.in.own)
	}
}

func TestRequestsOfTheApplicationAreBounded(t *testing.T) {
	b := newBench(t, "a")
	b.initialize(`{}`, "a")
	for i := range maxPolls {
		b.answers(fmt.Sprintf(`{"id":%d,"method":"ask"}`, i))
	}
	b.want("up to the limit", b.application(), "")
	b.answers(`{"id":"more","method":"ask"}`)
	b.want("over it", b.application(), `{"jsonrpc":"2.0","id":"more","error":{"code":-32001,"message":"Server overloaded; retry later."}}`)
	b.conn["a"].drain()
	b.answers(`{"method":"notifications/cancelled","params":{"requestId":7}}`)
	b.want("a cancelled one", b.conn["a"].drain(), `{"method":"notifications/cancelled","params":{"requestId":9}}`)
	b.answers(`{"id":"more","method":"ask"}`)
	b.want("makes room", b.application(), "")
	b.want("its answer is late", b.says("a", `{"id":9,"result":1}`), "")
	if b.x.late != 1 {
		t.Errorf("%d late answers, want 1", b.x.late)
	}
}

func TestTheApplicationNamesItsRequests(t *testing.T) {
	b := newBench(t, "a", "b", "c")
	b.initialize(`{}`, "a", "b")
	b.answers(`{"id":"q","method":"ask"}`)
	b.conn["a"].drain()
	b.conn["b"].drain()
	b.answers(`{"method":"$/cancelRequest","params":{"id":"unknown"}}`)
	b.want("of what it never asked", b.conn["a"].drain(), "")
	b.want("an answer", b.says("a", `{"id":2,"result":1}`), `{"id":"q","result":1}`)
	b.answers(`{"method":"serverRequest/resolved","params":{"threadId":"t","requestId":"q"}}`)
	for _, name := range []string{"a", "b"} {
		b.want("resolved, to "+name, b.conn[name].drain(), `{"method":"serverRequest/resolved","params":{"threadId":"t","requestId":2}}`)
	}
	b.answers(`{"method":"$/cancelRequest","params":{"id":"q"}}`)
	b.want("cancelled after the answer", b.conn["a"].drain(), "")
	b.want("c, who was not asked", b.conn["c"].drain(), "")
}

// TestALateAnswerMeetsNoOtherQuestion: a process asks, dies, and the next one
// uses the same id.
func TestALateAnswerMeetsNoOtherQuestion(t *testing.T) {
	for _, tt := range []struct{ name, params, cancel string }{
		{"MCP", `{}`, `{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":2,"reason":"it exited"}}`},
		{"LSP", `{"rootUri":null}`, `{"jsonrpc":"2.0","method":"$/cancelRequest","params":{"id":2}}`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := newBench(t, "a")
			b.initialize(tt.params, "a")
			b.answers(`{"id":1,"method":"delete everything?"}`)
			b.want("the first question", b.conn["a"].drain(), `{"id":2,"method":"delete everything?"}`)
			b.x.died("it exited", "")
			b.want("is cancelled", b.conn["a"].drain(), tt.cancel)
			b.x.revive()
			b.answers(`{"id":3,"result":{}}`)
			b.application()
			b.answers(`{"id":1,"method":"another"}`)
			b.want("the second", b.conn["a"].drain(), `{"id":4,"method":"another"}`)
			b.want("the late answer", b.says("a", `{"id":2,"result":"yes"}`), "")
			b.want("the right one", b.says("a", `{"id":4,"result":"no"}`), `{"id":1,"result":"no"}`)
			if b.x.late != 1 {
				t.Errorf("%d late answers, want 1", b.x.late)
			}
		})
	}
}

// TestCancelledRequestsAreNotInFlight: an application need not answer them.
func TestCancelledRequestsAreNotInFlight(t *testing.T) {
	b := newBench(t, "a")
	const n = maxPending + 100
	for i := range n {
		b.says("a", fmt.Sprintf(`{"id":%d,"method":"m"}`, i))
		b.says("a", fmt.Sprintf(`{"method":"notifications/cancelled","params":{"requestId":%d}}`, i))
	}
	b.want("refusals", b.conn["a"].drain(), "")
	p, c := b.peer["a"], b.conn["a"]
	if b.x.inLine != 0 || c.forgotten != n || len(b.x.asked) > maxCancelled || len(p.asked) > maxCancelled {
		t.Errorf("%d in flight, %d forgotten, %d and %d remembered", b.x.inLine, c.forgotten, len(b.x.asked), len(p.asked))
	}
	b.answers(fmt.Sprintf(`{"id":%d,"result":1}`, n))
	b.want("an answer that comes all the same", c.drain(), fmt.Sprintf(`{"id":%d,"result":1}`, n-1))
	if c.forgotten != n-1 || len(p.cancelled) != maxCancelled-1 {
		t.Errorf("%d forgotten, %d remembered", c.forgotten, len(p.cancelled))
	}
	b.answers(`{"id":1,"result":1}`)
	b.want("one that comes too late", c.drain(), "")
	b.want("the same id anew", b.says("a", fmt.Sprintf(`{"id":%d,"method":"m"}`, n-2)), fmt.Sprintf(`{"id":%d,"method":"m"}`, n+1))
	b.answers(fmt.Sprintf(`{"id":%d,"result":"old"}`, n-1))
	b.want("the old answer", c.drain(), "")
	b.answers(fmt.Sprintf(`{"id":%d,"result":"new"}`, n+1))
	b.want("the new one", c.drain(), fmt.Sprintf(`{"id":%d,"result":"new"}`, n-2))
}

func TestNobodySpeaksForOthersBeforeInitialize(t *testing.T) {
	b := newBench(t, "a", "b")
	b.want("before anything", b.says("b", `{"method":"notifications/initialized","params":{"by":"b"}}`), "")
	b.initialize(`{}`, "a")
	b.want("of a peer that is not", b.says("b", `{"method":"notifications/initialized","params":{"by":"b"}}`), "")
	b.want("the real one", b.says("a", `{"method":"notifications/initialized","params":{"by":"a"}}`), `{"method":"notifications/initialized","params":{"by":"a"}}`)
	b.x.died("it exited", "")
	b.x.revive()
	b.answers(`{"id":2,"result":{}}`)
	b.want("the next process", b.application(), `{"method":"notifications/initialized","params":{"by":"a"}}`)
}

// TestInitializedWhileTheApplicationIsAway reaches the next process once, and
// behind its initialize.
func TestInitializedWhileTheApplicationIsAway(t *testing.T) {
	b := newBench(t, "a")
	b.initialize(`{}`, "a")
	b.x.died("it exited", "")
	b.want("while it is away", b.says("a", `{"method":"initialized"}`), "")
	b.x.revive()
	b.want("before its answer", b.says("a", `{"method":"m"}`), "")
	b.answers(`{"id":2,"result":{}}`)
	b.want("after it", b.application(), "{\"method\":\"initialized\"}\n{\"method\":\"m\"}")
}

// TestKeysThatTwoReadersReadDifferently: nobody cancels another's request, or
// takes the token of its progress.
func TestKeysThatTwoReadersReadDifferently(t *testing.T) {
	for _, tt := range []struct{ in, id string }{
		{`{"method":"notifications/cancelled","params":{"requestId":1,"requestId":2}}`, "null"},
		{`{"method":"notifications/cancelled","params":{"requestId":1,"RequestID":2}}`, "null"},
		{`{"method":"notifications/cancelled","params":{"requestId":1},"params":{"requestId":2}}`, "null"},
		{`{"method":"$/cancelRequest","params":{"id":1,"\u0069d":2}}`, "null"},
		{`{"id":7,"method":"m","params":{"_meta":{"progressToken":"t","progressToken":3}}}`, "7"},
		{`{"id":7,"method":"m","params":{"_meta":{"progressToken":"t"},"_meta":{"progressToken":3}}}`, "7"},
		{`{"id":7,"method":"m","params":{"_META":{"progressToken":3}}}`, "7"},
		{`{"id":7,"ID":2,"method":"m"}`, "null"},
		{`{"ID":2,"method":"m"}`, "null"},
		{`{"id":7,"method":"m","Params":{"_meta":{"progressToken":3}}}`, "null"},
	} {
		b := newBench(t, "a", "b")
		b.says("a", `{"id":1,"method":"m"}`)
		b.says("b", `{"id":1,"method":"m","params":{"_meta":{"progressToken":"t"}}}`)
		b.want(tt.in+" reached the application", b.says("a", tt.in), "")
		if got, want := b.conn["a"].drain(), `{"jsonrpc":"2.0","id":`+tt.id+`,"error":{"code":-32600,`; !strings.HasPrefix(got, want) {
			t.Errorf("%s was answered %s, want %s", tt.in, got, want)
		}
		if b.x.inLine != 2 {
			t.Errorf("%s: %d in flight, want 2", tt.in, b.x.inLine)
		}
	}
}

func TestARefusedReplayMakesEverybodyBeginAnew(t *testing.T) {
	b := newBench(t, "a", "b")
	b.initialize(`{}`, "a", "b")
	b.says("a", `{"method":"notifications/initialized"}`)
	b.x.died("it exited", "")
	b.x.revive()
	m, err := transport.Peek([]byte(`{"id":2,"error":{"code":-1,"message":"no"}}`))
	if err != nil {
		t.Fatal(err)
	}
	if cause := b.x.fromApplication([]byte(`{"id":2,"error":{"code":-1,"message":"no"}}`), m); !strings.Contains(cause, "refused, after its restart, the initialize") {
		t.Errorf("cause %q", cause)
	}
	b.want("the application", b.application(), "")
	b.answers(`{"method":"news"}`)
	b.want("nobody is initialized", b.conn["a"].drain(), "")
	b.want("the next initialize", b.says("b", `{"id":8,"method":"initialize"}`), `{"id":3,"method":"initialize"}`)
	b.answers(`{"id":3,"result":{}}`)
	b.want("its answer", b.conn["b"].drain(), `{"jsonrpc":"2.0","id":8,"result":{}}`)
	b.want("initialized", b.says("b", `{"method":"notifications/initialized"}`), `{"method":"notifications/initialized"}`)
}

// TestWhatIsKeptOfAPeerIsBounded: ids, tokens, initialize and opt-outs.
func TestWhatIsKeptOfAPeerIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		long := strings.Repeat("x", maxIDBytes)
		pad := strings.Repeat("x", maxInitializeBytes)
		for _, tt := range []struct{ name, in, want string }{
			{"an id", `{"id":"` + long + `","method":"m"}`, "an id or a progress token has more than 1024 bytes"},
			{"an id of initialize", `{"id":"` + long + `","method":"initialize"}`, "an id or a progress token has more than 1024 bytes"},
			{"a token", `{"id":1,"method":"m","params":{"_meta":{"progressToken":"` + long + `"}}}`, "an id or a progress token has more than 1024 bytes"},
			{"an initialize", `{"id":1,"method":"initialize","params":"` + pad + `"}`, "an initialize of 1048618 bytes; the limit is 1048576 bytes"},
			{"opt-outs", `{"id":1,"method":"initialize","params":{"capabilities":{"optOutNotificationMethods":["` + pad[:70<<10] + `"]}}}`, "optOutNotificationMethods has 71696 bytes; the limit is 65536 bytes"},
		} {
			b := newBench(t, "a")
			m, err := transport.Peek([]byte(tt.in))
			if err != nil {
				t.Fatal(err)
			}
			b.peer["a"].Deliver([]byte(tt.in), m)
			synctest.Wait()
			b.want(tt.name+" reached the application", b.application(), "")
			if got := b.conn["a"].drain(); !strings.Contains(got, `"code":-32600`) || !strings.Contains(got, tt.want) {
				t.Errorf("%s was answered %.300s, want %s", tt.name, got, tt.want)
			}
			if b.x.in.large != 0 {
				t.Errorf("%s: %d bytes are still counted", tt.name, b.x.in.large)
			}
		}
	})
}
