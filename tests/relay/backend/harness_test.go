package backend_test

import (
	"context"
	"net/http/httptest"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/transporthost/transporthost/tests/relay/backend"
	"github.com/transporthost/transporthost/tests/relay/fakehost"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A bench is a backend that listens and one host in front of it.
type bench struct {
	*backend.Backend
	t    *testing.T
	url  string // without the base path
	ctx  context.Context
	host *fakehost.Host
	last *fakehost.Socket // dialled last
}

func newBench(t *testing.T, o backend.Options) *bench {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	b, err := backend.New(o)
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(b.Handler())
	t.Cleanup(func() {
		cancel()
		b.Close()
		server.Close()
	})
	account, err := b.Account("")
	if err != nil {
		t.Fatal(err)
	}
	protocol := "3"
	if o.Profile == backend.Profile2 {
		protocol = "2"
	}
	return &bench{Backend: b, t: t, url: server.URL, ctx: ctx,
		host: fakehost.New(server.URL+backend.BasePath, protocol, account.ID, string(account.AccessToken))}
}

// enroll enrolls the host and fails the test if it may not.
func (b *bench) enroll() {
	b.t.Helper()
	if a, err := b.host.Enroll(b.ctx); err != nil || a.Status != 200 {
		b.t.Fatalf("enrolling: status %d, %v", a.Status, err)
	}
}

// dial connects the host and waits until the backend serves it. The host is enrolled before if it is not.
func (b *bench) dial() *fakehost.Socket {
	b.t.Helper()
	if b.host.ServerID == "" {
		b.enroll()
	}
	before := len(b.Connects())
	sock, a, err := b.host.Dial(b.ctx)
	if err != nil {
		b.t.Fatalf("connecting: status %d, %v, body %s", a.Status, err, a.Body)
	}
	b.t.Cleanup(func() { _ = sock.Close() })
	b.last = sock
	_, err = b.AwaitConnect(b.ctx, before+1) // the host knows of its connection before the backend does
	b.must(err)
	return sock
}

func (b *bench) open(o backend.ClientOptions) *backend.Client {
	b.t.Helper()
	c, err := b.Open(o)
	if err != nil {
		b.t.Fatal(err)
	}
	return c
}

func (b *bench) send(c *backend.Client, message string) {
	b.t.Helper()
	if err := c.Send([]byte(message)); err != nil {
		b.t.Fatal(err)
	}
}

// next reads an envelope of a type, or of any if want is "".
func (b *bench) next(sock *fakehost.Socket, want string) fakehost.Envelope {
	b.t.Helper()
	e, err := sock.Next()
	if err != nil {
		b.t.Fatalf("reading a %q: %v", want, err)
	}
	if want != "" && e.Type != want {
		b.t.Fatalf("got a %q, want a %q: %.200s", e.Type, want, e.Text)
	}
	return e
}

func (b *bench) receive(c *backend.Client) backend.Message {
	b.t.Helper()
	m, err := c.Receive(b.ctx)
	if err != nil {
		b.t.Fatal(err)
	}
	return m
}

// must fails the test at an error.
func (b *bench) must(err error) {
	b.t.Helper()
	if err != nil {
		b.t.Fatal(err)
	}
}

// echo runs a host that keeps the protocol, until the test ends.
func (b *bench) echo() *fakehost.Echo {
	b.t.Helper()
	h := &fakehost.Echo{Host: b.host}
	ctx, cancel := context.WithCancel(b.ctx)
	ended := make(chan error, 1)
	go func() { ended <- h.Run(ctx) }()
	b.t.Cleanup(func() {
		cancel()
		if err := <-ended; ctx.Err() == nil {
			b.t.Errorf("the echo host ended early: %v", err)
		}
	})
	return h
}

const initialize = `{"id":1,"method":"initialize","params":{"clientInfo":{"name":"x","version":"1"}}}`
