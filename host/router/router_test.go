package router

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/transporthost/transporthost/host/application"
	"github.com/transporthost/transporthost/shared/transport"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// wire is a link that records what the router sends.
type wire struct {
	mu       sync.Mutex
	sent     []string // whole messages
	seqs     []transport.Seq
	joined   []byte
	closes   []transport.CloseReason
	credit   transport.Credit
	accepted []transport.Cursor
	checks   int
	unread   transport.Credit // what was sent and not returned
	onCredit func(transport.Credit)
}

func (w *wire) Send(_ transport.ConnID, seq transport.Seq, piece []byte, more bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.unread.Bytes += len(piece)
	w.joined = append(w.joined, piece...)
	if !more {
		w.unread.Messages++
		w.sent = append(w.sent, string(w.joined))
		w.seqs = append(w.seqs, seq)
		w.joined = nil
	}
}

func (w *wire) Close(_ transport.ConnID, r transport.CloseReason) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.closes = append(w.closes, r)
}

func (w *wire) Credit(_ transport.ConnID, c transport.Credit) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.credit.Bytes += c.Bytes
	w.credit.Messages += c.Messages
	if w.onCredit != nil {
		w.onCredit(c)
	}
}

func (w *wire) Accepted(_ transport.ConnID, c transport.Cursor) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.accepted = append(w.accepted, c)
}

func (w *wire) Checkpointed(transport.ConnID) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.checks++
}

// closed returns the closes so far.
func (w *wire) closed() []transport.CloseReason {
	w.mu.Lock()
	defer w.mu.Unlock()
	return append([]transport.CloseReason(nil), w.closes...)
}

// giveBack returns everything that was sent, as a peer that reads would.
func (w *wire) giveBack(a *Attachment, conn transport.ConnID) {
	w.mu.Lock()
	c := w.unread
	w.unread = transport.Credit{}
	w.mu.Unlock()
	if c != (transport.Credit{}) {
		a.Credit(conn, c)
	}
}

func (w *wire) onTheWay() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.unread.Bytes
}

// app is an application that does what the test says.
type app struct {
	mu       sync.Mutex
	sessions []*session
	deliver  func(s *session, p []byte, m transport.Message)
}

type session struct {
	app    *app
	conn   application.Conn
	got    []string
	closed *transport.CloseReason
}

func (a *app) Run(ctx context.Context) error { <-ctx.Done(); return nil }
func (a *app) Status() application.Status    { return application.Status{Driver: "test", Ready: true} }
func (a *app) Open(c application.Conn) application.Session {
	s := &session{app: a, conn: c}
	a.mu.Lock()
	a.sessions = append(a.sessions, s)
	a.mu.Unlock()
	return s
}

func (s *session) Deliver(p []byte, m transport.Message) {
	s.got = append(s.got, string(p))
	s.app.deliver(s, p, m)
}

func (s *session) Closed(r transport.CloseReason) { s.closed = &r }

func keepAll(*session, []byte, transport.Message) {}

func consume(s *session, p []byte, _ transport.Message) { s.conn.Consumed(1, len(p)) }

func answer(s *session, p []byte, m transport.Message) {
	s.conn.Consumed(1, len(p))
	if m.Kind == transport.Request {
		_ = s.conn.Send(fmt.Appendf(nil, `{"id":%s,"result":1}`, m.ID))
	}
}

func setUp(t *testing.T, deliver func(*session, []byte, transport.Message), cfg Config) (*Router, *Attachment, *wire, *app) {
	t.Helper()
	a := &app{deliver: deliver}
	cfg.App = a
	r := New(cfg)
	w := &wire{}
	return r, r.Attach("ws", 1, w), w, a
}

func open1(a *Attachment, o transport.Opened) {
	a.Opened(1, o)
	a.EndBatch()
}

func TestRequestIsDeliveredAndAnswered(t *testing.T) {
	r, a, w, app := setUp(t, answer, Config{})
	open1(a, transport.Opened{Peer: transport.Peer{RemoteAddr: "p"}})
	request := `{"jsonrpc":"2.0","id":"7","method":"initialize","params":{"clientInfo":{"name":"me"}}}`
	a.Received(1, []byte(request), "", false)
	if got := app.sessions[0].got; len(got) != 1 || got[0] != request {
		t.Errorf("the application got %q", got)
	}
	if len(w.sent) != 1 || w.sent[0] != `{"id":"7","result":1}` || w.seqs[0] != 1 {
		t.Errorf("the peer got %q with numbers %v", w.sent, w.seqs)
	}
	conns := r.Connections()
	if len(conns) != 1 || conns[0].Peer.ClientName != "me" || conns[0].Transport != "ws" || conns[0].InFlight != 0 {
		t.Errorf("Connections() = %+v", conns)
	}
	a.Closed(1, transport.CloseReason{Code: transport.CloseNormal})
	if c := app.sessions[0].closed; c == nil || c.Code != transport.CloseNormal {
		t.Errorf("the session heard %v of the end", c)
	}
	if r.Len() != 0 {
		t.Errorf("%d connections remain", r.Len())
	}
}

func TestWhatIsNotJSONRPCIsAnswered(t *testing.T) {
	for _, tt := range []struct {
		name, in string
		code     int
	}{
		{"not JSON", `hello`, -32700},
		{"empty", ` `, -32700},
		{"array", `[{"id":1,"method":"m"}]`, -32600},
		{"number", `42`, -32600},
		{"nothing in it", `{"jsonrpc":"2.0"}`, -32600},
		{"cut", `{"id":1,"params":{`, -32700},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r, a, w, app := setUp(t, answer, Config{})
			open1(a, transport.Opened{})
			a.Received(1, []byte(tt.in), "", false)
			want := fmt.Sprintf(`{"jsonrpc":"2.0","id":null,"error":{"code":%d,`, tt.code)
			if len(w.sent) != 1 || !strings.HasPrefix(w.sent[0], want) {
				t.Errorf("%q was answered %q, want %s…", tt.in, w.sent, want)
			}
			if len(app.sessions[0].got) != 0 {
				t.Errorf("the application got %q", app.sessions[0].got)
			}
			if c := r.Counters(); c.Invalid != 1 {
				t.Errorf("counted %d invalid", c.Invalid)
			}
			a.Received(1, []byte(`{"id":1,"method":"m"}`), "", false)
			if len(w.sent) != 2 {
				t.Errorf("the connection did not go on: %q", w.sent)
			}
		})
	}
}

// TestOverload is enqueue_incoming_request_returns_overload_error_when_queue_is_full
// and enqueue_incoming_response_waits_instead_of_dropping_when_queue_is_full.
func TestOverload(t *testing.T) {
	_, a, w, app := setUp(t, keepAll, Config{})
	open1(a, transport.Opened{})
	for i := range inQueueRequests {
		a.Received(1, fmt.Appendf(nil, `{"id":%d,"method":"m"}`, i), "", false)
	}
	if len(w.sent) != 0 {
		t.Fatalf("%q came before the queue was full", w.sent)
	}
	a.Received(1, []byte(`{"id":7,"method":"m"}`), "", false)
	want := `{"jsonrpc":"2.0","id":7,"error":{"code":-32001,"message":"Server overloaded; retry later."}}`
	if len(w.sent) != 1 || w.sent[0] != want {
		t.Errorf("the request over the limit was answered %q, want %s", w.sent, want)
	}
	a.Received(1, []byte(`{"id":"x","result":null}`), "", false)
	a.Received(1, []byte(`{"method":"note"}`), "", false)
	if got := len(app.sessions[0].got); got != inQueueRequests+2 {
		t.Errorf("the application got %d messages, want %d: responses and notifications are never refused", got, inQueueRequests+2)
	}
}

// TestAPluginThatBreaksTheRules loses its link, with the cause, at the end of the
// batch.
func TestAPluginThatBreaksTheRules(t *testing.T) {
	long := strings.Repeat("x", 5<<10)
	for _, tt := range []struct {
		name   string
		offend func(*Attachment)
		want   string
	}{
		{"ignores the window", func(a *Attachment) {
			for range transport.WindowMessages + 1 {
				a.Received(1, []byte(`{"method":"note"}`), "", false)
			}
		}, "connection 1: the window was exceeded: "},
		{"ignores it by rejecting", func(a *Attachment) {
			for range transport.WindowMessages {
				a.Received(1, []byte(`{"method":"note"}`), "", false)
			}
			a.Rejected(1, transport.Rejection{})
		}, "connection 1: the window was exceeded: "},
		{"returns what it has not", func(a *Attachment) { a.Credit(1, transport.Credit{Bytes: 1}) },
			"connection 1: credit of 1 bytes and 0 messages returned, 0 and 0 are on their way"},
		{"opens twice", func(a *Attachment) { a.Opened(1, transport.Opened{}) }, "connection 1: opened twice"},
		{"opens without a number", func(a *Attachment) { a.Opened(0, transport.Opened{}) }, "connection 0: opened twice, or without a number"},
		{"long key", func(a *Attachment) { a.Opened(2, transport.Opened{ResumeKey: transport.ResumeKey(long)}) }, "connection 2: resume key of 5120 bytes"},
		{"long checkpoint", func(a *Attachment) { a.Checkpoint(1, []byte(long)) }, "connection 1: checkpoint of 5120 bytes"},
		{"long cursor", func(a *Attachment) { a.Received(1, []byte(`{"method":"note"}`), transport.Cursor(long), false) }, "connection 1: cursor of 5120 bytes"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r, a, _, app := setUp(t, keepAll, Config{})
			open1(a, transport.Opened{})
			tt.offend(a)
			err := a.EndBatch()
			if err == nil || !strings.HasPrefix(err.Error(), "it broke the rules of the link: "+tt.want) {
				t.Fatalf("the batch ends with %v, want %q", err, tt.want)
			}
			if c := r.Conduct("ws"); c.Violations != 1 || !strings.HasPrefix(c.Last, tt.want) || r.Counters().Violations != 1 {
				t.Errorf("the conduct is %+v", c)
			}
			a.Detach(transport.Because(transport.ClosePluginLost, "%v", err), true)
			if c := app.sessions[0].closed; c == nil || !strings.Contains(c.Text, strings.SplitN(tt.want, ": ", 2)[1]) {
				t.Errorf("the session heard %v, want the cause", c)
			}
		})
	}
}

// TestTooLargeAMessageEndsItsConnectionOnly.
func TestTooLargeAMessageEndsItsConnectionOnly(t *testing.T) {
	r, a, w, _ := setUp(t, keepAll, Config{MaxMessageBytes: 100 << 10})
	open1(a, transport.Opened{})
	piece := make([]byte, transport.PieceBytes)
	for range 4 {
		a.Received(1, piece, "", true)
	}
	if err := a.EndBatch(); err != nil {
		t.Errorf("the link ends: %v", err)
	}
	if len(w.closes) != 1 || w.closes[0].Code != transport.CloseTooLarge || !strings.Contains(w.closes[0].Text, "message of more than 102400 bytes") {
		t.Errorf("closes: %v", w.closes)
	}
	if a.joined.bytes.Load() != 0 || r.Conduct("ws").Violations != 1 {
		t.Errorf("%d bytes are still counted; the conduct is %+v", a.joined.bytes.Load(), r.Conduct("ws"))
	}
}

// TestWhatIsJoinedIsBounded, over all connections of a plugin.
func TestWhatIsJoinedIsBounded(t *testing.T) {
	r, a, w, _ := setUp(t, keepAll, Config{MaxMessageBytes: 64 << 20})
	piece := make([]byte, transport.PieceBytes)
	conns, each := 10, 63<<20/len(piece)
	for i := range conns {
		conn := transport.ConnID(i + 1)
		a.Opened(conn, transport.Opened{})
		for range each {
			a.Received(conn, piece, "", true)
		}
	}
	if a.joined.bytes.Load() > 256<<20 || len(w.closes) != conns-256<<20/(each*len(piece)) {
		t.Errorf("%d MiB are joined; closed were %v", a.joined.bytes.Load()>>20, w.closes)
	}
	for _, c := range w.closes {
		if c.Code != transport.CloseOverloaded {
			t.Errorf("closed with %v, want as overloaded", c)
		}
	}
	if err := a.EndBatch(); err != nil || r.Conduct("ws").Violations != 0 {
		t.Errorf("the plugin is blamed: %v", err)
	}
	for i := range conns {
		a.Closed(transport.ConnID(i+1), transport.CloseReason{})
	}
	if a.joined.bytes.Load() != 0 {
		t.Errorf("%d bytes are still counted", a.joined.bytes.Load())
	}
}

// TestTinyPiecesCostNoMoreThanTheirBytes: not even those of none.
func TestTinyPiecesCostNoMoreThanTheirBytes(t *testing.T) {
	_, a, _, app := setUp(t, keepAll, Config{})
	open1(a, transport.Opened{})
	message := `{"method":"m","params":"` + strings.Repeat("x", 20<<10) + `"}`
	for i := range len(message) {
		a.Received(1, nil, "", true)
		a.Received(1, []byte(message[i:i+1]), "", true)
	}
	if j := a.row(1).joined; j.size != len(message) || len(j.pieces) > 2*len(message)/smallPiece+1 {
		t.Errorf("%d bytes are kept in %d pieces", j.size, len(j.pieces))
	}
	a.Received(1, nil, "", false)
	if err := a.EndBatch(); err != nil {
		t.Errorf("the link ends: %v", err)
	}
	if got := app.sessions[0].got; len(got) != 1 || got[0] != message {
		t.Errorf("the application got %d messages", len(got))
	}
}

// TestEventsOfNoConnection change nothing, and are counted.
func TestEventsOfNoConnection(t *testing.T) {
	r, a, w, _ := setUp(t, keepAll, Config{})
	a.Received(7, []byte(`{"id":1,"method":"m"}`), "c", false)
	a.Rejected(7, transport.Rejection{Text: "x"})
	a.Acked(7, 1)
	a.Checkpoint(7, []byte("x"))
	a.Finished(7)
	a.Credit(7, transport.Credit{Bytes: 1})
	a.Closed(7, transport.CloseReason{})
	a.Unknown(7)
	if err := a.EndBatch(); err != nil {
		t.Errorf("the link ends: %v", err)
	}
	if c := r.Conduct("ws"); c != (Conduct{Strays: 7, Unknown: 1, Last: "Received of connection 7, which is not open"}) {
		t.Errorf("the conduct is %+v", c)
	}
	if len(w.sent)+len(w.closes) != 0 || r.Len() != 0 {
		t.Errorf("sent %v, closed %v, %d connections", w.sent, w.closes, r.Len())
	}
}

// TestEveryTransportIsKeptAPart of the table, whatever the others open.
func TestEveryTransportIsKeptAPart(t *testing.T) {
	r, a, w, _ := setUp(t, keepAll, Config{MaxConnections: 100, Transports: []string{"ws", "other"}})
	for i := range 200 {
		a.Opened(transport.ConnID(i+1), transport.Opened{})
	}
	if r.Len() != 75 || len(w.closes) != 125 || !strings.Contains(w.closes[0].Text, "the transport has 75 connections; what is left of the host's 100 is kept for the others") {
		t.Errorf("%d connections, %d refused: %v", r.Len(), len(w.closes), w.closes[0])
	}
	if c := r.Conduct("ws"); c.Refused != 125 || c.Strays != 0 {
		t.Errorf("the conduct is %+v", c)
	}
	for i := range 200 { // confirms what it was asked, and closes the rest
		a.Closed(transport.ConnID(i+1), transport.CloseReason{})
	}
	if c := r.Conduct("ws"); c.Strays != 0 || len(a.dismissed) != 0 {
		t.Errorf("the conduct is %+v, and %d connections are remembered", c, len(a.dismissed))
	}
	for i := range 75 {
		a.Opened(transport.ConnID(i+1000), transport.Opened{})
	}
	b := r.Attach("other", 1, &wire{})
	for i := range 30 {
		b.Opened(transport.ConnID(i+1), transport.Opened{})
	}
	if n := r.Len(); n != 100 {
		t.Errorf("%d connections, want 25 of the other too", n)
	}
}

// TestAnEndThatIsNotConfirmed frees the connection, in both tables.
func TestAnEndThatIsNotConfirmed(t *testing.T) {
	r, a, _, app := setUp(t, keepAll, Config{})
	open1(a, transport.Opened{})
	app.sessions[0].conn.Close(transport.CloseReason{Code: transport.CloseNormal})
	r.sweep(time.Now().Add(closeLimit + time.Second))
	if r.Len() != 0 || a.row(1) != nil {
		t.Error("the connection is still there")
	}
	if c := r.Conduct("ws"); c.Violations != 1 || c.Last != "it did not confirm the end of connection 1 within 10s" {
		t.Errorf("the conduct is %+v", c)
	}
	a.Received(1, []byte(`{"method":"late"}`), "", false)
	a.Closed(1, transport.CloseReason{})
	if c := r.Conduct("ws"); c.Strays != 0 {
		t.Errorf("what comes late is held against the plugin: %+v", c)
	}
}

func TestAPeerThatDoesNotReadIsNotReadFrom(t *testing.T) {
	big := `{"id":1,"result":"` + strings.Repeat("x", 32<<10) + `"}`
	_, a, w, _ := setUp(t, func(s *session, p []byte, m transport.Message) {
		s.conn.Consumed(1, len(p))
		_ = s.conn.Send([]byte(big))
	}, Config{})
	open1(a, transport.Opened{})
	for range 60 {
		a.Received(1, []byte(`{"id":1,"method":"m"}`), "", false)
	}
	w.mu.Lock()
	returned := w.credit.Messages
	w.mu.Unlock()
	if returned != 0 {
		t.Errorf("%d messages of credit came back while the peer took nothing", returned)
	}
	for range 20 {
		w.giveBack(a, 1)
	}
	if len(w.sent) != 60 {
		t.Errorf("the peer got %d answers, want 60", len(w.sent))
	}
	if w.credit.Messages == 0 {
		t.Error("no credit came back once the peer had read")
	}
}

// TestBroadcastDoesNotBlockOnSlowConnection is broadcast_does_not_block_on_slow_connection.
func TestBroadcastDoesNotBlockOnSlowConnection(t *testing.T) {
	r, a, w, app := setUp(t, consume, Config{OutQueueBytes: 1 << 20})
	open1(a, transport.Opened{})
	s := app.sessions[0]
	p := bytes.Repeat([]byte("x"), 64<<10)
	var err error
	n := 0
	for ; n < 100 && err == nil; n++ {
		err = s.conn.Send(p)
	}
	if !errors.Is(err, transport.ErrConnClosed) {
		t.Fatalf("after %d messages of 64 KiB that nobody reads: %v", n, err)
	}
	if limit := (1<<20+transport.WindowBytes)/len(p) + 2; n > limit {
		t.Errorf("%d messages of 64 KiB were taken, want at most %d", n, limit)
	}
	if len(w.closes) != 1 || w.closes[0].Code != transport.CloseSlow {
		t.Errorf("closes: %v, want slow", w.closes)
	}
	if r.Counters().Slow != 1 {
		t.Errorf("counted %d slow", r.Counters().Slow)
	}
}

// TestLosslessWaitsInstead is
// to_connection_stdio_waits_instead_of_disconnecting_when_writer_queue_is_full.
func TestLosslessWaitsInstead(t *testing.T) {
	_, a, w, app := setUp(t, consume, Config{OutQueueMessages: 2})
	open1(a, transport.Opened{Lossless: true})
	s := app.sessions[0]
	n := 0
	for s.conn.Send(fmt.Appendf(nil, `{"method":"n","params":[%d]}`, n)) == nil {
		n++
	}
	if len(w.closes) != 0 {
		t.Fatalf("the lossless connection was closed: %v", w.closes)
	}
	done := make(chan error, 1)
	go func() { done <- s.conn.SendWait(t.Context(), []byte(`{"method":"last"}`)) }()
	for range 3 {
		w.giveBack(a, 1)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	w.giveBack(a, 1)
	if len(w.sent) != n+1 || w.sent[n] != `{"method":"last"}` {
		t.Errorf("%d of %d messages came, the last was %q", len(w.sent), n+1, w.sent[len(w.sent)-1])
	}
}

// TestForgottenRequestsAreNotInFlight: neither a drain nor the end of input
// waits for them, and an answer that comes all the same is none of another's.
func TestForgottenRequestsAreNotInFlight(t *testing.T) {
	r, a, w, app := setUp(t, consume, Config{})
	open1(a, transport.Opened{Lossless: true})
	s := app.sessions[0]
	for i := range 3 {
		a.Received(1, fmt.Appendf(nil, `{"id":%d,"method":"m"}`, i), "", false)
	}
	s.conn.Forgotten(2)
	if n := r.Counters().InFlight; n != 1 {
		t.Errorf("%d in flight, want 1", n)
	}
	s.conn.Forgotten(-1)
	if err := s.conn.Send([]byte(`{"id":0,"result":1}`)); err != nil {
		t.Fatal(err)
	}
	if n := r.Counters().InFlight; n != 1 {
		t.Errorf("%d in flight after the late answer, want 1", n)
	}
	a.Finished(1)
	if len(w.closes) != 0 {
		t.Fatalf("closes: %v, with a request in flight", w.closes)
	}
	s.conn.Forgotten(1)
	w.giveBack(a, 1)
	if err := r.Drain(t.Context()); err != nil || len(w.closes) != 1 {
		t.Errorf("Drain: %v; closes: %v, want one at the end of input", err, w.closes)
	}
	a.Closed(1, transport.CloseReason{})
	s.conn.Forgotten(-1)
	s.conn.Forgotten(5)
	if n := r.Counters().InFlight; n != 0 {
		t.Errorf("%d in flight after the end", n)
	}
}

func TestStalledPeerIsClosedAsSlow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, a, w, app := setUp(t, consume, Config{SlowAfter: 30 * time.Second})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- r.Run(ctx) }()
		open1(a, transport.Opened{})
		s := app.sessions[0]
		for range 6 { // over the window, so that something waits
			if err := s.conn.Send(bytes.Repeat([]byte("x"), 64<<10)); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(29 * time.Second)
		synctest.Wait()
		if len(w.closed()) != 0 {
			t.Errorf("closed after 29 s: %v", w.closed())
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if len(w.closed()) != 1 || w.closes[0].Code != transport.CloseSlow {
			t.Errorf("after 31 s: %v, want slow", w.closed())
		}
		cancel()
		<-done
	})
}

// TestALargeMessageMayBeFollowed: an answer over the bound of the queue, and a
// notification right behind it.
func TestALargeMessageMayBeFollowed(t *testing.T) {
	synctest.Test(t, aLargeMessageMayBeFollowed)
}

func aLargeMessageMayBeFollowed(t *testing.T) {
	for _, key := range []transport.ResumeKey{"", "k"} {
		_, a, w, app := setUp(t, consume, Config{OutQueueBytes: 1 << 20})
		open1(a, transport.Opened{ResumeKey: key})
		c := app.sessions[0].conn
		large := strings.Repeat("x", 3<<20)
		for _, p := range []string{large, "small"} {
			if err := c.Send([]byte(p)); err != nil {
				t.Fatalf("key %q: sending %d bytes: %v", key, len(p), err)
			}
		}
		for range 100 {
			w.giveBack(a, 1)
			time.Sleep(transport.LargeRest)
		}
		synctest.Wait()
		if len(w.sent) != 2 || w.sent[0] != large || w.sent[1] != "small" {
			t.Errorf("key %q: %d messages came", key, len(w.sent))
		}
	}
}

// TestARelayMayBeAway for longer than a peer may be slow.
func TestARelayMayBeAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, a, w, app := setUp(t, consume, Config{SlowAfter: 30 * time.Second})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- r.Run(ctx) }()
		open1(a, transport.Opened{ResumeKey: "k"})
		for range 6 {
			if err := app.sessions[0].conn.Send(bytes.Repeat([]byte("x"), 64<<10)); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		if len(w.closed()) != 0 {
			t.Errorf("closed: %v", w.closed())
		}
		cancel()
		<-done
	})
}

// TestSteadyReaderIsNotSlow: a large message takes longer than the limit to
// drain, and all its credit but the end's came back when it arrived.
func TestSteadyReaderIsNotSlow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, a, w, app := setUp(t, consume, Config{SlowAfter: 30 * time.Second})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- r.Run(ctx) }()
		open1(a, transport.Opened{})
		for range 6 {
			if err := app.sessions[0].conn.Send(bytes.Repeat([]byte("x"), 64<<10)); err != nil {
				t.Fatal(err)
			}
		}
		for range 20 { // 100 s, in which the plugin tells that bytes leave
			time.Sleep(5 * time.Second)
			a.Credit(1, transport.Credit{})
		}
		synctest.Wait()
		if len(w.closed()) != 0 {
			t.Errorf("closed: %v", w.closed())
		}
		cancel()
		<-done
	})
}

func TestLargeMessageGoesInPiecesAsCreditAllows(t *testing.T) {
	synctest.Test(t, largeMessageGoesInPiecesAsCreditAllows)
}

func largeMessageGoesInPiecesAsCreditAllows(t *testing.T) {
	_, a, w, app := setUp(t, consume, Config{})
	open1(a, transport.Opened{})
	big := string(bytes.Repeat([]byte("0123456789"), 100_000)) // 1 MB
	for _, p := range []string{big, "small", big} {
		if err := app.sessions[0].conn.Send([]byte(p)); err != nil {
			t.Fatal(err)
		}
	}
	if n := w.onTheWay(); n > transport.LargeWindowBytes {
		t.Fatalf("%d bytes are on their way, the window is %d", n, transport.LargeWindowBytes)
	}
	w.giveBack(a, 1)
	if n := w.onTheWay(); n != 0 {
		t.Errorf("%d bytes went without a rest", n)
	}
	for range 30 {
		time.Sleep(transport.LargeRest)
		synctest.Wait()
		w.giveBack(a, 1)
	}
	if len(w.sent) != 3 || w.sent[0] != big || w.sent[1] != "small" || w.sent[2] != big {
		t.Errorf("%d messages came", len(w.sent))
	}
}

func TestLargeMessageIsJoined(t *testing.T) {
	_, a, _, app := setUp(t, consume, Config{MaxMessageBytes: 200_000})
	open1(a, transport.Opened{})
	whole := `{"method":"m","params":"` + strings.Repeat("x", 150_000) + `"}`
	a.Received(1, []byte(whole[:60_000]), "", true)
	a.Received(1, []byte(whole[60_000:120_000]), "", true)
	a.Received(1, []byte(whole[120_000:]), "", false)
	if got := app.sessions[0].got; len(got) != 1 || got[0] != whole {
		t.Errorf("the application got %d messages", len(got))
	}
}

func TestResumption(t *testing.T) {
	r, a, w, app := setUp(t, answer, Config{})
	open1(a, transport.Opened{ResumeKey: "k"})
	a.Received(1, []byte(`{"id":1,"method":"m"}`), "10", false)
	a.EndBatch()
	a.Received(1, []byte(`{"id":2,"method":"m"}`), "20", false)
	a.EndBatch()
	a.Checkpoint(1, []byte("note"))
	a.Acked(1, 1)
	if fmt.Sprint(w.accepted) != "[10 20]" || w.checks != 1 {
		t.Errorf("accepted %v, %d checkpoints", w.accepted, w.checks)
	}
	a.Detach(transport.CloseReason{Code: transport.ClosePluginLost}, true)
	s := app.sessions[0]
	if s.closed != nil {
		t.Fatalf("the session was closed: %v", s.closed)
	}
	if err := s.conn.Send([]byte(`{"method":"while-away"}`)); err != nil {
		t.Fatal(err)
	}
	resume := r.Resumable("ws")
	want := transport.Resume{Conn: 1, Key: "k", Cursor: "20", Checkpoint: []byte("note"), NextSeq: 2}
	if len(resume) != 1 || fmt.Sprint(resume[0]) != fmt.Sprint(want) {
		t.Fatalf("Resumable = %+v, want %+v", resume, want)
	}

	next := &wire{}
	b := r.Attach("ws", 2, next)
	b.Opened(1, transport.Opened{ResumeKey: "k"})
	b.Started([]transport.ConnID{1})
	if fmt.Sprint(next.sent) != `[{"id":2,"result":1} {"method":"while-away"}]` || fmt.Sprint(next.seqs) != "[2 3]" {
		t.Errorf("sent again: %q with numbers %v", next.sent, next.seqs)
	}
	b.Received(1, []byte(`{"id":3,"method":"m"}`), "30", false)
	b.EndBatch()
	if len(next.sent) != 3 || len(app.sessions) != 1 {
		t.Errorf("after resumption the peer got %q, %d sessions", next.sent, len(app.sessions))
	}
}

// TestHalfAMessageIsDeliveredAgain by the process that follows the one that
// delivered its beginning: the application gets it once, and both windows are
// right.
func TestHalfAMessageIsDeliveredAgain(t *testing.T) {
	r, a, _, app := setUp(t, consume, Config{})
	open1(a, transport.Opened{ResumeKey: "k"})
	whole := `{"method":"m","params":"` + strings.Repeat("x", 150_000) + `"}`
	pieces := []string{whole[:60_000], whole[60_000:120_000], whole[120_000:]}
	a.Received(1, []byte(pieces[0]), "", true)
	a.Received(1, []byte(pieces[1]), "", true)
	a.Detach(transport.CloseReason{Code: transport.CloseGoingAway}, true)

	next := &wire{}
	b := r.Attach("ws", 2, next)
	b.Opened(1, transport.Opened{ResumeKey: "k"})
	b.Started([]transport.ConnID{1})
	b.Received(1, []byte(pieces[0]), "", true)
	b.Received(1, []byte(pieces[1]), "", true)
	b.Received(1, []byte(pieces[2]), "10", false)
	if got := app.sessions[0].got; len(got) != 1 || got[0] != whole {
		t.Errorf("the application got %d messages", len(got))
	}
	if next.credit != (transport.Credit{Messages: 1, Bytes: len(whole)}) {
		t.Errorf("credit %+v, want that of one message of %d bytes", next.credit, len(whole))
	}
}

// TestAdoptionMayComeBehindTheStart: the answer to Start and the events of the
// stream travel side by side.
func TestAdoptionMayComeBehindTheStart(t *testing.T) {
	r, a, _, app := setUp(t, answer, Config{})
	open1(a, transport.Opened{ResumeKey: "k"})
	a.Detach(transport.CloseReason{Code: transport.ClosePluginLost}, true)
	b := r.Attach("ws", 2, &wire{})
	b.Started([]transport.ConnID{1})
	b.Opened(1, transport.Opened{ResumeKey: "k"})
	if len(app.sessions) != 1 || app.sessions[0].closed != nil {
		t.Errorf("%d sessions, the first heard %v; want one that goes on", len(app.sessions), app.sessions[0].closed)
	}
}

// TestPipelinedRequestsOnAResumableConnection sends far more than a window,
// with the credit of each answer back before its acknowledgement.
func TestPipelinedRequestsOnAResumableConnection(t *testing.T) {
	_, a, w, _ := setUp(t, answer, Config{})
	open1(a, transport.Opened{ResumeKey: "k", Lossless: true})
	const n = 5000
	var window transport.SendWindow
	w.onCredit = func(c transport.Credit) {
		if err := window.Return(c); err != nil {
			t.Fatal(err)
		}
	}
	acked := 0
	for sent := 0; sent < n; {
		if p := fmt.Appendf(nil, `{"id":%d,"method":"m"}`, sent); window.Fits(len(p), true, false) {
			window.Take(len(p), true, false)
			a.Received(1, p, "", false)
			sent++
			continue
		}
		if acked == len(w.seqs) && w.unread == (transport.Credit{}) {
			t.Fatalf("stuck after %d requests and %d answers: nothing is out, and no credit comes back", sent, len(w.sent))
		}
		w.giveBack(a, 1)
		acked = len(w.seqs)
		a.Acked(1, w.seqs[acked-1])
	}
	w.giveBack(a, 1)
	if len(w.sent) != n {
		t.Errorf("%d answers, want %d", len(w.sent), n)
	}
}

// TestHalfAMessageCostsNoCredit: a process dies within a large message, and the
// next one delivers it again, and more of them.
func TestHalfAMessageCostsNoCredit(t *testing.T) {
	synctest.Test(t, halfAMessageCostsNoCredit)
}

func halfAMessageCostsNoCredit(t *testing.T) {
	r, a, _, app := setUp(t, consume, Config{})
	open1(a, transport.Opened{ResumeKey: "k"})
	large := fmt.Appendf(nil, `{"method":"m","params":%q}`, strings.Repeat("x", 4*transport.PieceBytes))
	for i := range 3 {
		a.Received(1, large[i*transport.PieceBytes:(i+1)*transport.PieceBytes], "", true)
	}
	a.Detach(transport.CloseReason{Code: transport.ClosePluginLost}, true)
	next := &wire{}
	b := r.Attach("ws", 2, next)
	b.Opened(1, transport.Opened{ResumeKey: "k"})
	b.Started([]transport.ConnID{1})
	var window transport.SendWindow
	next.onCredit = func(c transport.Credit) {
		if err := window.Return(c); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 10 {
		for rest, first := large, true; len(rest) > 0; first = false {
			n := transport.Piece(len(rest), len(large))
			synctest.Wait() // for the reader of the row
			if !window.Fits(n, first, true) {
				t.Fatalf("no room for message %d: credit was lost", i)
			}
			window.Take(n, n == len(rest), true)
			b.Received(1, rest[:n], "", n < len(rest))
			rest = rest[n:]
		}
	}
	synctest.Wait()
	if got := app.sessions[0].got; len(got) != 10 || got[9] != string(large) {
		t.Errorf("%d messages arrived, want 10 whole ones", len(got))
	}
}

func TestRejectionsAreAnsweredInTheirOrder(t *testing.T) {
	_, a, w, _ := setUp(t, answer, Config{})
	open1(a, transport.Opened{ResumeKey: "k"})
	a.Received(1, []byte(`{"id":1,"method":"m"}`), "10", false)
	a.Rejected(1, transport.Rejection{Cursor: "20", Text: "not UTF-8", Unparsable: true})
	a.Rejected(1, transport.Rejection{Cursor: "21"})
	a.EndBatch()
	want := `[{"id":1,"result":1} {"jsonrpc":"2.0","id":null,"error":{"code":-32700,"message":"not UTF-8"}}]`
	if fmt.Sprint(w.sent) != want || fmt.Sprint(w.accepted) != "[21]" {
		t.Errorf("the peer got %s, accepted is %v", w.sent, w.accepted)
	}
}

func TestWhatIsNotAdoptedIsLost(t *testing.T) {
	r, a, _, app := setUp(t, answer, Config{})
	a.Opened(1, transport.Opened{ResumeKey: "k"})
	a.Opened(2, transport.Opened{})
	a.Detach(transport.CloseReason{Code: transport.ClosePluginLost, Text: "killed"}, true)
	if c := app.sessions[1].closed; c == nil || c.Code != transport.ClosePluginLost {
		t.Errorf("the connection without a key heard %v", c)
	}
	r.Attach("ws", 2, &wire{}).Started(nil)
	if c := app.sessions[0].closed; c == nil || c.Code != transport.ClosePluginLost {
		t.Errorf("the connection that was not adopted heard %v", c)
	}
	if r.Len() != 0 {
		t.Errorf("%d connections remain", r.Len())
	}
}

func TestFinishedConnectionClosesWhenAllIsAnswered(t *testing.T) {
	_, a, w, app := setUp(t, consume, Config{})
	open1(a, transport.Opened{})
	a.Received(1, []byte(`{"id":1,"method":"m"}`), "", false)
	a.Finished(1)
	if len(w.closes) != 0 {
		t.Fatalf("closed with a request in flight: %v", w.closes)
	}
	if err := app.sessions[0].conn.Send([]byte(`{"id":1,"result":1}`)); err != nil {
		t.Fatal(err)
	}
	if len(w.closes) != 1 || w.closes[0].Code != transport.CloseNormal {
		t.Errorf("closes: %v", w.closes)
	}
}

func TestDrainAndCloseAll(t *testing.T) {
	r, a, w, app := setUp(t, consume, Config{})
	open1(a, transport.Opened{})
	a.Received(1, []byte(`{"id":1,"method":"m"}`), "", false)
	drained := make(chan error, 1)
	go func() { drained <- r.Drain(t.Context()) }()
	if err := app.sessions[0].conn.Send([]byte(`{"id":1,"result":1}`)); err != nil {
		t.Fatal(err)
	}
	if err := <-drained; err != nil {
		t.Fatal(err)
	}
	closed := make(chan error, 1)
	limit, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	go func() { closed <- r.CloseAll(limit, transport.CloseReason{Code: transport.CloseGoingAway}) }()
	for len(w.closed()) == 0 {
		runtime.Gosched()
	}
	// Opened is no answer to what the plugin was told: it may come late.
	a.Opened(2, transport.Opened{})
	a.Received(2, []byte(`{"id":1,"method":"m"}`), "", false)
	a.Closed(1, transport.CloseReason{Code: transport.CloseNormal})
	if err := <-closed; err != nil {
		t.Fatal(err)
	}
	a.Closed(2, transport.CloseReason{Code: transport.CloseNormal})
	if c := w.closed(); len(c) != 2 || c[1].Code != transport.CloseGoingAway || len(app.sessions) != 1 {
		t.Errorf("closes %v and %d sessions, want that who came late is sent away", c, len(app.sessions))
	}
	if x := r.Counters(); x.Refused != 0 || r.Conduct("ws") != (Conduct{}) {
		t.Errorf("counters %+v, conduct %+v: nobody did what it should not", x, r.Conduct("ws"))
	}
	if c := app.sessions[0].closed; c.Code != transport.CloseGoingAway {
		t.Errorf("the session heard %v", c)
	}
}

func TestConnectionLimit(t *testing.T) {
	r, a, w, _ := setUp(t, consume, Config{MaxConnections: 2})
	for i := range 5 {
		a.Opened(transport.ConnID(i+1), transport.Opened{})
	}
	if r.Len() != 2 || len(w.closes) != 3 || w.closes[0].Code != transport.CloseOverloaded || r.Counters().Refused != 3 {
		t.Errorf("%d connections, closes %v, counters %+v", r.Len(), w.closes, r.Counters())
	}
}
