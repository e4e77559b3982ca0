//go:build unix

package supervisor

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	pluginsdk "github.com/transporthost/transporthost/plugin-sdk"
	"github.com/transporthost/transporthost/shared/transport"
)

// A listeningPlugin tells every peer its pid, and repeats each of its lines.
type listeningPlugin struct {
	behaviour string
	mu        sync.Mutex // guards l
	l         net.Listener
}

func (*listeningPlugin) Describe() pluginsdk.Description {
	return pluginsdk.Description{Name: "test", Version: "1.2.3", Locality: pluginsdk.Local}
}

func (p *listeningPlugin) Serve(ctx context.Context, h *pluginsdk.Host) error {
	if p.behaviour == "listens once its gate is open" {
		h.ReportStatus(transport.Status{State: "at the gate", Ready: true})
		awaitFile(ctx, os.Getenv(gate))
	}
	l, url, err := h.Listen(ctx, 0, "")
	if err != nil {
		return err
	}
	p.mu.Lock()
	p.l = l
	p.mu.Unlock()
	h.Ready(url)
	var peers sync.WaitGroup
	defer peers.Wait()
	go func() {
		<-ctx.Done()
		_ = l.Close()
	}()
	for {
		sock, err := l.Accept()
		if err != nil {
			break
		}
		c, inbox, err := h.OpenInbox(pluginsdk.Opened{})
		if err != nil {
			return err
		}
		ended, end := context.WithCancel(ctx)
		peers.Go(func() {
			_, _ = inbox.Receive(ended) // the host's close
			_ = sock.Close()
		})
		peers.Go(func() {
			defer end()
			_, _ = fmt.Fprintln(sock, os.Getpid())
			lines := bufio.NewScanner(sock)
			for lines.Scan() {
				_, _ = fmt.Fprintln(sock, lines.Text())
			}
			c.Close(pluginsdk.CloseReason{Code: pluginsdk.CloseNormal})
		})
	}
	<-ctx.Done()
	return nil
}

func (p *listeningPlugin) Drain(ctx context.Context) error {
	switch p.behaviour {
	case "stops in Drain":
		return syscall.Kill(os.Getpid(), syscall.SIGSTOP)
	case "never ends its Drain":
		<-ctx.Done()
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.l.Close()
}

// startListening runs a plugin with a listener.
func startListening(t *testing.T, change func(*Options)) *rig {
	t.Helper()
	return startListeningAs(t, "listens", change)
}

func startListeningAs(t *testing.T, b string, change func(*Options)) *rig {
	t.Helper()
	ls, err := bindAll(t.Context(), []string{"ws://127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ls.Close() })
	r := start(t, b, func(s *Spec, o *Options) {
		s.Listeners = ls
		if change != nil {
			change(o)
		}
	})
	r.await("ready", isReady)
	return r
}

// behaving is the spec of r's plugin with another behaviour.
func (r *rig) behaving(b string, env ...string) Spec {
	spec := r.plugin.specNow()
	spec.Env = map[string]string{behaviour: b}
	for i := 0; i < len(env); i += 2 {
		spec.Env[env[i]] = env[i+1]
	}
	return spec
}

// A visitor is a peer of a listeningPlugin.
type visitor struct {
	t    *testing.T
	sock net.Conn
	r    *bufio.Reader
	pid  int // of the process that serves it
}

func (r *rig) visit() *visitor {
	r.t.Helper()
	sock, err := net.Dial("tcp", strings.TrimPrefix(r.plugin.Listeners().URLs()[0], "ws://"))
	if err != nil {
		r.t.Fatalf("a peer was refused: %v", err)
	}
	r.t.Cleanup(func() { _ = sock.Close() })
	_ = sock.SetDeadline(time.Now().Add(30 * time.Second))
	v := &visitor{t: r.t, sock: sock, r: bufio.NewReader(sock)}
	if _, err := fmt.Fscanln(v.r, &v.pid); err != nil {
		r.t.Fatalf("a peer was not served: %v", err)
	}
	return v
}

func (v *visitor) talk() {
	v.t.Helper()
	if _, err := fmt.Fprintln(v.sock, "hello"); err != nil {
		v.t.Fatal(err)
	}
	if line, err := v.r.ReadString('\n'); line != "hello\n" {
		v.t.Fatalf("a peer of process %d got %q, %v", v.pid, line, err)
	}
}

func (v *visitor) closed() {
	v.t.Helper()
	if line, err := v.r.ReadString('\n'); err == nil {
		v.t.Fatalf("a peer got %q, want the end", line)
	}
}

func (r *rig) awaitRetired(pid int) {
	r.t.Helper()
	r.await("retired", func(s Status) bool {
		return gone(pid) && !slices.ContainsFunc(s.Retiring, func(x Retiring) bool { return x.PID == pid })
	})
}

func (r *rig) closeReasons() (codes []transport.CloseCode) {
	r.sessions.mu.Lock()
	defer r.sessions.mu.Unlock()
	for _, reason := range r.sessions.reasons {
		codes = append(codes, reason.Code)
	}
	return codes
}

// TestReplacementWithoutABreak: who is there stays, who comes is served by the
// new process, and the old one is gone after its last peer.
func TestReplacementWithoutABreak(t *testing.T) {
	r := startListening(t, nil)
	first := r.plugin.Status()
	old := r.visit()
	if old.pid != first.PID {
		t.Fatalf("process %d serves, want %d", old.pid, first.PID)
	}
	if err := r.plugin.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	s := r.plugin.Status()
	if s.State != Ready || s.Incarnation != 2 || s.PID == first.PID || s.Restarts != 1 || s.Successor != nil || s.Cause != causeReplaced {
		t.Errorf("status %+v, want the new process", s)
	}
	if len(s.Retiring) != 1 || s.Retiring[0].PID != first.PID || s.Retiring[0].Incarnation != 1 || s.Retiring[0].Connections != 1 || !s.Retiring[0].Until.After(s.Retiring[0].Since) {
		t.Errorf("retiring: %+v, want the old process with its peer", s.Retiring)
	}
	for range 20 {
		v := r.visit()
		if v.pid != s.PID && v.pid != first.PID {
			t.Fatalf("process %d serves a new peer", v.pid)
		}
		v.talk()
		_ = v.sock.Close()
	}
	old.talk()
	_ = old.sock.Close()
	r.awaitRetired(first.PID)
	if v := r.visit(); v.pid != s.PID {
		t.Errorf("process %d serves at last, want %d", v.pid, s.PID)
	}
	if got := r.closeReasons(); !slices.Equal(got, []transport.CloseCode{transport.CloseGoingAway}) {
		t.Errorf("the router heard %v", got)
	}
}

// TestPeersOfARetiringProcessAreSentAway when its time is over.
func TestPeersOfARetiringProcessAreSentAway(t *testing.T) {
	r := startListening(t, func(o *Options) { o.RetireTimeout = 300 * time.Millisecond })
	old := r.visit()
	if err := r.plugin.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	old.closed()
	r.awaitRetired(old.pid)
	r.visit().talk()
}

// TestRetiringProcessesAreFew: with a third one the first has to go.
func TestRetiringProcessesAreFew(t *testing.T) {
	r := startListening(t, func(o *Options) { o.RetireTimeout = time.Hour })
	var peers []*visitor
	for range maxRetiring + 1 {
		v := r.visit()
		peers = append(peers, v)
		if err := r.plugin.Restart(t.Context()); err != nil {
			t.Fatal(err)
		}
		r.awaitServing(v.pid)
	}
	peers[0].closed()
	r.awaitRetired(peers[0].pid)
	for _, v := range peers[1:] {
		v.talk()
	}
	if s := r.plugin.Status(); len(s.Retiring) != maxRetiring {
		t.Errorf("%d processes retire, want %d", len(s.Retiring), maxRetiring)
	}
	began := time.Now()
	r.stop()
	if d := time.Since(began); d > 6*time.Second {
		t.Errorf("stopping took %v, want one ladder for all", d)
	}
	for _, v := range peers {
		if !gone(v.pid) {
			t.Errorf("process %d is still there", v.pid)
		}
	}
}

// awaitServing waits until new peers are not served by process old any more.
func (r *rig) awaitServing(old int) {
	r.t.Helper()
	for deadline := time.Now().Add(30 * time.Second); ; {
		v := r.visit()
		_ = v.sock.Close()
		if v.pid != old {
			return
		}
		if time.Now().After(deadline) {
			r.t.Fatalf("process %d still accepts", old)
		}
	}
}

// TestARetiringProcessThatDies is nobody's failure but its peers'.
func TestARetiringProcessThatDies(t *testing.T) {
	r := startListening(t, nil)
	old := r.visit()
	if err := r.plugin.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(old.pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	r.awaitRetired(old.pid)
	if s := r.plugin.Status(); s.State != Ready || s.Incarnation != 2 || s.Restarts != 1 {
		t.Errorf("status %+v, want the new process undisturbed", s)
	}
	if got := r.closeReasons(); !slices.Equal(got, []transport.CloseCode{transport.ClosePluginLost}) {
		t.Errorf("the router heard %v", got)
	}
}

// TestASuccessorThatFailsDisturbsNobody.
func TestASuccessorThatFailsDisturbsNobody(t *testing.T) {
	for _, tt := range []struct{ behaviour, cause string }{
		{"prints rubbish", "not a plugin: its first line"},
		{"exits at once", "it ended before the handshake: exited with status 3"},
		{"hangs before the handshake", "no handshake in time"},
		{"refuses its config", `colour is "blue", want red`},
	} {
		t.Run(tt.behaviour, func(t *testing.T) {
			t.Parallel()
			r := startListening(t, func(o *Options) {
				if strings.HasPrefix(tt.behaviour, "hangs") {
					o.LaunchTimeout = 8 * time.Second // the good ones have it too
				}
			})
			v := r.visit()
			err := r.plugin.Replace(t.Context(), r.behaving(tt.behaviour))
			if err == nil || !strings.Contains(err.Error(), tt.cause) {
				t.Errorf("Replace = %v, want %q", err, tt.cause)
			}
			v.talk()
			s := r.plugin.Status()
			if s.State != Ready || s.PID != v.pid || s.Restarts != 0 || s.Incarnation != 1 || s.Successor != nil || len(s.Retiring) > 0 {
				t.Errorf("status %+v, want the old process as it was", s)
			}
			if !strings.Contains(s.Cause, "not replaced: ") || !strings.Contains(s.Cause, tt.cause) || s.Remedy == "" {
				t.Errorf("cause %q, remedy %q", s.Cause, s.Remedy)
			}
			if err := r.plugin.Restart(t.Context()); err != nil {
				t.Errorf("the spec that failed is still there: %v", err)
			}
			if s := r.plugin.Status(); s.Remedy != "" || s.Cause != causeReplaced {
				t.Errorf("after a good restart: cause %q, remedy %q", s.Cause, s.Remedy)
			}
		})
	}
}

// TestTheOldProcessDiesDuringAReplacement: what was to replace it does.
func TestTheOldProcessDiesDuringAReplacement(t *testing.T) {
	r := startListening(t, nil)
	old := r.visit()
	open := filepath.Join(t.TempDir(), "open")
	replaced := make(chan error, 1)
	go func() {
		replaced <- r.plugin.Replace(t.Context(), r.behaving("listens once its gate is open", gate, open))
	}()
	s := r.await("a successor", func(s Status) bool { return s.Successor != nil && s.Successor.PID != 0 })
	if s.State != Ready || s.PID != old.pid || s.Successor.Incarnation != 2 {
		t.Errorf("status %+v, want the old process serving", s)
	}
	if err := syscall.Kill(old.pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	s = r.await("starting", func(s Status) bool { return s.State == Starting })
	if !strings.Contains(s.Cause, "killed by signal 9") || !s.Serves() {
		t.Errorf("status %+v, want the cause", s)
	}
	if err := os.WriteFile(open, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := <-replaced; err != nil {
		t.Fatal(err)
	}
	if s := r.plugin.Status(); s.State != Ready || s.Incarnation != 2 || s.Restarts != 1 || r.visit().pid != s.PID {
		t.Errorf("status %+v, want the successor", s)
	}
}

// TestStoppingDuringAReplacement ends both processes within one ladder.
func TestStoppingDuringAReplacement(t *testing.T) {
	for _, b := range []string{"hangs in Describe", "hangs before the handshake", "listens once its gate is open"} {
		t.Run(b, func(t *testing.T) {
			t.Parallel()
			r := startListening(t, nil)
			replaced := make(chan error, 1)
			go func() {
				replaced <- r.plugin.Replace(t.Context(), r.behaving(b, gate, filepath.Join(t.TempDir(), "never")))
			}()
			s := r.await("a successor", func(s Status) bool {
				return s.Successor != nil && (s.Successor.PID != 0 || b == "hangs before the handshake")
			})
			began := time.Now()
			r.stop()
			if d := time.Since(began); d > 6*time.Second {
				t.Errorf("stopping took %v", d)
			}
			if err := <-replaced; err == nil {
				t.Error("the replacement was reported as done")
			}
			if !gone(s.PID) || s.Successor.PID != 0 && !gone(s.Successor.PID) {
				t.Errorf("a process of %+v is still there", s)
			}
		})
	}
}

// TestReplacementByTurns: a plugin without listeners has one process at a time,
// and its successor must have been launched before the old one is ended.
func TestReplacementByTurns(t *testing.T) {
	r := start(t, "healthy", nil)
	first := r.await("ready", isReady)
	if err := r.plugin.Replace(t.Context(), r.behaving("exits at once")); err == nil || !strings.Contains(err.Error(), "status 3") {
		t.Errorf("Replace = %v", err)
	}
	if s := r.plugin.Status(); s.PID != first.PID || s.State != Ready {
		t.Errorf("status %+v, want the old process", s)
	}
	// It is seen too late that the next one will not start: what was before is
	// started again.
	if err := r.plugin.Replace(t.Context(), r.behaving("refuses its config")); err == nil || !strings.Contains(err.Error(), "want red") {
		t.Errorf("Replace = %v", err)
	}
	s := r.plugin.Status()
	if s.State != Ready || s.PID == first.PID || !strings.Contains(s.Cause, "not replaced: ") {
		t.Errorf("status %+v, want another process like the first", s)
	}
	if err := r.plugin.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	if next := r.plugin.Status(); next.State != Ready || next.PID == s.PID || next.Cause != causeReplaced || !gone(s.PID) || !gone(first.PID) {
		t.Errorf("status %+v, want the next process", next)
	}
}

// TestPresence tells that the file of a process is another one now.
func TestPresence(t *testing.T) {
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	path := filepath.Join(dir, "transport-test")
	install := func() {
		b, err := os.ReadFile(exe)
		if err == nil {
			err = os.WriteFile(path+".new", b, 0o700)
		}
		if err == nil {
			err = os.Rename(path+".new", path)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	install()
	r := start(t, "healthy", func(s *Spec, _ *Options) { s.Path = path })
	r.await("ready", isReady)
	if x, ok := r.plugin.Presence(); !ok || x.Changed || x.Description.Version != "1.2.3" {
		t.Errorf("Presence() = %+v, %v", x, ok)
	}
	install()
	if x, ok := r.plugin.Presence(); !ok || !x.Changed {
		t.Errorf("after an upgrade, Presence() = %+v, %v", x, ok)
	}
	if err := r.plugin.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	if x, _ := r.plugin.Presence(); x.Changed {
		t.Error("after a restart it is still another file")
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if x, _ := r.plugin.Presence(); !x.Changed {
		t.Error("a file that is not there is unchanged")
	}
}
