//go:build unix

package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
	"unicode"

	"github.com/gorilla/websocket"

	"github.com/transporthost/transporthost/host/supervisor"
)

// A symptom is what status says of a plugin with one defect, once that has
// shown itself.
type symptom struct {
	defect string
	state  string // of the plugin: "down" is starting, backing-off or failed; "up" is ready
	cause  string // a pattern that the cause matches; "" if there need be none
	// conduct is a pattern that the conduct matches, which is what the defect shows
	// in if it harms nobody.
	conduct string
}

// TestFaultyPlugins: a plugin with one defect is contained, and status tells what
// is wrong with it in words that a person understands. Meanwhile the peers of
// another transport of the same host see nothing, the host's memory stays
// bounded, and it ends as it should, with nothing left.
func TestFaultyPlugins(t *testing.T) {
	for _, group := range []struct {
		name     string
		symptoms []symptom
	}{
		{"handshake", []symptom{
			{"prints-rubbish", "down", `^launching plugin "prints-rubbish": not a plugin: its first line on stdout is "Server listening on port 3000" instead of a handshake; .*words belong on stderr$`, ``},
			{"prints-commands", "down", `not a plugin: its first line on stdout is "\\x1b\]0;mine`, ``},
			{"prints-no-end", "down", `not a plugin: its first line on stdout is "xxxx`, ``},
			{"speaks-another-version", "down", `it speaks version 99 of the link, and this host version 1; update transporthost`, ``},
			{"speaks-another-protocol", "down", `it does not speak gRPC`, ``},
			{"is-nowhere", "down", `/nowhere/at-all`, ``},
			{"is-elsewhere", "down", `192\.0\.2\.1:443`, ``},
			{"is-deaf", "down", `no handshake in time|no answer in time`, ``},
			{"exits", "down", `it ended before the handshake: exited with status 3`, ``},
			{"exits-with-words", "down", `it ended before the handshake: exited with status 127: cannot load libmoon.so.3: no such file`, ``},
			{"exits-well", "down", `it ended before the handshake, with status 0`, ``},
			{"hangs-in-the-handshake", "down", `no handshake in time`, ``},
			{"panics-in-the-handshake", "down", `it ended before the handshake: exited with status 2: panic: the moon is full`, ``},
		}},
		{"calls", []symptom{
			{"hangs-in-describe", "down", `describing plugin "hangs-in-describe": calling Describe: no answer in time`, ``},
			{"hangs-in-start", "down", `starting plugin "hangs-in-start": calling Start: no answer in time`, ``},
			{"starts-late", "down", `starting plugin "starts-late": calling Start: no answer in time`, ``},
			{"refuses", "down", `starting plugin "refuses": .*the moon is full`, ``},
			{"panics-in-start", "down", `exited with status 2: panic: the moon is new`, ``},
			{"has-strange-addresses", "up", ``, ``},
			{"adopts-what-is-not-its-own", "up", ``, ``},
			{"hangs-in-drain", "up", ``, ``},
			{"hangs-in-stop", "up", ``, ``},
			{"dies-in-drain", "up", ``, ``},
			{"describes-at-length", "down", `describ.*version.* 8388608 bytes`, ``},
			{"describes-nonsense", "down", `what the plugin says of itself is wrong: the key "\[2J"`, ``},
			{"describes-too-many-keys", "down", `describ.* 100000 keys`, ``},
			{"has-no-locality", "down", `describ.*local`, ``},
		}},
		{"process", []symptom{
			{"panics", "down", `exited with status 2: panic: the moon is full`, ``},
			{"forks-and-exits", "down", `exited with status 4`, ``},
			{"leaks-memory", "down", `it ran out of memory; its limit is `, ``},
			{"stops-itself", "down", `hangs: no answer to a probe for `, ``},
			{"ignores-signals", "up", ``, ``},
			{"hangs-in-the-probe", "down", `hangs: no answer to a probe for `, ``},
			{"says-it-is-unwell", "down", `NOT_SERVING`, ``},
			{"floods-stdout", "up", ``, ``},
		}},
		{"words", []symptom{
			{"floods-stderr", "up", ``, ``},
			{"floods-stderr-without-lines", "up", ``, ``},
			{"lies-in-its-status", "down", `read from the right`, ``},
			{"floods-its-status", "down", `cause \d+`, ``},
		}},
		{"streams", []symptom{
			{"ends-exchange", "down", `the plugin ended Exchange`, ``},
			{"ends-hostcalls", "down", `the plugin ended HostCalls`, ``},
			{"garbles-batches", "down", `malformed batch`, ``},
			{"sends-huge-batches", "down", `larger than max`, ``},
			{"is-of-tomorrow", "up", ``, `Unknown:10000 `},
			{"never-reads", "down", `does not read`, ``},
			{"asks-for-everything", "up", `7 of 7 were refused`, ``},
			{"floods-questions", "up", ``, ``},
			{"floods-questions-and-reads-no-answer", "up", ``, ``},
		}},
		{"connections", []symptom{
			{"opens-100000-connections", "up", ``, `Refused:6\d{4} .*Last:a connection was refused: the transport has 3\d{4} connections; what is left of the host.s 65536 is kept for the others`},
			{"sends-unknown-connections", "up", ``, `Strays:700000 .*Last:Received of connection 1, which is not open`},
			{"never-confirms-a-close", "up", ``, `Violations:40 `},
			{"closes-twice", "up", ``, `Strays:2 `},
			{"resumes-what-is-not-its-own", "up", ``, ``},
			{"tells-no-json", "up", ``, ``},
		}},
		{"rules", []symptom{
			{"violates-credit", "down", `broke the rules of the link: connection 1: the window was exceeded`, ``},
			{"returns-credit-that-it-has-not", "down", `broke the rules of the link: connection 1: credit of 1073741824 bytes`, ``},
			{"opens-twice", "down", `broke the rules of the link: connection 1: opened twice`, ``},
			{"has-long-keys", "down", `broke the rules of the link: connection 1: resume key of 1048576 bytes`, ``},
			{"has-long-checkpoints", "down", `broke the rules of the link: connection 1: checkpoint of 1048576 bytes`, ``},
			{"has-long-cursors", "down", `broke the rules of the link: connection 1: cursor of 1048576 bytes`, ``},
			{"sends-too-large-messages", "up", ``, `Violations:1 .*Last:connection 1: message of more than 1048576 bytes`},
			{"sends-pieces-without-end", "up", ``, `Violations:[1-9]\d\d+ `},
		}},
		{"floods", []symptom{
			{"floods-events", "up", ``, `Strays:[1-9]\d{4}`},
			{"opens-and-closes", "up", ``, ``},
			{"sends-empty-pieces", "up", ``, ``},
		}},
	} {
		t.Run(group.name, func(t *testing.T) {
			h := startFaulty(t, group.symptoms)
			unharmed := peersThatSeeNothing(t, h)
			h.awaitAll(group.symptoms)
			unharmed()
			h.endsWell()
		})
	}
}

// awaitAll waits until every defect has shown its symptom.
func (h *hostProcess) awaitAll(symptoms []symptom) {
	h.t.Helper()
	missing := slices.Clone(symptoms)
	for deadline := time.Now().Add(limit); len(missing) > 0 && time.Now().Before(deadline); {
		s := h.status()
		missing = slices.DeleteFunc(missing, func(want symptom) bool { return want.is(plugin(s, want.defect)) })
	}
	for _, m := range missing {
		h.t.Errorf("%s is never %s with the cause %q and the conduct %q; its status is %+v", m.defect, m.state, m.cause, m.conduct, plugin(h.status(), m.defect))
	}
}

func (want symptom) is(p supervisor.Status) bool {
	switch p.State {
	case supervisor.Starting, supervisor.BackingOff, supervisor.Failed, supervisor.Degraded:
		if want.state != "down" {
			return false
		}
	case supervisor.Ready:
		if want.state != "up" {
			return false
		}
	default:
		return false
	}
	return regexp.MustCompile(want.cause).MatchString(p.Cause) && regexp.MustCompile(want.conduct).MatchString(fmt.Sprintf("%+v", p.Conduct))
}

// startFaulty starts a host with a healthy transport, and a faulty one for each
// symptom.
func startFaulty(t *testing.T, symptoms []symptom) *hostProcess {
	t.Helper()
	settings := map[string]string{
		"forks-and-exits": "  sandbox = \"off\"\n", // else it cannot fork
		"leaks-memory":    "  sandbox = { memory = \"256MiB\" }\n",
	}
	plugins := faultyPlugins(t)
	config := "application {\n  builtin = \"echo\"\n}\nlimits {\n  max_message_bytes = 1048576\n}\n" +
		"supervision {\n  probe_interval = \"1s\"\n  probe_timeout = \"4s\"\n}\n" +
		"transport \"websocket\" {\n  listen = [\"ws://127.0.0.1:0\"]\n}\n"
	for _, s := range symptoms {
		plugins.add(s.defect)
		config += fmt.Sprintf("transport %q {\n%s}\n", s.defect, settings[s.defect])
	}
	path := filepath.Join(t.TempDir(), "host.hcl")
	if err := os.WriteFile(path, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	h := launch(t, "--config", path, "--plugin-dir", plugins.dir)
	h.awaitReady()
	return h
}

// A pluginDir has the plugin websocket, and faulty ones.
type pluginDir struct {
	t   *testing.T
	dir string
}

func faultyPlugins(t *testing.T) pluginDir {
	t.Helper()
	d := pluginDir{t, t.TempDir()}
	d.link(filepath.Join(bin().dir, "plugins", "transport-websocket"), "websocket")
	return d
}

// add adds the plugin with a defect, which is called so.
func (d pluginDir) add(defect string) { d.link(bin().faulty(), defect) }

func (d pluginDir) link(from, name string) {
	d.t.Helper()
	if err := os.Link(from, filepath.Join(d.dir, "transport-"+name)); err != nil {
		d.t.Fatal(err)
	}
}

// peersThatSeeNothing has peers of the healthy transport ask without a pause,
// and others come and go, until the function that it returns is called: that lets
// them go on for a while, beside all defects. An error that one of them meets
// fails the test.
func peersThatSeeNothing(t *testing.T, h *hostProcess) (done func()) {
	t.Helper()
	var stop atomic.Bool
	var served atomic.Int64
	var wg sync.WaitGroup
	ask := func(ws *websocket.Conn, id int64) bool {
		_ = ws.SetReadDeadline(time.Now().Add(limit))
		if err := ws.WriteMessage(websocket.TextMessage, fmt.Appendf(nil, `{"jsonrpc":"2.0","id":%d,"method":"m","params":[%d]}`, id, id)); err != nil {
			t.Errorf("a peer of the healthy transport: %v", err)
			return false
		}
		_, got, err := ws.ReadMessage()
		if want := fmt.Sprintf(`{"jsonrpc":"2.0","id":%d,"result":[%d]}`, id, id); err != nil || string(got) != want {
			t.Errorf("a peer of the healthy transport got %.200s, %v; want %s", got, err, want)
			return false
		}
		served.Add(1)
		return true
	}
	for range 3 {
		ws := h.dial()
		wg.Go(func() {
			for id := int64(0); !stop.Load() && ask(ws, id); id++ {
				time.Sleep(time.Millisecond) // so that the test leaves a processor to the host
			}
		})
	}
	wg.Go(func() {
		for id := int64(0); !stop.Load(); id++ {
			ws, _, err := websocket.DefaultDialer.Dial(h.url(), nil)
			if err != nil {
				t.Errorf("a new peer of the healthy transport: %v", err)
				return
			}
			ok := ask(ws, id)
			_ = ws.Close()
			if !ok {
				return
			}
			time.Sleep(10 * time.Millisecond)
		}
	})
	return func() {
		t.Helper()
		seen := served.Load()
		for deadline := time.Now().Add(limit); served.Load() < seen+300; h.status() {
			if time.Now().After(deadline) {
				t.Errorf("the peers of the healthy transport were served %d times in %v", served.Load()-seen, limit)
				break
			}
		}
		stop.Store(true)
		wg.Wait()
		if p := plugin(h.status(), "websocket"); p.State != supervisor.Ready || p.Restarts != 0 {
			t.Errorf("the healthy transport is %+v", p)
		}
	}
}

// mostMemory is what a host of 20 plugins may have had at its peak.
const mostMemory = 512 << 10 // KiB

// endsWell asks the host to end, and looks at what it was and what it leaves.
func (h *hostProcess) endsWell() {
	t := h.t
	t.Helper()
	if kB := peakMemory(t, h.cmd.Process.Pid); kB > mostMemory {
		t.Errorf("the host had %d KiB of memory at its peak, want at most %d", kB, mostMemory)
	} else {
		t.Logf("the host had %d KiB of memory at its peak, and logged %d KiB", kB, len(h.stderr())>>10)
	}
	text := h.run("status")
	for i, r := range text {
		if r != '\n' && !unicode.IsPrint(r) {
			t.Errorf("status prints %q: %q", r, text[max(0, i-50):min(len(text), i+50)])
			break
		}
	}
	if n := strings.Count(text, "\n"); n > 400 {
		t.Errorf("status prints %d lines", n)
	}
	if n := len(h.stderr()); n > 1<<20 {
		t.Errorf("the host logged %d bytes", n)
	}
	began := time.Now()
	_ = h.cmd.Process.Signal(syscall.SIGTERM)
	if code := h.wait(); code != 0 {
		t.Errorf("exit status %d\n%s", code, h.lastWord())
	}
	// One second to drain, three for the connections that nobody confirms, five
	// for the ladder; the rest is for a loaded machine.
	if d := time.Since(began); d > 20*time.Second {
		t.Errorf("it took %v to end", d)
	}
}

func peakMemory(t *testing.T, pid int) (kB int) {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Skip(err)
	}
	for line := range strings.Lines(string(b)) {
		if _, err := fmt.Sscanf(line, "VmHWM: %d kB", &kB); err == nil {
			return kB
		}
	}
	t.Fatalf("no peak in\n%s", b)
	return 0
}
