package rundir

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/gofrs/flock"
	"github.com/hashicorp/go-hclog"
	"golang.org/x/sys/unix"

	"github.com/transporthost/transporthost/host/internal/lineage"
)

// What makes this test a host.
const (
	hostAt  = "TEST_RUNDIR_HOST"      // the runtime directory
	ownProc = "TEST_RUNDIR_NAMESPACE" // it is in a pid namespace of its own
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(hostAt); dir != "" {
		os.Exit(beHost(dir))
	}
	os.Exit(m.Run())
}

// beHost has a directory until its input ends. It says where that is, or why
// there is none, and then the pid of a child that outlives it.
func beHost(dir string) int {
	if os.Getenv(ownProc) != "" {
		err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, "")
		if err == nil {
			err = unix.Mount("proc", "/proc", "proc", 0, "")
		}
		if err != nil {
			fmt.Println("no proc:", err)
			return 1
		}
	}
	d, err := Plan(context.Background(), dir, lineage.NewRun(), []string{filepath.Join(dir, "s"+os.Getenv(ownProc))}, hclog.NewNullLogger())
	if err == nil {
		err = d.Make()
	}
	if err != nil {
		fmt.Println("error:", err)
		return 1
	}
	fmt.Println(d.Path())
	child := exec.Command("sleep", "1000")
	child.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := child.Start(); err != nil {
		panic(err)
	}
	fmt.Println(child.Process.Pid)
	_, _ = io.Copy(io.Discard, os.Stdin)
	_ = child.Process.Kill()
	_ = child.Wait()
	d.Remove()
	return 0
}

// A neighbour is beHost as a process.
type neighbour struct {
	path  string // of its directory
	child int    // in its pid namespace
	stop  func() // ends it in good order
	kill  func()
}

// startNeighbour starts a host; namespace, if it is not empty, names a pid
// namespace of its own.
func startNeighbour(t *testing.T, dir, namespace string) neighbour {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), hostAt+"="+dir, ownProc+"="+namespace)
	cmd.Stderr = t.Output()
	if namespace != "" {
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID | syscall.CLONE_NEWNS}
		if uid, gid := os.Getuid(), os.Getgid(); uid != 0 {
			cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
			cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: uid, Size: 1}}
			cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: gid, Size: 1}}
		}
	}
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); errors.Is(err, syscall.EPERM) || errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EINVAL) {
		t.Skipf("this machine lets the test make no pid namespace: %v", err)
	} else if err != nil {
		t.Fatal(err)
	}
	ended := false
	end := func(how func() error) {
		if !ended {
			ended = true
			_ = how()
			_ = cmd.Wait()
		}
	}
	n := neighbour{stop: func() { end(in.Close) }, kill: func() { end(cmd.Process.Kill) }}
	t.Cleanup(n.kill)
	said := bufio.NewReader(out)
	line, err := said.ReadString('\n')
	n.path = strings.TrimSpace(line)
	if strings.HasPrefix(n.path, "no proc") {
		t.Skipf("this machine lets the test mount no /proc of a pid namespace: %s", n.path)
	}
	if err != nil || !filepath.IsAbs(n.path) {
		t.Fatalf("the host says %q, %v", line, err)
	}
	if line, err = said.ReadString('\n'); err == nil {
		n.child, err = strconv.Atoi(strings.TrimSpace(line))
	}
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// TestAHeldLockIsALivingHost, whatever the record says; when it is released, the
// record is right.
func TestAHeldLockIsALivingHost(t *testing.T) {
	dir, temp := shortDir(t), shortDir(t)
	t.Setenv("TMPDIR", temp)
	gone := lineage.Identity{PID: 1 << 29, Start: 1}
	for _, tt := range []struct{ name, path string }{
		{"named for the pid", filepath.Join(dir, fmt.Sprint("r", gone.PID))},
		{"named for the run", filepath.Join(dir, "r-00abcd")},
		{"being made", filepath.Join(dir, "n1-1-00000000000000ff")},
		{"with temporary files", filepath.Join(temp, "transporthost-1234567890")},
	} {
		t.Run(tt.name, func(t *testing.T) {
			configured := dir
			if filepath.Dir(tt.path) == temp {
				configured = ""
			}
			run := lineage.NewRun()
			bound := filepath.Join(dir, "bound")
			_ = socket(t, bound).Close() // as one that is between bind and listen
			_, lives := sleeper(t, run)
			leave(t, tt.path, Record{Host: gone, Run: run, Sockets: []string{bound}})
			lock, err := hold(tt.path)
			if err != nil {
				t.Fatal(err)
			}
			plan(t, configured)
			if !there(tt.path) || !there(bound) || !lives() {
				t.Errorf("of a host that lives there is its directory: %v, its socket: %v, its process: %v", there(tt.path), there(bound), lives())
			}
			if err := lock.Close(); err != nil {
				t.Fatal(err)
			}
			plan(t, configured)
			if there(tt.path) {
				t.Error("the directory of a host that is gone is still there")
			}
			if started := tt.name != "being made"; started && (there(bound) || lives()) {
				t.Errorf("of a host that is gone there is its socket: %v, its process: %v", there(bound), lives())
			}
			_ = os.Remove(bound)
		})
	}
}

// TestTheLockIsTheHostsAlone: it ends with the host's life, though a child of
// the host lives on.
func TestTheLockIsTheHostsAlone(t *testing.T) {
	dir := shortDir(t)
	host := startNeighbour(t, dir, "")
	t.Cleanup(func() { _ = syscall.Kill(host.child, syscall.SIGKILL) })
	r, ok := read(host.path)
	if !ok {
		t.Fatal("it has no record")
	}
	// As another pid namespace sees it.
	r.Host = lineage.Identity{PID: 1 << 29, Start: 1}
	if err := r.write(host.path); err != nil {
		t.Fatal(err)
	}
	plan(t, dir)
	if !there(host.path) {
		t.Fatal("a host that lives was swept")
	}
	host.kill()
	if _, ok := lineage.Of(host.child); !ok {
		t.Fatal("its child has ended with it; the test sees nothing")
	}
	plan(t, dir)
	if there(host.path) {
		t.Error("a host that was killed was not swept")
	}
}

// TestWithoutALockTheRecordDecides: older versions have none, nor have some file
// systems.
func TestWithoutALockTheRecordDecides(t *testing.T) {
	dir := shortDir(t)
	self, _ := lineage.Of(os.Getpid())
	dead := lineage.Identity{PID: 1 << 29, Start: 1, Boot: self.Boot}
	living, _ := sleeper(t, 0)
	alive, _ := lineage.Of(living.Process.Pid)
	for _, lock := range []string{"none", "free", "looked at", "unreadable"} {
		for host, keep := range map[lineage.Identity]bool{dead: false, alive: true} {
			path := filepath.Join(dir, fmt.Sprint("r", host.PID))
			leave(t, path, Record{Host: host, Run: lineage.NewRun()})
			var err error
			switch file := filepath.Join(path, lockName); lock {
			case "free":
				err = os.WriteFile(file, nil, 0o600)
			case "looked at": // by another that sweeps
				looker := flock.New(file)
				defer looker.Close()
				_, err = looker.TryRLock()
			case "unreadable":
				err = os.Symlink(lockName, file)
			}
			if err != nil {
				t.Fatal(err)
			}
			plan(t, dir)
			if there(path) != keep {
				t.Errorf("lock %s, the host is alive: %v; the directory is there: %v", lock, keep, there(path))
			}
			_ = os.RemoveAll(path)
		}
	}
}

// TestHostsOfOnePid in two pid namespaces have each a directory.
func TestHostsOfOnePid(t *testing.T) {
	dir := shortDir(t)
	other := filepath.Join(dir, fmt.Sprint("r", os.Getpid()))
	self, _ := lineage.Of(os.Getpid())
	leave(t, other, Record{Host: self, Namespace: "another", Run: lineage.NewRun()})
	lock, err := hold(other)
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	d := plan(t, dir)
	if err := d.Make(); err != nil {
		t.Fatal(err)
	}
	if d.Path() == other || len(d.Path()) > len(dir)+len("/r4194304") {
		t.Errorf("the second one is in %s", d.Path())
	}
	for _, r := range Runs(dir) {
		if r.PID != os.Getpid() || !r.Running() || r.Here() != (r.Path == d.Path()) {
			t.Errorf("%+v runs: %v, here: %v", r, r.Running(), r.Here())
		}
	}
	if third := plan(t, dir); third.Make() == nil {
		t.Error("a second host in this process has a directory too")
	}
	d.Remove()
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 1 {
		t.Errorf("left are %v, %v", entries, err)
	}
}

// TestHostsInPidNamespacesOfTheirOwn leave each other alone, and this one; what
// one of them leaves that was killed, another clears away.
func TestHostsInPidNamespacesOfTheirOwn(t *testing.T) {
	dir := shortDir(t)
	here := plan(t, dir)
	if err := here.Make(); err != nil {
		t.Fatal(err)
	}
	one := startNeighbour(t, dir, "1")
	bound := filepath.Join(dir, "s1") // by one
	_ = socket(t, bound).Close()
	two := startNeighbour(t, dir, "2")
	plan(t, dir)
	for _, path := range []string{here.Path(), one.path, two.path, bound} {
		if !there(path) {
			t.Errorf("%s of a host that lives was swept", path)
		}
	}
	if one.path == two.path {
		t.Errorf("two hosts are in %s", one.path)
	}
	for _, r := range Runs(dir) {
		if !r.Running() || r.Here() != (r.Path == here.Path()) || !r.Here() && r.PID != 1 {
			t.Errorf("%s of pid %d runs: %v, here: %v", r.Path, r.PID, r.Running(), r.Here())
		}
	}
	one.kill()
	three := startNeighbour(t, dir, "3")
	for path, keep := range map[string]bool{here.Path(): true, two.path: true, bound: false} {
		if there(path) != keep {
			t.Errorf("%s is there: %v, want %v", path, there(path), keep)
		}
	}
	two.stop()
	three.stop()
	here.Remove()
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 0 {
		t.Errorf("left are %v, %v", entries, err)
	}
}

// TestMakingAndSweepingAtOnce by hosts that know nothing of each other's pids,
// which are the same.
func TestMakingAndSweepingAtOnce(t *testing.T) {
	dir := shortDir(t)
	ctx, cancel := context.WithCancel(t.Context())
	var makers, sweepers sync.WaitGroup
	for range 2 {
		sweepers.Go(func() {
			for ctx.Err() == nil {
				sweep(ctx, dir, hclog.NewNullLogger())
			}
		})
	}
	for namespace := range 3 {
		makers.Go(func() {
			for round := range 30 {
				d := plan(t, dir)
				d.record.Host, d.record.Namespace = lineage.Identity{PID: 1 << 29, Start: 1}, fmt.Sprint(namespace)
				d.path = filepath.Join(dir, fmt.Sprint("r", 1<<29))
				d.fresh = filepath.Join(dir, fmt.Sprintf("n%d-1-%v", 1<<29, d.record.Run))
				if err := d.Make(); err != nil {
					t.Errorf("namespace %d, round %d: %v", namespace, round, err)
					continue
				}
				for range 3 {
					sweep(ctx, dir, hclog.NewNullLogger())
					if r, ok := read(d.Path()); !ok || r.Run != d.record.Run {
						t.Errorf("namespace %d, round %d: a host that lives was swept, or another is there: %+v, %v", namespace, round, r, ok)
					}
				}
				if round%2 == 0 {
					d.Remove()
				} else {
					d.release() // as one that is killed
				}
			}
		})
	}
	makers.Wait()
	cancel()
	sweepers.Wait()
	plan(t, dir)
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 0 {
		t.Errorf("left are %v, %v", entries, err)
	}
}
