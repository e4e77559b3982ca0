package childproc

import (
	"context"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/transporthost/transporthost/host/internal/lineage"
)

// connectTo is in the environment of a test process that takes its mark off, if
// it is told to, and connects to a socket until that is closed.
const (
	connectTo = "TEST_CHILDPROC_CONNECT"
	disguise  = "TEST_CHILDPROC_DISGUISE"
)

// connect is that process.
func connect(path string) int {
	if os.Getenv(disguise) != "" {
		os.Unsetenv(disguise)
		os.Unsetenv(lineage.Variable)
		_ = syscall.Setrlimit(unix.RLIMIT_LOCKS, &syscall.Rlimit{Cur: 1 << 20, Max: 1 << 20})
		exe, err := os.Executable()
		if err == nil {
			err = syscall.Exec(exe, os.Args, os.Environ()) // what /proc shows of the environment is from the execution
		}
		if err != nil {
			return 1
		}
	}
	c, err := net.Dial("unix", path)
	if err != nil {
		return 1
	}
	_, _ = io.Copy(io.Discard, c)
	return 0
}

// TestOwnersOfWhoConnects: a child, and whatever it starts, but for what leaves
// its group and takes its mark off.
func TestOwnersOfWhoConnects(t *testing.T) {
	for _, tt := range []struct {
		name, owner, script, want string
	}{
		{"a child", "phone", `exec "$0"`, "phone"},
		{"in disguise", "phone", disguise + `=1 exec "$0"`, "phone"},
		{"its child", "phone", `"$0"; true`, "phone"},
		{"its child in disguise", "phone", disguise + `=1 "$0"; true`, "phone"},
		{"its daemon", "phone", `(setsid "$0" &); read ever`, "phone"},
		{"its daemon with an environment of its own", "phone", `(env -i ` + connectTo + `=$` + connectTo + ` setsid "$0" &); read ever`, "phone"},
		{"its daemon in disguise", "phone", `(` + disguise + `=1 setsid "$0" &); read ever`, ""},
		{"nobody's child", "", `exec "$0"`, ""},
		{"nobody's daemon", "", `(setsid "$0" &); read ever`, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s, _ := run(t)
			// Of another owner, so that one cannot be taken for the other.
			other := exec.Command("sleep", "1000")
			if err := s.StartFor(t.Context(), "queue", other); err != nil {
				t.Fatal(err)
			}
			c, cmd := connection(t, s, tt.owner, tt.script)
			if owner, pid, err := s.PeerOwner(c); err != nil || owner != tt.want || pid == 0 {
				t.Errorf("got %q, process %d, %v; want %q", owner, pid, err, tt.want)
			}
			_ = c.Close()
			for _, cmd := range []*exec.Cmd{cmd, other} {
				Kill(cmd.Process.Pid)
				_ = cmd.Wait()
				if left := <-s.End(cmd); left != 0 {
					t.Errorf("%d processes are left", left)
				}
			}
			if n := len(s.owners.list); n != 0 {
				t.Errorf("%d children are still remembered", n)
			}
		})
	}
}

// TestAMarkIsNoAlibi: a child that bears the mark of another is known by its
// group.
func TestAMarkIsNoAlibi(t *testing.T) {
	s, _ := run(t)
	c, cmd := connection(t, s, "phone", `exec "$0"`)
	other := exec.Command("sleep", "1000")
	if err := s.StartFor(t.Context(), "queue", other); err != nil {
		t.Fatal(err)
	}
	child, ok := s.run.Child(other.Env)
	if !ok {
		t.Fatal("the other has no mark")
	}
	lineage.Mark{Run: s.run, Child: child}.Bear(cmd.Process.Pid)
	if owner, _, err := s.PeerOwner(c); err != nil || owner != "phone" {
		t.Errorf("got %q, %v; want phone", owner, err)
	}
	_ = c.Close()
	for _, cmd := range []*exec.Cmd{cmd, other} {
		Kill(cmd.Process.Pid)
		_ = cmd.Wait()
		<-s.End(cmd)
	}
}

// TestAChildThatDidNotStartIsNotRemembered, and nobody is kept waiting.
func TestAChildThatDidNotStartIsNotRemembered(t *testing.T) {
	s, _ := run(t)
	if err := s.StartFor(context.Background(), "phone", exec.Command("/nowhere/at-all")); err == nil {
		t.Fatal("it started")
	}
	if owner, ok := s.owners.of(lineage.Peer{}); ok || len(s.owners.list) != 0 {
		t.Errorf("got owner %q, and %d children", owner, len(s.owners.list))
	}
}

// connection starts a script with this test as $0, which connects.
func connection(t *testing.T, s *Starter, owner, script string) (*net.UnixConn, *exec.Cmd) {
	t.Helper()
	dir, err := os.MkdirTemp("", "own")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	path := filepath.Join(dir, "socket")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Net: "unix", Name: path})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	// What it starts before its mark is complete has only half of it.
	cmd := exec.Command("sh", "-c", "read go; "+script, exe)
	cmd.Env = append(os.Environ(), connectTo+"="+path)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = in.Close() })
	if err := s.StartFor(t.Context(), owner, cmd); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(in, "go\n"); err != nil {
		t.Fatal(err)
	}
	c, err := l.AcceptUnix()
	if err != nil {
		t.Fatal(err)
	}
	return c, cmd
}
