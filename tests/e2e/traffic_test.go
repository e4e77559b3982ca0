//go:build unix

package e2e

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"

	"github.com/gorilla/websocket"
	"pgregory.net/rapid"
)

type readCloser struct{ io.Reader }

func (readCloser) Close() error { return nil }

// drawJSON draws a JSON text with odd spellings.
func drawJSON(t *rapid.T, depth int) string {
	space := func() string { return rapid.SampledFrom([]string{"", "", " ", "\t", "\n", " \r\n "}).Draw(t, "space") }
	kinds := 7
	if depth == 0 {
		kinds = 5
	}
	switch rapid.IntRange(0, kinds-1).Draw(t, "kind") {
	case 0:
		return rapid.SampledFrom([]string{"0", "-0", "1e400", "1.0", "123456789012345678901234567890", "-1E-7", "3.14159265358979323846"}).Draw(t, "number")
	case 1:
		return rapid.SampledFrom([]string{`"\u0069d"`, `"\"\\\/\b\f\n\r\t"`, `"\ud83d\ude00"`, `"ü😀"`, `""`, `"}]"`, `"\\"`}).Draw(t, "string")
	case 2:
		return "true"
	case 3:
		return "null"
	case 4:
		return "false"
	case 5:
		var parts []string
		for range rapid.IntRange(0, 4).Draw(t, "length") {
			parts = append(parts, space()+drawJSON(t, depth-1)+space())
		}
		return "[" + strings.Join(parts, ",") + "]"
	}
	var parts []string
	for range rapid.IntRange(0, 4).Draw(t, "size") {
		key := rapid.SampledFrom([]string{`"id"`, `"a"`, `"a"`, `"method"`, `"\u0061"`, `"result"`}).Draw(t, "key")
		parts = append(parts, space()+key+space()+":"+space()+drawJSON(t, depth-1)+space())
	}
	return "{" + strings.Join(parts, ",") + "}"
}

// TestBytesComeBackUnchanged is the property of the data path: bytes out are
// bytes in, whatever JSON and whatever spelling of the id.
func TestBytesComeBackUnchanged(t *testing.T) {
	h := start(t, "--listen", "ws://127.0.0.1:0", "--builtin", "echo")
	ws := h.dial()
	rapid.Check(t, func(rt *rapid.T) {
		id := rapid.SampledFrom([]string{"1", `"1"`, "1.0", "-0", `"\u0031"`, "12345678901234567890", `""`, "1e2", `"a\"b"`}).Draw(rt, "id")
		params := drawJSON(rt, 4)
		send(t, ws, ` { "params" : `+params+` ,"method":"echo", "id":`+id+`}`)
		if got, want := receive(t, ws), `{"jsonrpc":"2.0","id":`+id+`,"result":`+params+`}`; got != want {
			rt.Fatalf("sent params %s with id %s, got %s", params, id, got)
		}
	})
}

// TestBytesComeBackUnchangedFromPrograms is the same through processes. On an
// NDJSON stream a raw line break, which in JSON is white space, is a space.
func TestBytesComeBackUnchangedFromPrograms(t *testing.T) {
	oneLine := strings.NewReplacer("\r", " ", "\n", " ")
	for _, tt := range []struct {
		name, mode string
		args       []string
		want       func(string) string
	}{
		{"NDJSON", "echo", nil, oneLine.Replace},
		{"Content-Length", "content-length", []string{"--framing", "content-length"}, strings.Clone},
		{"shared", "echo", []string{"--mode", "shared"}, oneLine.Replace},
		{"shared, Content-Length", "content-length", []string{"--mode", "shared", "--framing", "content-length"}, strings.Clone},
	} {
		t.Run(tt.name, func(t *testing.T) {
			args := append([]string{"--listen", "ws://127.0.0.1:0"}, tt.args...)
			h := start(t, append(append(args, "--"), self(t, tt.mode)...)...)
			ws := h.dial()
			rapid.Check(t, func(rt *rapid.T) {
				id := rapid.SampledFrom([]string{"1", `"1"`, "1.0", "-0", `"\u0031"`, "12345678901234567890", `""`, "1e2", `"a\"b"`}).Draw(rt, "id")
				params := drawJSON(rt, 4)
				send(t, ws, ` { "params" : `+params+` ,"method":"echo", "id":`+id+`}`)
				if got, want := receive(t, ws), `{"jsonrpc":"2.0","id":`+id+`,"result":`+tt.want(params)+`}`; got != want {
					rt.Fatalf("sent params %s with id %s, got %s", params, id, got)
				}
			})
		})
	}
}

// TestNoDeadlock is the load at which a prototype, and websocketd, stop for
// good. Each payload is compared.
func TestNoDeadlock(t *testing.T) {
	for _, app := range []struct {
		name string
		args []string
	}{
		{"echo", []string{"--builtin", "echo"}},
		{"child", append([]string{"--"}, self(t, "echo")...)},
		{"shared child", append([]string{"--mode", "shared", "--"}, self(t, "echo")...)},
	} {
		for _, load := range []struct{ conns, window int }{{1, 4}, {10, 4}, {4, 16}, {50, 8}, {20, 64}} {
			t.Run(fmt.Sprintf("%s %dx%d", app.name, load.conns, load.window), func(t *testing.T) {
				h := start(t, append([]string{"--listen", "ws://127.0.0.1:0"}, app.args...)...)
				rounds := max(3, 600/(load.conns*load.window))
				var wg sync.WaitGroup
				for i := range load.conns {
					ws := h.dial()
					wg.Go(func() { closedLoop(t, ws, load.window, rounds*load.window, 64<<10, byte('a'+i%26)) })
				}
				wg.Wait()
			})
		}
	}
}

// closedLoop keeps window requests of size bytes outstanding until total are
// answered, and compares each answer.
func closedLoop(t *testing.T, ws *websocket.Conn, window, total, size int, fill byte) {
	request := func(i int) []byte {
		return fmt.Appendf(nil, `{"jsonrpc":"2.0","id":%d,"method":"m","params":"%s"}`, i, bytes.Repeat([]byte{fill}, size))
	}
	slots := make(chan struct{}, window)
	done := make(chan struct{})
	defer func() { <-done }()
	go func() {
		defer close(done)
		for i := range total {
			slots <- struct{}{}
			if err := ws.WriteMessage(websocket.TextMessage, request(i)); err != nil {
				t.Errorf("sending: %v", err)
				return
			}
		}
	}()
	for i := range total {
		_, p, err := ws.ReadMessage()
		if err != nil {
			t.Errorf("receiving answer %d: %v", i, err)
			_ = ws.Close()
			for range window { // let the sender see it
				select {
				case <-slots:
				default:
				}
			}
			return
		}
		want := fmt.Appendf(nil, `{"jsonrpc":"2.0","id":%d,"result":"%s"}`, i, bytes.Repeat([]byte{fill}, size))
		if !bytes.Equal(p, want) {
			t.Errorf("answer %d is %.80s… of %d bytes", i, p, len(p))
		}
		<-slots
	}
}

// TestSharedIDsNeverCross: 50 peers, all using the id 1 and the id "1", 1,000
// requests each.
func TestSharedIDsNeverCross(t *testing.T) {
	h := start(t, append([]string{"--listen", "ws://127.0.0.1:0", "--mode", "shared", "--"}, self(t, "echo")...)...)
	var wg sync.WaitGroup
	for i := range 50 {
		ws := h.dial()
		wg.Go(func() {
			for j := range 500 {
				ids := []string{"1", `"1"`}
				if rand.IntN(2) == 0 {
					ids = []string{"1.0", `"\u0031"`}
				}
				want := map[string]bool{}
				for _, id := range ids {
					msg := fmt.Sprintf(`{"jsonrpc":"2.0","id":%s,"method":"m","params":[%d,%d,%q]}`, id, i, j, id)
					if err := ws.WriteMessage(websocket.TextMessage, []byte(msg)); err != nil {
						t.Errorf("sending: %v", err)
						return
					}
					want[fmt.Sprintf(`{"jsonrpc":"2.0","id":%s,"result":[%d,%d,%q]}`, id, i, j, id)] = true
				}
				for range ids {
					_, p, err := ws.ReadMessage()
					if err != nil || !want[string(p)] {
						t.Errorf("peer %d got %s, %v; want one of %v", i, p, err, want)
						return
					}
					delete(want, string(p))
				}
			}
		})
	}
	wg.Wait()
}
