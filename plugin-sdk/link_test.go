package pluginsdk_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"

	"go.uber.org/goleak"

	pluginsdk "github.com/transporthost/transporthost/plugin-sdk"
	"github.com/transporthost/transporthost/plugin-sdk/pluginsdktest"
	"github.com/transporthost/transporthost/shared/transport"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// pipes is a transport whose peers are goroutines of the test.
type pipes struct {
	host chan *pluginsdk.Host
	err  error // Serve returns it before Ready, if set
}

func newPipes() *pipes { return &pipes{host: make(chan *pluginsdk.Host, 1)} }

func (p *pipes) Describe() pluginsdk.Description {
	return pluginsdk.Description{Name: "pipes", Version: "1", Locality: pluginsdk.Local}
}

func (p *pipes) Serve(ctx context.Context, h *pluginsdk.Host) error {
	if p.err != nil {
		return p.err
	}
	p.host <- h
	h.Ready("pipe:")
	<-ctx.Done()
	return nil
}

func TestMessagesArriveWholeAndUnchanged(t *testing.T) {
	sizes := []int{1, 2, 100, 1 << 10, 64 << 10, 68 << 10, 68<<10 + 1, 256 << 10, 256<<10 + 1, 1 << 20, 9<<20 + 7}
	tr := newPipes()
	h := pluginsdktest.Start(t, tr, pluginsdk.StartParams{})
	conn, inbox, err := (<-tr.host).OpenInbox(pluginsdk.Opened{Peer: pluginsdk.Peer{RemoteAddr: "pipe 1"}})
	if err != nil {
		t.Fatal(err)
	}
	id, opened := h.NextOpened()
	if opened.Peer.RemoteAddr != "pipe 1" {
		t.Errorf("the host saw peer %+v", opened.Peer)
	}
	rnd := rand.New(rand.NewPCG(1, 2))
	for _, size := range sizes {
		payload := make([]byte, size)
		for i := range payload {
			payload[i] = byte(rnd.Uint32())
		}
		if err := conn.Deliver(t.Context(), payload); err != nil {
			t.Fatalf("delivering %d bytes: %v", size, err)
		}
		if got := h.NextReceived(id); !bytes.Equal(got, payload) {
			t.Errorf("%d bytes to the host came as %d others", size, len(got))
		}
		h.Send(id, payload)
		m, err := inbox.Receive(t.Context())
		if err != nil {
			t.Fatalf("receiving %d bytes: %v", size, err)
		}
		if !bytes.Equal(m.Payload, payload) {
			t.Errorf("%d bytes to the peer came as %d others", size, len(m.Payload))
		}
		conn.Written(1, len(m.Payload))
	}
}

func TestOversizeMessageIsRefused(t *testing.T) {
	tr := newPipes()
	h := pluginsdktest.Start(t, tr, pluginsdk.StartParams{MaxMessageBytes: 1000})
	conn, _, err := (<-tr.host).OpenInbox(pluginsdk.Opened{})
	if err != nil {
		t.Fatal(err)
	}
	id, _ := h.NextOpened()
	err = conn.Deliver(t.Context(), make([]byte, 1001))
	if !errors.Is(err, pluginsdk.ErrTooLarge) || !strings.Contains(err.Error(), "1001 bytes, limit 1000") {
		t.Errorf("delivering 1001 of 1000 bytes: %v", err)
	}
	if err := conn.Deliver(t.Context(), make([]byte, 1000)); err != nil {
		t.Errorf("delivering 1000 of 1000 bytes: %v", err)
	}
	if got := h.NextReceived(id); len(got) != 1000 {
		t.Errorf("got %d bytes, want 1000", len(got))
	}
}

// TestNoDeadlock is the load at which the first prototype stopped for good:
// large messages, several on their way per connection, both directions at once.
func TestNoDeadlock(t *testing.T) {
	for _, load := range []struct{ conns, window, size int }{
		{1, 4, 64 << 10}, {10, 4, 64 << 10}, {4, 16, 64 << 10}, {50, 8, 64 << 10}, {20, 64, 64 << 10}, {3, 2, 3 << 20}, {50, 16, 100},
	} {
		t.Run(fmt.Sprintf("%dx%dx%d", load.conns, load.window, load.size), func(t *testing.T) {
			tr := newPipes()
			h := pluginsdktest.Start(t, tr, pluginsdk.StartParams{})
			host := <-tr.host
			rounds := max(2, 256/load.window*(64<<10)/load.size/8)
			rounds = min(rounds, 50)
			var wg sync.WaitGroup
			for i := range load.conns {
				conn, inbox, err := host.OpenInbox(pluginsdk.Opened{})
				if err != nil {
					t.Fatal(err)
				}
				total := rounds * load.window
				payload := bytes.Repeat([]byte{byte(i)}, load.size)
				wg.Go(func() {
					for range total {
						if err := conn.Deliver(t.Context(), payload); err != nil {
							t.Errorf("delivering: %v", err)
							return
						}
					}
				})
				wg.Go(func() {
					for range total {
						m, err := inbox.Receive(t.Context())
						if err != nil {
							t.Errorf("receiving: %v", err)
							return
						}
						if !bytes.Equal(m.Payload, payload) {
							t.Errorf("got %d other bytes", len(m.Payload))
						}
						conn.Written(1, len(m.Payload))
					}
				})
			}
			for range load.conns {
				id, _ := h.NextOpened()
				for range rounds * load.window {
					h.Send(id, h.NextReceived(id))
				}
			}
			wg.Wait()
		})
	}
}

func TestAConnectionWithoutCreditWaitsAlone(t *testing.T) {
	tr := newPipes()
	h := pluginsdktest.Start(t, tr, pluginsdk.StartParams{})
	host := <-tr.host
	slow, _, err := host.OpenInbox(pluginsdk.Opened{})
	if err != nil {
		t.Fatal(err)
	}
	slowID, _ := h.NextOpened()
	h.Stall(true)
	sent := 0
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for slow.Deliver(ctx, make([]byte, 64<<10)) == nil {
			sent++
		}
	}()
	for range 4 { // a window
		h.NextReceived(slowID)
	}
	fast, inbox, err := host.OpenInbox(pluginsdk.Opened{})
	if err != nil {
		t.Fatal(err)
	}
	fastID, _ := h.NextOpened()
	h.Stall(false)
	for range 300 {
		if err := fast.Deliver(t.Context(), []byte("x")); err != nil {
			t.Fatal(err)
		}
		h.Send(fastID, h.NextReceived(fastID))
		if _, err := inbox.Receive(t.Context()); err != nil {
			t.Fatal(err)
		}
		fast.Written(1, 1)
	}
	cancel()
	<-done
	if sent != 4 {
		t.Errorf("%d messages of 64 KiB were sent into a window of 256 KiB, want 4", sent)
	}
}

// TestProgressOfALargeMessageIsTold: the credit of its pieces came back when they
// arrived, and the host must still hear that the peer takes them.
func TestProgressOfALargeMessageIsTold(t *testing.T) {
	tr := newPipes()
	h := pluginsdktest.Start(t, tr, pluginsdk.StartParams{})
	conn, inbox, err := (<-tr.host).OpenInbox(pluginsdk.Opened{})
	if err != nil {
		t.Fatal(err)
	}
	id, _ := h.NextOpened()
	const returns, two = 30, 2 * transport.LargePieceBytes // the pieces come back in pairs
	h.Send(id, make([]byte, returns*two+1))
	if _, err := inbox.Receive(t.Context()); err != nil {
		t.Fatal(err)
	}
	for i := range returns {
		if c := h.NextCredit(id); c != (transport.Credit{Bytes: two}) {
			t.Fatalf("credit %d is %+v, want that of two pieces", i, c)
		}
	}
	conn.Written(0, transport.WindowBytes/4)
	if c := h.NextCredit(id); c != (transport.Credit{}) {
		t.Errorf("credit %+v, want one of nothing", c)
	}
}

func TestCloseByEitherSide(t *testing.T) {
	tr := newPipes()
	h := pluginsdktest.Start(t, tr, pluginsdk.StartParams{})
	host := <-tr.host

	conn, _, err := host.OpenInbox(pluginsdk.Opened{})
	if err != nil {
		t.Fatal(err)
	}
	id, _ := h.NextOpened()
	conn.Close(pluginsdk.CloseReason{Code: pluginsdk.ClosePeerGone, Text: "reset"})
	conn.Close(pluginsdk.CloseReason{Code: pluginsdk.CloseNormal})
	if got := h.NextClosed(id); got.String() != "peer-gone: reset" {
		t.Errorf("the host saw %v", got)
	}
	if err := conn.Deliver(t.Context(), []byte("late")); !errors.Is(err, pluginsdk.ErrConnClosed) {
		t.Errorf("Deliver after Close: %v", err)
	}

	conn, inbox, err := host.OpenInbox(pluginsdk.Opened{})
	if err != nil {
		t.Fatal(err)
	}
	id, _ = h.NextOpened()
	h.Send(id, []byte("last"))
	h.Close(id, pluginsdk.CloseReason{Code: pluginsdk.CloseGoingAway})
	if m, err := inbox.Receive(t.Context()); err != nil || string(m.Payload) != "last" || m.Seq != 1 {
		t.Errorf("before the close came %+v, %v", m, err)
	}
	_, err = inbox.Receive(t.Context())
	var closed *pluginsdk.ClosedError
	if !errors.As(err, &closed) || closed.Reason.Code != pluginsdk.CloseGoingAway {
		t.Errorf("then came %v", err)
	}
	if err := conn.Deliver(t.Context(), []byte("late")); !errors.Is(err, pluginsdk.ErrConnClosed) {
		t.Errorf("Deliver after the host's close: %v", err)
	}
	conn.Close(closed.Reason)
	h.NextClosed(id)
}

func TestStartErrorsKeepTheirIdentityAndText(t *testing.T) {
	for _, tt := range []struct {
		name string
		err  error
		is   error
		text string
	}{
		{"invalid config", fmt.Errorf("%w: token_file is empty", pluginsdk.ErrInvalidConfig), pluginsdk.ErrInvalidConfig, "invalid configuration: token_file is empty"},
		{"opaque", errors.New("the moon is full"), nil, "the moon is full"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tr := newPipes()
			tr.err = tt.err
			err := pluginsdktest.Serve(t, tr).TryStart(pluginsdk.StartParams{})
			if err == nil || err.Error() != tt.text || tt.is != nil && !errors.Is(err, tt.is) {
				t.Errorf("Start returned %v, want %q", err, tt.text)
			}
		})
	}
}

func TestAdoptedConnectionGoesOnWithItsNumbers(t *testing.T) {
	tr := newPipes()
	resume := pluginsdk.Resume{Conn: 7, Key: "k", Cursor: "41", Checkpoint: []byte("note"), NextSeq: 12}
	h := pluginsdktest.Start(t, tr, pluginsdk.StartParams{Resume: []pluginsdk.Resume{resume}})
	host := <-tr.host
	if got := host.Params().Resume; len(got) != 1 || fmt.Sprint(got[0]) != fmt.Sprint(resume) {
		t.Fatalf("the transport got %+v, want %+v", got, resume)
	}
	sink := make(sinkOf, 1)
	conn, err := host.Adopt(resume, sink)
	if err != nil {
		t.Fatal(err)
	}
	if id, o := h.NextOpened(); id != 7 || o.ResumeKey != "k" {
		t.Errorf("the host saw connection %d, %+v", id, o)
	}
	if seq := h.Send(7, []byte("x")); seq != 12 {
		t.Fatalf("the scripted host numbers from %d", seq)
	}
	if got := <-sink; got != 12 {
		t.Errorf("the first message has number %d, want 12", got)
	}
	conn.Ack(12)
	h.NextAcked(7, 12)
	if err := conn.Checkpoint(t.Context(), []byte("next")); err != nil {
		t.Errorf("Checkpoint: %v", err)
	}
	if err := conn.DeliverAt(t.Context(), []byte("y"), "42"); err != nil {
		t.Fatal(err)
	}
	if m, cursor := h.NextCursor(7); string(m) != "y" || cursor != "42" {
		t.Errorf("got %q at %q", m, cursor)
	}
	if fresh, err := host.Open(pluginsdk.Opened{}, sink); err != nil || fresh.ID() != 8 {
		t.Errorf("a new connection has number %v, want 8 (%v)", fresh.ID(), err)
	}
}

type sinkOf chan pluginsdk.Seq

func (s sinkOf) Message(seq pluginsdk.Seq, _ []byte) { s <- seq }
func (s sinkOf) Flush()                              {}
func (s sinkOf) Close(pluginsdk.CloseReason)         {}

func TestCredentialCalls(t *testing.T) {
	tr := newPipes()
	h := pluginsdktest.Start(t, tr, pluginsdk.StartParams{})
	host := <-tr.host
	ctx := t.Context()
	accepted := make(chan uint64, 1)
	want := pluginsdk.Credentials{AccessToken: "secret", AccountID: "acc", Generation: 7, FedRAMP: true}
	h.Answer(pluginsdktest.Answers{
		Credentials: func(context.Context) (pluginsdk.Credentials, error) { return want, nil },
		RecoverUnauthorized: func(_ context.Context, generation uint64) (pluginsdk.Credentials, error) {
			return pluginsdk.Credentials{}, fmt.Errorf("generation %d: %w", generation, pluginsdk.ErrNoCredentials)
		},
		CredentialsAccepted: func(generation uint64) { accepted <- generation },
		ClientName:          func(context.Context) (string, error) { return "editor", nil },
	})
	if got, err := host.Credentials(ctx); err != nil || got != want {
		t.Errorf("Credentials = %v, %v", got, err)
	}
	if _, err := host.RecoverUnauthorized(ctx, 7); !errors.Is(err, pluginsdk.ErrNoCredentials) || err.Error() != "generation 7: no usable credentials" {
		t.Errorf("RecoverUnauthorized: %v", err)
	}
	host.CredentialsAccepted(7)
	if got := <-accepted; got != 7 {
		t.Errorf("accepted generation %d, want 7", got)
	}
	if name, err := host.ClientName(ctx); err != nil || name != "editor" {
		t.Errorf("ClientName = %q, %v", name, err)
	}
}

func TestStateCalls(t *testing.T) {
	tr := newPipes()
	pluginsdktest.Start(t, tr, pluginsdk.StartParams{})
	host := <-tr.host
	ctx := t.Context()
	if _, err := host.LoadState(ctx, "k"); !errors.Is(err, pluginsdk.ErrNotFound) {
		t.Errorf("LoadState of nothing: %v", err)
	}
	if err := host.SaveState(ctx, "k", []byte("v")); err != nil {
		t.Fatal(err)
	}
	if v, err := host.LoadState(ctx, "k"); err != nil || string(v) != "v" {
		t.Errorf("LoadState = %q, %v", v, err)
	}
	if err := host.SaveState(ctx, "k", make([]byte, 64<<10+1)); !errors.Is(err, pluginsdk.ErrTooLarge) {
		t.Errorf("SaveState of too much: %v", err)
	}
	if err := host.DeleteState(ctx, "k"); err != nil {
		t.Fatal(err)
	}
	if _, err := host.Credentials(ctx); !errors.Is(err, pluginsdk.ErrNotGranted) {
		t.Errorf("Credentials without a grant: %v", err)
	}
}
