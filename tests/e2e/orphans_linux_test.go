package e2e

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"github.com/transporthost/transporthost/host"
	"github.com/transporthost/transporthost/tests/relay/backend"
)

// What a host leaves: nothing, however it ends.

// goneWithin is what a killed host's keeper may take.
const goneWithin = 2 * time.Second

// A brood is what one host runs, known by a number that nothing else on this
// machine has among its arguments or in its environment.
type brood struct {
	t     *testing.T
	token string
}

func newBrood(t *testing.T) brood {
	t.Helper()
	b := brood{t, fmt.Sprintf("%d%09d", os.Getpid(), rand.IntN(1e9))}
	t.Cleanup(func() { // whatever has failed
		for _, p := range processes() {
			if b.has(p) {
				_ = syscall.Kill(p.pid, syscall.SIGKILL)
			}
		}
	})
	return b
}

// broodVariable is passed on to children: its name is one of those that are.
const broodVariable = "XDG_E2E_BROOD"

func (b brood) env() []string { return []string{broodVariable + "=" + b.token} }

// daemonsEach is how many daemons application leaves.
const daemonsEach = 2

// application is a program that leaves its descendants behind before it answers:
// they have their own session, no parent and ears for no signal, and one of them
// an environment of its own.
func (b brood) application() []string {
	b.t.Helper()
	const script = `for how in "" "env -i PATH=$PATH"; do
	(setsid $how sh -c 'trap "" HUP TERM INT; exec sleep 1000 0.$0' "$0" >/dev/null 2>&1 </dev/null &)
done
exec env ` + childMode + `=echo "$1"`
	exe, err := os.Executable()
	if err != nil {
		b.t.Fatal(err)
	}
	return []string{"sh", "-c", script, b.token, exe}
}

func (b brood) has(p process) bool {
	return slices.Contains(p.args, "0."+b.token) || slices.Contains(p.args, b.token) || slices.Contains(p.env, broodVariable+"="+b.token)
}

// daemons are those that the applications have left.
func (b brood) daemons() (pids []int) {
	for _, p := range processes() {
		if slices.Contains(p.args, "0."+b.token) {
			pids = append(pids, p.pid)
		}
	}
	return pids
}

// await waits for n daemons.
func (b brood) await(n int) (pids []int) {
	b.t.Helper()
	for deadline := time.Now().Add(limit); ; {
		if pids = b.daemons(); len(pids) == n {
			return pids
		}
		if time.Now().After(deadline) {
			b.t.Fatalf("there are %d daemons, want %d", len(pids), n)
		}
	}
}

// A process is one that lives.
type process struct {
	pid       int
	args, env []string
}

func processes() (all []process) {
	list, _ := filepath.Glob("/proc/[0-9]*")
	for _, dir := range list {
		pid, err := strconv.Atoi(filepath.Base(dir))
		if err != nil || pid == os.Getpid() {
			continue
		}
		args, err := os.ReadFile(dir + "/cmdline")
		if err != nil || len(args) == 0 { // of the kernel, or dead
			continue
		}
		env, _ := os.ReadFile(dir + "/environ")
		all = append(all, process{pid, strings.Split(string(args), "\x00"), strings.Split(string(env), "\x00")})
	}
	return all
}

// A killed is a host that was killed, and what must not be there any more.
type killed struct {
	brood
	pid    int
	family []int // its descendants when it was killed
	places []string
}

// kill kills a host. Below the places, and where they are files themselves,
// nothing may be left.
func (b brood) kill(h *hostProcess, places ...string) killed {
	h.t.Helper()
	k := killed{b, h.cmd.Process.Pid, descendants(h.cmd.Process.Pid), places}
	if err := h.cmd.Process.Kill(); err != nil {
		h.t.Fatal(err)
	}
	return k
}

// left says what is there.
func (k killed) left() (what []string) {
	for _, p := range processes() {
		keeper := len(p.args) > 2 && p.args[0] == "transporthost:keeper" && p.args[2] == strconv.Itoa(k.pid)
		if keeper || k.has(p) || slices.Contains(k.family, p.pid) && alive(p.pid) {
			what = append(what, fmt.Sprintf("process %d: %.100q", p.pid, p.args))
		}
	}
	for _, place := range k.places {
		if info, err := os.Lstat(place); err == nil && !info.IsDir() {
			what = append(what, place)
		}
		entries, _ := os.ReadDir(place)
		for _, e := range entries {
			what = append(what, filepath.Join(place, e.Name()))
		}
	}
	return what
}

// count waits for nothing to be left, and returns what still is when it may not.
func (k killed) count() (survivors []string, took time.Duration) {
	for began := time.Now(); ; time.Sleep(5 * time.Millisecond) {
		survivors, took = k.left(), time.Since(began)
		if len(survivors) == 0 || took > goneWithin {
			return survivors, took
		}
	}
}

func (k killed) awaitNothing() {
	k.t.Helper()
	if survivors, _ := k.count(); len(survivors) > 0 {
		k.t.Errorf("%v after the host was killed there are\n%s", goneWithin, strings.Join(survivors, "\n"))
	}
}

// unixSocket makes the address of a socket.
func unixSocket(t *testing.T) (url, path string) {
	t.Helper()
	path = filepath.Join(runtimeDir(t), "s")
	return "unix://" + path, path
}

func TestTheTreeOfAConnectionEndsWithIt(t *testing.T) {
	b := newBrood(t)
	socketURL, socket := unixSocket(t)
	h := launchIn(t, b.env(), append([]string{"--listen", "ws://127.0.0.1:0", "--listen", socketURL, "--"}, b.application()...)...)
	h.awaitReady()
	var peers []*websocket.Conn
	for range 3 {
		ws := h.dial()
		send(t, ws, `{"id":1,"method":"m"}`)
		receive(t, ws)
		peers = append(peers, ws)
	}
	b.await(3 * daemonsEach)
	_ = peers[0].Close()
	rest := b.await(2 * daemonsEach)
	for _, ws := range peers[1:] { // whose own are still there
		send(t, ws, `{"id":2,"method":"m"}`)
		receive(t, ws)
	}
	if again := b.daemons(); !slices.Equal(again, rest) {
		t.Errorf("the daemons were %v, and are %v", rest, again)
	}
	if k := h.status().Keeper; !slices.Contains(descendants(h.cmd.Process.Pid), k) {
		t.Errorf("status says that the keeper is %d; there are %v", k, descendants(h.cmd.Process.Pid))
	}
	b.kill(h, h.runtime, socket).awaitNothing()
}

func TestTheTreeOfASharedProgramEndsWithIt(t *testing.T) {
	b := newBrood(t)
	h := launchIn(t, b.env(), append([]string{"--listen", "ws://127.0.0.1:0", "--mode", "shared", "--"}, b.application()...)...)
	h.awaitReady()
	old := b.await(daemonsEach)
	kill(h)
	h.await("restarted", func(s host.Status) bool { return s.Application.Restarts == 1 && s.Application.Children == 1 })
	for _, pid := range b.await(daemonsEach) {
		if slices.Contains(old, pid) {
			t.Errorf("daemon %d of the dead program is still there", pid)
		}
	}
	if took := h.end(); len(b.daemons()) > 0 {
		t.Errorf("after the host's end, which took %v, there are the daemons %v", took, b.daemons())
	}
}

// TestSocketsOfAReload are cleared away as those of the start are: of a transport
// that listens elsewhere, and of one that was added.
func TestSocketsOfAReload(t *testing.T) {
	b := newBrood(t)
	dir := runtimeDir(t)
	socket := func(n int) string { return filepath.Join(dir, strconv.Itoa(n)) }
	d := newDocument(t, strings.Replace(twoTransports, `"ws://127.0.0.1:0"`, fmt.Sprintf("%q", "unix://"+socket(1)), 1))
	h := launchIn(t, b.env(), "--config", d.path)
	h.awaitReady()
	d.replace("unix://"+socket(1), "unix://"+socket(2))
	d.write(d.text + fmt.Sprintf("transport \"second\" {\n  plugin = \"websocket\"\n  listen = [%q]\n}\n", "unix://"+socket(3)))
	h.expect(h.reload(), outcome("websocket", "second", "none"))
	for _, n := range []int{2, 3} {
		if _, err := os.Lstat(socket(n)); err != nil {
			t.Fatalf("%v; the test sees nothing", err)
		}
	}
	b.kill(h, h.runtime, dir).awaitNothing()
}

// TestTheNextStartSweeps: nobody was there to clear away, and the next host in
// the same directory does, before it binds its sockets.
func TestTheNextStartSweeps(t *testing.T) {
	b := newBrood(t)
	socketURL, socket := unixSocket(t)
	args := append([]string{"--listen", socketURL, "--mode", "shared", "--"}, b.application()...)
	h := launchIn(t, b.env(), args...)
	h.awaitReady()
	b.await(daemonsEach)
	keeper := h.status().Keeper
	// One that is stopped cannot see that its keeper is gone.
	for _, end := range []struct {
		pid    int
		signal syscall.Signal
	}{{h.cmd.Process.Pid, syscall.SIGSTOP}, {keeper, syscall.SIGKILL}, {h.cmd.Process.Pid, syscall.SIGKILL}} {
		if err := syscall.Kill(end.pid, end.signal); err != nil {
			t.Fatal(err)
		}
	}
	h.wait()
	if old := b.daemons(); len(old) != daemonsEach {
		t.Fatalf("there are the daemons %v; the test sees nothing", old)
	}
	if _, err := os.Lstat(socket); err != nil {
		t.Fatalf("%v; the test sees nothing", err)
	}
	if _, err := host.FindHost(h.runtime, 0); err == nil {
		t.Error("a dead host is said to run")
	}
	old := b.daemons()
	next := launchIn(t, b.env(), append([]string{"--runtime-dir", h.runtime}, args...)...)
	next.awaitReady()
	for _, pid := range b.await(daemonsEach) {
		if slices.Contains(old, pid) {
			t.Errorf("daemon %d of the dead host is still there", pid)
		}
	}
	if entries, err := os.ReadDir(h.runtime); err != nil || len(entries) != 1 {
		t.Errorf("in the runtime directory are %v, %v", entries, err)
	}
	if !strings.Contains(next.stderr(), "what a host that is gone had left is cleared away") {
		t.Errorf("it does not say so:\n%s", next.stderr())
	}
}

// TestHostKilled100Times, wherever it is, and however far it has come.
func TestHostKilled100Times(t *testing.T) {
	const kills, groups = 100, 2
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	var survivors, early, bereft atomic.Int64 // bereft: of hosts that had daemons
	var mu sync.Mutex                         // guards slowest
	var slowest time.Duration
	t.Run("kills", func(t *testing.T) {
		for group := range groups {
			t.Run(fmt.Sprint("group ", group), func(t *testing.T) {
				t.Parallel()
				random := rand.New(rand.NewPCG(seed, uint64(group)))
				r := newRelay(t, backend.Options{})
				r.signIn(backend.AuthChatGPT, "")
				dirs := [2]string{runtimeDir(t), runtimeDir(t)}
				socketURL, socket := unixSocket(t)
				for i := range kills / groups {
					delay := time.Duration(random.Int64N(int64(200 * time.Millisecond)))
					dir := dirs[i/2%2] // each twice, one after the other
					b := newBrood(t)
					mode := [2]string{"per-connection", "shared"}[i%2]
					h := r.launch(setup{
						application: fmt.Sprintf("command = %s\nmode = %q", hclStrings(b.application()), mode),
						local:       besideStdio + fmt.Sprintf("transport \"websocket\" { listen = [\"ws://127.0.0.1:0\", %q] }\n", socketURL),
						env:         b.env(), args: []string{"--runtime-dir", dir},
					})
					peers, leave := context.WithCancel(t.Context())
					var visits sync.WaitGroup
					visits.Go(func() { visit(peers, socket) })
					since := "the start"
					if random.IntN(2) == 0 {
						h.awaitReady()
						since = "it was ready"
					}
					time.Sleep(delay) // the random moment
					if len(b.daemons()) > 0 {
						bereft.Add(1)
					}
					k := b.kill(h, dir, socket)
					h.wait()
					if !strings.Contains(h.stderr(), "transporthost: ready") {
						early.Add(1)
					}
					left, took := k.count()
					mu.Lock()
					slowest = max(slowest, took)
					mu.Unlock()
					if len(left) > 0 {
						survivors.Add(int64(len(left)))
						t.Errorf("kill %d, %v after %s: there are\n%s", i, delay, since, strings.Join(left, "\n"))
					}
					leave()
					visits.Wait()
				}
			})
		}
	})
	t.Logf("%d kills, %d of them before the host was ready; %d of hosts that had daemons; %d survivors; the slowest clearance took %v",
		kills, early.Load(), bereft.Load(), survivors.Load(), slowest)
	if bereft.Load() == 0 || early.Load() == 0 {
		t.Errorf("%d kills were of hosts that had daemons, and %d came early; the test sees too little", bereft.Load(), early.Load())
	}
}

// visit opens a connection as soon as there is a host, and stays.
func visit(ctx context.Context, socket string) {
	d := websocket.Dialer{NetDialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", socket)
	}}
	for ctx.Err() == nil {
		ws, _, err := d.DialContext(ctx, "ws://host/", nil)
		if err != nil {
			if errors.Is(err, syscall.ENOENT) || errors.Is(err, syscall.ECONNREFUSED) {
				time.Sleep(time.Millisecond) // it is looked for, not waited for
			}
			continue
		}
		end := context.AfterFunc(ctx, func() { _ = ws.Close() })
		_ = ws.WriteMessage(websocket.TextMessage, []byte(`{"id":1,"method":"m"}`))
		for err == nil {
			_, _, err = ws.ReadMessage()
		}
		end()
		_ = ws.Close()
		return
	}
}

// hclStrings writes a list in the config language.
func hclStrings(list []string) string {
	quoted := make([]string, 0, len(list))
	for _, s := range list {
		q := strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`, "\t", `\t`, "${", "$${").Replace(s)
		quoted = append(quoted, `"`+q+`"`)
	}
	return "[" + strings.Join(quoted, ", ") + "]"
}
