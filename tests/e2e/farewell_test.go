//go:build unix

package e2e

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/transporthost/transporthost/host"
	"github.com/transporthost/transporthost/tests/relay/backend"
)

// lastWords is a program that answers one request, says n notifications and
// ends, as soon as somebody has written to the pipe.
func lastWords(pipe string, n int) []string {
	return []string{"sh", "-c", fmt.Sprintf(`read -r request; read -r go < %s
echo '{"id":1,"result":null}'; i=0; while [ $i -lt %d ]; do echo '{"method":"n","params":['$i']}'; i=$((i+1)); done`, pipe, n)}
}

// TestLastWordsOutliveTheTerminalsPlugin: a program that speaks and ends while
// transport-stdio hangs is heard to its end, through the process that replaces
// it, and nothing twice.
func TestLastWordsOutliveTheTerminalsPlugin(t *testing.T) {
	const n = 100
	pipe := filepath.Join(t.TempDir(), "go")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	h := start(t, append([]string{"--"}, lastWords(pipe, n)...)...)
	if _, err := fmt.Fprintln(h.stdin, `{"id":1,"method":"m"}`); err != nil {
		t.Fatal(err)
	}
	start, err := os.OpenFile(pipe, os.O_WRONLY, 0) // waits until the program reads
	if err != nil {
		t.Fatal(err)
	}
	victim := plugin(h.status(), "stdio").PID
	if err := syscall.Kill(victim, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	await(t, "the plugin is stopped", func() bool {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", victim))
		return err == nil && bytes.Contains(b, []byte(") T "))
	})
	if _, err := fmt.Fprintln(start, "go"); err != nil {
		t.Fatal(err)
	}
	_ = start.Close()
	h.await("everything is said", func(s host.Status) bool { return s.Counters.Sent == n+1 })
	if err := syscall.Kill(victim, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(h.stdout)
	if err != nil {
		t.Fatal(err)
	}
	want := `{"id":1,"result":null}` + "\n"
	for i := range n {
		want += fmt.Sprintf(`{"method":"n","params":[%d]}`, i) + "\n"
	}
	if string(got) != want {
		t.Errorf("the terminal got %d lines:\n%.300s\nwant %d", strings.Count(string(got), "\n"), got, n+1)
	}
	h.wait()
}

func await(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(limit); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("never: %s", what)
		}
	}
}

// A throttle passes what a host sends on at so many bytes a tick, and what comes
// back at once.
type throttle struct {
	address string
	target  string
	bytes   int64
}

const throttleTick = 20 * time.Millisecond

func newThrottle(t *testing.T, target string, bytes int64) *throttle {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	th := &throttle{address: l.Addr().String(), target: target, bytes: bytes}
	var all sync.WaitGroup
	over := make(chan struct{})
	all.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			all.Go(func() { th.serve(c, over) })
		}
	})
	t.Cleanup(func() {
		close(over)
		_ = l.Close()
		all.Wait()
	})
	return th
}

func (th *throttle) serve(from net.Conn, over <-chan struct{}) {
	defer from.Close()
	to, err := net.Dial("tcp", th.target)
	if err != nil {
		return
	}
	defer to.Close()
	var both sync.WaitGroup
	defer both.Wait()
	both.Go(func() { _, _ = io.Copy(from, to); _ = from.Close() })
	tick := time.NewTicker(throttleTick)
	defer tick.Stop()
	defer to.Close()
	for {
		select {
		case <-tick.C:
			if _, err := io.CopyN(to, from, th.bytes); err != nil {
				return
			}
		case <-over:
			return
		}
	}
}

// TestRemoteEndsBesideAThrottledRelay: a relay that takes what the host sends
// slowly, or not at all, keeps neither the host nor the plugin from ending: with
// everything that waits for it, SIGTERM takes no longer than the drain, the leave
// of the peers, and the five seconds in which a plugin is stopped.
func TestRemoteEndsBesideAThrottledRelay(t *testing.T) {
	const (
		drain   = time.Second     // configured below
		leave   = 3 * time.Second // what peers get to be told
		ladder  = 5 * time.Second
		clients = 8
		size    = 3 << 20 // of the answer to each: together more than the system holds for a socket
	)
	for _, tt := range []struct {
		name     string
		profile  backend.Profile // 2: each answer is one frame
		slow     bool            // the relay reads slowly, else nothing
		inFlight bool            // a request that nobody answers is in flight too
	}{
		{"reads slowly", backend.Profile3, true, false}, {"reads nothing", backend.Profile3, false, false},
		{"reads nothing of whole frames", backend.Profile2, false, false}, {"reads nothing, and a request is in flight", backend.Profile3, false, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := newRelay(t, backend.Options{Profile: tt.profile})
			r.signIn(backend.AuthChatGPT, "")
			s := setup{local: besideWebsocket + "limits { drain_timeout = \"1s\" }\n"}
			if tt.inFlight {
				s.application = command(t, "echo", "")
			}
			if tt.slow {
				s.url = "http://" + newThrottle(t, r.address, 64<<10).address + backend.BasePath
			}
			h := r.start(s)
			r.connected(h, 1)
			var all []*backend.Client
			for i := range clients {
				all = append(all, r.initialized(fmt.Sprint("c", i), backend.NewStreamID()))
			}
			asking := r.initialized("asking", backend.NewStreamID())
			before := h.status().Counters.Sent
			if !tt.slow {
				r.StopReading(limit)
			}
			params := `["` + strings.Repeat("x", size) + `"]`
			for _, c := range all {
				r.must(c.Send(fmt.Appendf(nil, `{"jsonrpc":"2.0","id":1,"method":"echo","params":%s}`, params)))
			}
			h.await("everything is answered, and waits for the relay", func(s host.Status) bool { return s.Counters.Sent == before+clients })
			if tt.inFlight {
				r.must(asking.Send([]byte(`{"jsonrpc":"2.0","id":"never","method":"hold"}`)))
				h.await("a request is in flight", func(s host.Status) bool { return s.Counters.InFlight == 1 })
			}
			family := descendants(h.cmd.Process.Pid)
			took := h.end() // it looks whether anything remains
			t.Logf("%d processes ended within %v", len(family), took.Round(time.Millisecond))
			if most := drain + leave + ladder; took > most {
				t.Errorf("the host ended after %v, want at most %v", took, most)
			}
			if code := h.wait(); code != 0 {
				t.Errorf("it ended with status %d: %s", code, h.lastWord())
			}
		})
	}
}
