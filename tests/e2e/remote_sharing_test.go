//go:build unix

package e2e

import (
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/transporthost/transporthost/tests/relay/backend"
)

// TestRemoteSharesAnApplication: virtual clients and a peer at a websocket are
// peers of one process, all with the same ids, and none gets another's answer.
func TestRemoteSharesAnApplication(t *testing.T) {
	const clients, calls = 4, 200
	r := newRelay(t, backend.Options{})
	r.signIn(backend.AuthChatGPT, "")
	h := r.start(setup{application: command(t, "greets", `mode = "shared"`)})
	r.connected(h, 1)
	ws := h.dial()
	send(t, ws, `{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"clientInfo":{"name":"w","version":"1"}}}`)
	if got := receive(t, ws); !strings.Contains(got, `"id":1,"result"`) {
		t.Fatalf("the websocket peer got %s", got)
	}
	var all sync.WaitGroup
	for i := range clients {
		c := r.initialized(fmt.Sprint("c", i), backend.NewStreamID())
		all.Go(func() {
			for n := range calls { // ids from 1, as everybody's
				r.call(c, fmt.Sprintf(`["%s",%d]`, c.ID(), n))
			}
		})
	}
	all.Go(func() {
		for n := range calls {
			text := fmt.Sprintf(`["w",%d]`, n)
			if err := ws.WriteMessage(1, []byte(`{"jsonrpc":"2.0","id":2,"method":"echo","params":`+text+`}`)); err != nil {
				t.Errorf("sending: %v", err)
				return
			}
			for {
				_, got, err := ws.ReadMessage()
				if err == nil && string(got) == greeting {
					continue // for all who have initialized
				}
				if err != nil || !strings.Contains(string(got), text) {
					t.Errorf("the websocket peer got %s, %v, want %s", got, err, text)
					return
				}
				break
			}
		}
	})
	all.Wait()
	h.connections(clients + 1)
	if s := h.status(); s.Application.Restarts != 0 || len(descendants(h.cmd.Process.Pid)) != 4 {
		t.Errorf("%d restarts of the application, and %d processes, want one application, two plugins and the keeper",
			s.Application.Restarts, len(descendants(h.cmd.Process.Pid)))
	}
}
