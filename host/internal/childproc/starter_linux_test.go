package childproc

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"testing"

	"go.uber.org/goleak"

	"github.com/transporthost/transporthost/host/internal/lineage"
)

func TestMain(m *testing.M) {
	if path := os.Getenv(connectTo); path != "" {
		os.Exit(connect(path))
	}
	goleak.VerifyTestMain(m)
}

// run runs a starter, and returns what stops it and waits.
func run(t *testing.T) (s *Starter, stop func()) {
	t.Helper()
	s = NewStarter()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = s.Run(ctx)
	}()
	stop = sync.OnceFunc(func() {
		cancel()
		<-done
	})
	t.Cleanup(stop)
	return s, stop
}

// family is a child that has a daemon, which ignores what asks it to end, and
// ends itself when its input does.
const family = `(setsid sh -c 'trap "" HUP TERM; echo $$; exec >&-; while :; do sleep 1000; done' &); read ever`

// start starts a family, and returns the daemon's pid and what ends the child.
func start(t *testing.T, s *Starter, script string) (cmd *exec.Cmd, daemon int, end func()) {
	t.Helper()
	cmd = exec.Command("sh", "-c", script)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Start(t.Context(), cmd); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	if daemon, err = strconv.Atoi(strings.TrimSpace(line)); err != nil {
		t.Fatal(err)
	}
	return cmd, daemon, func() {
		_ = in.Close()
		_ = cmd.Wait()
	}
}

func gone(pid int) bool {
	_, ok := lineage.Of(pid)
	return !ok
}

// TestTheTreeOfAChildEndsWithIt, and that of its sister does not.
func TestTheTreeOfAChildEndsWithIt(t *testing.T) {
	s, stop := run(t)
	one, oneDaemon, endOne := start(t, s, family)
	_, twoDaemon, endTwo := start(t, s, family)
	endOne()
	if gone(oneDaemon) {
		t.Fatal("the daemon has ended by itself; the test sees nothing")
	}
	if left := <-s.End(one); left != 0 || !gone(oneDaemon) {
		t.Errorf("%d are left, and the daemon is gone: %v", left, gone(oneDaemon))
	}
	if gone(twoDaemon) {
		t.Error("the daemon of the other child is gone")
	}
	endTwo()
	stop() // nobody has asked
	if !gone(twoDaemon) {
		t.Error("a daemon has outlived the starter")
	}
}

// TestManyTreesEndTogether: their owners wait for the same looks.
func TestManyTreesEndTogether(t *testing.T) {
	s, _ := run(t)
	const children = 50
	var left []<-chan int
	var daemons []int
	for range children {
		cmd, daemon, end := start(t, s, family)
		end()
		daemons = append(daemons, daemon)
		left = append(left, s.End(cmd))
	}
	for i, l := range left {
		if n := <-l; n != 0 || !gone(daemons[i]) {
			t.Errorf("of child %d %d processes are left", i, n)
		}
	}
}

func TestStartAndEndOfAStarterThatDoesNotRun(t *testing.T) {
	s, stop := run(t)
	cmd, daemon, end := start(t, s, family)
	end()
	stop()
	if left := <-s.End(cmd); left != 0 || !gone(daemon) {
		t.Errorf("%d are left, the daemon is gone: %v", left, gone(daemon))
	}
	if err := s.Start(t.Context(), exec.Command("true")); !errors.Is(err, ErrNotRunning) {
		t.Errorf("Start: got %v", err)
	}
}

// TestChildrenKeepTheirEnvironment but for the mark, which they cannot set.
func TestChildrenKeepTheirEnvironment(t *testing.T) {
	s, _ := run(t)
	cmd := exec.Command("sh", "-c", fmt.Sprintf(`echo "$A $%s"`, lineage.Variable))
	cmd.Env = []string{"A=1", lineage.Variable + "=mine"}
	var out strings.Builder
	pipe, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Start(t.Context(), cmd); err != nil {
		t.Fatal(err)
	}
	if _, err := bufio.NewReader(pipe).WriteTo(&out); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	if want := "1 " + s.Lineage().String() + ".1\n"; !strings.HasSuffix(out.String(), want) {
		t.Errorf("got %q, want %q", out.String(), want)
	}
	<-s.End(cmd)
}
