package sandbox

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/transporthost/transporthost/host/internal/childproc"
)

// A scene is what a confined program could reach.
type scene struct {
	t       *testing.T
	dir     string
	request Request
	starter *childproc.Starter
}

func newScene(t *testing.T) *scene {
	t.Helper()
	s := &scene{t: t, dir: t.TempDir(), starter: childproc.NewStarter()}
	for _, dir := range []string{"home", "certs", "other", "private"} {
		if err := os.Mkdir(s.at(dir), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for _, file := range []string{"home/auth.json", "home/near", "certs/cert.pem", "other/file"} {
		if err := os.WriteFile(s.at(file), []byte("secret"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, address := range []string{s.at("other/socket"), "@" + s.at("other/socket")} {
		l, err := net.Listen("unix", address)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = l.Close() })
	}
	datagrams, err := net.ListenPacket("unixgram", s.at("other/datagrams"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = datagrams.Close() })
	s.request = Request{Named: []string{s.at("certs/cert.pem"), s.at("home/near")}, Protected: []string{s.at("home/auth.json")}}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = s.starter.Run(ctx)
	}()
	t.Cleanup(func() {
		cancel()
		<-done
	})
	return s
}

func (s *scene) at(name string) string { return filepath.Join(s.dir, name) }

// policy is that of a process which the host gives its sockets, or not.
func (s *scene) policy(executable string, inherited bool) Policy {
	at := HerePlace(executable, s.at("private"), inherited)
	at.Home = s.at("home")
	return s.request.Policy(at)
}

// run runs this test binary as a program that tries something, and returns what
// it says. with is its first extra file.
func (s *scene) run(what string, policy Policy, with *os.File) (said string, report Report, state *os.ProcessState) {
	s.t.Helper()
	exe, err := os.Executable()
	if err != nil {
		s.t.Fatal(err)
	}
	var out bytes.Buffer
	cmd := &exec.Cmd{Path: exe, Args: []string{"plugin"}, Stdout: &out, Stderr: s.t.Output(),
		Env: append(os.Environ(), attempt+"="+what, where+"="+s.dir), ExtraFiles: []*os.File{with}}
	report, err = s.start(cmd, policy, nil)
	if err != nil {
		s.t.Fatal(err)
	}
	_ = cmd.Wait() // the state says it
	return out.String(), report, cmd.ProcessState
}

func (s *scene) start(cmd *exec.Cmd, policy Policy, verified *os.File) (Report, error) {
	s.t.Helper()
	gate, err := Prepare(cmd, policy, verified)
	if err != nil {
		s.t.Fatal(err)
	}
	defer gate.Close()
	if err := s.starter.Start(s.t.Context(), cmd); err != nil {
		s.t.Fatal(err)
	}
	gate.Started()
	return gate.Await()
}

// listener is what the host would pass: of the kind that Go makes by default,
// which is Multipath TCP where the kernel has it.
func listener(t *testing.T) *os.File {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	f, err := l.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return f
}

// everywhere is what no policy that confines allows, or all do.
func everywhere() map[string]string {
	return map[string]string{
		"at birth":         "NoNewPrivs 1, Seccomp 2",
		"read its program": "ok", "read auth.json": "EACCES", "list its directory": "EACCES",
		"read what is named": "ok", "read beside that": "ok", "change what is named": "EACCES",
		"read a stranger's file": "EACCES", "write a stranger's file": "EACCES", "truncate it": "EACCES", "chmod it": "EPERM",
		"write its own": "ok", "execute its own": "EACCES", "read /etc/hosts": "ok", "read a parent's memory": "EACCES",
		"write /dev/null": "ok", "socket unix": "ok", "socket packet": "EPERM", "socket vsock": "EPERM", "socket vsock disguised": "EPERM",
		"socket algorithms": "EPERM", "socket bluetooth": "EPERM", "socket raw": "EPERM", "socket netlink other": "EPERM",
		"io_uring": "EPERM", "ptrace": "EPERM", "read memory": "EPERM", "mount": "EPERM", "fsopen": "EPERM", "bpf": "EPERM",
		"perf": "EPERM", "userfaultfd": "EPERM", "keys": "EPERM", "unshare": "EPERM", "setns": "EPERM", "chroot": "EPERM",
		"clone3": "ENOSYS", "a call of tomorrow": "ENOSYS", "process": "EPERM", "signal its parent": "EPERM",
		"limit its parent": "EPERM", "leave its group": "EPERM", "outlive its parent": "EPERM", "signal at its end": "9",
		"core": "0", "files": "500", "memory": "1073741824", "arguments": "[plugin]", "descriptors": inheritedDescriptors(),
		"connect to a name": "EPERM",
	}
}

// inheritedDescriptors are what a program gets that has one extra file, and
// what was left open to this test.
func inheritedDescriptors() string {
	list := append([]int{3}, openAtBirth...)
	slices.Sort(list)
	return fmt.Sprint(slices.Compact(list))
}

func with(base, more map[string]string) map[string]string {
	all := maps.Clone(base)
	maps.Copy(all, more)
	return all
}

// TestWhatIsTried is done for real, by a program of its own.
func TestWhatIsTried(t *testing.T) {
	requireAll(t)
	inherited := with(everywhere(), map[string]string{
		"socket TCP": "EPERM", "socket TCP6": "EPERM", "socket UDP": "EPERM", "socket MPTCP": "EPERM", "socket MPTCP disguised": "EPERM",
		"socket netlink route": "EPERM", "socket unix datagram": "EPERM", "connect to a path": "EPERM", "listener to connection": "EPERM",
		"datagram from a pair": "EPERM",
	})
	own := with(everywhere(), map[string]string{
		"socket TCP": "ok", "socket TCP6": "ok", "socket UDP": "ok", "socket MPTCP": "EPROTONOSUPPORT", "socket MPTCP disguised": "EPERM",
		"socket netlink route": "ok", "socket unix datagram": "ok", "connect to a path": "ok", "listener to connection": "any",
		"datagram from a pair": "ok",
	})
	for _, tt := range []struct {
		name   string
		change func(*Request)
		given  bool // its sockets
		want   map[string]string
	}{
		{"sockets inherited", func(*Request) {}, true, inherited},
		{"sockets of its own", func(*Request) {}, false, own},
		{"network by exception", func(r *Request) { yes := true; r.Network = &yes }, true, own},
		{"processes by exception", func(r *Request) { r.Processes = true }, true,
			with(inherited, map[string]string{"process": "ok", "outlive its parent": "ok"})},
		{"files by exception", func(r *Request) {
			dir := filepath.Dir(filepath.Dir(r.Named[0]))
			r.Read, r.Write = []string{filepath.Join(dir, "home")}, []string{filepath.Join(dir, "other")}
		}, true, with(inherited, map[string]string{
			"read auth.json": "ok", "list its directory": "ok", "read a stranger's file": "ok", "write a stranger's file": "ok", "truncate it": "ok", "chmod it": "ok",
		})},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newScene(t)
			// A certificate is renewed: another file takes its name, while nobody
			// can be told. The program reads what is there then.
			if err := os.WriteFile(s.at("certs/renewed.pem"), nil, 0o600); err != nil {
				t.Fatal(err)
			}
			s.request.Memory, s.request.Files = 1<<30, 500
			tt.change(&s.request)
			exe, _ := os.Executable()
			said, report, state := s.run("everything", s.policy(exe, tt.given), listener(t))
			var got map[string]string
			if err := json.Unmarshal([]byte(said), &got); err != nil {
				t.Fatalf("it said %q, and ended with %v", said, state)
			}
			for _, what := range slices.Sorted(maps.Keys(got)) {
				want, ok := tt.want[what]
				if !ok || want != got[what] && want != "any" {
					t.Errorf("%s: got %s, want %s", what, got[what], want)
				}
			}
			if len(got) != len(tt.want) {
				t.Errorf("%d attempts, want %d", len(got), len(tt.want))
			}
			if len(report.Enforced) < 5 {
				t.Errorf("the report says %s", report)
			}
		})
	}
}

// TestOff changes nothing: what fails outside of a sandbox fails there too.
func TestOff(t *testing.T) {
	s := newScene(t)
	s.request.Off = true
	exe, _ := os.Executable()
	said, report, _ := s.run("everything", s.policy(exe, true), listener(t))
	var got map[string]string
	if err := json.Unmarshal([]byte(said), &got); err != nil {
		t.Fatalf("it said %q", said)
	}
	for what, want := range map[string]string{
		"at birth": ownStatus(), "read auth.json": "ok", "write a stranger's file": "ok", "socket TCP": "ok", "connect to a path": "ok", "datagram from a pair": "ok",
		"process": "ok", "chmod it": "ok",
	} {
		if got[what] != want {
			t.Errorf("%s: got %s, want %s", what, got[what], want)
		}
	}
	if !report.Off || report.String() != "off, as the configuration says" {
		t.Errorf("the report says %s", report)
	}
}

// requireAll ends a test that needs what not every kernel has. CI has it.
func requireAll(t *testing.T) {
	t.Helper()
	if abi := landlockABI(); abi < 6 {
		if os.Getenv("CI") != "" {
			t.Fatalf("this kernel has Landlock %d, and the test needs 6", abi)
		}
		t.Skipf("this kernel has Landlock %d, and the test needs 6", abi)
	}
}

// TestAnotherProcessorsCalls would pass by every filter that only looks at
// numbers.
func TestAnotherProcessorsCalls(t *testing.T) {
	if !hasI386 {
		t.Skip("this processor has one set of calls")
	}
	s := newScene(t)
	exe, _ := os.Executable()
	said, _, state := s.run("another processor's call", s.policy(exe, true), nil)
	if ws, ok := state.Sys().(syscall.WaitStatus); said != "" || !ok || ws.Signal() != syscall.SIGSYS {
		t.Errorf("it said %q and ended with %v, want SIGSYS", said, state)
	}
}

// TestWhatCannotBeExecuted says why.
func TestWhatCannotBeExecuted(t *testing.T) {
	s := newScene(t)
	bin := t.TempDir()
	file := func(name, content string, mode os.FileMode) string {
		path := filepath.Join(bin, name)
		if err := os.WriteFile(path, []byte(content), mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	hidden := filepath.Join(s.at("other"), "shell")
	if err := os.Symlink("/bin/sh", filepath.Join(bin, "link")); err != nil {
		t.Fatal(err)
	}
	shell, err := os.ReadFile("/bin/sh")
	if err == nil {
		err = os.WriteFile(hidden, shell, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name, path string
		want       error
		says       string
	}{
		{"is not there", filepath.Join(bin, "nothing"), syscall.ENOENT, "no such file"},
		{"may not be executed", file("text", "x", 0o644), syscall.EACCES, "permission denied"},
		{"is no program", file("rubbish", "rubbish", 0o755), syscall.ENOEXEC, "exec format error"},
		{"has no interpreter", file("script", "#!/no/such\n", 0o755), syscall.ENOENT, "no such file"},
		{"has an interpreter elsewhere", file("elsewhere", "#!"+hidden+"\n", 0o755), syscall.EACCES, "its interpreter " + hidden + " is outside"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cmd := &exec.Cmd{Path: tt.path, Args: []string{"plugin"}}
			_, err := s.start(cmd, s.policy(tt.path, true), nil)
			_ = cmd.Wait()
			if !errors.Is(err, tt.want) || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("got %v, want %v with %q", err, tt.want, tt.says)
			}
		})
	}
}

// TestVerifiedPrograms run from memory: scripts too, which their interpreter
// opens by a name.
func TestVerifiedPrograms(t *testing.T) {
	truth, err := os.ReadFile("/bin/true")
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string]string{"a binary": string(truth), "a script": "#!/bin/sh\necho \"from $#\"\n"} {
		t.Run(name, func(t *testing.T) {
			s := newScene(t)
			fd, err := unix.MemfdCreate("plugin", unix.MFD_CLOEXEC)
			if err != nil {
				t.Fatal(err)
			}
			mem := os.NewFile(uintptr(fd), "plugin")
			defer mem.Close()
			if _, err := io.WriteString(mem, content); err != nil {
				t.Fatal(err)
			}
			var out bytes.Buffer
			cmd := &exec.Cmd{Path: "/no/such/plugin", Args: []string{"plugin"}, Stdout: &out}
			if _, err := s.start(cmd, s.policy("/no/such/plugin", true), mem); err != nil {
				t.Fatal(err)
			}
			if err := cmd.Wait(); err != nil {
				t.Error(err)
			}
			if want := map[string]string{"a script": "from 0\n"}[name]; out.String() != want {
				t.Errorf("it said %q, want %q", out.String(), want)
			}
		})
	}
}

// TestAKilledShim does not leave its host waiting.
func TestAKilledShim(t *testing.T) {
	s := newScene(t)
	fifo := filepath.Join(t.TempDir(), "fifo")
	if err := unix.Mkfifo(fifo, 0o700); err != nil {
		t.Fatal(err)
	}
	cmd := &exec.Cmd{Path: fifo, Args: []string{"plugin"}}
	policy := s.policy(fifo, true)
	gate, err := Prepare(cmd, policy, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer gate.Close()
	cmd.Args[1] = "no order" // it has nothing to do, and says so by its status
	if err := s.starter.Start(t.Context(), cmd); err != nil {
		t.Fatal(err)
	}
	gate.Started()
	began := time.Now()
	if _, err := gate.Await(); !errors.Is(err, errNoShim) || time.Since(began) > 30*time.Second {
		t.Errorf("got %v after %v, want that the sandbox did not come up", err, time.Since(began))
	}
	if err := cmd.Wait(); cmd.ProcessState.ExitCode() != statusOfShim {
		t.Errorf("it ended with %v", err)
	}
}
