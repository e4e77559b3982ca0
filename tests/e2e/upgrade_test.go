//go:build unix

package e2e

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"golang.org/x/sync/errgroup"

	"github.com/transporthost/transporthost/host"
	"github.com/transporthost/transporthost/host/supervisor"
	"github.com/transporthost/transporthost/tests/relay/backend"
)

// A shelf is a plugin directory of a test's own, whose files it replaces.
type shelf struct {
	t        *testing.T
	dir      string
	versions int
}

func newShelf(t *testing.T) *shelf {
	t.Helper()
	s := &shelf{t: t, dir: t.TempDir()}
	for _, name := range []string{"stdio", "websocket", "remotecontrol"} {
		s.upgrade(name)
	}
	return s
}

// upgrade puts another version of a plugin in the place of what is there: other
// bytes, which behave the same.
func (s *shelf) upgrade(name string) {
	s.t.Helper()
	b, err := os.ReadFile(filepath.Join(bin().dir, "plugins", "transport-"+name))
	if err != nil {
		s.t.Fatal(err)
	}
	s.versions++
	s.put(name, append(b, byte(s.versions)))
}

func (s *shelf) put(name string, content []byte) {
	s.t.Helper()
	path := filepath.Join(s.dir, "transport-"+name)
	err := os.WriteFile(path+".new", content, 0o755)
	if err == nil {
		err = os.Rename(path+".new", path)
	}
	if err != nil {
		s.t.Fatal(err)
	}
}

// restart is `plugins restart`, and what it says.
func (h *hostProcess) restart(name string) (string, error) {
	out, err := exec.Command(bin().host(), "plugins", "restart", name, "--runtime-dir", h.runtime).CombinedOutput()
	return strings.TrimSpace(string(out)), err
}

// A crowd is peers that talk until they are told to end; whatever they do not
// get is the test's error.
type crowd struct {
	g   errgroup.Group
	ctx context.Context
	end context.CancelFunc
}

func newCrowd(t *testing.T) *crowd {
	c := &crowd{}
	c.ctx, c.end = context.WithCancel(context.Background())
	t.Cleanup(c.end)
	return c
}

// leave ends all peers, between a request and the next.
func (c *crowd) leave(t *testing.T) {
	t.Helper()
	c.end()
	if err := c.g.Wait(); err != nil {
		t.Errorf("a peer was disturbed: %v", err)
	}
}

func ask(ws *websocket.Conn, n int) error {
	if err := ws.WriteMessage(websocket.TextMessage, fmt.Appendf(nil, `{"id":%d,"method":"m","params":[%d]}`, n, n)); err != nil {
		return err
	}
	_, p, err := ws.ReadMessage()
	if want := fmt.Sprintf(`{"jsonrpc":"2.0","id":%d,"result":[%d]}`, n, n); err == nil && string(p) != want {
		err = fmt.Errorf("got %s, want %s", p, want)
	}
	return err
}

// stays adds a peer over WebSocket that has one connection all the time.
func (c *crowd) stays(h *hostProcess) {
	ws := h.dial()
	c.g.Go(func() error {
		defer ws.Close()
		for n := 0; c.ctx.Err() == nil; n++ {
			if err := ask(ws, n); err != nil {
				return fmt.Errorf("a peer that stays: %w", err)
			}
		}
		return nil
	})
}

// comesAndGoes adds a peer that connects anew for every request.
func (c *crowd) comesAndGoes(h *hostProcess) {
	url := h.url()
	c.g.Go(func() error {
		for n := 0; c.ctx.Err() == nil; n++ {
			ws, _, err := websocket.DefaultDialer.Dial(url, nil)
			if err != nil {
				return fmt.Errorf("connection %d: %w", n, err)
			}
			_ = ws.SetReadDeadline(time.Now().Add(limit))
			err = ask(ws, n)
			_ = ws.Close()
			if err != nil {
				return fmt.Errorf("on connection %d: %w", n, err)
			}
		}
		return nil
	})
}

// types adds the peer at the terminal, who says its name first.
func (c *crowd) types(h *hostProcess) {
	c.g.Go(func() error {
		if _, err := fmt.Fprintln(h.stdin, `{"id":"begin","method":"initialize","params":{"clientInfo":{"name":"x","version":"1"}}}`); err != nil {
			return err
		}
		if line, err := h.stdout.ReadString('\n'); err != nil || !strings.Contains(line, `"begin"`) {
			return fmt.Errorf("the terminal got %q, %w", line, err)
		}
		for n := 0; c.ctx.Err() == nil; n++ {
			if _, err := fmt.Fprintf(h.stdin, `{"jsonrpc":"2.0","id":%d,"method":"m","params":[%d]}`+"\n", n, n); err != nil {
				return err
			}
			line, err := h.stdout.ReadString('\n')
			if want := fmt.Sprintf(`{"jsonrpc":"2.0","id":%d,"result":[%d]}`+"\n", n, n); err != nil || line != want {
				return fmt.Errorf("the terminal got %q, %w; want %q", line, err, want)
			}
		}
		return nil
	})
}

// calls adds a peer behind the relay.
func (c *crowd) calls(r *relay) {
	client := r.initialized("upgrade", "")
	c.g.Go(func() error {
		for n := 0; c.ctx.Err() == nil; n++ {
			result, err := client.Call(r.ctx, "echo", json.RawMessage(fmt.Sprintf("[%d]", n)))
			if err != nil || string(result) != fmt.Sprintf("[%d]", n) {
				return fmt.Errorf("behind the relay came %s, %w", result, err)
			}
		}
		return nil
	})
}

// TestUpgradeUnderLoad: another version of a plugin takes over while peers come,
// go and talk, on this transport and on others.
func TestUpgradeUnderLoad(t *testing.T) {
	plugins := newShelf(t)
	r := newRelay(t, backend.Options{})
	r.signIn(backend.AuthChatGPT, "")
	h := r.start(setup{local: besideWebsocket + besideStdio, args: []string{"--plugin-dir", plugins.dir}})
	busy, old := newCrowd(t), newCrowd(t)
	busy.types(h)
	r.connected(h, 1)

	busy.calls(r)
	busy.comesAndGoes(h)
	for range 50 {
		old.stays(h)
	}
	before := h.status()
	first := plugin(before, "websocket")
	plugins.upgrade("websocket")
	if said, err := h.restart("websocket"); err != nil {
		t.Fatalf("plugins restart: %v, %s", err, said)
	}
	s := h.status()
	p := plugin(s, "websocket")
	if p.State != supervisor.Ready || p.PID == first.PID || p.Incarnation != 2 || p.Restarts != 1 {
		t.Errorf("status %+v, want another process", p)
	}
	if len(p.Retiring) != 1 || p.Retiring[0].PID != first.PID || p.Retiring[0].Connections < 50 {
		t.Errorf("retiring: %+v, want process %d with its peers", p.Retiring, first.PID)
	}
	if text, _ := h.ask("status"); !strings.Contains(text, fmt.Sprintf("retiring: pid %d, ", first.PID)) {
		t.Errorf("status says\n%s", text)
	}
	busy.stays(h)
	h.await("talked to on both processes", func(now host.Status) bool { return now.Counters.Received > s.Counters.Received+2000 })
	old.leave(t) // whoever did not get an answer until now was disturbed
	h.await("retired", func(now host.Status) bool { return len(plugin(now, "websocket").Retiring) == 0 })
	if alive(first.PID) {
		t.Errorf("the old process %d is still there after its last peer left", first.PID)
	}
	busy.leave(t)
	after := h.status()
	for _, name := range []string{"stdio", phone} {
		if was, is := plugin(before, name), plugin(after, name); was.PID != is.PID || is.Restarts != 0 {
			t.Errorf("%s noticed: %+v", name, is)
		}
	}
	if after.Counters.Slow > 0 || after.Counters.Refused > 0 || after.Counters.Violations > 0 {
		t.Errorf("counters %+v", after.Counters)
	}
}

// TestBrokenUpgrade: the old process goes on.
func TestBrokenUpgrade(t *testing.T) {
	plugins := newShelf(t)
	h := start(t, "--listen", "ws://127.0.0.1:0", "--listen", "stdio://", "--builtin", "echo", "--plugin-dir", plugins.dir)
	busy := newCrowd(t)
	busy.types(h)
	busy.stays(h)
	busy.comesAndGoes(h)
	for _, name := range []string{"websocket", "stdio"} {
		first := plugin(h.status(), name)
		for _, tt := range []struct{ content, cause string }{
			{"#!/bin/sh\nexit 3\n", "exited with status 3"},
			{"#!/bin/sh\necho hello, I am a web server\nsleep 1000\n", "not a plugin: its first line on stdout is"},
			{"\x7fELF, but not really", "executing"},
		} {
			plugins.put(name, []byte(tt.content))
			said, err := h.restart(name)
			if err == nil || !strings.Contains(said, tt.cause) {
				t.Errorf("plugins restart %s: %v, %q; want %q", name, err, said, tt.cause)
			}
			if exit, ok := err.(*exec.ExitError); !ok || exit.ExitCode() != 1 {
				t.Errorf("plugins restart %s: %v, want status 1", name, err)
			}
			p := plugin(h.status(), name)
			if p.State != supervisor.Ready || p.PID != first.PID || !strings.Contains(p.Cause, "not replaced: ") || !strings.Contains(p.Cause, tt.cause) {
				t.Errorf("status %+v, want the old process and the cause", p)
			}
		}
		plugins.upgrade(name)
		if said, err := h.restart(name); err != nil {
			t.Errorf("plugins restart %s: %v, %s", name, err, said)
		}
		if p := plugin(h.status(), name); p.PID == first.PID || p.Remedy != "" {
			t.Errorf("status %+v, want the new process", p)
		}
	}
	busy.leave(t)
}

// TestInFlightDuringAnUpgrade: a request that began before it is answered.
func TestInFlightDuringAnUpgrade(t *testing.T) {
	h := start(t, "--listen", "ws://127.0.0.1:0", "--", bin().mcpServer())
	s, _ := connectMCP(t, wsTransport{h.url()}, "peer", legacy)
	done := make(chan error, 1)
	go func() {
		got, err := call(t.Context(), s, "countdown", map[string]any{"from": 20, "milliseconds": 50})
		if err == nil && got != "lift-off" {
			err = fmt.Errorf("got %q", got)
		}
		done <- err
	}()
	h.await("in flight", func(s host.Status) bool { return s.Counters.InFlight == 1 })
	if said, err := h.restart("websocket"); err != nil {
		t.Fatalf("plugins restart: %v, %s", err, said)
	}
	if err := <-done; err != nil {
		t.Errorf("the request in flight: %v", err)
	}
}

// TestPeersOfAnOldVersionAreSentAway with the reason of somebody who goes, when
// their time is over.
func TestPeersOfAnOldVersionAreSentAway(t *testing.T) {
	path := filepath.Join(t.TempDir(), "host.hcl")
	text := "application {\n  builtin = \"echo\"\n}\nlimits {\n  retire_timeout = \"300ms\"\n}\n" + besideWebsocket
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	h := start(t, "--config", path)
	ws := h.dial()
	first := plugin(h.status(), "websocket")
	if said, err := h.restart("websocket"); err != nil {
		t.Fatalf("plugins restart: %v, %s", err, said)
	}
	_, _, err := ws.ReadMessage()
	if !websocket.IsCloseError(err, websocket.CloseGoingAway) || !strings.Contains(err.Error(), "replaced") {
		t.Errorf("the peer got %v, want 1001 and why", err)
	}
	h.await("retired", func(s host.Status) bool { return len(plugin(s, "websocket").Retiring) == 0 })
	if alive(first.PID) {
		t.Errorf("process %d is still there", first.PID)
	}
}

// TestTerminalAcrossUpgrades: every line is answered once and in order, however
// often its plugin is replaced.
func TestTerminalAcrossUpgrades(t *testing.T) {
	h := start(t, append([]string{"--listen", "stdio://", "--"}, self(t, "echo")...)...)
	const upgrades, lines = 20, 4000
	width := func(i int) int {
		if i%50 == 25 {
			return largeBytes // a process may be stopped in the middle of one
		}
		return 1 + i%500
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		w := bufio.NewWriterSize(h.stdin, 1<<10)
		for i := range lines {
			if _, err := fmt.Fprintf(w, `{"jsonrpc":"2.0","id":%d,"method":"m","params":["%0*d"]}`+"\n", i, width(i), i); err != nil {
				t.Errorf("writing line %d: %v", i, err)
				return
			}
		}
		if err := w.Flush(); err != nil {
			t.Error(err)
		}
	})
	next := make(chan struct{}, upgrades)
	wg.Go(func() {
		for range next {
			if said, err := h.restart("stdio"); err != nil {
				t.Errorf("plugins restart: %v, %s", err, said)
			}
		}
	})
	for i := range lines {
		line, err := h.stdout.ReadString('\n')
		if want := fmt.Sprintf(`{"jsonrpc":"2.0","id":%d,"result":["%0*d"]}`+"\n", i, width(i), i); err != nil || line != want {
			t.Errorf("line %d is %.100q of %d bytes, %v; want %.100q of %d", i, line, len(line), err, want, len(want))
			break
		}
		if i%(lines/upgrades) == 0 {
			next <- struct{}{}
		}
	}
	close(next)
	wg.Wait()
	if p := plugin(h.status(), "stdio"); p.State != supervisor.Ready || p.Restarts != upgrades {
		t.Errorf("status %+v, want %d replacements", p, upgrades)
	}
	if n := h.stdout.Buffered(); n > 0 {
		rest, _ := io.ReadAll(io.LimitReader(h.stdout, int64(n)))
		t.Errorf("behind the last answer comes %q", rest)
	}
}

// TestRelayAcrossUpgrades is the same for virtual clients.
func TestRelayAcrossUpgrades(t *testing.T) {
	inProfiles(t, func(t *testing.T, p backend.Profile) {
		r := newRelay(t, backend.Options{Profile: p})
		r.signIn(backend.AuthChatGPT, "")
		h := r.start(setup{})
		r.connected(h, 1)
		upgrades := 0
		r.exchange(4, 6000, flow{window: 16, large: 30}, func(int) {
			for range 5 {
				if said, err := h.restart(phone); err != nil {
					t.Errorf("plugins restart: %v, %s", err, said)
				}
				upgrades++
			}
		})
		if n := h.status().Counters.Closed; n > 0 {
			t.Errorf("%d virtual clients have lost their connection", n)
		}
		if s := h.remote(); s.State != supervisor.Ready && s.State != supervisor.Degraded || s.Restarts != upgrades || upgrades < 20 {
			t.Errorf("status %+v after %d replacements", s, upgrades)
		}
	})
}
