package websocket

import (
	"bytes"
	"encoding/binary"
	"io"
	"net"
	"path/filepath"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	pluginsdk "github.com/transporthost/transporthost/plugin-sdk"
	"github.com/transporthost/transporthost/plugin-sdk/pluginsdktest"
)

// A steady peer takes or gives a little at a time, and never answers a ping.
const (
	steadyPong = 3 * time.Second // of real time: a busy machine stalls everybody for a second
	steadyTime = 2 * steadyPong
	steadyTick = 60 * time.Millisecond
)

func serveSteady(t *testing.T, more map[string]any) *pluginsdktest.Host {
	t.Helper()
	config := map[string]any{"ping_interval": "250ms", "pong_timeout": steadyPong.String(), "header_timeout": "1s"}
	for k, v := range more {
		config[k] = v
	}
	return serve(t, config)
}

// TestSlowUpload: every piece of a message is a sign of life, and no deadline
// of the upgrade is left.
func TestSlowUpload(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		kind byte
	}{{"text", websocket.TextMessage}, {"binary", websocket.BinaryMessage}} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			h := serveSteady(t, nil)
			ws, id := connect(t, h)
			sock := ws.NetConn()
			const pieces, piece = int(steadyTime / steadyTick), 100
			header := append([]byte{0x80 | tt.kind, 0x80 | 126}, binary.BigEndian.AppendUint16(nil, uint16(pieces*piece))...)
			header = append(header, 0, 0, 0, 0) // a mask that changes nothing
			if _, err := sock.Write(header); err != nil {
				t.Fatal(err)
			}
			tick := time.NewTicker(steadyTick)
			defer tick.Stop()
			for i := range pieces {
				<-tick.C
				if _, err := sock.Write(bytes.Repeat([]byte("x"), piece)); err != nil {
					t.Fatalf("piece %d of %d: %v", i, pieces, err)
				}
			}
			if err := ws.WriteMessage(websocket.TextMessage, []byte("last")); err != nil {
				t.Fatal(err)
			}
			if tt.kind == websocket.TextMessage {
				if got := h.NextReceived(id); len(got) != pieces*piece {
					t.Fatalf("the host got %d bytes, want %d", len(got), pieces*piece)
				}
			}
			if got := h.NextReceived(id); string(got) != "last" {
				t.Errorf("the host got %.20q, want the message behind", got)
			}
		})
	}
}

// TestSlowDownload: what the peer takes is a sign of life. Its answers to pings
// would be, but the pings wait behind the message.
func TestSlowDownload(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "s") // the kernel keeps little for a unix socket
	h := serveSteady(t, map[string]any{"listen": []string{"unix://" + path}})
	d := websocket.Dialer{NetDial: func(string, string) (net.Conn, error) { return net.Dial("unix", path) }}
	ws, _, err := d.DialContext(t.Context(), "ws://anything/", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer ws.Close()
	id, _ := h.NextOpened()
	const piece = 32 << 10
	const size = int(steadyTime/steadyTick) * piece
	h.Send(id, bytes.Repeat([]byte("x"), size))
	h.Send(id, []byte("last"))
	sock := ws.NetConn()
	_ = sock.SetReadDeadline(time.Now().Add(pluginsdktest.Timeout))
	tick := time.NewTicker(steadyTick)
	defer tick.Stop()
	p := make([]byte, piece)
	for read := 0; read < size+maxFrameHeader; {
		<-tick.C
		n, err := io.ReadFull(sock, p[:min(piece, size+maxFrameHeader-read)])
		if read += n; err != nil {
			t.Fatalf("after %d of %d bytes: %v", read, size, err)
		}
	}
	if got := receive(t, ws); got != "last" {
		t.Errorf("got %.20q, want the message behind", got)
	}
}

// TestAPeerThatTakesNothingIsGivenUp: what its kernel, or this one, takes for
// it at first is no sign of life.
func TestAPeerThatTakesNothingIsGivenUp(t *testing.T) {
	h := serve(t, map[string]any{"ping_interval": "50ms", "pong_timeout": "300ms"})
	ws, id := connect(t, h)
	h.Send(id, make([]byte, 32<<20))
	if r := h.NextClosed(id); r.Code != pluginsdk.ClosePeerGone || r.Text != "no sign of life" {
		t.Errorf("the host heard %v", r)
	}
	_ = ws.Close()
}
