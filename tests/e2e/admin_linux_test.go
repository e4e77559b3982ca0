package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/transporthost/transporthost/host"
	"github.com/transporthost/transporthost/host/supervisor"
)

// startReaching starts a host with a faulty transport for each name, with what
// stands in its block, and an application of processes.
func startReaching(t *testing.T, defects map[string]string) *hostProcess {
	t.Helper()
	plugins := faultyPlugins(t)
	command, err := json.Marshal(self(t, "answers"))
	if err != nil {
		t.Fatal(err)
	}
	config := fmt.Sprintf("application {\n  command = %s\n}\ntransport \"websocket\" {\n  listen = [\"ws://127.0.0.1:0\"]\n}\n", command)
	for name, settings := range defects {
		plugins.add(name)
		config += fmt.Sprintf("transport %q {\n%s}\n", name, settings)
	}
	path := filepath.Join(t.TempDir(), "host.hcl")
	if err := os.WriteFile(path, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	return start(t, "--config", path, "--plugin-dir", plugins.dir)
}

// TestPluginsDoNotAdministrate: what can connect to the admin socket is refused
// there for whose it is, while the application, and people, may ask.
func TestPluginsDoNotAdministrate(t *testing.T) {
	defects := map[string]string{
		"asks-the-admin-socket":             "",
		"asks-the-admin-socket-in-disguise": "",
		"has-the-admin-socket-asked":        "  sandbox = { processes = true }\n",
	}
	h := startReaching(t, defects)
	for name := range defects {
		p := plugin(h.await("refused "+name, func(s host.Status) bool { return plugin(s, name).Cause != "" }), name)
		if want := fmt.Sprintf(" belongs to transport %q", name); !strings.HasPrefix(p.Cause, "it was refused: the host does not answer plugins: process ") || !strings.HasSuffix(p.Cause, want) {
			t.Errorf("%s says %q, want that it was refused because its process%s", name, p.Cause, want)
		}
		if want := "connected to the admin socket, and was refused"; p.Conduct.Intrusions != 1 || !strings.HasSuffix(p.Conduct.Last, want) {
			t.Errorf("%s has the conduct %+v, want that once its process %s", name, p.Conduct, want)
		}
		if n := strings.Count(h.stderr(), "instance="+name+" what="); n != 1 {
			t.Errorf("the log complains of %s %d times, want once\n%s", name, n, h.stderr())
		}
	}
	if p := plugin(h.status(), "websocket"); p.State != supervisor.Ready || p.Incarnation != 1 {
		t.Errorf("the transport that was to be restarted is %+v", p)
	}

	ws := h.dial()
	ask := []string{bin().host(), "status", "--json", "--runtime-dir", h.runtime}
	for id, args := range [][]string{ask, append([]string{"setsid", "env", "-i"}, ask...)} {
		params, err := json.Marshal(args)
		if err != nil {
			t.Fatal(err)
		}
		send(t, ws, fmt.Sprintf(`{"id":%d,"method":"run","params":%s}`, id, params))
		var answer struct{ Result string }
		if err := json.Unmarshal([]byte(receive(t, ws)), &answer); err != nil {
			t.Fatal(err)
		}
		var s host.Status
		if err := json.Unmarshal([]byte(answer.Result), &s); err != nil || s.PID != h.cmd.Process.Pid {
			t.Errorf("a process of the application ran %q and got %q, %v; want the status", args, answer.Result, err)
		}
	}
}

// TestAFloodAtTheAdminSocket is counted, and not written down; people get through.
func TestAFloodAtTheAdminSocket(t *testing.T) {
	const name = "floods-the-admin-socket"
	began := time.Now()
	h := startReaching(t, map[string]string{name: ""})
	h.await("refused a thousand times", func(s host.Status) bool { return plugin(s, name).Conduct.Intrusions > 1000 })
	for range 5 {
		h.status()
	}
	if p := plugin(h.status(), "websocket"); p.State != supervisor.Ready || p.Incarnation != 1 {
		t.Errorf("the transport that was to be restarted is %+v", p)
	}
	if n := strings.Count(h.stderr(), "connected to the admin socket"); n == 0 || n > 1+int(time.Since(began)/(10*time.Second)) {
		t.Errorf("the log has %d lines about it after %v, want one in ten seconds\n%s", n, time.Since(began), h.stderr())
	}
}
