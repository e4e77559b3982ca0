//go:build unix

package e2e

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/gorilla/websocket"
)

// configured starts a host with the built-in echo, and these settings of its
// websocket transport.
func configured(t *testing.T, settings ...string) *hostProcess {
	t.Helper()
	config := filepath.Join(t.TempDir(), "host.hcl")
	text := "application { builtin = \"echo\" }\ntransport \"websocket\" {\n  " + strings.Join(settings, "\n  ") + "\n}\n"
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return start(t, "--config", config)
}

// exchange sends one request, and checks the answer of an echo.
func exchange(ws *websocket.Conn, id int) error {
	if err := ws.WriteMessage(websocket.TextMessage, fmt.Appendf(nil, `{"id":%d,"method":"m","params":[%d]}`, id, id)); err != nil {
		return fmt.Errorf("sending: %w", err)
	}
	_, p, err := ws.ReadMessage()
	if want := fmt.Sprintf(`{"jsonrpc":"2.0","id":%d,"result":[%d]}`, id, id); err != nil || string(p) != want {
		return fmt.Errorf("receiving %.100q, %w; want %s", p, err, want)
	}
	return nil
}

// openFiles counts the open files of a process.
func openFiles(t *testing.T, pid int) int {
	t.Helper()
	files, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil {
		t.Skipf("open files cannot be counted here: %v", err)
	}
	return len(files)
}

// processes are the host and its websocket plugin.
func (h *hostProcess) processes() map[string]int {
	h.t.Helper()
	return map[string]int{"host": h.cmd.Process.Pid, "plugin": plugin(h.status(), "websocket").PID}
}

// awaitOpenFiles waits until no process has more open files than before.
func awaitOpenFiles(t *testing.T, pids, before map[string]int) {
	t.Helper()
	deadline := time.Now().Add(limit)
	for name, pid := range pids {
		for openFiles(t, pid) > before[name] {
			if time.Now().After(deadline) {
				t.Errorf("%s has %d open files, and had %d before", name, openFiles(t, pid), before[name])
				return
			}
			<-time.After(10 * time.Millisecond)
		}
	}
}

// TestAPeerThatNeverReads floods five peers that do not read; the others are
// served meanwhile, and the five are closed as slow.
func TestAPeerThatNeverReads(t *testing.T) {
	config := filepath.Join(t.TempDir(), "host.hcl")
	command := self(t, "echo")
	text := fmt.Sprintf(`
application {
  command = ["env", %q, %q]
  mode    = "shared"
}
limits { slow_after = "2s" }
transport "websocket" { listen = ["ws://127.0.0.1:0"] }
`, command[1], command[2])
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	h := start(t, "--config", config)
	fast := h.dial()
	send(t, fast, `{"id":0,"method":"initialize","params":{"capabilities":{"optOutNotificationMethods":["noise"]}}}`)
	receive(t, fast)
	for range 5 {
		slow := h.dial()
		send(t, slow, `{"id":0,"method":"initialize","params":{}}`)
	}
	send(t, fast, `{"id":"go","method":"flood"}`)
	if got := receive(t, fast); got != `{"jsonrpc":"2.0","id":"go","result":null}` {
		t.Fatalf("got %s: a peer that opted out sees a notification", got)
	}
	deadline := time.Now().Add(limit)
	for i := 1; ; i++ {
		send(t, fast, fmt.Sprintf(`{"id":%d,"method":"m"}`, i))
		if got, want := receive(t, fast), fmt.Sprintf(`{"jsonrpc":"2.0","id":%d,"result":null}`, i); got != want {
			t.Fatalf("got %s, want %s", got, want)
		}
		if i%100 == 0 && h.status().Counters.Slow == 5 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d of 5 were closed as slow", h.status().Counters.Slow)
		}
	}
}

// TestStalledPeersSlowNobody compares what others get done while five peers do
// not read with what they get done without them, in turns. A system that blocks
// or crawls fails; the machine's noise does not.
func TestStalledPeersSlowNobody(t *testing.T) {
	const (
		turns   = 5
		turn    = 250 * time.Millisecond
		stalled = 5
		peers   = 4
		window  = 8
	)
	h := start(t, "--listen", "ws://127.0.0.1:0", "--builtin", "echo")
	var answers atomic.Int64
	var fast []*websocket.Conn
	var wg sync.WaitGroup
	defer func() {
		for _, ws := range fast {
			_ = ws.Close()
		}
		wg.Wait()
	}()
	for range peers {
		ws := h.dial()
		fast = append(fast, ws)
		wg.Go(func() {
			request := fmt.Appendf(nil, `{"id":1,"method":"m","params":"%01000d"}`, 0)
			for range window {
				if ws.WriteMessage(websocket.TextMessage, request) != nil {
					return
				}
			}
			for {
				if _, _, err := ws.ReadMessage(); err != nil {
					return
				}
				answers.Add(1)
				if ws.WriteMessage(websocket.TextMessage, request) != nil {
					return
				}
			}
		})
	}
	rate := func() float64 {
		began, from := time.Now(), answers.Load()
		<-time.After(turn)
		return float64(answers.Load()-from) / time.Since(began).Seconds()
	}
	rate() // to warm up
	var without, with []float64
	for range turns {
		without = append(without, rate())
		var slow []*websocket.Conn
		var stuffing sync.WaitGroup
		for range stalled {
			ws := h.dial()
			slow = append(slow, ws)
			stuffing.Go(func() { stuff(t, ws) })
		}
		stuffing.Wait()
		with = append(with, rate())
		for _, ws := range slow {
			_ = ws.Close()
		}
	}
	median := func(v []float64) float64 {
		v = slices.Sorted(slices.Values(v))
		return v[len(v)/2]
	}
	if m, n := median(with), median(without); m < n/2 || n == 0 {
		t.Errorf("%.0f requests a second with stalled peers %.0f, %.0f without them %.0f", m, with, n, without)
	}
}

// stuff sends requests and reads no answer until nothing more is taken.
func stuff(t *testing.T, ws *websocket.Conn) {
	request := fmt.Appendf(nil, `{"id":1,"method":"m","params":"%060000d"}`, 0)
	for range 10_000 {
		_ = ws.SetWriteDeadline(time.Now().Add(200 * time.Millisecond))
		if err := ws.WriteMessage(websocket.TextMessage, request); err != nil {
			if ne, ok := errors.AsType[net.Error](err); !ok || !ne.Timeout() {
				t.Errorf("the peer that does not read: %v", err)
			}
			return
		}
	}
	t.Error("600 MB were taken from a peer that does not read")
}

// TestConnectionFlood: 10,000 peers come, and 1,000 may stay.
func TestConnectionFlood(t *testing.T) {
	const connections, attempts, atOnce = 1000, 10_000, 100
	var files syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &files); err != nil || files.Cur < connections+2*atOnce+100 {
		t.Skipf("%d files may be open, %v", files.Cur, err)
	}
	h := configured(t, `listen = ["ws://127.0.0.1:0"]`, "max_upgrades_per_second = 1000000")
	pids, before := h.processes(), map[string]int{}
	for name, pid := range pids {
		before[name] = openFiles(t, pid)
	}
	var refused, next atomic.Int64
	var wg sync.WaitGroup
	var mu sync.Mutex
	var conns []*websocket.Conn
	url := h.url()
	for range atOnce {
		wg.Go(func() {
			for next.Add(1) <= attempts {
				ws, resp, err := websocket.DefaultDialer.Dial(url, nil)
				if err == nil {
					mu.Lock()
					conns = append(conns, ws)
					mu.Unlock()
					continue
				}
				if resp == nil {
					t.Errorf("dialling: %v", err)
					continue
				}
				body, _ := io.ReadAll(resp.Body)
				if resp.StatusCode != http.StatusServiceUnavailable || resp.Header.Get("Retry-After") == "" || string(body) != "too many connections (max_connections)\n" {
					t.Errorf("refused with %s %q", resp.Status, body)
					continue
				}
				refused.Add(1)
			}
		})
	}
	wg.Wait()
	if len(conns) != connections || refused.Load() != attempts-connections {
		t.Errorf("%d of %d were accepted and %d refused, want %d and the rest", len(conns), attempts, refused.Load(), connections)
	}
	for i, ws := range conns {
		_ = ws.SetReadDeadline(time.Now().Add(limit))
		if err := exchange(ws, i); err != nil {
			t.Errorf("peer %d: %v", i, err)
		}
	}
	for _, ws := range conns {
		_ = ws.Close()
	}
	awaitOpenFiles(t, pids, before)
	if err := exchange(h.dial(), 1); err != nil {
		t.Errorf("a peer after the flood: %v", err)
	}
}

// TestFloodOfRequestsThatNeverEnd: slow bodies, half requests and silent
// sockets, of which none is ever closed by the peer.
func TestFloodOfRequestsThatNeverEnd(t *testing.T) {
	const (
		sockets = 1500
		most    = 600 // of them open in the plugin at a time: 512 by its limit
	)
	h := configured(t, `listen = ["ws://127.0.0.1:0"]`, `header_timeout = "3s"`)
	pids, before := h.processes(), map[string]int{}
	for name, pid := range pids {
		before[name] = openFiles(t, pid)
	}
	early, url := h.dial(), h.url()
	address := strings.TrimPrefix(url, "ws://")
	var flood []net.Conn
	defer func() {
		for _, c := range flood {
			_ = c.Close()
		}
	}()
	requests := []string{
		"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\nx",
		"GET /healthz HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnec",
		"",
	}
	slowest := time.Duration(0)
	for i := range sockets {
		c, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatalf("socket %d: %v", i, err)
		}
		flood = append(flood, c)
		if _, err := io.WriteString(c, requests[i%len(requests)]); err != nil {
			t.Fatalf("socket %d: %v", i, err)
		}
		if i%10 == 0 {
			began := time.Now()
			if err := exchange(early, i); err != nil {
				t.Fatalf("the peer that was there before, after %d sockets: %v", i, err)
			}
			slowest = max(slowest, time.Since(began))
			if n := openFiles(t, pids["plugin"]) - before["plugin"]; n > most {
				t.Fatalf("the plugin has opened %d files for %d sockets, want at most %d", n, i, most)
			}
		}
	}
	if slowest > time.Second {
		t.Errorf("an exchange of the peer that was there before took %v", slowest)
	}
	late, _, err := (&websocket.Dialer{HandshakeTimeout: limit / 4}).Dial(url, nil)
	if err != nil {
		t.Fatalf("a peer behind the flood: %v", err)
	}
	defer late.Close()
	_ = late.SetReadDeadline(time.Now().Add(limit))
	if err := exchange(late, 1); err != nil {
		t.Errorf("a peer behind the flood: %v", err)
	}
	for i, c := range flood {
		_ = c.SetReadDeadline(time.Now().Add(limit / 4))
		if _, err := io.Copy(io.Discard, c); err != nil && errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatalf("socket %d (%.20q) is kept open", i, requests[i%len(requests)])
		}
	}
	_ = early.Close()
	_ = late.Close()
	awaitOpenFiles(t, pids, before)
}
