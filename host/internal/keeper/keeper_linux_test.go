package keeper

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"go.uber.org/goleak"

	"github.com/transporthost/transporthost/host/internal/childproc"
	"github.com/transporthost/transporthost/host/internal/lineage"
)

// hostAt makes this test a host with a keeper, in the directory that it holds.
const hostAt = "TEST_KEEPER_HOST"

func TestMain(m *testing.M) {
	if dir := os.Getenv(hostAt); dir != "" {
		os.Exit(beHost(dir))
	}
	goleak.VerifyTestMain(m)
}

// beHost has a socket, a directory and a child whose daemon has left nothing of
// where it comes from; it does what its input says.
func beHost(dir string) int {
	ctx, cancel := context.WithCancel(context.Background())
	s := childproc.NewStarter()
	s.SoleParent = true
	run := filepath.Join(dir, "run")
	g := NewGuard(s, []string{run}, []string{filepath.Join(dir, "socket")}, hclog.New(&hclog.LoggerOptions{Output: os.Stderr}))
	g.Start()
	starter, guard := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(starter)
		_ = s.Run(ctx)
	}()
	guarding, release := context.WithCancel(context.Background())
	go func() {
		defer close(guard)
		_ = g.Run(guarding)
	}()
	if err := os.Mkdir(run, 0o700); err != nil {
		panic(err)
	}
	l, err := net.Listen("unix", filepath.Join(dir, "socket"))
	if err != nil {
		panic(err)
	}
	cmd := exec.Command("sh", "-c", `(env -i PATH="$PATH" setsid sh -c 'trap "" HUP TERM; echo $$; exec >&-; while :; do sleep 1000; done' &); read ever`)
	cmd.Stdin = os.Stdin // never read
	cmd.Stdout = os.Stdout
	if err := s.Start(ctx, cmd); err != nil {
		panic(err)
	}
	for in := bufio.NewScanner(os.NewFile(3, "orders")); in.Scan(); {
		switch in.Text() {
		case "keeper":
			fmt.Println(g.PID())
		case "another": // socket, of which no keeper was told at its start
			path := filepath.Join(dir, "another")
			g.Add([]string{path})
			another, err := net.Listen("unix", path)
			if err != nil {
				panic(err)
			}
			defer another.Close()
			fmt.Println(0)
		case "close": // as a program does that closes what it does not know
			w := g.ward()
			_ = w.pipe.Close()
		}
	}
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	<-s.End(cmd)
	cancel()
	<-starter
	_ = l.Close()
	_ = os.RemoveAll(run)
	release()
	<-guard
	return 0
}

// A hostProcess is beHost as a process.
type hostProcess struct {
	t      *testing.T
	cmd    *exec.Cmd
	dir    string
	orders io.WriteCloser
	said   *bufio.Reader
	words  *bytes.Buffer
	daemon int
}

func startHost(t *testing.T) *hostProcess {
	t.Helper()
	h := &hostProcess{t: t, dir: t.TempDir(), words: &bytes.Buffer{}}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	h.cmd = exec.Command(exe)
	h.cmd.Env = append(os.Environ(), hostAt+"="+h.dir)
	theirs, ours, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	h.orders = ours
	h.cmd.ExtraFiles = []*os.File{theirs}
	if _, err := h.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := h.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	h.said = bufio.NewReader(out)
	h.cmd.Stderr = h.words
	if err := h.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	_ = theirs.Close()
	t.Cleanup(func() {
		_ = ours.Close()
		h.end()
	})
	h.daemon = h.number()
	t.Cleanup(func() { // whatever has failed
		if _, ok := lineage.Of(h.daemon); ok {
			_ = syscall.Kill(h.daemon, syscall.SIGKILL)
		}
	})
	return h
}

func (h *hostProcess) number() int {
	h.t.Helper()
	line, err := h.said.ReadString('\n')
	if err != nil {
		h.t.Fatalf("%v\n%s", err, h.words)
	}
	n, err := strconv.Atoi(strings.TrimSpace(line))
	if err != nil {
		h.t.Fatal(err)
	}
	return n
}

func (h *hostProcess) order(what string) {
	h.t.Helper()
	if _, err := fmt.Fprintln(h.orders, what); err != nil {
		h.t.Fatal(err)
	}
}

func (h *hostProcess) keeper() int {
	h.t.Helper()
	h.order("keeper")
	return h.number()
}

// newKeeper waits for another keeper than old.
func (h *hostProcess) newKeeper(old int) int {
	h.t.Helper()
	for deadline := time.Now().Add(30 * time.Second); ; {
		if k := h.keeper(); k != 0 && k != old {
			return k
		}
		if time.Now().After(deadline) {
			h.t.Fatal("there is no other keeper")
		}
	}
}

func (h *hostProcess) kill() {
	h.t.Helper()
	if err := h.cmd.Process.Kill(); err != nil {
		h.t.Fatal(err)
	}
	h.end()
}

func (h *hostProcess) end() {
	_ = h.cmd.Wait()
	if h.t.Failed() {
		h.t.Logf("the host's words:\n%s", h.words)
	}
}

// left says what there is of the host.
func (h *hostProcess) left(keeper int) (what []string) {
	for name, pid := range map[string]int{"its daemon": h.daemon, "its keeper": keeper} {
		if _, ok := lineage.Of(pid); ok {
			what = append(what, name)
		}
	}
	for _, name := range []string{"run", "socket", "another"} {
		if _, err := os.Lstat(filepath.Join(h.dir, name)); !errors.Is(err, os.ErrNotExist) {
			what = append(what, name)
		}
	}
	slices.Sort(what)
	return what
}

// awaitNothing waits until nothing is left, for the 2 s that it may take.
func (h *hostProcess) awaitNothing(keeper int) {
	h.t.Helper()
	for deadline := time.Now().Add(2 * time.Second); ; time.Sleep(time.Millisecond) {
		what := h.left(keeper)
		if len(what) == 0 {
			return
		}
		if time.Now().After(deadline) {
			h.t.Fatalf("after 2 s there are still %v", what)
		}
	}
}

// TestAKeeperIsToldMore, and its successor from the start.
func TestAKeeperIsToldMore(t *testing.T) {
	for _, replaced := range []bool{false, true} {
		t.Run(fmt.Sprint("replaced ", replaced), func(t *testing.T) {
			h := startHost(t)
			keeper := h.keeper()
			h.order("another")
			h.number()
			if replaced {
				if err := syscall.Kill(keeper, syscall.SIGKILL); err != nil {
					t.Fatal(err)
				}
				keeper = h.newKeeper(keeper)
			}
			if what := h.left(keeper); len(what) != 5 {
				t.Fatalf("of a host that runs there are %v", what)
			}
			h.kill()
			h.awaitNothing(keeper)
		})
	}
}

func TestAKeeperClearsAwayAfterAKilledHost(t *testing.T) {
	h := startHost(t)
	keeper := h.keeper()
	if what := h.left(keeper); len(what) != 4 {
		t.Fatalf("of a host that runs there are %v", what)
	}
	h.kill()
	h.awaitNothing(keeper)
}

func TestAKeeperGoesWithItsHost(t *testing.T) {
	h := startHost(t)
	keeper := h.keeper()
	_ = h.orders.Close()
	h.end()
	if what := h.left(keeper); len(what) != 0 {
		t.Errorf("behind its end there are %v", what)
	}
	if h.words.Len() > 0 {
		t.Errorf("it said %s", h.words)
	}
}

// TestAKeeperStaysWhereTheHostDoes: what ends a group, a session or a service
// is not for it, and one that dies is replaced.
func TestAKeeperStaysWhereTheHostDoes(t *testing.T) {
	h := startHost(t)
	keeper := h.keeper()
	for _, s := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP, syscall.SIGQUIT} {
		awaitIgnored(t, keeper, s)
		if err := syscall.Kill(keeper, s); err != nil {
			t.Fatal(err)
		}
	}
	if k := h.keeper(); k != keeper {
		t.Errorf("the keeper is %d, was %d", k, keeper)
	}
	if err := syscall.Kill(keeper, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	second := h.newKeeper(keeper)
	// A keeper that takes its host for dead, and sees that it lives, touches
	// nothing.
	h.order("close")
	third := h.newKeeper(second)
	if what := h.left(third); len(what) != 4 {
		t.Errorf("of a host that runs there are %v", what)
	}
	h.kill()
	h.awaitNothing(third)
}

// awaitIgnored waits until a process that is just starting ignores a signal.
func awaitIgnored(t *testing.T, pid int, s syscall.Signal) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); ; {
		status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
		if err != nil {
			t.Fatal(err)
		}
		_, rest, _ := strings.Cut(string(status), "SigIgn:")
		mask, err := strconv.ParseUint(strings.TrimSpace(strings.SplitN(rest, "\n", 2)[0]), 16, 64)
		if err != nil {
			t.Fatal(err)
		}
		if mask&(1<<(s-1)) != 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("it never ignores %v", s)
		}
	}
}

// TestAKeeperBearsNoMark: neither of a child that is being started when it is,
// nor that of its host, which may be another host's child. It would be ended with
// what has the mark.
func TestAKeeperBearsNoMark(t *testing.T) {
	above := lineage.NewRun()
	defer lineage.Mark{Run: above, Child: 1}.Lend()()
	s := childproc.NewStarter()
	s.SoleParent = true
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { _ = s.Run(ctx) })
	defer running.Wait()
	defer cancel()
	started := make(chan struct{}) // a child
	running.Go(func() {
		for {
			cmd := exec.Command("true")
			cmd.Env = environment()
			if s.Start(ctx, cmd) != nil {
				return
			}
			_ = cmd.Wait()
			select {
			case started <- struct{}{}:
			case <-ctx.Done():
				return
			default:
			}
		}
	})
	for i := range 20 {
		<-started
		g := NewGuard(s, nil, nil, hclog.NewNullLogger())
		if err := g.start(); err != nil {
			t.Fatal(err)
		}
		for name, run := range map[string]lineage.Run{"its own": s.Lineage(), "the one above": above} {
			for _, m := range run.Members() {
				if m.PID == g.PID() {
					t.Errorf("keeper %d bears the mark of child %d of %s run", i, m.Child, name)
				}
			}
		}
		done, end := context.WithCancel(ctx)
		end()
		g.ward().watch(done)
	}
}

func TestWhatAKeeperIsTold(t *testing.T) {
	strange := "/a b\n\"c\\\xff"
	g := NewGuard(childproc.NewStarter(), []string{"/d", strange}, []string{"/s"}, hclog.NewNullLogger())
	more := NewGuard(childproc.NewStarter(), []string{"/d"}, []string{"/s"}, hclog.NewNullLogger())
	more.Add([]string{strange, "/t"}) // while there is no keeper
	for said, want := range map[string]will{
		"":                                    {},
		more.will:                             {dirs: []string{"/d"}, sockets: []string{"/s", strange, "/t"}},
		g.will:                                {dirs: []string{"/d", strange}, sockets: []string{"/s"}},
		g.will + "done\n" + `dir "/e"` + "\n": {dirs: []string{"/d", strange}, sockets: []string{"/s"}, done: true},
		`dir "/d"` + "\n" + `dir "/torn`:      {dirs: []string{"/d"}},
		`dir "/d"` + "\n" + `socket "/torn"`:  {dirs: []string{"/d"}},
		"dir\ndir \ndir /plain\ndir \"a\nfuture \"x\"\n\n \x00\n" + `dir "/d"` + "\ndon": {dirs: []string{"/d"}},
	} {
		got := listen(strings.NewReader(said))
		if got.done != want.done || !slices.Equal(got.dirs, want.dirs) || !slices.Equal(got.sockets, want.sockets) {
			t.Errorf("%q: got %+v, want %+v", said, got, want)
		}
	}
}

func TestArgumentsOfAKeeper(t *testing.T) {
	run, host := lineage.NewRun(), lineage.Identity{PID: 7, Start: 1<<64 - 1, Boot: "b"}
	gotRun, gotHost, ok := parseArgs(arguments(run, host))
	if !ok || gotRun != run || gotHost != host {
		t.Errorf("got %v, %+v, %v", gotRun, gotHost, ok)
	}
	for _, args := range [][]string{nil, {"x", "1", "2", ""}, {run.String(), "x", "2", ""}, {run.String(), "1", "-1", ""}, {run.String(), "1", "2"}} {
		if _, _, ok := parseArgs(args); ok {
			t.Errorf("%q are taken", args)
		}
	}
}
