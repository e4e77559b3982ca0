//go:build unix

package host

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gofrs/flock"

	"github.com/transporthost/transporthost/host/application"
	"github.com/transporthost/transporthost/host/internal/lineage"
	"github.com/transporthost/transporthost/host/internal/rundir"
)

// What is in the environment of a test process that embeds a host.
const (
	pluginsAt = "TEST_HOST_PLUGINS"
	daemonAt  = "TEST_HOST_DAEMON" // file for the pid of what its application leaves
)

// embed is a program with a host in it, which knows no runtime directory.
func embed() int {
	const script = `(setsid sh -c 'trap "" HUP TERM; echo $$ >"$0"; exec sleep 1000' "$0" &); read ever`
	h, err := New(Config{
		Application: Application{Shared: true, Command: application.Command{Args: []string{"sh", "-c", script, os.Getenv(daemonAt)}}},
		Transports:  []Transport{behaves("a", "plain")}, PluginDirs: []string{os.Getenv(pluginsAt)},
		Ready: func(Status) { fmt.Println("ready") },
	})
	if err != nil {
		panic(err)
	}
	_ = h.Run(context.Background())
	return 0
}

// TestAProgramThatEmbedsAHostIsKilled: its host leaves no more than the command
// does.
func TestAProgramThatEmbedsAHostIsKilled(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("there are no keepers here")
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	temp := shortDir(t)
	pidFile := filepath.Join(t.TempDir(), "pid")
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), behaviour+"=embeds a host", pluginsAt+"="+pluginDir(t), daemonAt+"="+pidFile, "TMPDIR="+temp)
	cmd.Stderr = t.Output()
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "ready\n" {
		t.Fatalf("it said %q, %v", line, err)
	}
	daemon := awaitPID(t, pidFile)
	if places, _ := os.ReadDir(temp); len(places) != 1 {
		t.Fatalf("there are %v in the temporary directory, want that of the host", places)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	for deadline := time.Now().Add(2 * time.Second); ; time.Sleep(time.Millisecond) {
		places, _ := os.ReadDir(temp)
		_, lives := lineage.Of(daemon)
		if len(places) == 0 && !lives {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("after 2 s there are %v, and the daemon lives: %v", places, lives)
		}
	}
}

func awaitPID(t *testing.T, file string) int {
	t.Helper()
	for deadline := time.Now().Add(limit); ; time.Sleep(time.Millisecond) {
		text, _ := os.ReadFile(file)
		if line, whole := strings.CutSuffix(string(text), "\n"); whole {
			pid, err := strconv.Atoi(line)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				if _, lives := lineage.Of(pid); lives {
					_ = syscall.Kill(pid, syscall.SIGKILL)
				}
			})
			return pid
		}
		if time.Now().After(deadline) {
			t.Fatalf("there is no pid in %s", file)
		}
	}
}

// TestTwoHostsOfOneProcess can have no directory together, and the second does
// not take that of the first.
func TestTwoHostsOfOneProcess(t *testing.T) {
	dir := shortDir(t)
	r := start(t, func(c *Config) { c.RuntimeDir, c.Admin = dir, true }, behaves("a", "plain"))
	r.awaitReady()
	second, err := New(Config{Application: Application{Echo: true}, Transports: []Transport{behaves("b", "plain")}, RuntimeDir: dir})
	if err != nil {
		t.Fatal(err)
	}
	if err := second.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "another host in this process uses it; give each its own") {
		t.Errorf("Run of the second: got %v", err)
	}
	running, err := FindHost(dir, 0)
	if err != nil {
		t.Fatal(err)
	}
	if s, err := running.Status(t.Context()); err != nil || s.State != StateServing || s.Keeper == 0 && runtime.GOOS == "linux" {
		t.Errorf("status of the first: %+v, %v", s, err)
	}
}

// TestFindHost: of several hosts it is the one in this pid namespace that is
// meant, and one elsewhere only where there is no other choice.
func TestFindHost(t *testing.T) {
	dir := shortDir(t)
	leave := func(name string, pid int, namespace string) (path string) {
		t.Helper()
		path = filepath.Join(dir, name)
		host, _ := lineage.Of(pid)
		host.PID = pid
		if namespace != lineage.Namespace() {
			host.Start++
		}
		text, err := json.Marshal(rundir.Record{Host: host, Namespace: namespace, Run: lineage.NewRun()})
		if err == nil {
			err = os.Mkdir(path, 0o700)
		}
		if err == nil {
			err = os.WriteFile(filepath.Join(path, "run.json"), text, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
		lock := flock.New(filepath.Join(path, "run.lock"))
		if ok, err := lock.TryLock(); !ok {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = lock.Close() })
		return path
	}
	find := func(pid int, want, wantErr string) {
		t.Helper()
		got, err := FindHost(dir, pid)
		if filepath.Base(got.dir) != want && err == nil || (err == nil) != (wantErr == "") || err != nil && !strings.Contains(err.Error(), wantErr) {
			t.Errorf("with pid %d: got %q, %v, want %q, %q", pid, got.dir, err, want, wantErr)
		}
	}
	find(0, "", "no host is running here: none in "+dir)
	self := os.Getpid()
	leave("r1", 1, "another")
	find(0, "r1", "")
	find(1, "r1", "")
	find(self, "", fmt.Sprintf("none with pid %d", self))
	leave("r-00abcd", 1, "a third")
	find(0, "", "several hosts run in "+dir+"; choose one with --pid: 1, 1")
	find(1, "", "have pid 1, in pid namespaces other than this; ask from within theirs")
	leave(fmt.Sprint("r", self), self, "another")
	find(self, fmt.Sprint("r", self), "")
	leave("r-00abce", self, lineage.Namespace())
	find(0, "r-00abce", "")
	find(self, "r-00abce", "")
}
