package lineage

import (
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// connectTo is in the environment of a test process that is to connect to a
// socket. It ends when the connection does, or, if leaveTo is there too, at once:
// then a program has the connection that says nothing.
const (
	connectTo = "TEST_LINEAGE_CONNECT"
	leaveTo   = "TEST_LINEAGE_LEAVE"
)

func TestMain(m *testing.M) {
	path := os.Getenv(connectTo)
	if path == "" {
		os.Exit(m.Run())
	}
	c, err := net.Dial("unix", path)
	if err != nil {
		os.Exit(1)
	}
	if os.Getenv(leaveTo) != "" {
		f, err := c.(*net.UnixConn).File()
		if err != nil {
			os.Exit(1)
		}
		heir := exec.Command("sleep", "1000")
		heir.ExtraFiles = []*os.File{f}
		if heir.Start() != nil {
			os.Exit(1)
		}
		os.Exit(0)
	}
	_, _ = io.Copy(io.Discard, c)
	os.Exit(0)
}

// connecting has a process connect that bears a mark, and returns the other end.
func connecting(t *testing.T, m Mark, more ...string) (c *net.UnixConn, cmd *exec.Cmd) {
	t.Helper()
	dir, err := os.MkdirTemp("", "peer")
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
	cmd = exec.Command(exe)
	cmd.Env = environ(append(os.Environ(), append(more, connectTo+"="+path)...), m, "")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) // the heir too
		_ = cmd.Wait()
	})
	m.Bear(cmd.Process.Pid)
	if c, err = l.AcceptUnix(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c, cmd
}

func peerOf(t *testing.T, r Run, c *net.UnixConn) (Peer, error) {
	t.Helper()
	raw, err := c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	return r.Peer(raw)
}

func TestPeersAreKnownByTheirMarks(t *testing.T) {
	run := NewRun()
	c, cmd := connecting(t, Mark{run, 7})
	pid := cmd.Process.Pid
	if p, err := peerOf(t, run, c); err != nil || p.PID != pid || p.Group != pid || !p.Bears(7) || p.Bears(8) || !slices.Equal(p.marks, []uint32{7, 7}) {
		t.Errorf("got %+v, %v; want process %d with both halves of mark 7", p, err, pid)
	}
	if p, err := peerOf(t, NewRun(), c); err != nil || p.PID != pid || len(p.marks) > 0 {
		t.Errorf("for another run: got %+v, %v; want process %d without a mark", p, err, pid)
	}
	Mark{run, 8}.Bear(pid) // halves that differ
	if p, err := peerOf(t, run, c); err != nil || !p.Bears(7) || !p.Bears(8) {
		t.Errorf("with the mark of another child: got %+v, %v; want both", p, err)
	}
}

// TestAPeerThatHasEndedIsNobody: who has its number may be another one, and who
// has its connection is not known.
func TestAPeerThatHasEndedIsNobody(t *testing.T) {
	run := NewRun()
	c, cmd := connecting(t, Mark{run, 7}, leaveTo+"=heir")
	awaitDeath(t, cmd.Process.Pid)
	if p, err := peerOf(t, run, c); !errors.Is(err, ErrPeerGone) {
		t.Errorf("dead, and not buried: got %+v, %v; want %v", p, err, ErrPeerGone)
	}
	_ = cmd.Wait()
	if p, err := peerOf(t, run, c); !errors.Is(err, ErrPeerGone) {
		t.Errorf("buried: got %+v, %v; want %v", p, err, ErrPeerGone)
	}
}

// awaitDeath returns when a child has ended, and leaves it to be waited for.
func awaitDeath(t *testing.T, pid int) {
	t.Helper()
	if err := unix.Waitid(unix.P_PID, pid, nil, unix.WEXITED|unix.WNOWAIT, nil); err != nil {
		t.Fatal(err)
	}
}
