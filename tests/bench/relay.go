package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/transporthost/transporthost/tests/relay/backend"
)

const (
	hugeBytes = 64<<20 - 1<<10 // of a message, with room for what is around it
	deafCalls = 5000           // far beyond what is kept for one that never acknowledges

	greedyPath = "/greedy"
)

// serveRelay runs a relay until ctx or stdin ends. It is a process of its own,
// so that its work on messages of 64 MiB does not hold up the clock of the
// client that is measured. It fails if the host broke the protocol.
//
// A request for [greedyPath] makes the greedy clients part of it: where a
// message of 64 MiB is made is of no interest here, and one more socket for it
// would cost CPU that the host is to be measured with.
func serveRelay(ctx context.Context, profile backend.Profile, authFile string, stdout io.Writer) error {
	relay, err := backend.New(backend.Options{Profile: profile})
	if err != nil {
		return err
	}
	account, err := relay.Account("")
	if err == nil {
		err = backend.WriteAuthFile(authFile, backend.AuthChatGPT, account)
	}
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return fmt.Errorf("listening for the relay: %w", err)
	}
	work, ctx := errgroup.WithContext(ctx)
	greedy := &greedyClients{relay: relay, life: ctx, work: work}
	mux := http.NewServeMux()
	mux.Handle("/", relay.Handler())
	mux.HandleFunc("POST "+greedyPath, greedy.serveHTTP)
	server := &http.Server{Handler: mux, ReadHeaderTimeout: startTimeout}
	work.Go(func() error {
		<-ctx.Done()
		relay.Close()
		return server.Close()
	})
	work.Go(func() error {
		if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			return fmt.Errorf("serving the relay: %w", err)
		}
		return nil
	})
	fmt.Fprintf(stdout, "listening on ws://%s\nready\n", l.Addr())
	err = work.Wait()
	if broken := relay.Violations(); len(broken) > 0 {
		err = errors.Join(err, fmt.Errorf("the host broke the protocol %d times, first: %v", len(broken), broken[0]))
	}
	fmt.Fprintf(stdout, "%d messages of 64 MiB were answered\n", greedy.answered)
	return err
}

// greedyClients are what a fair host must not let others feel.
type greedyClients struct {
	relay    *backend.Backend
	life     context.Context // of serveRelay, which no request spans
	work     *errgroup.Group
	answered int // huge requests
}

// serveHTTP starts them, and answers when they are at work.
func (g *greedyClients) serveHTTP(w http.ResponseWriter, r *http.Request) {
	err := g.neverAcks(r.Context())
	if err == nil {
		err = g.sendsHuge(r.Context())
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
	}
}

// begin opens a virtual client and its session.
func (g *greedyClients) begin(ctx context.Context, id string) (*backend.Client, error) {
	c, err := g.relay.Open(backend.ClientOptions{ID: id, StreamID: backend.NewStreamID()})
	if err != nil {
		return nil, err
	}
	_, err = c.Initialize(ctx, id)
	return c, err
}

// neverAcks asks for more than is kept, and takes nothing.
func (g *greedyClients) neverAcks(ctx context.Context) error {
	c, err := g.begin(ctx, "deaf")
	if err != nil {
		return err
	}
	c.SetAcks(backend.AckNothing)
	for n := range deafCalls {
		if err := c.Send(fmt.Appendf(nil, `{"jsonrpc":"2.0","id":%d,"method":"echo","params":"%0100d"}`, n, n)); err != nil {
			return err
		}
	}
	return nil
}

// sendsHuge sends one huge request after the other until the relay ends.
func (g *greedyClients) sendsHuge(ctx context.Context) error {
	c, err := g.begin(ctx, "huge")
	if err != nil {
		return err
	}
	params := `"` + strings.Repeat("x", hugeBytes) + `"`
	request := []byte(`{"jsonrpc":"2.0","id":0,"method":"echo","params":` + params + `}`)
	g.work.Go(func() error {
		for {
			if err := c.Send(request); err != nil {
				return nilIfOver(g.life, err)
			}
			m, err := c.Receive(g.life)
			if err != nil {
				return nilIfOver(g.life, err)
			}
			if len(m.Result) != len(params) {
				return fmt.Errorf("a huge request is answered with %d bytes, want %d", len(m.Result), len(params))
			}
			g.answered++
		}
	})
	return nil
}

func nilIfOver(ctx context.Context, err error) error {
	if ctx.Err() != nil || errors.Is(err, backend.ErrClosed) || errors.Is(err, backend.ErrClientClosed) {
		return nil
	}
	return err
}

// startGreedy makes the greedy clients of a relay begin.
func startGreedy(ctx context.Context, address string) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, strings.Replace(address, "ws://", "http://", 1)+greedyPath, nil)
	if err != nil {
		return err
	}
	began := time.Now()
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		return fmt.Errorf("starting greedy clients for %v: %w", time.Since(began), err)
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(answer.Body, 1<<10)) // for people
		return fmt.Errorf("starting greedy clients: %s: %s", answer.Status, text)
	}
	return nil
}
