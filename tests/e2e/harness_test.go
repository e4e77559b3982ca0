//go:build unix

// Package e2e runs the real programs: hosts, plugins, applications and peers as
// processes of their own.
package e2e

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"go.uber.org/goleak"

	"github.com/transporthost/transporthost/host"
)

// limit bounds every wait: long, because it only passes when a test fails.
const limit = 60 * time.Second

// programs are the binaries under test, built once.
type programs struct{ dir string }

func (p programs) host() string      { return filepath.Join(p.dir, "transporthost") }
func (p programs) mcpServer() string { return filepath.Join(p.dir, "mcp-server") }
func (p programs) faulty() string    { return filepath.Join(p.dir, "faulty") }

func build(dir string) error {
	root, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}").Output()
	if err != nil {
		return fmt.Errorf("finding the module: %w", err)
	}
	for out, pkg := range map[string]string{
		"transporthost":                   "./cmd/host",
		"mcp-server":                      "./examples/mcp-server",
		"faulty":                          "./tests/faulty",
		"plugins/transport-stdio":         "./plugins/stdio/cmd/transport-stdio",
		"plugins/transport-websocket":     "./plugins/websocket/cmd/transport-websocket",
		"plugins/transport-remotecontrol": "./plugins/remotecontrol/cmd/transport-remotecontrol",
	} {
		cmd := exec.Command("go", "build", "-o", filepath.Join(dir, out), pkg)
		cmd.Dir = strings.TrimSpace(string(root))
		if text, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("building %s: %w\n%s", pkg, err, text)
		}
	}
	return nil
}

const binDir = "TRANSPORTHOST_E2E_BIN" // for the children that tests start of themselves

func TestMain(m *testing.M) {
	if serveAsPlugin(filepath.Base(os.Args[0])) {
		os.Exit(0)
	}
	if mode := os.Getenv(childMode); mode != "" {
		os.Exit(actAsApplication(mode))
	}
	dir, err := os.MkdirTemp("", "e2e")
	if err == nil {
		err = build(dir)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Setenv(binDir, dir)
	code := m.Run()
	_ = os.RemoveAll(dir)
	if code == 0 {
		if err := goleak.Find(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	os.Exit(code)
}

func bin() programs { return programs{os.Getenv(binDir)} }

// A hostProcess is `transporthost run` as a process.
type hostProcess struct {
	t       *testing.T
	cmd     *exec.Cmd
	runtime string
	stdin   io.WriteCloser
	stdout  *bufio.Reader
	exited  chan struct{}
	err     error // of the process, after exited

	mu     sync.Mutex // guards what follows
	words  bytes.Buffer
	ready  chan struct{}
	listen map[string][]string // addresses by transport
}

// runtimeDir makes a directory for the sockets of one host; t.TempDir's paths
// are too long for that.
func runtimeDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "th")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// launch starts a host and does not wait for it. It is stopped, and looked at
// for leaks, when the test ends.
func launch(t *testing.T, args ...string) *hostProcess {
	t.Helper()
	return launchIn(t, nil, args...)
}

// launchIn is launch with more environment than this process has.
func launchIn(t *testing.T, env []string, args ...string) *hostProcess {
	t.Helper()
	runtime := runtimeDir(t)
	cmd := exec.Command(bin().host(), append([]string{"run", "--runtime-dir", runtime}, args...)...)
	cmd.Env = append(os.Environ(), env...)
	return launchCommand(t, runtime, cmd)
}

// launchCommand is launch of a command that becomes a host.
func launchCommand(t *testing.T, runtime string, cmd *exec.Cmd) *hostProcess {
	t.Helper()
	var err error
	h := &hostProcess{t: t, cmd: cmd, runtime: runtime, exited: make(chan struct{}), ready: make(chan struct{}), listen: map[string][]string{}}
	if h.stdin, err = h.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	// Not StdoutPipe: that closes at the host's end, be its last words read or not.
	out, said, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = out.Close() })
	h.cmd.Stdout = said
	h.stdout = bufio.NewReaderSize(out, 1<<20)
	words, err := h.cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	err = h.cmd.Start()
	_ = said.Close()
	if err != nil {
		t.Fatal(err)
	}
	read := make(chan struct{})
	go func() {
		defer close(read)
		h.listenTo(words)
	}()
	go func() {
		<-read
		h.err = h.cmd.Wait()
		close(h.exited)
	}()
	t.Cleanup(h.stop)
	return h
}

func (h *hostProcess) listenTo(r io.Reader) {
	s := bufio.NewScanner(r)
	s.Buffer(nil, 1<<20)
	ready := false
	for s.Scan() {
		h.mu.Lock()
		fmt.Fprintln(&h.words, s.Text())
		if f := strings.Fields(s.Text()); !ready && strings.HasPrefix(s.Text(), "  ") && len(f) == 2 {
			h.listen[f[0]] = append(h.listen[f[0]], f[1])
		}
		if s.Text() == "transporthost: ready" && !ready {
			ready = true
			close(h.ready)
		}
		h.mu.Unlock()
	}
}

// start is launch that waits until the host is ready.
func start(t *testing.T, args ...string) *hostProcess {
	t.Helper()
	h := launch(t, args...)
	h.awaitReady()
	return h
}

func (h *hostProcess) awaitReady() {
	h.t.Helper()
	select {
	case <-h.ready:
	case <-h.exited:
		h.t.Fatalf("the host ended: %v\n%s", h.err, h.stderr())
	case <-time.After(limit):
		h.t.Fatalf("the host is not ready after %v\n%s", limit, h.stderr())
	}
}

func (h *hostProcess) stderr() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.words.String()
}

// lastWord is the last line on stderr.
func (h *hostProcess) lastWord() string {
	lines := strings.Split(strings.TrimSpace(h.stderr()), "\n")
	return lines[len(lines)-1]
}

// wait waits for the host's end and returns its exit status.
func (h *hostProcess) wait() int {
	h.t.Helper()
	select {
	case <-h.exited:
		return h.cmd.ProcessState.ExitCode()
	case <-time.After(limit):
		h.t.Fatalf("the host does not end\n%s", h.stderr())
		return -1
	}
}

func (h *hostProcess) stop() {
	family := descendants(h.cmd.Process.Pid)
	_ = h.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-h.exited:
	case <-time.After(limit):
		h.t.Errorf("the host does not end on SIGTERM\n%s", h.stderr())
		_ = h.cmd.Process.Kill()
		<-h.exited
	}
	for _, pid := range family {
		if alive(pid) {
			h.t.Errorf("process %d of the host is still there", pid)
		}
	}
	if left, err := os.ReadDir(h.runtime); err != nil || len(left) > 0 {
		h.t.Errorf("left in the runtime directory: %v, %v", left, err)
	}
	if h.t.Failed() {
		h.t.Logf("the host's words:\n%s", h.stderr())
	}
}

// url is the first address of the websocket transport.
func (h *hostProcess) url() string {
	h.t.Helper()
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.listen["websocket"]) == 0 {
		h.t.Fatalf("no address in\n%s", h.words.String())
	}
	return h.listen["websocket"][0]
}

// status asks the host by the command.
func (h *hostProcess) status() host.Status {
	h.t.Helper()
	out, err := exec.Command(bin().host(), "status", "--json", "--runtime-dir", h.runtime).Output()
	if err != nil {
		h.t.Fatalf("status: %v", err)
	}
	var s host.Status
	if err := json.Unmarshal(out, &s); err != nil {
		h.t.Fatalf("status printed %q: %v", out, err)
	}
	return s
}

// run runs a command of the program against the host, and returns what it prints.
func (h *hostProcess) run(args ...string) string {
	h.t.Helper()
	out, err := exec.Command(bin().host(), append(args, "--runtime-dir", h.runtime)...).Output()
	if err != nil {
		h.t.Fatalf("%v: %v", args, err)
	}
	return string(out)
}

// await asks until ok accepts the status.
func (h *hostProcess) await(what string, ok func(host.Status) bool) host.Status {
	h.t.Helper()
	deadline := time.Now().Add(limit)
	for {
		s := h.status()
		if ok(s) {
			return s
		}
		if time.Now().After(deadline) {
			h.t.Fatalf("never %s; status is %+v", what, s)
		}
	}
}

// dial opens a WebSocket connection.
func (h *hostProcess) dial() *websocket.Conn {
	h.t.Helper()
	ws, _, err := websocket.DefaultDialer.Dial(h.url(), nil)
	if err != nil {
		h.t.Fatalf("dialling %s: %v", h.url(), err)
	}
	h.t.Cleanup(func() { _ = ws.Close() })
	_ = ws.SetReadDeadline(time.Now().Add(limit))
	return ws
}

func send(t *testing.T, ws *websocket.Conn, message string) {
	t.Helper()
	if err := ws.WriteMessage(websocket.TextMessage, []byte(message)); err != nil {
		t.Fatalf("sending %.100s: %v", message, err)
	}
}

func receive(t *testing.T, ws *websocket.Conn) string {
	t.Helper()
	_, p, err := ws.ReadMessage()
	if err != nil {
		t.Fatalf("receiving: %v", err)
	}
	return string(p)
}

// descendants lists the processes below pid.
func descendants(pid int) []int {
	children := map[int][]int{}
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, path := range stats {
		b, err := os.ReadFile(path)
		if err != nil {
			continue
		}
		var child, parent int
		var state string
		rest := b[bytes.LastIndexByte(b, ')')+1:]
		if _, err := fmt.Sscanf(string(b), "%d", &child); err != nil {
			continue
		}
		if _, err := fmt.Sscanf(string(rest), "%s %d", &state, &parent); err != nil {
			continue
		}
		children[parent] = append(children[parent], child)
	}
	var all []int
	for todo := []int{pid}; len(todo) > 0; todo = todo[1:] {
		all = append(all, children[todo[0]]...)
		todo = append(todo, children[todo[0]]...)
	}
	return all
}

func alive(pid int) bool {
	if errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) {
		return false
	}
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err == nil && !bytes.Contains(b, []byte(") Z "))
}
