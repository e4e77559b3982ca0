package backend_test

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/transporthost/transporthost/tests/relay/backend"
	"github.com/transporthost/transporthost/tests/relay/fakehost"
)

// TestWorkedExample is the exchange of 6.15, with the numbers per stream, in
// all the ways in which a host may connect.
func TestWorkedExample(t *testing.T) {
	tests := []struct {
		name       string
		o          backend.Options
		wantBearer string // begin of whose token the WebSocket has
	}{
		{"profile 2", backend.Options{Profile: backend.Profile2}, "account acct-"},
		{"profile 3", backend.Options{}, "server srv_e_"},
		{"profile 3 without a token", backend.Options{NoServerToken: true}, "account acct-"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b := newBench(t, tt.o)
			sock := b.dial()
			c := b.open(backend.ClientOptions{ID: "c1", StreamID: "s1"})
			b.send(c, initialize)
			in := b.next(sock, "client_message")
			if in.ClientID != "c1" || in.StreamID != "s1" || *in.Seq != 0 || in.Cursor == "" || string(in.Message) != initialize {
				t.Errorf("the host got %s", in.Text)
			}
			b.must(sock.Message("c1", "s1", 1, `{"id":1,"result":{"ok":true}}`))
			if ack := b.next(sock, "ack"); ack.ClientID != "c1" || ack.StreamID != "s1" || *ack.Seq != 1 || ack.Segment != nil {
				t.Errorf("the host got the ack %s", ack.Text)
			}
			if m := b.receive(c); m.Seq != 1 || string(m.Payload) != `{"id":1,"result":{"ok":true}}` {
				t.Errorf("the client got %s with number %d", m.Payload, m.Seq)
			}

			c.SetAcks(backend.AckNothing)
			pong := pinging(b, c)
			if e := b.next(sock, "ping"); e.ClientID != "c1" || e.StreamID != "s1" {
				t.Errorf("the host got the ping %s", e.Text)
			}
			b.must(sock.Pong("c1", "s1", 2, "active"))
			if got := <-pong; got != (backend.Pong{Status: "active", StreamID: "s1", Seq: 2}) {
				t.Errorf("the pong is %+v", got)
			}

			stranger := b.open(backend.ClientOptions{ID: "c9"})
			pong = pinging(b, stranger)
			if e := b.next(sock, "ping"); e.ClientID != "c9" || e.StreamID != "" {
				t.Errorf("the host got the ping %s", e.Text)
			}
			stream := backend.NewStreamID()
			b.must(sock.Pong("c9", stream, 1, "unknown"))
			if got := <-pong; got != (backend.Pong{Status: "unknown", StreamID: stream, Seq: 1}) {
				t.Errorf("the pong is %+v", got)
			}
			if ack := b.next(sock, "ack"); ack.StreamID != stream || *ack.Seq != 1 {
				t.Errorf("the host got the ack %s", ack.Text)
			}

			c.Close()
			if e := b.next(sock, "client_closed"); e.ClientID != "c1" || e.StreamID != "s1" || e.Cursor == "" || e.Seq != nil {
				t.Errorf("the host got %s", e.Text)
			}
			b.Drop()
			again := b.dial()
			b.must(again.Pong("c1", "s1", 2, "active")) // kept until it is acknowledged
			if ack := b.next(again, "ack"); *ack.Seq != 2 {
				t.Errorf("the host got the ack %s", ack.Text)
			}
			connects := b.Connects()
			if len(connects) != 2 || connects[0].Cursor != "" || connects[1].Cursor != b.host.Cursor || connects[1].Lost {
				t.Errorf("the connects are %+v", connects)
			}
			if !strings.HasPrefix(connects[1].Bearer, tt.wantBearer) {
				t.Errorf("the bearer is %q, want %q", connects[1].Bearer, tt.wantBearer)
			}
			b.Verify(t)
		})
	}
}

// pinging pings in the background and sends on the pong, which is zero if the
// ping failed.
func pinging(b *bench, c *backend.Client) <-chan backend.Pong {
	pong := make(chan backend.Pong, 1)
	go func() {
		p, err := c.Ping(b.ctx)
		if err != nil {
			b.t.Errorf("pinging: %v", err)
		}
		pong <- p
	}()
	return pong
}

func TestResendFromCursor(t *testing.T) {
	b := newBench(t, backend.Options{})
	c := b.open(backend.ClientOptions{ID: "c1", StreamID: "s1", FirstSeq: 7})
	for i := range 4 {
		b.send(c, fmt.Sprintf(`{"method":"n%d"}`, i)) // before any host is there
	}
	sock := b.dial()
	first := []fakehost.Envelope{b.next(sock, "client_message"), b.next(sock, "client_message")}
	b.must(sock.Close())
	if _, err := b.AwaitEnd(b.ctx, 1); err != nil {
		t.Fatal(err)
	}

	again := b.dial()
	for i := 2; i < 4; i++ {
		if e := b.next(again, "client_message"); e.Method() != fmt.Sprintf("n%d", i) || *e.Seq != uint64(7+i) {
			t.Errorf("got %s, want n%d with number %d", e.Text, i, 7+i)
		}
	}
	// Without a cursor everything that no cursor confirmed comes again.
	confirmed := b.host.Cursor
	b.host.Cursor = ""
	third := b.dial()
	e := b.next(third, "client_message")
	if e.Method() != "n2" {
		t.Errorf("got %s, want n2: the second connect confirmed n0 and n1", e.Text)
	}
	b.host.Cursor = confirmed
	fourth := b.dial()
	b.send(c, `{"method":"n4"}`)
	if e := b.next(fourth, "client_message"); e.Method() != "n4" || *e.Seq != 11 {
		t.Errorf("got %s, want n4 with number 11", e.Text)
	}
	if first[0].Method() != "n0" || first[1].Method() != "n1" {
		t.Errorf("the first socket got %s and %s", first[0].Text, first[1].Text)
	}
	if c := b.Connects()[0]; c.Cause == "" || c.Sent < 2 {
		t.Errorf("the first connect is %+v", c)
	}
	b.Verify(t)
}

// TestResendIsByteEqual compares what two sockets get.
func TestResendIsByteEqual(t *testing.T) {
	b := newBench(t, backend.Options{})
	c := b.open(backend.ClientOptions{ID: "c1", StreamID: "s1"})
	b.send(c, `{"method" : "spaced out"}`)
	b.send(c, fakehost.Padded(300<<10))
	var got [2][]byte
	for i := range got {
		sock := b.dial()
		for range 1 + 3 {
			e, err := sock.Peek()
			b.must(err)
			got[i] = append(got[i], e.Text...)
		}
		b.must(sock.Close())
	}
	if !bytes.Equal(got[0], got[1]) || len(got[0]) < 400<<10 {
		t.Errorf("the second socket got %d bytes that differ from the %d of the first one", len(got[1]), len(got[0]))
	}
	b.Verify(t)
}

// TestHostReplay sends again what the host does not know to be acknowledged:
// the client sees it once.
func TestHostReplay(t *testing.T) {
	b := newBench(t, backend.Options{})
	c := b.open(backend.ClientOptions{ID: "c1", StreamID: "s1"})
	sock := b.dial()
	b.send(c, initialize)
	b.next(sock, "client_message")
	for i := 1; i <= 3; i++ {
		b.must(sock.Message("c1", "s1", uint64(i), fmt.Sprintf(`{"method":"m%d"}`, i)))
	}
	for i := 1; i <= 3; i++ {
		if m := b.receive(c); m.Method != fmt.Sprintf("m%d", i) {
			t.Errorf("got %s, want m%d", m.Payload, i)
		}
	}
	b.Drop()
	again := b.dial()
	for i := 2; i <= 4; i++ {
		b.must(again.Message("c1", "s1", uint64(i), fmt.Sprintf(`{"method":"m%d"}`, i)))
	}
	if m := b.receive(c); m.Method != "m4" {
		t.Errorf("got %s behind the replay, want m4", m.Payload)
	}
	f, err := b.AwaitFrame(b.ctx, func(f backend.Frame) bool { return f.Link == 2 })
	if err != nil || f.Fresh || f.Envelope.Seq != 2 {
		t.Errorf("the first frame of the second link is %+v, %v", f, err)
	}
	b.Verify(t)
}

// TestNewProcess is a host that lost everything, its numbers too.
func TestNewProcess(t *testing.T) {
	b := newBench(t, backend.Options{})
	c := b.open(backend.ClientOptions{ID: "c1", StreamID: "s1"})
	for process := 1; process <= 2; process++ {
		b.host.Cursor = ""
		sock := b.dial()
		if process == 1 {
			b.send(c, initialize)
		}
		b.next(sock, "client_message")
		b.must(sock.Message("c1", "s1", 1, `{"id":1,"result":"same"}`))
		if m := b.receive(c); string(m.Result) != `"same"` {
			t.Errorf("process %d: got %s", process, m.Payload)
		}
		b.must(sock.Close())
	}
	if got := b.Connects()[1].Restarts; got != 1 {
		t.Errorf("the second connect has %d streams that began anew, want 1", got)
	}
	b.Verify(t)
}

func TestCallsAndRequests(t *testing.T) {
	b := newBench(t, backend.Options{})
	sock := b.dial()
	c := b.open(backend.ClientOptions{ID: "c1", StreamID: "s1"})
	result := make(chan string, 2)
	go func() {
		got, err := c.Call(b.ctx, "sum", []int{1, 2})
		result <- fmt.Sprint(string(got), err)
		_, err = c.Call(b.ctx, "fail", nil)
		var refused *backend.RPCError
		result <- fmt.Sprint(errors.As(err, &refused), err)
	}()
	if e := b.next(sock, "client_message"); string(e.Message) != `{"jsonrpc":"2.0","id":1,"method":"sum","params":[1,2]}` {
		t.Errorf("the host got %s", e.Message)
	}
	b.must(sock.Message("c1", "s1", 1, `{"id":"a","method":"ask"}`))
	b.must(sock.Message("c1", "s1", 2, `{"id":1,"result":3}`))
	if got := <-result; got != "3<nil>" {
		t.Errorf("the call returned %s", got)
	}
	asked := b.receive(c)
	b.must(c.Respond(asked.ID, "yes"))
	b.must(c.RespondError(asked.ID, backend.RPCError{Code: 5, Message: "no"}))
	wanted := map[string]bool{`{"jsonrpc":"2.0","id":"a","result":"yes"}`: true, `{"jsonrpc":"2.0","id":"a","error":{"code":5,"message":"no"}}`: true,
		`{"jsonrpc":"2.0","id":2,"method":"fail"}`: true}
	for len(wanted) > 0 {
		e := b.next(sock, "")
		if e.Type == "client_message" && !wanted[string(e.Message)] {
			t.Fatalf("the host got %s", e.Message)
		}
		delete(wanted, string(e.Message))
	}
	b.must(sock.Message("c1", "s1", 3, `{"id":2,"error":{"code":-32601,"message":"no such method"}}`))
	if got := <-result; got != `true calling "fail": JSON-RPC error -32601: no such method` {
		t.Errorf("the call returned %s", got)
	}
	c.Close()
	if _, err := c.Call(b.ctx, "late", nil); !errors.Is(err, backend.ErrClientClosed) {
		t.Errorf("a call after Close: got %v, want %v", err, backend.ErrClientClosed)
	}
	b.Verify(t)
}

// TestPinnedClients has two hosts at a time.
func TestPinnedClients(t *testing.T) {
	b := newBench(t, backend.Options{})
	first := b.dial()
	one := b.host.ServerID
	b.enroll()
	second := b.dial()
	two := b.host.ServerID
	c1 := b.open(backend.ClientOptions{ID: "c1", StreamID: "s", ServerID: one})
	c2 := b.open(backend.ClientOptions{ID: "c2", StreamID: "s", ServerID: two})
	free := b.open(backend.ClientOptions{ID: "c3", StreamID: "s"})
	for _, c := range []*backend.Client{c1, c2, free} {
		b.send(c, initialize)
	}
	if e := b.next(first, "client_message"); e.ClientID != "c1" {
		t.Errorf("the first host got %s", e.Text)
	}
	got := b.next(second, "client_message").ClientID + b.next(second, "client_message").ClientID
	if got != "c2c3" && got != "c3c2" {
		t.Errorf("the second host got the clients %s, want c2 and c3", got)
	}
	b.Verify(t)
}

func TestOneLinkPerServer(t *testing.T) {
	b := newBench(t, backend.Options{})
	old := b.dial()
	b.dial()
	if _, err := old.Next(); err == nil {
		t.Error("the first socket of the server is still served beside the second one")
	}
	c, err := b.AwaitEnd(b.ctx, 1)
	if err != nil || c.Cause != "another link of the same server" {
		t.Errorf("the first connect ended with %q, %v", c.Cause, err)
	}
}

func TestEnrollmentGone(t *testing.T) {
	for _, tt := range []struct {
		name    string
		profile backend.Profile
		want    string
	}{
		{"profile 2", backend.Profile2, `{"detail":"Not Found"}`},
		{"profile 3", backend.Profile3, `{"detail":"Remote app server not found"}`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := newBench(t, backend.Options{Profile: tt.profile})
			b.enroll()
			b.must(b.DeleteEnrollment(b.host.ServerID))
			if _, a, err := b.host.Dial(b.ctx); err == nil || a.Status != http.StatusNotFound || a.Body != tt.want {
				t.Errorf("got status %d, body %s, want 404, %s", a.Status, a.Body, tt.want)
			}
			if tt.profile == backend.Profile3 {
				if a, err := b.host.Refresh(b.ctx); err != nil || a.Status != http.StatusNotFound || a.Body != tt.want {
					t.Errorf("refresh: got status %d, body %s, %v, want 404, %s", a.Status, a.Body, err, tt.want)
				}
			}
			if err := b.DeleteEnrollment(b.host.ServerID); err == nil {
				t.Error("an enrollment was deleted twice")
			}
			b.enroll()
			b.dial()
			b.Verify(t)
		})
	}
}

func TestServerTokens(t *testing.T) {
	now := time.Now()
	b := newBench(t, backend.Options{TokenLifetime: time.Minute, Now: func() time.Time { return now }})
	b.enroll()
	first := b.host.ServerToken
	a, err := b.host.Refresh(b.ctx)
	if err != nil || b.host.ServerToken == first || !strings.Contains(a.Body, `"expires_at":"`+now.Add(time.Minute).UTC().Format("2006-01-02T15:04:05")) {
		t.Errorf("the refresh gave the same token or another expiry: %v, %d bytes", err, len(a.Body))
	}
	b.dial()
	second := b.host.ServerToken
	refused := func(what, token string) {
		t.Helper()
		b.host.ServerToken = token
		if _, a, err := b.host.Dial(b.ctx); err == nil || a.Status != http.StatusUnauthorized {
			t.Errorf("%s: status %d, want 401", what, a.Status)
		}
	}
	refused("the token before the refresh", first)
	refused("a token of nobody", "rct_nobody")
	now = now.Add(time.Minute)
	refused("an expired token", second)
	b.ExpireServerTokens()
	if _, err := b.host.Refresh(b.ctx); err != nil {
		t.Fatal(err)
	}
	b.dial()
	b.ExpireServerTokens()
	refused("a token that a fault made expire", b.host.ServerToken)
	b.Verify(t)
}

func TestAddedEnrollment(t *testing.T) {
	b := newBench(t, backend.Options{NoServerToken: true})
	e, err := b.AddEnrollment(backend.Enrollment{ServerID: "srv_e_kept", EnvironmentID: "env_e_kept", Name: "workshop"})
	b.must(err)
	b.host.ServerID = e.ServerID
	b.dial()
	if got := b.Enrollments(); len(got) != 1 || got[0].EnvironmentID != "env_e_kept" || got[0].AccountID != b.host.AccountID {
		t.Errorf("the enrollments are %+v", got)
	}
	if _, err := b.AddEnrollment(backend.Enrollment{AccountID: "nobody"}); err == nil {
		t.Error("a host was enrolled for an account that does not exist")
	}
	b.Verify(t)
}

func TestRetainedBytesAreBounded(t *testing.T) {
	b := newBench(t, backend.Options{RetainBytes: 300 << 10})
	c := b.open(backend.ClientOptions{ID: "c1", StreamID: "s1"})
	sock := b.dial()
	for range 4 {
		b.send(c, fakehost.Padded(100<<10))
	}
	for range 4 {
		_, err := sock.Peek()
		b.must(err)
	}
	again := b.dial()
	if e := b.next(again, "client_message"); *e.Seq != 1 {
		t.Errorf("the first message that comes again has number %d, want 1: 0 was thrown away", *e.Seq)
	}
	if !b.Connects()[1].Lost || b.Connects()[0].Lost {
		t.Error("only the second connect lacks something, and it does not say so")
	}
}

func TestOptions(t *testing.T) {
	_, err := backend.New(backend.Options{Profile: 1, TokenLifetime: -1, RetainBytes: -1})
	if err == nil || strings.Count(err.Error(), "want") != 3 {
		t.Errorf("got %v, want all three complaints", err)
	}
	b := newBench(t, backend.Options{})
	b.open(backend.ClientOptions{ID: "c1"})
	if _, err := b.Open(backend.ClientOptions{ID: "c1"}); err == nil {
		t.Error("the same client was opened twice")
	}
}
