//go:build unix

package application

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"go.uber.org/goleak"

	"github.com/transporthost/transporthost/host/internal/backoff"
	"github.com/transporthost/transporthost/host/internal/childproc"
	"github.com/transporthost/transporthost/shared/transport"
)

const childMode = "TEST_APPLICATION"

func TestMain(m *testing.M) {
	if mode := os.Getenv(childMode); mode != "" {
		os.Exit(actAsApplication(mode))
	}
	goleak.VerifyTestMain(m)
}

// actAsApplication answers requests with their params; some methods are
// commands.
func actAsApplication(mode string) int {
	framing := transport.NDJSON
	if mode == "content-length" {
		framing = transport.ContentLength
	}
	r := transport.NewFrameReader(os.Stdin, framing, 1<<20)
	w := bufio.NewWriter(os.Stdout)
	say := func(text string) {
		_, _ = w.Write(transport.AppendFrame(nil, []byte(text), framing))
		_ = w.Flush()
	}
	for {
		p, err := r.Next()
		if err != nil {
			if mode == "stays" {
				stay()
			}
			return 0
		}
		m, err := transport.Peek(p)
		if err != nil {
			continue
		}
		params := string(transport.Field(p, "params"))
		switch string(m.Method) {
		case "initialize":
			switch params {
			case `"not answered"`:
				continue
			case `"die"`:
				return 5
			}
		case "burst":
			for i := range 3000 {
				say(fmt.Sprintf(`{"method":"noise","params":[%d,"%01000d"]}`, i, i))
			}
		case "exit": // with requests before it unanswered
			return 5
		case "ignore":
			continue
		case "kill":
			_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		case "rubbish":
			_, _ = w.WriteString("Listening on port 3000\n")
		case "large":
			say(`{"jsonrpc":"2.0","id":` + string(m.ID) + `,"result":"` + strings.Repeat("x", 5000) + `"}`)
			continue
		case "grandchild":
			c := exec.Command("sleep", "1000")
			_ = c.Start()
			params = fmt.Sprint(c.Process.Pid)
		case "stderr":
			fmt.Fprintln(os.Stderr, "a word of the program")
		case "env":
			params = fmt.Sprintf("%q", os.Getenv(strings.Trim(params, `"`)))
		}
		if m.Kind == transport.Request {
			if params == "" {
				params = "null"
			}
			say(`{"jsonrpc":"2.0","id":` + string(m.ID) + `,"result":` + params + `}`)
		}
	}
}

// stay does nothing until the process is killed.
func stay() {
	c := make(chan os.Signal, 1)
	signal.Notify(c, syscall.SIGUSR1)
	<-c
}

// fakeConn is a connection that records what the application sends.
type fakeConn struct {
	mu        sync.Mutex
	sent      chan string
	consumed  transport.Credit
	forgotten int
	closed    chan transport.CloseReason
}

func newFakeConn() *fakeConn {
	return &fakeConn{sent: make(chan string, 10_000), closed: make(chan transport.CloseReason, 10)}
}

func (c *fakeConn) ID() uint64           { return 1 }
func (c *fakeConn) Origin() string       { return "test" }
func (c *fakeConn) Peer() transport.Peer { return transport.Peer{} }
func (c *fakeConn) Send(p []byte) error {
	c.sent <- string(p)
	return nil
}
func (c *fakeConn) SendWait(_ context.Context, p []byte) error { return c.Send(p) }
func (c *fakeConn) Consumed(m, b int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.consumed.Messages += m
	c.consumed.Bytes += b
}
func (c *fakeConn) Forgotten(n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.forgotten += n
}
func (c *fakeConn) Close(r transport.CloseReason) { c.closed <- r }

func (c *fakeConn) next(t *testing.T) string {
	t.Helper()
	select {
	case s := <-c.sent:
		return s
	case <-time.After(20 * time.Second):
		t.Fatal("nothing comes")
		return ""
	}
}

func (c *fakeConn) nextClose(t *testing.T) transport.CloseReason {
	t.Helper()
	select {
	case r := <-c.closed:
		return r
	case <-time.After(20 * time.Second):
		t.Fatal("the connection is not closed")
		return transport.CloseReason{}
	}
}

func deliver(t *testing.T, s Session, message string) {
	t.Helper()
	m, err := transport.Peek([]byte(message))
	if err != nil {
		t.Fatal(err)
	}
	s.Deliver([]byte(message), m)
}

// runApp runs an application until the test ends.
func runApp(t *testing.T, build func(*childproc.Starter) (App, error)) App {
	t.Helper()
	starter := childproc.NewStarter()
	app, err := build(starter)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	starting, stop := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { _ = starter.Run(starting) })
	ended := make(chan struct{})
	wg.Go(func() {
		defer close(ended)
		_ = app.Run(ctx)
	})
	t.Cleanup(func() {
		cancel()
		<-ended
		stop()
		wg.Wait()
	})
	return app
}

func command(t *testing.T, mode string) Command {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	c := Command{Args: []string{exe}, Env: map[string]string{childMode: mode}, StopGrace: 200 * time.Millisecond}
	if mode == "content-length" {
		c.Framing = transport.ContentLength
	}
	return c
}

func execApp(t *testing.T, mode string, change func(*Command)) App {
	return runApp(t, func(s *childproc.Starter) (App, error) {
		c := command(t, mode)
		if change != nil {
			change(&c)
		}
		return NewExec(c, s, hclog.New(&hclog.LoggerOptions{Output: t.Output()}))
	})
}

func TestExecEchoes(t *testing.T) {
	for _, mode := range []string{"ndjson", "content-length"} {
		t.Run(mode, func(t *testing.T) {
			app := execApp(t, mode, nil)
			c := newFakeConn()
			s := app.Open(c)
			deliver(t, s, `{"id":"a","method":"m","params":[1,2]}`)
			if got, want := c.next(t), `{"jsonrpc":"2.0","id":"a","result":[1,2]}`; got != want {
				t.Errorf("got %s, want %s", got, want)
			}
			if st := app.Status(); st.InFlight != 0 || st.Children != 1 {
				t.Errorf("status %+v", st)
			}
			s.Closed(transport.CloseReason{Code: transport.CloseNormal})
		})
	}
}

func TestExecTellsHowTheProgramEnded(t *testing.T) {
	for _, tt := range []struct{ method, want string }{
		{"exit", "exited with status 5"},
		{"kill", "was killed by SIGKILL"},
	} {
		t.Run(tt.method, func(t *testing.T) {
			app := execApp(t, "ndjson", nil)
			c := newFakeConn()
			s := app.Open(c)
			deliver(t, s, `{"id":1.0,"method":"ignore"}`)
			deliver(t, s, `{"id":"x","method":"`+tt.method+`"}`)
			answers := c.next(t) + c.next(t)
			for _, id := range []string{`"id":1.0,`, `"id":"x",`} {
				if !strings.Contains(answers, id) || !strings.Contains(answers, tt.want) || !strings.Contains(answers, "-32603") {
					t.Errorf("answers %s, want one to %s with %q", answers, id, tt.want)
				}
			}
			if r := c.nextClose(t); r.Code != transport.CloseAppEnded || !strings.Contains(r.Text, tt.want) {
				t.Errorf("closed with %v", r)
			}
			deliver(t, s, `{"id":2,"method":"late"}`)
			if got := c.next(t); !strings.Contains(got, tt.want) {
				t.Errorf("a late request got %s", got)
			}
			if st := app.Status(); st.InFlight != 0 || !strings.Contains(st.Cause, tt.want) {
				t.Errorf("status %+v", st)
			}
			s.Closed(transport.CloseReason{})
		})
	}
}

func TestExecDropsRubbishAndWhatIsTooLarge(t *testing.T) {
	app := execApp(t, "ndjson", func(c *Command) { c.MaxMessageBytes = 1000 })
	c := newFakeConn()
	s := app.Open(c)
	deliver(t, s, `{"id":1,"method":"rubbish"}`)
	if got := c.next(t); got != `{"jsonrpc":"2.0","id":1,"result":null}` {
		t.Errorf("got %s", got)
	}
	deliver(t, s, `{"id":2,"method":"large"}`)
	if got := c.next(t); !strings.Contains(got, `"id":2,"error":{"code":-32603`) || !strings.Contains(got, "the limit is 1000 bytes") {
		t.Errorf("got %s", got)
	}
	s.Closed(transport.CloseReason{})
}

func TestExecPassesOnlyTheAllowedEnvironment(t *testing.T) {
	t.Setenv("SECRET_TOKEN", "hunter2")
	t.Setenv("LC_TEST", "yes")
	app := execApp(t, "ndjson", func(c *Command) { c.Env["ADDED"] = "more" })
	c := newFakeConn()
	s := app.Open(c)
	for name, want := range map[string]string{"SECRET_TOKEN": "", "LC_TEST": "yes", "ADDED": "more"} {
		deliver(t, s, `{"id":1,"method":"env","params":"`+name+`"}`)
		if got := c.next(t); got != fmt.Sprintf(`{"jsonrpc":"2.0","id":1,"result":%q}`, want) {
			t.Errorf("%s: %s, want %q", name, got, want)
		}
	}
	s.Closed(transport.CloseReason{})
}

// TestTheWholeTreeEnds: what a program started ends with it, and a program that
// ignores the end of its input is stopped.
func TestTheWholeTreeEnds(t *testing.T) {
	app := execApp(t, "stays", nil)
	c := newFakeConn()
	s := app.Open(c)
	deliver(t, s, `{"id":1,"method":"grandchild"}`)
	var pid int
	if _, err := fmt.Sscanf(c.next(t), `{"jsonrpc":"2.0","id":1,"result":%d}`, &pid); err != nil {
		t.Fatal(err)
	}
	s.Closed(transport.CloseReason{Code: transport.CloseNormal})
	c.nextClose(t)
	// It was killed; the kernel takes a moment.
	for deadline := time.Now().Add(2 * time.Second); ; {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil || strings.Contains(string(stat), ") Z ") {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("process %d of the program is still there: %s", pid, stat)
		}
	}
}

func TestExecRefusesWhatCannotRun(t *testing.T) {
	for _, tt := range []struct {
		name string
		c    Command
		want string
	}{
		{"nothing", Command{}, "the application has no command"},
		{"not there", Command{Args: []string{"no-such-program", "--token=secret"}}, `the application "no-such-program" cannot be run`},
		{"no directory", Command{Args: []string{"sh"}, Dir: "/no/such/dir"}, `the directory "/no/such/dir" of the application is not there`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := NewExec(tt.c, childproc.NewStarter(), hclog.NewNullLogger())
			if err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "secret") {
				t.Errorf("NewExec: %v, want %q", err, tt.want)
			}
		})
	}
}

func sharedApp(t *testing.T, policy backoff.Policy) App {
	return runApp(t, func(s *childproc.Starter) (App, error) {
		return NewShared(command(t, "ndjson"), s, hclog.New(&hclog.LoggerOptions{Output: t.Output()}), policy)
	})
}

func TestSharedComesBack(t *testing.T) {
	app := sharedApp(t, backoff.Policy{})
	one, two := newFakeConn(), newFakeConn()
	s1, s2 := app.Open(one), app.Open(two)
	deliver(t, s1, `{"id":1,"method":"initialize","params":{"x":1}}`)
	if got := one.next(t); got != `{"jsonrpc":"2.0","id":1,"result":{"x":1}}` {
		t.Fatalf("initialize: %s", got)
	}
	deliver(t, s2, `{"id":"1","method":"ignore"}`)
	deliver(t, s1, `{"id":2,"method":"kill"}`)
	for c, id := range map[*fakeConn]string{one: "2", two: `"1"`} {
		if got := c.next(t); !strings.Contains(got, `"id":`+id+`,"error":{"code":-32603`) || !strings.Contains(got, "was killed by SIGKILL") {
			t.Errorf("got %s", got)
		}
	}
	deliver(t, s2, `{"id":3,"method":"m","params":7}`)
	if got := two.next(t); got != `{"jsonrpc":"2.0","id":3,"result":7}` {
		t.Errorf("after the restart: %s", got)
	}
	if st := app.Status(); st.Restarts != 1 || st.InFlight != 0 {
		t.Errorf("status %+v", st)
	}
}

func TestSharedGivesUp(t *testing.T) {
	app := sharedApp(t, backoff.Policy{Min: time.Millisecond, Max: time.Millisecond, ResetAfter: time.Minute, GiveUpAfter: 2, GiveUpWindow: time.Hour})
	c := newFakeConn()
	s := app.Open(c)
	for range 2 {
		deliver(t, s, `{"id":1,"method":"exit"}`)
		if got := c.next(t); !strings.Contains(got, "exited with status 5") {
			t.Errorf("got %s", got)
		}
	}
	deadline := time.Now().Add(20 * time.Second)
	for {
		deliver(t, s, `{"id":2,"method":"m"}`)
		got := c.next(t)
		if strings.Contains(got, "exited with status 5; it is tried again at") {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("after giving up, a request got %s", got)
		}
	}
}

// TestSharedDoesNotWaitForTheTerminal: a program dies, is started again and
// ends with the host while its only peer reads nothing.
func TestSharedDoesNotWaitForTheTerminal(t *testing.T) {
	app := sharedApp(t, backoff.Policy{})
	c := newTerminal(1)
	s := app.Open(c)
	deliver(t, s, `{"id":1,"method":"initialize"}`)
	deliver(t, s, `{"id":2,"method":"burst"}`)
	await := func(what string, ok func() bool) {
		t.Helper()
		for deadline := time.Now().Add(20 * time.Second); !ok(); time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("never %s; status %+v", what, app.Status())
			}
		}
	}
	shared := app.(*Shared)
	await("held up", func() bool {
		room, _ := shared.x.behind()
		return room != nil
	})
	if st := app.Status(); st.LeftOut != 0 || st.InFlight != 1 {
		t.Errorf("status %+v", st)
	}
	pid := 0
	await("found", func() bool { pid = childOf(t); return pid != 0 })
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	await("restarted", func() bool {
		st := app.Status()
		return st.Restarts == 1 && st.Ready && strings.Contains(st.Cause, "was killed by SIGKILL")
	})
}

// childOf finds the one child process of this test.
func childOf(t *testing.T) int {
	t.Helper()
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil || len(stats) == 0 {
		t.Skip("there is no /proc")
	}
	for _, path := range stats {
		b, err := os.ReadFile(path)
		if err != nil {
			continue
		}
		var pid, parent int
		var state string
		_, rest, _ := strings.Cut(string(b), ") ")
		if _, err := fmt.Sscan(rest, &state, &parent); err != nil || parent != os.Getpid() || state == "Z" {
			continue
		}
		if _, err := fmt.Sscan(string(b), &pid); err == nil {
			return pid
		}
	}
	return 0
}

// TestSharedReplacesAProcessThatDoesNotInitialize as the one before did. Its
// peers wait meanwhile, and are told.
func TestSharedReplacesAProcessThatDoesNotInitialize(t *testing.T) {
	app := runApp(t, func(s *childproc.Starter) (App, error) {
		a, err := NewShared(command(t, "ndjson"), s, hclog.New(&hclog.LoggerOptions{Output: t.Output()}), backoff.Policy{})
		if err == nil {
			a.initializeLimit = 300 * time.Millisecond
		}
		return a, err
	})
	c := newFakeConn()
	s := app.Open(c)
	deliver(t, s, `{"id":1,"method":"initialize","params":"first"}`)
	c.next(t)
	x := app.(*Shared).x
	x.mu.Lock()
	x.request = []byte(`{"id":1,"method":"initialize","params":"not answered"}`)
	x.mu.Unlock()
	deliver(t, s, `{"id":2,"method":"kill"}`)
	c.next(t)
	deliver(t, s, `{"id":3,"method":"m"}`)
	if got := c.next(t); !strings.Contains(got, `"id":3,"error":{"code":-32603`) || !strings.Contains(got, "did not answer initialize within 300ms of its restart") {
		t.Errorf("the request that waited got %s", got)
	}
	if st := app.Status(); !strings.Contains(st.Cause, "did not answer initialize") {
		t.Errorf("status %+v", st)
	}
}

func TestHandler(t *testing.T) {
	app := runApp(t, func(*childproc.Starter) (App, error) {
		return NewHandlerApp(HandlerFunc(func(ctx context.Context, c *HandlerConn) error {
			for {
				p, err := c.Receive(ctx)
				if err != nil {
					return err
				}
				m, err := transport.Peek(p)
				if err != nil {
					return err
				}
				switch string(m.Method) {
				case "panic":
					panic("oh")
				case "fail":
					return fmt.Errorf("the moon is full")
				}
				if err := c.Send(ctx, []byte(`{"id":`+string(m.ID)+`,"result":1}`)); err != nil {
					return err
				}
			}
		}), hclog.NewNullLogger()), nil
	})
	for _, tt := range []struct {
		method string
		code   transport.CloseCode
		text   string
	}{{"panic", transport.CloseInternal, "the application panicked"}, {"fail", transport.CloseInternal, "the moon is full"}} {
		c := newFakeConn()
		s := app.Open(c)
		deliver(t, s, `{"id":1,"method":"m"}`)
		if got := c.next(t); got != `{"id":1,"result":1}` {
			t.Errorf("got %s", got)
		}
		deliver(t, s, `{"id":2,"method":"`+tt.method+`"}`)
		if got := c.next(t); !strings.Contains(got, `"id":2,"error"`) || !strings.Contains(got, tt.text) {
			t.Errorf("%s: the open request got %s", tt.method, got)
		}
		if r := c.nextClose(t); r.Code != tt.code || r.Text != tt.text {
			t.Errorf("%s: closed with %v", tt.method, r)
		}
		s.Closed(transport.CloseReason{})
	}
	c := newFakeConn()
	app.Open(c).Closed(transport.CloseReason{}) // Receive returns io.EOF
	if r := c.nextClose(t); r.Code != transport.CloseNormal {
		t.Errorf("closed with %v", r)
	}
}
