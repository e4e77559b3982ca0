//go:build unix

package e2e

import (
	"fmt"
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

	"github.com/transporthost/transporthost/host"
)

// What one peer, or the application, must not do to the others.

// applications are the processes of the program that a host runs.
func applications(h *hostProcess) []int {
	h.t.Helper()
	s := h.status()
	return slices.DeleteFunc(descendants(h.cmd.Process.Pid), func(pid int) bool {
		for _, p := range s.Plugins {
			if p.PID == pid {
				return true
			}
		}
		return pid == s.Keeper
	})
}

// kill ends the only process of the program, as a crash would.
func kill(h *hostProcess) {
	h.t.Helper()
	pids := applications(h)
	if len(pids) != 1 {
		h.t.Fatalf("processes of the program: %v, want one", pids)
	}
	if err := syscall.Kill(pids[0], syscall.SIGKILL); err != nil {
		h.t.Fatal(err)
	}
}

// TestATerminalThatIsNotReadStopsNobody: nobody reads the host's stdout, and
// the other peer, the restart of the application and the end of the host do
// not wait for it.
func TestATerminalThatIsNotReadStopsNobody(t *testing.T) {
	h := start(t, append([]string{"--listen", "ws://127.0.0.1:0", "--listen", "stdio://", "--mode", "shared", "--"}, self(t, "echo")...)...)
	if _, err := fmt.Fprintln(h.stdin, `{"id":0,"method":"initialize","params":{}}`); err != nil {
		t.Fatal(err)
	}
	if _, err := h.stdout.ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	ws := h.dial()
	send(t, ws, `{"id":0,"method":"initialize","params":{}}`)
	receive(t, ws)
	send(t, ws, `{"id":1,"method":"burst"}`)
	for i := range 2000 {
		if got, want := receive(t, ws), fmt.Sprintf(`{"jsonrpc":"2.0","method":"noise","params":[%d,`, i); !strings.HasPrefix(got, want) {
			t.Fatalf("message %d is %.80s", i, got)
		}
	}
	if got := receive(t, ws); got != `{"jsonrpc":"2.0","id":1,"result":null}` {
		t.Fatalf("the answer is %.80s", got)
	}
	if n := h.status().Application.LeftOut; n == 0 {
		t.Error("status counts no message that was left out for the terminal")
	}
	kill(h)
	h.await("restarted", func(s host.Status) bool {
		return s.Application.Restarts == 1 && strings.Contains(s.Application.Cause, "was killed by SIGKILL")
	})
	send(t, ws, `{"id":2,"method":"m"}`)
	for {
		got := receive(t, ws)
		if strings.Contains(got, `"id":2`) {
			if got != `{"jsonrpc":"2.0","id":2,"result":null}` {
				t.Errorf("after the restart: %s", got)
			}
			break
		}
	}
	_ = h.cmd.Process.Signal(syscall.SIGTERM)
	if code := h.wait(); code != 0 {
		t.Errorf("status %d", code)
	}
}

// TestTheOnlyTerminalMakesTheApplicationWait, and loses nothing by reading late.
func TestTheOnlyTerminalMakesTheApplicationWait(t *testing.T) {
	h := start(t, append([]string{"--mode", "shared", "--"}, self(t, "echo")...)...)
	if _, err := fmt.Fprint(h.stdin, `{"id":0,"method":"initialize","params":{}}`+"\n"+`{"id":1,"method":"burst"}`+"\n"); err != nil {
		t.Fatal(err)
	}
	h.await("sent", func(s host.Status) bool { return s.Counters.Sent > 800 })
	if n := h.status().Counters.Sent; n > 1900 {
		t.Errorf("%d messages were sent to a terminal that is not read", n)
	}
	for i := range 2002 {
		line, err := h.stdout.ReadString('\n')
		if err != nil {
			t.Fatalf("line %d: %v", i, err)
		}
		if want := fmt.Sprintf(`{"jsonrpc":"2.0","method":"noise","params":[%d,`, i-1); i > 0 && i <= 2000 && !strings.HasPrefix(line, want) {
			t.Fatalf("line %d is %.80s", i, line)
		}
	}
	if n := h.status().Application.LeftOut; n != 0 {
		t.Errorf("%d messages were left out", n)
	}
}

// TestAPeerThatLeavesDisturbsNobody: it leaves with requests in flight, and
// what it alone waited for is cancelled.
func TestAPeerThatLeavesDisturbsNobody(t *testing.T) {
	h := start(t, append([]string{"--listen", "ws://127.0.0.1:0", "--mode", "shared", "--"}, self(t, "echo")...)...)
	ws, leaver := h.dial(), h.dial()
	const n = 50
	for i := range n {
		send(t, leaver, fmt.Sprintf(`{"id":%d,"method":"hold"}`, i))
	}
	h.await("in flight", func(s host.Status) bool { return s.Application.InFlight == n })
	id := 0
	ask := func(method string) string {
		t.Helper()
		id++
		send(t, ws, fmt.Sprintf(`{"id":%d,"method":%q}`, id, method))
		got := receive(t, ws)
		prefix := fmt.Sprintf(`{"jsonrpc":"2.0","id":%d,"result":`, id)
		if !strings.HasPrefix(got, prefix) {
			t.Fatalf("the other peer got %s, want %s…", got, prefix)
		}
		return strings.TrimSuffix(strings.TrimPrefix(got, prefix), "}")
	}
	ask("m")
	_ = leaver.NetConn().Close()
	deadline := time.Now().Add(limit)
	for got := ""; got != fmt.Sprint(n); got = ask("cancelled") {
		if time.Now().After(deadline) {
			t.Fatalf("%s of %d requests were cancelled", got, n)
		}
	}
	ask("release")
	s := h.await("without requests in flight", func(s host.Status) bool { return s.Counters.InFlight == 0 })
	if s.Application.Dropped != n || s.Application.InFlight != 0 || s.Application.Restarts != 0 {
		t.Errorf("status %+v, want %d dropped answers", s.Application, n)
	}
}

// TestTheApplicationIsKilledDuringTraffic of two transports: every request gets
// exactly one answer, and what was not in flight is served.
func TestTheApplicationIsKilledDuringTraffic(t *testing.T) {
	t.Run("shared", func(t *testing.T) {
		h := start(t, append([]string{"--listen", "ws://127.0.0.1:0", "--listen", "stdio://", "--mode", "shared", "--"}, self(t, "echo")...)...)
		var stop atomic.Bool
		var served, failed atomic.Int64
		// traffic asks one by one, and judges the answers.
		traffic := func(name string, exchange func(string) (string, error)) {
			for i := 0; !stop.Load(); i++ {
				got, err := exchange(fmt.Sprintf(`{"jsonrpc":"2.0","id":%d,"method":"m","params":[%d]}`, i, i))
				switch {
				case err != nil:
					t.Errorf("%s: %v", name, err)
					return
				case got == fmt.Sprintf(`{"jsonrpc":"2.0","id":%d,"result":[%d]}`, i, i):
					served.Add(1)
				case strings.HasPrefix(got, fmt.Sprintf(`{"jsonrpc":"2.0","id":%d,"error":{"code":-32603,`, i)) && strings.Contains(got, "was killed by SIGKILL"):
					failed.Add(1)
				default:
					t.Errorf("%s: request %d got %s", name, i, got)
					return
				}
			}
		}
		var wg sync.WaitGroup
		for i := range 4 {
			ws := h.dial()
			wg.Go(func() {
				traffic(fmt.Sprintf("websocket %d", i), func(p string) (string, error) {
					if err := ws.WriteMessage(websocket.TextMessage, []byte(p)); err != nil {
						return "", err
					}
					_, got, err := ws.ReadMessage()
					return string(got), err
				})
			})
		}
		wg.Go(func() {
			traffic("terminal", func(p string) (string, error) {
				if _, err := fmt.Fprintln(h.stdin, p); err != nil {
					return "", err
				}
				line, err := h.stdout.ReadString('\n')
				return strings.TrimSuffix(line, "\n"), err
			})
		})
		for i := range 3 {
			before := served.Load()
			for deadline := time.Now().Add(limit); served.Load() < before+200; {
				if time.Now().After(deadline) {
					t.Fatalf("nothing is served after %d kills", i)
				}
				h.status()
			}
			kill(h)
			h.await("restarted", func(s host.Status) bool { return s.Application.Restarts == i+1 && s.Application.Ready })
		}
		stop.Store(true)
		wg.Wait()
		if failed.Load() == 0 {
			t.Log("no request was in flight when the application was killed")
		}
	})
	t.Run("per connection", func(t *testing.T) {
		h := start(t, append([]string{"--listen", "ws://127.0.0.1:0", "--listen", "stdio://", "--"}, self(t, "echo")...)...)
		stdioPeer(t, h, "1")
		victim, other := h.dial(), h.dial()
		send(t, victim, `{"id":"p","method":"pid"}`)
		var pid int
		if _, err := fmt.Sscanf(receive(t, victim), `{"jsonrpc":"2.0","id":"p","result":%d}`, &pid); err != nil {
			t.Fatal(err)
		}
		send(t, victim, `{"id":"h","method":"hold"}`)
		done := make(chan struct{})
		go func() {
			defer close(done)
			closedLoop(t, other, 8, 2000, 100, 'x')
		}()
		h.await("in flight", func(s host.Status) bool { return s.Application.InFlight > 0 })
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		if got := receive(t, victim); !strings.Contains(got, `"id":"h","error":{"code":-32603`) || !strings.Contains(got, "was killed by SIGKILL") {
			t.Errorf("the request in flight got %s", got)
		}
		if _, _, err := victim.ReadMessage(); err == nil || !strings.Contains(err.Error(), "was killed by SIGKILL") {
			t.Errorf("the connection ended with %v, want the cause", err)
		}
		stdioPeer(t, h, "2")
		<-done
	})
}

// TestAnApplicationThatClosesAPipe and lives on is ended, with the cause.
func TestAnApplicationThatClosesAPipe(t *testing.T) {
	for _, pipe := range []string{"stdout", "stdin"} {
		cause := "closed its " + pipe
		t.Run("shared, "+pipe, func(t *testing.T) {
			h := start(t, append([]string{"--listen", "ws://127.0.0.1:0", "--mode", "shared", "--"}, self(t, "echo")...)...)
			ws, other := h.dial(), h.dial()
			send(t, ws, `{"id":1,"method":"close `+pipe+`"}`)
			if pipe == "stdin" {
				receive(t, ws)
				send(t, ws, `{"id":1,"method":"m"}`)
			}
			if got := receive(t, ws); !strings.Contains(got, `"id":1,"error":{"code":-32603`) || !strings.Contains(got, cause) {
				t.Errorf("the request in flight got %s, want %q", got, cause)
			}
			for _, c := range []*websocket.Conn{ws, other} {
				send(t, c, `{"id":2,"method":"m","params":[5]}`)
				if got := receive(t, c); got != `{"jsonrpc":"2.0","id":2,"result":[5]}` {
					t.Errorf("after the restart came %s", got)
				}
			}
			if s := h.status(); s.Application.Restarts != 1 || !strings.Contains(s.Application.Cause, cause) {
				t.Errorf("status %+v, want the cause", s.Application)
			}
		})
		t.Run("per connection, "+pipe, func(t *testing.T) {
			h := start(t, append([]string{"--listen", "ws://127.0.0.1:0", "--"}, self(t, "echo")...)...)
			ws := h.dial()
			send(t, ws, `{"id":1,"method":"close `+pipe+`"}`)
			if pipe == "stdin" {
				receive(t, ws)
				send(t, ws, `{"id":1,"method":"m"}`)
			}
			if got := receive(t, ws); !strings.Contains(got, `"id":1,"error":{"code":-32603`) || !strings.Contains(got, cause) {
				t.Errorf("the request in flight got %s, want %q", got, cause)
			}
			if _, _, err := ws.ReadMessage(); err == nil || !strings.Contains(err.Error(), cause) {
				t.Errorf("the connection ended with %v, want the cause", err)
			}
			if s := h.status(); !strings.Contains(s.Application.Cause, cause) {
				t.Errorf("status %+v, want the cause", s.Application)
			}
		})
	}
}

// TestAnInitializeThatIsNeverAnsweredAgain: the second process does not answer
// the initialize of the first; it is replaced after its 30 seconds.
func TestAnInitializeThatIsNeverAnsweredAgain(t *testing.T) {
	mode := "initializes at odd starts:" + filepath.Join(t.TempDir(), "starts")
	h := start(t, append([]string{"--listen", "ws://127.0.0.1:0", "--mode", "shared", "--"}, self(t, mode)...)...)
	ws := h.dial()
	send(t, ws, `{"id":0,"method":"initialize","params":{}}`)
	receive(t, ws)
	send(t, ws, `{"id":1,"method":"die"}`)
	receive(t, ws)
	send(t, ws, `{"id":2,"method":"m"}`)
	const cause = "did not answer initialize within 30s of its restart"
	if got := receive(t, ws); !strings.Contains(got, `"id":2,"error":{"code":-32603`) || !strings.Contains(got, cause) {
		t.Errorf("the request that waited got %s, want %q", got, cause)
	}
	send(t, ws, `{"id":3,"method":"m"}`)
	if got := receive(t, ws); got != `{"jsonrpc":"2.0","id":3,"result":null}` {
		t.Errorf("after the second restart: %s", got)
	}
	if s := h.status(); s.Application.Restarts != 2 || !strings.Contains(s.Application.Cause, cause) {
		t.Errorf("status %+v, want the cause", s.Application)
	}
}

// TestADeafApplicationDoesNotFillTheMemory: it reads nothing, and peers come,
// send 10 MiB each and leave.
func TestADeafApplicationDoesNotFillTheMemory(t *testing.T) {
	h := start(t, "--listen", "ws://127.0.0.1:0", "--mode", "shared", "--", "sleep", "1000")
	pad := strings.Repeat("x", 10<<20)
	for i := range 20 {
		ws := h.dial()
		form := `{"id":1,"method":"m","params":"%s"}`
		if i%2 == 1 {
			form = `{"method":"m","params":"%s"}`
		}
		send(t, ws, fmt.Sprintf(form, pad))
		h.await("received", func(s host.Status) bool { return s.Counters.Received == int64(i+1) })
		_ = ws.Close()
		h.await("closed", func(s host.Status) bool { return s.Connections == 0 })
	}
	var kB int
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", h.cmd.Process.Pid))
	if err != nil {
		t.Skip(err)
	}
	for line := range strings.Lines(string(b)) {
		if n, err := fmt.Sscanf(line, "VmRSS: %d kB", &kB); n == 1 && err == nil {
			break
		}
	}
	if kB == 0 || kB > 300<<10 {
		t.Errorf("the host has %d KiB of memory after 200 MiB of messages for nobody", kB)
	}
}

// TestCancelledRequestsDoNotDelayTheEnd: an application need not answer them.
func TestCancelledRequestsDoNotDelayTheEnd(t *testing.T) {
	for _, mode := range []string{"shared", "per-connection"} {
		t.Run(mode, func(t *testing.T) {
			h := start(t, append([]string{"--listen", "ws://127.0.0.1:0", "--mode", mode, "--"}, self(t, "echo")...)...)
			ws := h.dial()
			send(t, ws, `{"id":"x","method":"hold"}`)
			h.await("in flight", func(s host.Status) bool { return s.Counters.InFlight == 1 })
			send(t, ws, `{"method":"notifications/cancelled","params":{"requestId":"x"}}`)
			h.await("forgotten", func(s host.Status) bool { return s.Counters.InFlight == 0 && s.Application.InFlight == 0 })
			send(t, ws, `{"id":1,"method":"release"}`)
			if got := receive(t, ws); got != `{"jsonrpc":"2.0","id":"x","result":"late"}` {
				t.Errorf("the late answer: %s", got)
			}
			receive(t, ws)
			if n := h.status().Counters.InFlight; n != 0 {
				t.Errorf("%d in flight after it", n)
			}
			send(t, ws, `{"id":"y","method":"hold"}`)
			send(t, ws, `{"method":"notifications/cancelled","params":{"requestId":"y"}}`)
			h.await("forgotten", func(s host.Status) bool { return s.Counters.Received == 5 && s.Counters.InFlight == 0 })
			began := time.Now()
			_ = h.cmd.Process.Signal(syscall.SIGTERM)
			if code := h.wait(); code != 0 || time.Since(began) > 8*time.Second {
				t.Errorf("status %d after %v", code, time.Since(began))
			}
		})
	}
}
