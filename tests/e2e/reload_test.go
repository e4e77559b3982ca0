//go:build unix

package e2e

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"github.com/transporthost/transporthost/host"
	"github.com/transporthost/transporthost/host/supervisor"
)

// A document is the configuration of a host, which a test rewrites.
type document struct {
	t    *testing.T
	path string
	text string
}

func newDocument(t *testing.T, text string) *document {
	t.Helper()
	d := &document{t: t, path: filepath.Join(t.TempDir(), "host.hcl")}
	d.write(text)
	return d
}

func (d *document) write(text string) {
	d.t.Helper()
	d.text = text
	if err := os.WriteFile(d.path, []byte(text), 0o600); err != nil {
		d.t.Fatal(err)
	}
}

func (d *document) replace(old, text string) {
	d.t.Helper()
	if !strings.Contains(d.text, old) {
		d.t.Fatalf("no %q in\n%s", old, d.text)
	}
	d.write(strings.Replace(d.text, old, text, 1))
}

// reload sends SIGHUP and returns what the host says until it has obeyed.
func (h *hostProcess) reload() string {
	h.t.Helper()
	before := len(h.stderr())
	if err := h.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		h.t.Fatal(err)
	}
	look := time.NewTicker(5 * time.Millisecond)
	defer look.Stop()
	for deadline := time.After(limit); ; {
		if words := h.stderr()[before:]; strings.Contains(words, "were looked at again") {
			return words
		}
		select {
		case <-look.C:
		case <-h.exited:
			h.t.Fatalf("the host ended\n%s", h.stderr())
		case <-deadline:
			h.t.Fatalf("SIGHUP is not obeyed\n%s", h.stderr())
		}
	}
}

// outcome is the line that ends a reload.
func outcome(replaced, added, removed string) string {
	return fmt.Sprintf("looked at again: signal=SIGHUP replaced=%s added=%s removed=%s", replaced, added, removed)
}

// pids are the processes of the plugins, by transport.
func (h *hostProcess) pids() map[string]int {
	h.t.Helper()
	pids := map[string]int{}
	for _, p := range h.status().Plugins {
		pids[p.Instance] = p.PID
	}
	return pids
}

func (h *hostProcess) expect(words string, want ...string) {
	h.t.Helper()
	words = strings.ReplaceAll(words, `\"`, `"`) // as the log quotes it
	for _, w := range want {
		if !strings.Contains(words, w) {
			h.t.Errorf("the host does not say %q, but\n%s", w, words)
		}
	}
}

// expectPIDs compares with before: those that are named have another process.
func (h *hostProcess) expectPIDs(before map[string]int, others ...string) map[string]int {
	h.t.Helper()
	now := h.pids()
	for name, pid := range before {
		changed := false
		for _, other := range others {
			changed = changed || other == name
		}
		if now[name] != 0 && (now[name] != pid) != changed {
			h.t.Errorf("%s had process %d and has %d", name, pid, now[name])
		}
	}
	return now
}

const twoTransports = `application {
  builtin = "echo"
}
transport "stdio" {}
transport "websocket" {
  listen = ["ws://127.0.0.1:0"]
}
`

// TestReload: what is as it was is left alone, and what is wrong changes nothing.
func TestReload(t *testing.T) {
	plugins := newShelf(t)
	d := newDocument(t, twoTransports)
	h := start(t, "--config", d.path, "--plugin-dir", plugins.dir)
	busy := newCrowd(t)
	busy.types(h)
	busy.stays(h)
	busy.comesAndGoes(h)
	before := h.pids()

	h.expect(h.reload(), outcome("none", "none", "none"))
	h.expectPIDs(before)

	good := d.text
	d.write(strings.Replace(good, "listen =", "lisen = 5\n  listen = 7 #", 1))
	h.expect(h.reload(), d.path+":7:12: listen is the number 7, want a list of strings", outcome("none", "none", "none"))
	h.expectPIDs(before)

	d.write(strings.Replace(good, "listen =", "lisen = 5\n  listen =", 1))
	h.expect(h.reload(), `transport "websocket": `, d.path+`:6:3: unsupported key "lisen" in transport "websocket"; did you mean "listen"?`, outcome("none", "none", "none"))
	h.expectPIDs(before)

	d.write(strings.Replace(good, "listen =", "max_connections = -1\n  listen =", 1))
	h.expect(h.reload(), `transport "websocket": `, "max_connections", outcome("none", "none", "none"))
	h.expectPIDs(before)

	d.write(good)
	plugins.put("websocket", []byte("#!/bin/sh\nexit 3\n"))
	h.expect(h.reload(), `transport "websocket": `, "exited with status 3", outcome("none", "none", "none"))
	h.expectPIDs(before)

	plugins.upgrade("websocket")
	h.expect(h.reload(), outcome("websocket", "none", "none"))
	before = h.expectPIDs(before, "websocket")

	d.write(strings.Replace(good, "listen =", "max_connections = 1001\n  env = { A = \"1\" }\n  listen =", 1))
	h.expect(h.reload(), outcome("websocket", "none", "none"))
	before = h.expectPIDs(before, "websocket")

	plugins.upgrade("stdio")
	h.expect(h.reload(), outcome("stdio", "none", "none"))
	before = h.expectPIDs(before, "stdio")

	d.write(strings.Replace(d.text, `builtin = "echo"`, `command = ["cat"]`, 1) + "limits {\n  drain_timeout = \"3s\"\n}\n")
	h.expect(h.reload(), "changed=application", "changed=limits", outcome("none", "none", "none"))
	d.replace("transport \"stdio\" {}\n", "")
	h.expect(h.reload(), `changed="transport "stdio""`, outcome("none", "none", "none"))
	h.expectPIDs(before)
	busy.leave(t)
}

// TestReloadOfAddresses: what is listened on changes with the process, and what
// stays is never refused.
func TestReloadOfAddresses(t *testing.T) {
	dir := runtimeDir(t)
	one, two := "unix://"+filepath.Join(dir, "1"), "unix://"+filepath.Join(dir, "2")
	d := newDocument(t, strings.Replace(twoTransports, `["ws://127.0.0.1:0"]`, fmt.Sprintf(`["ws://127.0.0.1:0", %q]`, one), 1))
	h := start(t, "--config", d.path)
	busy := newCrowd(t)
	busy.types(h)
	busy.stays(h)
	busy.comesAndGoes(h)
	dial := func(url string) (*websocket.Conn, error) {
		dialer := websocket.Dialer{NetDial: func(string, string) (net.Conn, error) { return net.Dial("unix", strings.TrimPrefix(url, "unix://")) }}
		ws, _, err := dialer.Dial("ws://socket/", nil)
		return ws, err
	}
	old, err := dial(one)
	if err != nil {
		t.Fatal(err)
	}
	defer old.Close()
	before := h.pids()
	d.replace(one, two)
	h.expect(h.reload(), outcome("websocket", "none", "none"))
	h.expectPIDs(before, "websocket")
	if p := plugin(h.status(), "websocket"); len(p.Addresses) != 2 || p.Addresses[0] != h.url() || p.Addresses[1] != two {
		t.Errorf("addresses %v, want that of before and %s", p.Addresses, two)
	}
	fresh, err := dial(two)
	if err != nil {
		t.Fatalf("the new address: %v", err)
	}
	defer fresh.Close()
	for _, ws := range []*websocket.Conn{old, fresh} {
		if err := ask(ws, 1); err != nil {
			t.Error(err)
		}
	}
	if _, err := dial(one); err == nil {
		t.Error("the old address still answers")
	}
	if _, err := os.Stat(strings.TrimPrefix(one, "unix://")); err == nil {
		t.Error("the file of the old address is still there")
	}

	// An address that cannot be bound changes nothing.
	before = h.pids()
	d.replace(two, "unix:///no/such/directory/socket")
	h.expect(h.reload(), `transport "websocket": listening on unix:///no/such/directory/socket`, outcome("none", "none", "none"))
	h.expectPIDs(before)
	if err := ask(fresh, 2); err != nil {
		t.Error(err)
	}
	busy.leave(t)
}

// TestReloadAddsAndRemoves transports; those that stay notice nothing.
func TestReloadAddsAndRemoves(t *testing.T) {
	d := newDocument(t, twoTransports+"limits {\n  retire_timeout = \"300ms\"\n}\n")
	h := start(t, "--config", d.path)
	busy := newCrowd(t)
	busy.types(h)
	busy.stays(h)
	busy.comesAndGoes(h)
	before := h.pids()

	const second = "transport \"second\" {\n  plugin = \"websocket\"\n  listen = [\"ws://127.0.0.1:0\"]\n}\n"
	d.write(d.text + second)
	h.expect(h.reload(), outcome("none", "second", "none"))
	h.expectPIDs(before)
	s := plugin(h.status(), "second")
	if s.State != supervisor.Ready || len(s.Addresses) != 1 {
		t.Fatalf("status %+v, want that it is ready", s)
	}
	ws, _, err := websocket.DefaultDialer.Dial(s.Addresses[0], nil)
	if err != nil {
		t.Fatal(err)
	}
	defer ws.Close()
	if err := ask(ws, 1); err != nil {
		t.Error(err)
	}

	d.replace(second, "")
	h.expect(h.reload(), outcome("none", "none", "second"))
	h.expectPIDs(before)
	if _, _, err := websocket.DefaultDialer.Dial(s.Addresses[0], nil); err == nil {
		t.Error("a transport that was removed accepts peers")
	}
	_, _, err = ws.ReadMessage()
	if !websocket.IsCloseError(err, websocket.CloseGoingAway) {
		t.Errorf("its peer got %v, want 1001", err)
	}
	h.await("without it", func(s host.Status) bool { return len(s.Plugins) == 2 })
	if alive(s.PID) {
		t.Errorf("its process %d is still there", s.PID)
	}

	// It can come again, also disabled, and a switch in the file holds.
	d.write(d.text + strings.Replace(second, "listen", "enabled = false\n  listen", 1))
	h.expect(h.reload(), outcome("none", "second", "none"))
	if s := plugin(h.status(), "second"); s.State != supervisor.Disabled || s.PID != 0 {
		t.Errorf("status %+v, want disabled", s)
	}
	d.replace("enabled = false", "enabled = true")
	h.expect(h.reload(), "added=second")
	if s := plugin(h.status(), "second"); s.State != supervisor.Ready {
		t.Errorf("status %+v, want ready", s)
	}
	h.expectPIDs(before)
	busy.leave(t)
}
