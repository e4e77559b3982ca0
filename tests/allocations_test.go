package tests

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/gorilla/websocket"
	"github.com/hashicorp/go-hclog"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/transporthost/transporthost/host/application"
	"github.com/transporthost/transporthost/host/router"
	pluginsdk "github.com/transporthost/transporthost/plugin-sdk"
	wsplugin "github.com/transporthost/transporthost/plugins/websocket"
	"github.com/transporthost/transporthost/shared/rpc"
	"github.com/transporthost/transporthost/shared/transport"
)

// maxAllocations is what a small message may cost on its way through plugin and
// host and back, saturated. Most of it is the library's, one for each message
// that it reads.
const maxAllocations = 2

// TestAllocationsOfASmallMessage has host and plugin in this process, with the
// real link between them, and peers that allocate nothing.
func TestAllocationsOfASmallMessage(t *testing.T) {
	if testing.Short() {
		t.Skip("it moves 200,000 messages")
	}
	address := startEchoHere(t)
	const (
		peers  = 50
		window = 16
		rounds = 250
	)
	request := fmt.Appendf(nil, `{"jsonrpc":"2.0","id":1,"method":"m","params":"%s"}`, bytes.Repeat([]byte("x"), 60))
	answer := fmt.Appendf(nil, `{"jsonrpc":"2.0","id":1,"result":"%s"}`, bytes.Repeat([]byte("x"), 60))
	sockets := make([]net.Conn, peers)
	for i := range sockets {
		ws, _, err := websocket.DefaultDialer.DialContext(t.Context(), address, nil)
		if err != nil {
			t.Fatal(err)
		}
		defer ws.Close()
		sockets[i] = ws.NetConn()
	}
	out := bytes.Repeat(maskedFrame(request), window)
	exchange := func(rounds int) {
		var wg sync.WaitGroup
		for _, s := range sockets {
			wg.Go(func() {
				in := make([]byte, window*(2+len(answer)))
				for range rounds {
					if _, err := s.Write(out); err != nil {
						t.Error(err)
						return
					}
					if _, err := io.ReadFull(s, in); err != nil || !bytes.HasSuffix(in, answer) {
						t.Errorf("the answers end with %q, %v; want %q", in[len(in)-len(answer):], err, answer)
						return
					}
				}
			})
		}
		wg.Wait()
	}
	exchange(20) // pools fill
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	exchange(rounds)
	runtime.ReadMemStats(&after)
	each := float64(after.Mallocs-before.Mallocs) / (peers * window * rounds)
	t.Logf("%.2f allocations, %.0f bytes a message", each, float64(after.TotalAlloc-before.TotalAlloc)/(peers*window*rounds))
	if each > maxAllocations {
		t.Errorf("%.2f allocations a message, want at most %d", each, maxAllocations)
	}
}

// maskedFrame is one text frame of a client, with the masking key 0.
func maskedFrame(p []byte) []byte {
	b := []byte{0x81, 0x80 | 126}
	b = binary.BigEndian.AppendUint16(b, uint16(len(p)))
	if len(p) < 126 {
		b = []byte{0x81, 0x80 | byte(len(p))}
	}
	b = append(b, 0, 0, 0, 0)
	return append(b, p...)
}

// startEchoHere runs the websocket transport and the built-in echo, and returns
// where peers reach them. Everything ends with the test.
func startEchoHere(t *testing.T) string {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "link")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	plugin := pluginsdk.NewInProcess(wsplugin.New(), hclog.NewNullLogger())
	var wg sync.WaitGroup
	wg.Go(func() { _ = plugin.Serve(l) })
	conn, err := grpc.NewClient("unix:"+socket, append(rpc.DialOptions(), grpc.WithTransportCredentials(insecure.NewCredentials()))...)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	app := application.NewEcho()
	r := router.New(router.Config{App: app})
	link := rpc.NewLink(conn)
	wg.Go(func() { _ = app.Run(ctx) })
	wg.Go(func() { _ = r.Run(ctx) })
	wg.Go(func() { _ = link.Run(ctx, r.Attach("websocket", 1, link), noHostCalls{}) })
	t.Cleanup(func() {
		cancel()
		_ = conn.Close()
		plugin.Close()
		wg.Wait()
	})
	res, err := link.Start(t.Context(), transport.StartParams{
		Instance: "websocket", Incarnation: 1, Config: []byte(`{"listen":["ws://127.0.0.1:0"]}`),
		AuthStrictness: transport.AllowRecoverable, Enabled: true, MaxMessageBytes: transport.DefaultMaxMessageBytes,
	})
	if err != nil || len(res.Addresses) != 1 || !strings.HasPrefix(res.Addresses[0], "ws://") {
		t.Fatalf("starting the transport: %v, %v", res, err)
	}
	return res.Addresses[0]
}

// noHostCalls grants nothing; the websocket transport asks for nothing.
type noHostCalls struct{ rpc.HostCalls }

func (noHostCalls) ReportStatus(transport.Status) {}
