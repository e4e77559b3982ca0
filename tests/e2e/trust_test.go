//go:build unix

package e2e

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	goplugin "github.com/hashicorp/go-plugin"

	"github.com/transporthost/transporthost/host"
	"github.com/transporthost/transporthost/host/supervisor"
	"github.com/transporthost/transporthost/shared/rpc"
)

// serveAsPlugin makes this process a plugin that the host cannot talk to, if it
// is called like one.
func serveAsPlugin(name string) bool {
	version, ours := map[string]int{"transport-newer": 7, "transport-older": 0, "transport-netrpc": rpc.ProtocolVersion}[name]
	if !ours {
		return false
	}
	goplugin.Serve(&goplugin.ServeConfig{HandshakeConfig: rpc.Handshake(), VersionedPlugins: map[int]goplugin.PluginSet{version: {}}})
	return true
}

// A badPlugin is a file that the host may try to run, and what it says then.
type badPlugin struct {
	name  string
	write func(path string) error
	want  string // part of what is said everywhere
	skip  string // why it cannot be made here
}

func script(text string) func(string) error {
	return func(path string) error { return os.WriteFile(path, []byte(text), 0o755) }
}

func itself(path string) error {
	exe, err := os.Executable()
	if err == nil && os.Link(exe, path) == nil {
		return nil
	}
	b, err := os.ReadFile(exe)
	return errors.Join(err, os.WriteFile(path, b, 0o755))
}

// changed makes a copy of a program of ours with one part replaced.
func changed(old, replacement []byte, from string) func(string) error {
	return func(path string) error {
		b, err := os.ReadFile(from)
		if err != nil {
			return err
		}
		if !bytes.Contains(b, old) {
			return fmt.Errorf("%s does not contain %q", from, old)
		}
		return os.WriteFile(path, bytes.Replace(b, old, replacement, 1), 0o755)
	}
}

func badPlugins(t *testing.T) []badPlugin {
	list := []badPlugin{
		{name: "newer", write: itself,
			want: "it speaks version 7 of the link, and this host version 1; update transporthost, or install an older plugin"},
		{name: "older", write: itself, want: "it speaks version 0 of the link, and this host version 1; update the plugin"},
		{name: "netrpc", write: itself, want: "it does not speak gRPC; build it with the SDK"},
		{name: "greets", write: script("#!/bin/sh\necho \"Welcome back!\"\nexec sleep 1000\n"),
			want: `not a plugin: its first line on stdout is "Welcome back!" instead of a handshake; a plugin's stdout carries the handshake alone;` +
				` this is another program, or it prints something first (a print that was left in, the greeting of a script or shell that starts it)`},
		{name: "pipes", write: script("#!/bin/sh\necho 'a|b|c|d|e'\nexec sleep 1000\n"),
			want: `not a plugin: its first line on stdout is "a|b|c|d|e" instead of a handshake`},
		{name: "old-core", write: script("#!/bin/sh\necho '0|1|unix|/x|grpc|'\nexec sleep 1000\n"),
			want: "it shakes hands as version 0 of go-plugin does, and this host as version 1; build it again with the present SDK"},
		{name: "silent", write: script("#!/bin/sh\nexit 0\n"), want: "it ended before the handshake, with status 0: it may be another program than a plugin"},
		{name: "fails", write: script("#!/bin/sh\nexit 3\n"), want: "it ended before the handshake: "},
		{name: "no-interpreter", write: script("#!/opt/no/such/python3 -u\nprint(1)\n"),
			want: `it needs the interpreter "/opt/no/such/python3", which is not there; install it, or correct the first line of the script`},
		{name: "windows-lines", write: script("#!/bin/sh\r\necho hello\r\n"),
			want: `it needs the interpreter "/bin/sh\r", which is not there; its first line ends as on Windows: convert the script to plain line feeds`},
		{name: "no-program", write: script("this is no program\n"),
			want: "transport-no-program: exec format error; it is no program for this machine (" + runtime.GOOS + "/" + runtime.GOARCH + "): built for another system, or a script without #!"},
	}
	if runtime.GOOS == "linux" {
		list = append(list, badPlugin{name: "still-written", write: func(path string) error {
			err := script("#!/bin/sh\n")(path)
			f, opened := os.OpenFile(path, os.O_WRONLY, 0)
			t.Cleanup(func() { _ = f.Close() })
			return errors.Join(err, opened)
		}, want: "text file busy: somebody is still writing it; write a new file beside it, and rename that"})
	}
	other, loader := badPlugin{name: "other-machine", want: "it is a program for EM_S390, ELFCLASS64; build it for this machine, "}, badPlugin{name: "no-loader",
		want: "which is not there; it was built for another distribution (musl and glibc are usual ones): build it here, or without cgo (CGO_ENABLED=0)"}
	if runtime.GOOS != "linux" {
		other.skip, loader.skip = "programs are no ELF files here", "programs are no ELF files here"
		return append(list, other, loader)
	}
	other.write = func(path string) error {
		b, err := os.ReadFile(bin().host())
		if err != nil {
			return err
		}
		const machine, s390 = 18, 22
		b[machine], b[machine+1] = s390, 0
		return os.WriteFile(path, b, 0o755)
	}
	loader.skip = "no program here is linked dynamically"
	if from, err := exec.LookPath("true"); err == nil {
		if b, err := os.ReadFile(from); err == nil {
			if at := bytes.Index(b, []byte("/ld-")); at > 0 {
				loader.skip, loader.write = "", changed([]byte("/ld-"), []byte("/no-"), from)
			}
		}
	}
	return append(list, other, loader)
}

// pluginsOf makes a plugin directory with the real websocket plugin.
func pluginsOf(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	b, err := os.ReadFile(filepath.Join(bin().dir, "plugins/transport-websocket"))
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "transport-websocket"), b, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// verify runs the command, and returns its verdicts, by transport or plugin, and
// its exit status.
func verify(t *testing.T, args ...string) (map[string]host.Verdict, int) {
	t.Helper()
	cmd := exec.Command(bin().host(), append([]string{"plugins", "verify", "--json"}, args...)...)
	var words bytes.Buffer
	cmd.Stderr = &words
	out, err := cmd.Output()
	if _, ok := errors.AsType[*exec.ExitError](err); err != nil && !ok {
		t.Fatal(err)
	}
	var list []host.Verdict
	if err := json.Unmarshal(out, &list); err != nil {
		t.Fatalf("verify printed %q, %s: %v", out, words.String(), err)
	}
	verdicts := map[string]host.Verdict{}
	for _, v := range list {
		name := v.Transport
		if name == "" {
			name = v.Plugin
		}
		verdicts[name] = v
	}
	return verdicts, cmd.ProcessState.ExitCode()
}

// TestWhatIsNoPluginIsExplained, in the same words by everything that a person
// can ask, while another transport serves.
func TestWhatIsNoPluginIsExplained(t *testing.T) {
	dir := pluginsOf(t)
	config := `application { builtin = "echo" }
transport "websocket" { listen = ["ws://127.0.0.1:0"] }
`
	var bad []badPlugin
	for _, p := range badPlugins(t) {
		if p.skip != "" {
			t.Logf("%s: %s", p.name, p.skip)
			continue
		}
		if err := p.write(filepath.Join(dir, "transport-"+p.name)); err != nil {
			t.Fatal(err)
		}
		config += fmt.Sprintf("transport %q {}\n", p.name)
		bad = append(bad, p)
	}
	file := filepath.Join(t.TempDir(), "host.hcl")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}

	verdicts, code := verify(t, "--config", file, "--plugin-dir", dir)
	if code != 1 || !verdicts["websocket"].OK() || verdicts["websocket"].Protocol != rpc.ProtocolVersion {
		t.Errorf("verify: exit status %d, websocket %+v", code, verdicts["websocket"])
	}
	out, err := exec.Command(bin().host(), "plugins", "list", "--json", "--plugin-dir", dir).Output()
	if err != nil {
		t.Fatal(err)
	}
	var list []host.PluginInfo
	if err := json.Unmarshal(out, &list); err != nil {
		t.Fatal(err)
	}
	listed := map[string]string{}
	for _, p := range list {
		listed[p.Name] = p.Problem
	}

	h := start(t, "--config", file, "--plugin-dir", dir)
	causes := map[string]string{}
	for _, p := range h.status().Plugins {
		causes[p.Instance] = p.Cause
		// Trying again would not help, but what ended may do better.
		if final := p.Instance == "newer" || p.Instance == "older"; final && p.State != supervisor.Failed {
			t.Errorf("%s is %s, want failed", p.Instance, p.State)
		}
	}
	logged := h.stderr()
	for _, p := range bad {
		quoted := strings.ReplaceAll(p.want, `"`, `\"`) // as in the log
		if !strings.Contains(verdicts[p.name].Problem, p.want) || !strings.Contains(listed[p.name], p.want) ||
			!strings.Contains(causes[p.name], p.want) || !strings.Contains(logged, quoted) {
			t.Errorf("%s: want %q\nverify says %q\nlist   says %q\nstatus says %q\nit is in the log: %v",
				p.name, p.want, verdicts[p.name].Problem, listed[p.name], causes[p.name], strings.Contains(logged, quoted))
		}
	}
}

// TestVerifyPins: a pin holds, is wrong, or is not there; a wrong one keeps the
// file from being run, even to be asked.
func TestVerifyPins(t *testing.T) {
	dir := pluginsOf(t)
	path := filepath.Join(dir, "transport-websocket")
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	sum := fmt.Sprintf("%x", sha256.Sum256(content))
	other := fmt.Sprintf("%x", sha256.Sum256(nil))
	ran := filepath.Join(t.TempDir(), "ran")
	if err := script("#!/bin/sh\n: > " + ran + "\n")(filepath.Join(dir, "transport-evil")); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "host.hcl")
	if err := os.WriteFile(file, fmt.Appendf(nil, `application { builtin = "echo" }
transport "pinned" {
  plugin = "websocket"
  listen = ["ws://127.0.0.1:0"]
  sha256 = %q
}
transport "wrong" {
  plugin = "websocket"
  listen = ["ws://127.0.0.1:0"]
  sha256 = %q
}
transport "evil" {
  sha256 = %[2]q
}
transport "free" {
  plugin  = "websocket"
  enabled = false
}
transport "missing" {}
`, strings.ToUpper(sum), other), 0o600); err != nil {
		t.Fatal(err)
	}
	verdicts, code := verify(t, "--config", file, "--plugin-dir", dir)
	if code != 1 {
		t.Errorf("exit status %d, want 1", code)
	}
	wrong := "wrong checksum: plugin " + path + " has the sha256 " + sum + ", but " + other + " is pinned"
	for name, want := range map[string]struct {
		pin     host.Pin
		sum     string
		problem string
	}{
		"pinned": {host.PinMatches, sum, ""}, "wrong": {host.PinWrong, sum, wrong}, "free": {host.NotPinned, sum, ""},
		"evil":    {host.PinWrong, verdicts["evil"].SHA256, "wrong checksum"},
		"missing": {host.NotPinned, "", `plugin not found: "missing": no file transport-missing in ` + dir},
	} {
		v := verdicts[name]
		if v.Pin != want.pin || v.SHA256 != want.sum || (want.problem == "") != v.OK() || !strings.Contains(v.Problem, want.problem) {
			t.Errorf("%s: got %+v, want %+v", name, v, want)
		}
	}
	if _, err := os.Stat(ran); err == nil {
		t.Error("a plugin with a wrong checksum was run")
	}
}

// TestVerifySaysWhatToPaste, and its exit status is the verdict.
func TestVerifySaysWhatToPaste(t *testing.T) {
	dir := pluginsOf(t)
	path := filepath.Join(dir, "transport-websocket")
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name  string
		spoil func() error
		args  []string
		code  int
		want  []string
	}{
		{"a good one", func() error { return nil }, []string{"--plugin-dir", dir}, 0,
			[]string{"websocket  ok ", "pin      none", fmt.Sprintf("sha256 = \"%x\"", sha256.Sum256(content)), "link version 1"}},
		{"a bad file", func() error { return os.Chmod(path, 0o757) }, []string{"--plugin-dir", dir}, 1,
			[]string{"websocket  NOT RUN", path + " is writable by everybody; chmod o-w " + path, "1 of 1 plugins are not run"}},
		{"an empty directory", func() error { return os.Remove(path) }, []string{"--plugin-dir", dir}, 1, []string{"there is no plugin to verify"}},
		{"no directory", func() error { return nil }, []string{"--plugin-dir", dir + "/none"}, 1, []string{"reading the plugin directory"}},
		{"no configuration", func() error { return nil }, []string{"--config", dir + "/none.hcl"}, 2, []string{"none.hcl"}},
		{"an argument", func() error { return nil }, []string{"websocket"}, 2, []string{"unexpected argument"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if err := tt.spoil(); err != nil {
				t.Fatal(err)
			}
			cmd := exec.Command(bin().host(), append([]string{"plugins", "verify"}, tt.args...)...)
			out, _ := cmd.CombinedOutput()
			if code := cmd.ProcessState.ExitCode(); code != tt.code {
				t.Errorf("exit status %d, want %d", code, tt.code)
			}
			for _, want := range tt.want {
				if !strings.Contains(string(out), want) {
					t.Errorf("%q is not in\n%s", want, out)
				}
			}
		})
	}
}

// TestUntrustedFileOfARunningHost: what runs goes on, and a file that others may
// change is not started again.
func TestUntrustedFileOfARunningHost(t *testing.T) {
	dir := pluginsOf(t)
	path := filepath.Join(dir, "transport-websocket")
	h := start(t, "--listen", "ws://127.0.0.1:0", "--listen", "stdio://", "--plugin-dir", dir, "--plugin-dir", filepath.Join(bin().dir, "plugins"), "--builtin", "echo")
	websocket := func(s host.Status) supervisor.Status {
		t.Helper()
		one, err := s.Transport("websocket")
		if err != nil {
			t.Fatal(err)
		}
		return one
	}
	restart := func() (string, error) {
		out, err := exec.Command(bin().host(), "plugins", "restart", "websocket", "--runtime-dir", h.runtime).CombinedOutput()
		return string(out), err
	}
	before := websocket(h.status())
	if err := os.Chmod(path, 0o757); err != nil {
		t.Fatal(err)
	}
	want := path + " is writable by everybody; chmod o-w " + path
	if out, err := restart(); err == nil || !strings.Contains(out, want) {
		t.Errorf("restarting it: %v\n%s", err, out)
	}
	if s := websocket(h.status()); s.PID != before.PID || s.State != supervisor.Ready || !strings.Contains(s.Cause, want) {
		t.Errorf("after a restart that is refused: %+v, want that it goes on", s)
	}
	_ = syscall.Kill(before.PID, syscall.SIGKILL)
	h.await("failed", func(s host.Status) bool {
		one := websocket(s)
		return s.State == host.StateServing && one.State == supervisor.Failed && strings.Contains(one.Cause, want)
	})
	if err := os.Chmod(path, 0o755); err != nil {
		t.Fatal(err)
	}
	if out, err := restart(); err != nil {
		t.Errorf("restarting it, mended: %v\n%s", err, out)
	}
}

// TestRefusedFiles: nothing of these is started, and the reason stands in the
// list and in the verdict.
func TestRefusedFiles(t *testing.T) {
	dir, ran := t.TempDir(), filepath.Join(t.TempDir(), "ran")
	runs := script("#!/bin/sh\n: > " + ran + "\n")
	tests := []struct {
		name   string
		asRoot bool
		make   func(path string) error
		want   string // PATH stands for itself
	}{
		{"pipe", false, func(p string) error { return syscall.Mkfifo(p, 0o755) }, "not a regular file, but a named pipe"},
		{"folder", false, func(p string) error { return os.Mkdir(p, 0o755) }, "a directory"},
		{"text", false, func(p string) error { return errors.Join(runs(p), os.Chmod(p, 0o644)) }, "not executable; chmod +x PATH"},
		{"empty", false, func(p string) error { return os.WriteFile(p, nil, 0o755) }, "empty"},
		{"open", false, func(p string) error { return errors.Join(runs(p), os.Chmod(p, 0o757)) }, "PATH is writable by everybody; chmod o-w PATH"},
		{"setuid", false, func(p string) error { return errors.Join(runs(p), os.Chmod(p, 0o755|os.ModeSetuid)) },
			"it would run with the rights of its owner or group; chmod ug-s PATH"},
		{"out", false, func(p string) error {
			target := filepath.Join(filepath.Dir(ran), "target")
			return errors.Join(runs(target), os.Symlink(target, p))
		}, "a symbolic link out of the plugin directory, to "},
		{"nowhere", false, func(p string) error { return os.Symlink("gone", p) }, "a symbolic link that leads nowhere"},
		{"strange", true, func(p string) error { return errors.Join(runs(p), os.Chown(p, 54321, -1)) },
			"PATH belongs to user 54321, neither to root nor to the user of the host, 0; chown it"},
		{"grouped", true, func(p string) error { return errors.Join(runs(p), os.Chown(p, -1, 54321), os.Chmod(p, 0o775)) },
			"PATH is writable by the group 54321, of which nobody here knows who is in it; chmod g-w PATH"},
	}
	for _, tt := range tests {
		if tt.asRoot && os.Geteuid() != 0 {
			continue
		}
		if err := tt.make(filepath.Join(dir, "transport-"+tt.name)); err != nil {
			t.Fatal(err)
		}
	}
	verdicts, code := verify(t, "--plugin-dir", dir)
	if code != 1 {
		t.Errorf("exit status %d, want 1", code)
	}
	list, err := exec.Command(bin().host(), "plugins", "list", "--plugin-dir", dir).Output()
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range tests {
		if tt.asRoot && os.Geteuid() != 0 {
			t.Logf("%s: needs root", tt.name)
			continue
		}
		path := filepath.Join(dir, "transport-"+tt.name)
		want := strings.ReplaceAll(tt.want, "PATH", path)
		if got := verdicts[tt.name].Problem; !strings.Contains(got, want) {
			t.Errorf("%s: verify says %q, want %q", tt.name, got, want)
		}
		if !strings.Contains(string(list), "not run: "+want) {
			t.Errorf("%s: %q is not in the list:\n%s", tt.name, want, list)
		}
		words, err := exec.Command(bin().host(), "run", "--runtime-dir", runtimeDir(t), "--plugin-dir", dir, "--config", named(t, tt.name)).CombinedOutput()
		if err == nil || !strings.Contains(string(words), path+" cannot be used: "+want) {
			t.Errorf("%s: run says %q, %v; want %q", tt.name, words, err, want)
		}
	}
	if _, err := os.Stat(ran); err == nil {
		t.Error("one of them was started")
	}
}

// named writes a configuration with one transport.
func named(t *testing.T, transport string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "host.hcl")
	if err := os.WriteFile(file, fmt.Appendf(nil, "application { builtin = \"echo\" }\ntransport %q {}\n", transport), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}
