//go:build unix

package e2e

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"github.com/transporthost/transporthost/host"
	"github.com/transporthost/transporthost/host/supervisor"
)

// A manager is a service manager's part: it binds sockets, passes them, and is
// told how the service is.
type manager struct {
	t       *testing.T
	notify  *net.UnixConn
	address string // of notify, as the service gets it
	sockets []net.Listener
	names   []string
	env     []string
}

// newManager makes one that is told at address; "" is a path of its own.
func newManager(t *testing.T, address string) *manager {
	t.Helper()
	if address == "" {
		address = filepath.Join(runtimeDir(t), "notify")
	}
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: address, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return &manager{t: t, notify: c, address: address}
}

// bind binds a socket that is passed to the service, and returns its address.
func (m *manager) bind(network, address string) string {
	m.t.Helper()
	l, err := net.Listen(network, address)
	if err != nil {
		m.t.Fatal(err)
	}
	m.t.Cleanup(func() { _ = l.Close() })
	m.sockets, m.names = append(m.sockets, l), append(m.names, "test.socket")
	return l.Addr().String()
}

// run starts `transporthost run` as systemd starts a service.
func (m *manager) run(args ...string) *hostProcess {
	m.t.Helper()
	runtime := runtimeDir(m.t)
	return m.exec(runtime, append([]string{bin().host(), "run", "--runtime-dir", runtime}, args...)...)
}

// exec starts a command line that is a host's.
func (m *manager) exec(runtime string, command ...string) *hostProcess {
	m.t.Helper()
	// The variables name the pid, which only the process itself knows in time.
	cmd := exec.Command("/bin/sh", append([]string{"-c", `LISTEN_PID=$$ WATCHDOG_PID=$$ exec "$@"`, "sh"}, command...)...)
	cmd.Env = append(os.Environ(), "NOTIFY_SOCKET="+m.address,
		"LISTEN_FDS="+strconv.Itoa(len(m.sockets)), "LISTEN_FDNAMES="+strings.Join(m.names, ":"))
	cmd.Env = append(cmd.Env, m.env...)
	for _, l := range m.sockets {
		f, err := l.(interface{ File() (*os.File, error) }).File()
		if err != nil {
			m.t.Fatal(err)
		}
		defer f.Close()
		cmd.ExtraFiles = append(cmd.ExtraFiles, f)
	}
	return launchCommand(m.t, runtime, cmd)
}

// next returns what the service tells next, but for signs of life; their number
// is the second value.
func (m *manager) next() (string, int) {
	m.t.Helper()
	for signs := 0; ; signs++ {
		text := m.any(limit)
		if text == "" {
			m.t.Fatalf("the service tells nothing for %v", limit)
		}
		if text != "WATCHDOG=1" {
			return text, signs
		}
	}
}

// any returns the next message, or "" if none comes in time.
func (m *manager) any(patience time.Duration) string {
	m.t.Helper()
	_ = m.notify.SetReadDeadline(time.Now().Add(patience))
	b := make([]byte, 4096)
	n, err := m.notify.Read(b)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return ""
	}
	if err != nil {
		m.t.Fatal(err)
	}
	return string(b[:n])
}

// await reads until a message matches.
func (m *manager) await(pattern string) {
	m.t.Helper()
	for re := regexp.MustCompile("(?s)^" + pattern + "$"); ; {
		text, _ := m.next()
		if re.MatchString(text) {
			return
		}
		m.t.Logf("told %q", text)
	}
}

// TestUnits starts the units of the documentation, as far as they say what the
// host does: the command line, the sockets and the configuration.
func TestUnits(t *testing.T) {
	m := newManager(t, "")
	work := runtimeDir(t)
	socket := filepath.Join(work, "app.sock")
	tcp := m.bind("tcp4", "127.0.0.1:0")
	m.bind("unix", socket)
	rt := runtimeDir(t)
	places := strings.NewReplacer("/usr/local/bin/", bin().dir+"/", "/etc/transporthost/", work+"/", "/run/transporthost.sock", socket,
		"/run/transporthost", rt, "/var/lib/transporthost", work+"/state", "127.0.0.1:4500", tcp)
	dir := "../../docs/systemd/"
	read := func(name string) string {
		b, err := os.ReadFile(dir + name)
		if err != nil {
			t.Fatal(err)
		}
		return places.Replace(string(b))
	}
	if err := os.WriteFile(filepath.Join(work, "host.hcl"), []byte(read("host.hcl")), 0o600); err != nil {
		t.Fatal(err)
	}
	service := settings(read("transporthost.service"))
	if got, want := settings(read("transporthost.socket"))["ListenStream"], []string{tcp, socket}; !slices.Equal(got, want) {
		t.Fatalf("the unit binds %v, and the test %v", got, want)
	}
	command := strings.Fields(service["ExecStart"][0])
	watchdog, err := time.ParseDuration(service["WatchdogSec"][0] + "s")
	if err != nil || service["Type"][0] != "notify" || service["KillMode"][0] != "mixed" {
		t.Fatalf("the unit has Type %v, WatchdogSec %v, KillMode %v: %v", service["Type"], service["WatchdogSec"], service["KillMode"], err)
	}
	m.env = []string{"WATCHDOG_USEC=" + strconv.FormatInt(watchdog.Microseconds(), 10)}

	// A peer that is there before the service is served by it.
	early := make(chan *websocket.Conn, 1)
	go func() {
		ws, _, err := websocket.DefaultDialer.Dial("ws://"+tcp, nil)
		if err != nil {
			t.Errorf("dialling before the service runs: %v", err)
		}
		early <- ws
	}()
	h := m.exec(rt, command...)
	m.await("READY=1\nSTATUS=serving on 1 transport")
	ws := <-early
	if ws == nil {
		t.FailNow()
	}
	defer ws.Close()
	initialize(t, ws)

	_ = h.cmd.Process.Signal(syscall.SIGTERM)
	m.await("STOPPING=1\nSTATUS=draining")
	m.await("STATUS=stopped")
	if code := h.wait(); code != 0 {
		t.Errorf("exit status %d", code)
	}
	if _, err := os.Stat(socket); err != nil {
		t.Errorf("the manager's socket file: %v", err)
	}
	if c, err := net.Dial("tcp", tcp); err != nil {
		t.Errorf("the manager's socket, with no service there: %v", err)
	} else {
		_ = c.Close()
	}
}

// settings are the lines KEY=VALUE of a unit.
func settings(unit string) map[string][]string {
	all := map[string][]string{}
	for line := range strings.Lines(unit) {
		if key, value, ok := strings.Cut(strings.TrimSpace(line), "="); ok && !strings.HasPrefix(key, "#") {
			all[key] = append(all[key], value)
		}
	}
	return all
}

func initialize(t *testing.T, ws *websocket.Conn) {
	t.Helper()
	send(t, ws, `{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-06-18","capabilities":{},"clientInfo":{"name":"me","version":"1"}}}`)
	_ = ws.SetReadDeadline(time.Now().Add(limit))
	if got := receive(t, ws); !strings.Contains(got, `"serverInfo"`) {
		t.Errorf("initialize was answered by %s", got)
	}
}

// TestUnitsAreCorrect asks systemd itself, where it is.
func TestUnitsAreCorrect(t *testing.T) {
	analyze, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Skip("systemd is not installed")
	}
	dir := t.TempDir()
	for _, name := range []string{"transporthost.service", "transporthost.socket"} {
		b, err := os.ReadFile("../../docs/systemd/" + name)
		if err == nil {
			// verify wants to find the program.
			b = bytes.ReplaceAll(b, []byte("/usr/local/bin/"), []byte(bin().dir+"/"))
			err = os.WriteFile(filepath.Join(dir, name), b, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command(analyze, "verify", "--man=no", "./transporthost.service", "./transporthost.socket")
	cmd.Dir = dir
	out, _ := cmd.CombinedOutput() // status and words are also about units that they depend on
	for line := range strings.Lines(string(out)) {
		if strings.Contains(line, "transporthost.") {
			t.Errorf("systemd-analyze verify: %s", line)
		}
	}
}

// TestPassedSocketOutlivesThePlugin: the next process accepts from it.
func TestPassedSocketOutlivesThePlugin(t *testing.T) {
	m := newManager(t, "")
	url := "ws://" + m.bind("tcp4", "127.0.0.1:0")
	h := m.run("--listen", url, "--builtin", "echo")
	h.awaitReady()
	if h.url() != url {
		t.Errorf("the host serves %s, want %s", h.url(), url)
	}
	m.await("READY=1\nSTATUS=serving on 1 transport")
	first := h.status().Plugins[0]
	_ = syscall.Kill(first.PID, syscall.SIGKILL)
	ws := h.dial() // waits in the kernel's queue
	send(t, ws, `{"jsonrpc":"2.0","id":1,"method":"m","params":[1]}`)
	if got := receive(t, ws); got != `{"jsonrpc":"2.0","id":1,"result":[1]}` {
		t.Errorf("got %s", got)
	}
	h.await("replaced", func(s host.Status) bool {
		return s.Plugins[0].PID != first.PID && s.Plugins[0].State == supervisor.Ready
	})
	m.await(`STATUS=serving on 0 of 1 transports; websocket is (backing-off|starting): killed by signal 9 .*`)
	m.await(`STATUS=serving on 1 transport`)
}

// TestSocketThatNobodyListensOn is a mistake of one of two files.
func TestSocketThatNobodyListensOn(t *testing.T) {
	m := newManager(t, "")
	address := m.bind("tcp4", "127.0.0.1:0")
	h := m.run("--listen", "ws://127.0.0.1:0", "--builtin", "echo")
	if code := h.wait(); code != 2 {
		t.Errorf("exit status %d, want 2", code)
	}
	want := `the socket "test.socket", bound to ` + address + `, was passed to the host, and no transport listens there; put ws://` + address +
		` among the addresses of a transport, or do not pass it`
	if !strings.HasSuffix(h.lastWord(), want) {
		t.Errorf("the last words are %q, want %q", h.lastWord(), want)
	}
	if strings.Contains(h.stderr(), "goroutine ") {
		t.Errorf("it crashed:\n%s", h.stderr())
	}
}

// TestSocketsOfAnotherProcess are left alone.
func TestSocketsOfAnotherProcess(t *testing.T) {
	for _, tt := range []struct {
		name string
		env  []string
		code int
		want string
	}{
		{"of a parent", []string{"LISTEN_FDS=1", "LISTEN_PID=1"}, 0, "sockets were passed to another process than this one; let that one start the host with exec"},
		{"no number", []string{"LISTEN_FDS=many", "LISTEN_PID=1"}, 2, `LISTEN_FDS is "many", want the number of passed sockets`},
		{"too many", []string{"LISTEN_FDS=1000000000000", "LISTEN_PID=1"}, 2, `LISTEN_FDS is "1000000000000", want the number of passed sockets, at most 1024`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h := launchIn(t, tt.env, "--listen", "ws://127.0.0.1:0", "--builtin", "echo")
			if tt.code == 0 {
				h.awaitReady()
				_ = h.cmd.Process.Signal(syscall.SIGTERM)
			}
			if code := h.wait(); code != tt.code || !strings.Contains(h.stderr(), tt.want) {
				t.Errorf("exit status %d, want %d, with %q", code, tt.code, tt.want)
			}
		})
	}
	t.Run("a count without files", func(t *testing.T) {
		m := newManager(t, "")
		m.env = []string{"LISTEN_FDS=2"}
		h := m.run("--listen", "ws://127.0.0.1:0", "--builtin", "echo")
		if code := h.wait(); code != 2 || !strings.Contains(h.stderr(), "it is no socket") || strings.Contains(h.stderr(), "goroutine ") {
			t.Errorf("exit status %d, want 2 and a word on it", code)
		}
	})
}

// TestSignsOfLife: they come while the host lives, and none while it does not.
func TestSignsOfLife(t *testing.T) {
	address := ""
	if runtime.GOOS == "linux" {
		address = "@transporthost-test-" + strconv.Itoa(os.Getpid())
	}
	m := newManager(t, address)
	m.env = []string{"WATCHDOG_USEC=200000"}
	h := m.run("--listen", "ws://127.0.0.1:0", "--builtin", "echo")
	for _, want := range []string{"STATUS=starting", "STATUS=serving on 1 transport", "READY=1\nSTATUS=serving on 1 transport"} {
		if got, signs := m.next(); got != want || signs > 0 {
			t.Fatalf("told %q after %d signs of life, want %q after none", got, signs, want)
		}
	}
	for range 3 {
		if got := m.any(limit); got != "WATCHDOG=1" {
			t.Fatalf("told %q, want a sign of life", got)
		}
	}
	if err := h.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	awaitStopped(t, h.cmd.Process.Pid)
	for m.any(time.Millisecond) != "" { // on its way
	}
	if got := m.any(time.Second); got != "" {
		t.Errorf("a stopped host tells %q", got)
	}
	_ = h.cmd.Process.Signal(syscall.SIGCONT)
	if got := m.any(limit); got != "WATCHDOG=1" {
		t.Errorf("told %q, want a sign of life", got)
	}
	_ = h.cmd.Process.Signal(syscall.SIGTERM)
	m.await("STOPPING=1\nSTATUS=draining")
}

func awaitStopped(t *testing.T, pid int) {
	t.Helper()
	for deadline := time.Now().Add(limit); ; {
		var status syscall.WaitStatus
		got, err := syscall.Wait4(pid, &status, syscall.WUNTRACED|syscall.WNOHANG, nil)
		if got == pid && status.Stopped() {
			return
		}
		if err != nil || time.Now().After(deadline) {
			t.Fatalf("the host does not stop: %v", err)
		}
	}
}

// TestReloadIsTold, and that a transport is not well.
func TestReloadIsTold(t *testing.T) {
	m := newManager(t, "")
	h := m.run("--listen", "ws://127.0.0.1:0", "--remote", "--auth-file", filepath.Join(t.TempDir(), "auth.json"), "--state-dir", t.TempDir(), "--builtin", "echo")
	h.awaitReady()
	h.await("waiting", func(s host.Status) bool {
		return s.Plugins[1].Reported != nil && s.Plugins[1].Reported.State == "waiting-for-auth"
	})
	_ = h.cmd.Process.Signal(syscall.SIGHUP)
	m.await("RELOADING=1\nMONOTONIC_USEC=[0-9]+")
	m.await("READY=1\nSTATUS=serving on 1 of 2 transports; remotecontrol is degraded: remote control requires ChatGPT authentication")
}

// TestChildrenKnowNothingOfTheManager: a plugin has its own sockets, the
// application none, and nobody but the host has anything to tell.
func TestChildrenKnowNothingOfTheManager(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("there is no /proc")
	}
	m := newManager(t, "")
	m.env = []string{"WATCHDOG_USEC=30000000"}
	url := "ws://" + m.bind("tcp4", "127.0.0.1:0")
	h := m.run("--listen", url, "--mode", "shared", "--", bin().mcpServer())
	h.awaitReady()
	initialize(t, h.dial()) // so that there is an application
	socket := inode(t, m.sockets[0])
	holders := map[string]bool{}
	children := descendants(h.cmd.Process.Pid)
	for _, pid := range children {
		exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid))
		if err != nil {
			t.Fatal(err)
		}
		name := filepath.Base(exe)
		environ, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
		if err != nil {
			t.Fatal(err)
		}
		for v := range bytes.SplitSeq(environ, []byte{0}) {
			if regexp.MustCompile(`^(LISTEN_|WATCHDOG_|NOTIFY_)`).Match(v) {
				t.Errorf("%s has %s in its environment", name, v)
			}
		}
		files, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range files {
			if target, _ := os.Readlink(f); target == socket {
				holders[name] = true
			}
		}
	}
	if len(children) < 2 || len(holders) != 1 || !holders["transport-websocket"] {
		t.Errorf("of %d children, %v have the socket; want transport-websocket alone", len(children), holders)
	}
}

// inode names the socket of l, as /proc does.
func inode(t *testing.T, l net.Listener) string {
	t.Helper()
	f, err := l.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	name, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", f.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	return name
}

// TestSocketActivateStartsTheHost has systemd's own tool in the manager's place.
func TestSocketActivateStartsTheHost(t *testing.T) {
	tool, err := exec.LookPath("systemd-socket-activate")
	if err != nil {
		t.Skip("systemd is not installed")
	}
	path := filepath.Join(runtimeDir(t), "s")
	rt := runtimeDir(t)
	h := launchCommand(t, rt, exec.Command(tool, "--listen", path, bin().host(), "run", "--runtime-dir", rt, "--listen", "unix://"+path, "--builtin", "echo"))
	var c net.Conn
	for deadline := time.Now().Add(limit); ; { // the tool does not say when it listens
		if c, err = net.Dial("unix", path); err == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(limit))
	if _, err := fmt.Fprintf(c, "GET /readyz HTTP/1.1\r\nHost: localhost\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(c).ReadString('\n'); err != nil || !strings.HasPrefix(line, "HTTP/1.1 200") {
		t.Errorf("the first peer got %q, %v", line, err)
	}
	h.awaitReady()
}
