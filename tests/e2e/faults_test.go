//go:build unix

package e2e

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"github.com/transporthost/transporthost/host"
	"github.com/transporthost/transporthost/host/supervisor"
)

func plugin(s host.Status, name string) supervisor.Status {
	i := slices.IndexFunc(s.Plugins, func(p supervisor.Status) bool { return p.Instance == name })
	return s.Plugins[i]
}

// stdioPeer sends requests over the host's stdin, one at a time.
func stdioPeer(t *testing.T, h *hostProcess, id string) {
	t.Helper()
	if _, err := fmt.Fprintf(h.stdin, `{"jsonrpc":"2.0","id":%s,"method":"m","params":[%s]}`+"\n", id, id); err != nil {
		t.Fatalf("writing to the host: %v", err)
	}
	line, err := h.stdout.ReadString('\n')
	if want := fmt.Sprintf(`{"jsonrpc":"2.0","id":%s,"result":[%s]}`+"\n", id, id); err != nil || line != want {
		t.Fatalf("the terminal got %q, %v; want %q", line, err, want)
	}
}

// TestKilledPluginDisturbsNobody: the others keep serving, the dead one is back
// within a second, status tells the cause, and who connects meanwhile waits in
// the kernel's queue.
func TestKilledPluginDisturbsNobody(t *testing.T) {
	h := start(t, append([]string{"--listen", "ws://127.0.0.1:0", "--listen", "stdio://", "--mode", "shared", "--"}, self(t, "echo")...)...)
	ws := h.dial()
	send(t, ws, `{"id":1,"method":"m"}`)
	receive(t, ws)
	stdioPeer(t, h, "1")

	victim := plugin(h.status(), "websocket")
	began := time.Now()
	if err := syscall.Kill(victim.PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	stdioPeer(t, h, "2")
	if _, _, err := ws.ReadMessage(); err == nil {
		t.Error("the socket of the dead plugin still talks")
	}
	again := h.dial() // never refused
	send(t, again, `{"id":2,"method":"m"}`)
	receive(t, again)
	if d := time.Since(began); d > time.Second {
		t.Errorf("the transport was back after %v, want within 1 s", d)
	}
	p := plugin(h.status(), "websocket")
	if p.Incarnation != 2 || !strings.Contains(p.Cause, "killed by signal 9") {
		t.Errorf("status %+v, want the cause", p)
	}

	// The terminal's connection survives its plugin.
	victim = plugin(h.status(), "stdio")
	if err := syscall.Kill(victim.PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	for i := 3; i < 20; i++ {
		stdioPeer(t, h, fmt.Sprint(i))
	}
	send(t, again, `{"id":3,"method":"m"}`)
	receive(t, again)
	if p := plugin(h.status(), "stdio"); p.Incarnation != 2 || p.State != supervisor.Ready {
		t.Errorf("status %+v", p)
	}
}

func TestKilledApplication(t *testing.T) {
	t.Run("shared", func(t *testing.T) {
		h := start(t, append([]string{"--listen", "ws://127.0.0.1:0", "--mode", "shared", "--"}, self(t, "echo")...)...)
		ws := h.dial()
		send(t, ws, `{"id":1,"method":"die"}`)
		if got := receive(t, ws); !strings.Contains(got, `"id":1,"error":{"code":-32603`) || !strings.Contains(got, "exited with status 7") {
			t.Errorf("the request that was in flight got %s", got)
		}
		send(t, ws, `{"id":2,"method":"m","params":[5]}`) // on the same connection
		if got := receive(t, ws); got != `{"jsonrpc":"2.0","id":2,"result":[5]}` {
			t.Errorf("after the restart came %s", got)
		}
		if s := h.status(); s.Application.Restarts != 1 || !strings.Contains(s.Application.Cause, "status 7") {
			t.Errorf("status %+v", s.Application)
		}
	})
	t.Run("per connection", func(t *testing.T) {
		h := start(t, append([]string{"--listen", "ws://127.0.0.1:0", "--"}, self(t, "echo")...)...)
		ws, other := h.dial(), h.dial()
		send(t, ws, `{"id":1,"method":"die"}`)
		if got := receive(t, ws); !strings.Contains(got, "exited with status 7") {
			t.Errorf("the request that was in flight got %s", got)
		}
		_, _, err := ws.ReadMessage()
		if ce, ok := err.(*websocket.CloseError); !ok || !strings.Contains(ce.Text, "exited with status 7") {
			t.Errorf("the connection ended with %v, want the cause", err)
		}
		send(t, other, `{"id":1,"method":"m"}`)
		receive(t, other)
	})
}

func TestBadApplications(t *testing.T) {
	t.Run("exits at once", func(t *testing.T) {
		h := start(t, append([]string{"--listen", "ws://127.0.0.1:0", "--"}, self(t, "exits at once")...)...)
		ws := h.dial()
		send(t, ws, `{"id":"a","method":"m"}`)
		if _, p, err := ws.ReadMessage(); err == nil && !strings.Contains(string(p), "exited with status 3") {
			t.Errorf("got %s", p)
		}
		h.await("told the cause", func(s host.Status) bool { return strings.Contains(s.Application.Cause, "exited with status 3") })
	})
	t.Run("prints rubbish", func(t *testing.T) {
		h := start(t, append([]string{"--listen", "ws://127.0.0.1:0", "--"}, self(t, "prints rubbish")...)...)
		ws := h.dial()
		send(t, ws, `{"id":"a","method":"m"}`)
		if got := receive(t, ws); got != `{"jsonrpc":"2.0","id":"a","result":null}` {
			t.Errorf("got %s", got)
		}
		if words := h.stderr(); !strings.Contains(words, "not a JSON-RPC message") || strings.Contains(words, "port 3000") {
			t.Errorf("the log says\n%s", words)
		}
	})
	t.Run("never reads", func(t *testing.T) {
		h := start(t, append([]string{"--listen", "ws://127.0.0.1:0", "--"}, self(t, "never reads")...)...)
		ws := h.dial()
		overloaded := false
		for i := range 2000 {
			_ = ws.SetWriteDeadline(time.Now().Add(time.Second))
			if ws.WriteMessage(websocket.TextMessage, fmt.Appendf(nil, `{"id":%d,"method":"m","params":"%01000d"}`, i, i)) != nil {
				break // it is not read from: back-pressure
			}
			if i == 1000 {
				_, p, err := ws.ReadMessage()
				overloaded = err == nil && strings.Contains(string(p), `"code":-32001,"message":"Server overloaded; retry later."`)
				break
			}
		}
		if !overloaded {
			t.Error("no request was answered as overload")
		}
	})
	t.Run("not there", func(t *testing.T) {
		h := launch(t, "--listen", "ws://127.0.0.1:0", "--", "no-such-program")
		if code := h.wait(); code != 2 || !strings.Contains(h.lastWord(), `transporthost: the application "no-such-program" cannot be run`) {
			t.Errorf("status %d, last word %q", code, h.lastWord())
		}
	})
}

// TestBadStarts: what is wrong is said in the last line on stderr, and the
// status tells wrong use from failure.
func TestBadStarts(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string, mode os.FileMode) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	openToken := write("open-token", "x", 0o644)
	for _, tt := range []struct {
		name string
		args []string
		code int
		last string // part of the last line
	}{
		{"no application", []string{"--listen", "ws://127.0.0.1:0"}, 2, "no application; give a program behind --"},
		{"unknown flag", []string{"--lisen", "x"}, 2, "unknown flag: --lisen"},
		{"bad listen", []string{"--listen", "tcp://x", "--builtin", "echo"}, 2, "unsupported --listen URL `tcp://x`; expected `stdio://`"},
		{"host name", []string{"--listen", "ws://localhost:1", "--builtin", "echo"}, 2, "invalid websocket --listen URL `ws://localhost:1`; expected"},
		{"exposed", []string{"--listen", "ws://0.0.0.0:0", "--builtin", "echo"}, 2, "refusing to start non-loopback websocket listener"},
		{"exposed, and what to do", []string{"--listen", "ws://0.0.0.0:0", "--builtin", "echo"}, 2, "of a configuration file (--config FILE); there is no flag for it"},
		{"TLS without a certificate", []string{"--listen", "wss://127.0.0.1:0", "--builtin", "echo"}, 2, "needs tls = { cert_file = …, key_file = … } in the transport \"websocket\" block of a configuration file (--config FILE)"},
		{"remote", []string{"--plugin-dir", dir, "--listen", "off", "--remote", "--builtin", "echo"}, 2, `plugin not found: "remotecontrol": no file transport-remotecontrol in`},
		{"port in use", []string{"--listen", "ws://" + taken.Addr().String(), "--builtin", "echo"}, 1, "the port is in use by e2e.test (pid " + fmt.Sprint(os.Getpid())},
		{"no plugin directory", []string{"--plugin-dir", dir, "--builtin", "echo"}, 2, `plugin not found: "stdio"`},
		{"config", []string{"--config", write("bad.hcl", "application {\n  comand = [\"x\"]\n}\ntransport \"websocket\" {\n  listen = \"ws://127.0.0.1:0\"\n}\n", 0o600)}, 2,
			"bad.hcl:5:12: listen is a string, want a list of strings"},
		{"token file", []string{"--config", write("token.hcl", "application {\n  builtin = \"echo\"\n}\ntransport \"websocket\" {\n  listen = [\"ws://127.0.0.1:0\"]\n  auth = { mode = \"capability-token\", token_file = \""+openToken+"\" }\n}\n", 0o600)}, 2,
			"chmod 600 " + openToken},
		{"plugin key", []string{"--config", write("key.hcl", "application {\n  builtin = \"echo\"\n}\ntransport \"websocket\" {\n  listen = [\"ws://127.0.0.1:0\"]\n  max_conections = 5\n}\n", 0o600)}, 2,
			`key.hcl:6:3: unsupported key "max_conections" in transport "websocket"; did you mean "max_connections"?`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h := launch(t, tt.args...)
			if code := h.wait(); code != tt.code || !strings.Contains(h.lastWord(), tt.last) {
				t.Errorf("status %d, last word %q; want %d, %q", code, h.lastWord(), tt.code, tt.last)
			}
		})
	}
}

// TestConfigErrorsComeAllAtOnce.
func TestConfigErrorsComeAllAtOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), "host.hcl")
	if err := os.WriteFile(path, []byte("application {\n  comand = [\"x\"]\n  mode = \"both\"\n}\ntransprt \"websocket\" {\n}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(bin().host(), "config", "check", path).CombinedOutput()
	for _, want := range []string{
		path + `:2:3: unsupported key "comand" in application; did you mean "command"?`,
		path + `:3:10: mode is "both"; allowed are "per-connection" and "shared"`,
		path + `:5:1: unsupported block "transprt"; did you mean "transport"?`,
	} {
		if err == nil || !strings.Contains(string(out), want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
}

func TestDrainFinishesWhatIsInFlight(t *testing.T) {
	h := start(t, "--listen", "ws://127.0.0.1:0", "--", bin().mcpServer())
	s, _ := connectMCP(t, wsTransport{h.url()}, "peer", legacy)
	done := make(chan error, 1)
	go func() {
		got, err := call(t.Context(), s, "countdown", map[string]any{"from": 10, "milliseconds": 50})
		if err == nil && got != "lift-off" {
			err = fmt.Errorf("got %q", got)
		}
		done <- err
	}()
	h.await("in flight", func(s host.Status) bool { return s.Counters.InFlight == 1 })
	if err := h.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Errorf("the request in flight: %v", err)
	}
	if code := h.wait(); code != 0 {
		t.Errorf("status %d after a drain", code)
	}
}

func TestSecondSignalEndsAtOnce(t *testing.T) {
	h := start(t, append([]string{"--listen", "ws://127.0.0.1:0", "--"}, self(t, "never reads")...)...)
	ws := h.dial()
	send(t, ws, `{"id":1,"method":"m"}`)
	h.await("in flight", func(s host.Status) bool { return s.Counters.InFlight == 1 })
	_ = h.cmd.Process.Signal(syscall.SIGTERM)
	h.await("draining", func(s host.Status) bool { return s.State == host.StateDraining })
	began := time.Now()
	_ = h.cmd.Process.Signal(syscall.SIGTERM)
	if code := h.wait(); code != 0 {
		t.Errorf("status %d", code)
	}
	// The application that never reads gets its two seconds, and SIGTERM one.
	if d := time.Since(began); d > 8*time.Second {
		t.Errorf("it took %v", d)
	}
}

func TestEndOfInputEndsTheHost(t *testing.T) {
	h := start(t, append([]string{"--"}, self(t, "echo")...)...)
	for i := range 100 {
		if _, err := fmt.Fprintf(h.stdin, `{"id":%d,"method":"m"}`+"\n", i); err != nil {
			t.Fatal(err)
		}
	}
	if err := h.stdin.Close(); err != nil {
		t.Fatal(err)
	}
	for i := range 100 {
		line, err := h.stdout.ReadString('\n')
		if want := fmt.Sprintf(`{"jsonrpc":"2.0","id":%d,"result":null}`+"\n", i); err != nil || line != want {
			t.Fatalf("answer %d is %q, %v", i, line, err)
		}
	}
	if code := h.wait(); code != 0 {
		t.Errorf("status %d", code)
	}
}

// TestNobodyOutlivesTheHost: after SIGKILL of the host its plugins, its
// applications and their children are gone.
func TestNobodyOutlivesTheHost(t *testing.T) {
	h := start(t, append([]string{"--listen", "ws://127.0.0.1:0", "--"}, self(t, "echo")...)...)
	for range 3 {
		ws := h.dial()
		send(t, ws, `{"id":1,"method":"m"}`)
		receive(t, ws)
	}
	family := descendants(h.cmd.Process.Pid)
	if len(family) < 5 {
		t.Fatalf("the host has %d descendants, want its keeper, its plugin and three applications", len(family))
	}
	if err := h.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	h.wait()
	deadline := time.Now().Add(2 * time.Second)
	for _, pid := range family {
		for alive(pid) {
			if time.Now().After(deadline) {
				t.Fatalf("process %d is still there after 2 s", pid)
			}
		}
	}
}

func TestSeveralHostsInOneDirectory(t *testing.T) {
	one := start(t, "--listen", "ws://127.0.0.1:0", "--builtin", "echo")
	two := start(t, "--listen", "ws://127.0.0.1:0", "--builtin", "echo", "--runtime-dir", one.runtime)
	out, err := exec.Command(bin().host(), "status", "--runtime-dir", one.runtime).CombinedOutput()
	if err == nil || !strings.Contains(string(out), "several hosts run in "+one.runtime+"; choose one with --pid: ") {
		t.Errorf("status: %v, %s", err, out)
	}
	out, err = exec.Command(bin().host(), "status", "--runtime-dir", one.runtime, "--pid", fmt.Sprint(two.cmd.Process.Pid)).CombinedOutput()
	if err != nil || !strings.Contains(string(out), fmt.Sprintf("pid %d", two.cmd.Process.Pid)) {
		t.Errorf("status of the second: %v, %s", err, out)
	}
}
