//go:build unix

package e2e

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/transporthost/transporthost/host"
	"github.com/transporthost/transporthost/tests/relay/backend"
)

// A flow is what one virtual client exchanges with an application that answers
// in order: requests one way, their answers the other, a window of them at a
// time.
type flow struct {
	calls  int
	window int
	large  int // every so many requests one has largeBytes
}

const largeBytes = 300 << 10

// request is the nth request of a client: its params are what the answer has to
// be.
func (f flow) params(client string, n int) []byte {
	size := n % 300
	if f.large > 0 && n%f.large == f.large/2 {
		size = largeBytes
	}
	return fmt.Appendf(nil, `["%s",%d,"%s"]`, client, n, bytes.Repeat([]byte{'a' + byte(n%26)}, size))
}

// run exchanges everything, and returns an error at the first answer that is
// not the next one. passed counts the answers of all clients.
func (f flow) run(r *relay, c *backend.Client, passed *atomic.Int64) error {
	if err := c.Send([]byte(`{"jsonrpc":"2.0","id":"begin","method":"initialize","params":{"clientInfo":{"name":"x","version":"1"}}}`)); err != nil {
		return err
	}
	if m, err := c.Receive(r.ctx); err != nil || string(m.ID) != `"begin"` {
		return fmt.Errorf("%s: initialize is answered with %.100s, %w", c.ID(), m.Payload, err)
	}
	sent := 0
	for received := range f.calls {
		for ; sent < f.calls && sent-received < f.window; sent++ {
			if err := c.Send(fmt.Appendf(nil, `{"jsonrpc":"2.0","id":%d,"method":"echo","params":%s}`, sent, f.params(c.ID(), sent))); err != nil {
				return err
			}
		}
		m, err := c.Receive(r.ctx)
		if err != nil {
			return fmt.Errorf("%s: after %d answers: %w", c.ID(), received, err)
		}
		if string(m.ID) != fmt.Sprint(received) || !bytes.Equal(m.Result, f.params(c.ID(), received)) {
			return fmt.Errorf("%s: got %.100s of %d bytes, want the answer to %d", c.ID(), m.Payload, len(m.Payload), received)
		}
		passed.Add(1)
	}
	return nil
}

// exchange runs the flows of several virtual clients, calls of them in all.
// between is called for every tenth of them that has passed.
func (r *relay) exchange(clients, calls int, f flow, between func(tenth int)) {
	r.t.Helper()
	f.calls = calls / clients
	var passed atomic.Int64
	var all errgroup.Group
	for i := range clients {
		c := r.open(backend.ClientOptions{ID: fmt.Sprint("c", i), StreamID: backend.NewStreamID()})
		all.Go(func() error { return f.run(r, c, &passed) })
	}
	done := make(chan error, 1)
	go func() { done <- all.Wait() }()
	progress := time.NewTicker(time.Millisecond)
	defer progress.Stop()
	for tenth := 1; ; {
		select {
		case err := <-done:
			if err != nil {
				r.t.Error(err)
			}
			return
		case <-progress.C:
			if tenth < 10 && passed.Load() >= int64(tenth*calls/10) {
				between(tenth)
				tenth++
			}
		}
	}
}

// patience is how many drops a host gets over by itself in these tests. Every
// link ends soon, and the delays between attempts would grow to half a minute;
// after so many drops a person has none left, and switches off and on.
const patience = 3

// impatient switches the transport off and on after each drop, until ctx ends.
func (r *relay) impatient(ctx context.Context, h *hostProcess) {
	running, err := host.FindHost(h.runtime, 0)
	if err != nil {
		r.t.Errorf("finding the host: %v", err)
		return
	}
	for n := patience + 1; ; n++ {
		c, err := r.AwaitEnd(ctx, n)
		if err != nil {
			return
		}
		if c.CloseCode != 0 {
			continue // by being switched off
		}
		for _, on := range []bool{false, true} {
			// an error is that of a process that was killed; its successor is told
			_ = running.SetTransportEnabled(ctx, phone, on)
		}
	}
}

const messages = 10_000

// TestRemoteNothingIsLostOrDoubled: 10,000 messages each way while the backend
// drops the socket at random 50 times, and once more while the plugin is killed
// three times and every hundredth message needs segments. Each arrives once and
// in order.
func TestRemoteNothingIsLostOrDoubled(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	for _, tt := range []struct {
		name  string
		drops int
		large int
		kills int
	}{{"drops", 50, 0, 0}, {"drops, kills and large messages", 10, 100, 3}} {
		inProfiles(t, func(t *testing.T, p backend.Profile) {
			t.Run(tt.name, func(t *testing.T) {
				t.Logf("seed %d", seed)
				r := newRelay(t, backend.Options{Profile: p})
				r.signIn(backend.AuthChatGPT, "")
				h := r.start(setup{application: command(t, "echo", "")})
				r.connected(h, 1)
				began := time.Now()
				r.DropRandomly(seed, messages*3/tt.drops/2, tt.drops)
				ctx, calm := context.WithCancel(r.ctx)
				var person sync.WaitGroup
				person.Go(func() { r.impatient(ctx, h) })
				defer person.Wait()
				defer calm()
				r.exchange(5, messages, flow{window: 32, large: tt.large}, func(tenth int) {
					if tenth%3 != 0 || tenth/3 > tt.kills {
						return
					}
					if err := syscall.Kill(h.phone().PID, syscall.SIGKILL); err != nil {
						t.Errorf("killing the plugin: %v", err)
					}
				})
				links := r.Connects()
				t.Logf("%d links, %d drops left, %v", len(links), r.DropsLeft(), time.Since(began).Round(time.Millisecond))
				if left := r.DropsLeft(); left > 0 {
					t.Errorf("%d drops did not happen", left)
				}
				for _, l := range links {
					if l.Restarts > 0 || l.Lost {
						t.Errorf("link %d: %d streams began anew, lost %v; want that they were resumed", l.N, l.Restarts, l.Lost)
					}
				}
				if s := h.phone(); s.Restarts != tt.kills {
					t.Errorf("the plugin was restarted %d times, want %d", s.Restarts, tt.kills)
				}
				h.connections(5)
			})
		})
	}
}

// phone is the status of the transport.
func (h *hostProcess) phone() host.TransportStatus {
	h.t.Helper()
	return h.awaitRemote("there", func(host.TransportStatus) bool { return true })
}

// TestRemoteGarbage: frames of every wrong kind concern neither the link nor
// the stream that they name (spec 6).
func TestRemoteGarbage(t *testing.T) {
	inProfiles(t, func(t *testing.T, p backend.Profile) {
		r := newRelay(t, backend.Options{Profile: p})
		r.signIn(backend.AuthChatGPT, "")
		h := r.start(setup{})
		r.connected(h, 1)
		c := r.initialized("c1", "s1")
		for _, g := range backend.AllGarbage() {
			r.must(c.Inject(g))
			r.call(c, fmt.Sprintf("[%q]", g))
		}
		if n := len(r.Connects()); n != 1 || strings.Contains(h.stderr(), "panic") {
			t.Errorf("%d links, want 1", n)
		}
		h.connections(1)
	})
}
