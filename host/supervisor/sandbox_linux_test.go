package supervisor

import (
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/transporthost/transporthost/host/internal/sandbox"
)

// kernelSays returns a field of /proc/PID/status.
func kernelSays(t *testing.T, pid int, field string) string {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if value, ok := strings.CutPrefix(line, field+":"); ok {
			return strings.TrimSpace(value)
		}
	}
	t.Fatalf("no %s in\n%s", field, b)
	return ""
}

// TestTheStatusSaysWhatTheKernelSays of a plugin's confinement.
func TestTheStatusSaysWhatTheKernelSays(t *testing.T) {
	r := start(t, "healthy", nil)
	s := r.await("ready", isReady)
	if s.Sandbox == nil || s.Sandbox.Off {
		t.Fatalf("the status has the sandbox %v", s.Sandbox)
	}
	said := " " + strings.Join(s.Sandbox.Enforced, ", ") + ","
	for what, field := range map[string]string{"no new privileges": "NoNewPrivs", "system calls (seccomp)": "Seccomp"} {
		enforced := kernelSays(t, s.PID, field) != "0"
		if enforced != strings.Contains(said, " "+what+",") {
			t.Errorf("the kernel says %s %v, the status %s", field, enforced, s.Sandbox)
		}
	}
	limits, err := os.ReadFile(fmt.Sprintf("/proc/%d/limits", s.PID))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(limits)) {
		f := strings.Fields(line)
		switch {
		case strings.HasPrefix(line, "Max data size") && f[3] != fmt.Sprint(2<<30) || strings.HasPrefix(line, "Max core") && f[5] != "0":
			t.Errorf("the kernel says %q, the status %s", strings.TrimSpace(line), s.Sandbox)
		case strings.HasPrefix(line, "Max open files") && !strings.Contains(said, "files ≤ "+f[4]+","):
			t.Errorf("the kernel says %q, the status %s", strings.TrimSpace(line), s.Sandbox)
		}
	}
}

func TestAPluginWithoutSandbox(t *testing.T) {
	r := start(t, "healthy", func(s *Spec, _ *Options) { s.Sandbox.Off = true })
	s := r.await("ready", isReady)
	if s.Sandbox == nil || !s.Sandbox.Off || len(s.Sandbox.Enforced) > 0 {
		t.Errorf("the status has the sandbox %+v", s.Sandbox)
	}
	if own := kernelSays(t, os.Getpid(), "Seccomp"); kernelSays(t, s.PID, "Seccomp") != own {
		t.Errorf("the kernel says Seccomp %s, and of this test %s", kernelSays(t, s.PID, "Seccomp"), own)
	}
}

// TestAPluginThatTakesAllItsMemory has that as its cause.
func TestAPluginThatTakesAllItsMemory(t *testing.T) {
	r := start(t, "leaks", func(s *Spec, _ *Options) { s.Sandbox.Memory = 768 << 20 })
	s := r.await("failed", func(s Status) bool { return s.State == Failed })
	if !strings.Contains(s.Cause, "it ran out of memory; its limit is 768 MiB") {
		t.Errorf("the cause is %q", s.Cause)
	}
}

func TestLastWordsAreInTheCause(t *testing.T) {
	r := start(t, "panics", nil)
	s := r.await("failed", func(s Status) bool { return s.State == Failed })
	if !strings.Contains(s.Cause, "exited with status 2: panic: the moon is full") {
		t.Errorf("the cause is %q", s.Cause)
	}
}

// TestTemporaryFiles are in the plugin's own room, and go with it.
func TestTemporaryFiles(t *testing.T) {
	r := start(t, "makes a temporary file", nil)
	s := r.await("reporting", func(s Status) bool { return s.Reported != nil })
	if !strings.HasPrefix(s.Reported.State, r.dir) {
		t.Errorf("the file is %s, want it below %s", s.Reported.State, r.dir)
	}
}

// TestScripts are plugins too, by their path and pinned.
func TestScripts(t *testing.T) {
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	script := []byte("#!/bin/sh\nexec \"" + exe + "\"\n")
	path := filepath.Join(t.TempDir(), "transport-test")
	if err := os.WriteFile(path, script, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, sum := range []string{"", fmt.Sprintf("%x", sha256.Sum256(script))} {
		r := start(t, "healthy", func(s *Spec, _ *Options) {
			s.Path, s.SHA256 = path, sum
			s.Sandbox.Read = []string{filepath.Dir(exe)} // where the script leads
		})
		r.await("ready", isReady)
		r.stop()
	}
}

// TestFilesThatCannotBeExecuted have the same cause with and without a sandbox.
func TestFilesThatCannotBeExecuted(t *testing.T) {
	for name, content := range map[string]string{"no program": "rubbish", "no interpreter": "#!/no/such/program\n"} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "transport-test")
			if err := os.WriteFile(path, []byte(content), 0o755); err != nil {
				t.Fatal(err)
			}
			var causes []string
			for _, off := range []bool{false, true} {
				r := start(t, "", func(s *Spec, _ *Options) { s.Path, s.Sandbox.Off = path, off })
				causes = append(causes, r.await("failed", func(s Status) bool { return s.State == Failed }).Cause)
				r.stop()
			}
			if causes[0] != causes[1] || !strings.HasPrefix(causes[0], `launching plugin "test": executing `+path+": ") {
				t.Errorf("the causes are %q", causes)
			}
		})
	}
}

func TestWordsOfThoseWhoGetNoMemory(t *testing.T) {
	for _, tt := range []struct{ name, said, want string }{
		{"Go", "fatal error: runtime: out of memory\n\ngoroutine 1 [running]:\nmain.main()\n", ": it ran out of memory; its limit is 1 GiB (memory in sandbox of the transport)"},
		{"Python", "Traceback (most recent call last):\n  File \"x\"\nMemoryError\n", ": it ran out of memory; its limit is 1 GiB (memory in sandbox of the transport)"},
		{"nobody", "", ""},
		{"the last line", "one\ntwo", ": two"},
		{"the reason, and not what follows", "panic: x\n\ngoroutine 1 [running]:\nexit status 2\n", ": panic: x"},
		{"a log", "{\"@message\":\"cannot allocate memory for the peer\"}\n", ""},
		{"a stranger's", "a\x1b[2Jb\n", ": a [2Jb"},
		{"a flood", strings.Repeat("x", 1<<20) + "\n", ": " + strings.Repeat("x", wordBytes)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			read, write, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			defer read.Close()
			go func() {
				_, _ = write.WriteString(tt.said)
				_ = write.Close()
			}()
			w := lastWords{r: read, ended: make(chan struct{})}
			for buf := make([]byte, 1000); ; {
				if _, err := w.Read(buf); err != nil {
					break
				}
			}
			if got := w.cause(sandbox.Policy{Memory: 1 << 30}); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}
