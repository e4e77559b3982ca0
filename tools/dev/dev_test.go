package main

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestUsage(t *testing.T) {
	tests := []struct {
		name string
		args []string
		code int
		want string
	}{
		{"nothing", nil, 2, "Usage: go run ./tools/dev"},
		{"unknown command", []string{"fly"}, 2, `no command "fly"`},
		{"unknown step", []string{"test", "fly"}, 1, "steps are gofmt, vet, vet-darwin"},
		{"bad time", []string{"fuzz", "long"}, 1, "one duration"},
		{"help", []string{"--help"}, 0, "Usage: go run ./tools/dev"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var out bytes.Buffer
			if code := run(t.Context(), tt.args, nil, &out, &out); code != tt.code || !strings.Contains(out.String(), tt.want) {
				t.Errorf("got status %d and %q, want %d and %q", code, out.String(), tt.code, tt.want)
			}
		})
	}
}

func TestStepsStopAtTheFirstFailure(t *testing.T) {
	var out bytes.Buffer
	s := shop{stderr: &out}
	did := ""
	do := func(name string, err error) step {
		return step{name, func(context.Context) error { did += name; return err }}
	}
	broken := errors.New("the reason")
	err := s.steps(t.Context(), []step{do("a", nil), do("b", broken), do("c", nil)})
	if !errors.Is(err, broken) || !strings.Contains(err.Error(), `step "b" failed`) || did != "ab" {
		t.Errorf("got %v after steps %q, want the reason of b after ab", err, did)
	}
	if strings.Contains(out.String(), "passed") {
		t.Errorf("a failure is announced as %q", out.String())
	}
}

func TestDoNamesTheCommandThatFailed(t *testing.T) {
	var out bytes.Buffer
	s := shop{root: t.TempDir(), stdout: &out, stderr: &out}
	err := s.do(t.Context(), []string{"GOOS=linux"}, "go", "no-such-command")
	if err == nil || !strings.Contains(err.Error(), `"GOOS=linux go no-such-command"`) {
		t.Errorf("got %v, want the whole command line in it", err)
	}
}

func TestCheckFormatFindsWhatGofmtWouldChange(t *testing.T) {
	root := t.TempDir()
	var out bytes.Buffer
	s := shop{root: root, stdout: &out, stderr: &out}
	if err := s.do(t.Context(), nil, "git", "init", "-q"); err != nil {
		t.Fatalf("%v: %s", err, out.String())
	}
	write := func(name, content string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(root, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("good.go", "package a\n\nfunc f() {}\n")
	if err := s.checkFormat(t.Context()); err != nil {
		t.Errorf("of formatted code: got %v, want nil", err)
	}
	write("bad.go", "package a\nfunc  f() {}\n")
	write("broken.go", "package\n")
	err := s.checkFormat(t.Context())
	if err == nil || !strings.Contains(err.Error(), "bad.go") || !strings.Contains(err.Error(), "broken.go") || strings.Contains(err.Error(), "good.go") {
		t.Errorf("got %v, want complaints about bad.go and broken.go only", err)
	}
}

// hostProgram stands for the host: it prints its arguments and what it reads,
// and ends with a status, or at SIGTERM.
const hostProgram = `package main

import (
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	fmt.Println(os.Args[1:])
	if len(os.Args) > 2 && os.Args[2] == "fail" {
		os.Exit(7)
	}
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM)
	fmt.Println("ready")
	io.Copy(os.Stdout, os.Stdin)
	<-signals
	fmt.Println("stopped")
}
`

func TestRunHost(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("there is no SIGTERM")
	}
	root := t.TempDir()
	for name, content := range map[string]string{"go.mod": "module example.com/host\n\ngo 1.26\n", "cmd/host/main.go": hostProgram} {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	t.Run("its status is ours", func(t *testing.T) {
		var out, log bytes.Buffer
		err := shop{root: root, stdin: strings.NewReader(""), stdout: &out, stderr: &log}.runHost(t.Context(), []string{"fail"})
		if exit, ok := errors.AsType[*exitError](err); !ok || exit.code != 7 {
			t.Errorf("got %v, want status 7; %s", err, log.String())
		}
		if got := out.String(); got != "[run fail]\n" {
			t.Errorf("got stdout %q, want only what the host printed", got)
		}
	})
	t.Run("it is stopped", func(t *testing.T) {
		ctx, late := context.WithTimeout(t.Context(), 30*time.Second)
		defer late()
		ctx, cancel := context.WithCancelCause(ctx)
		out := &until{text: "question", do: func() { cancel(&signalError{syscall.SIGTERM}) }}
		var log bytes.Buffer
		err := shop{root: root, stdin: strings.NewReader("question\n"), stdout: out, stderr: &log}.runHost(ctx, []string{"--listen", "x"})
		if err != nil {
			t.Errorf("got %v, want nil; %s", err, log.String())
		}
		if want := "[run --listen x]\nready\nquestion\nstopped\n"; out.String() != want {
			t.Errorf("got stdout %q, want %q", out.String(), want)
		}
	})
}

// until is a buffer that does something once it holds a text.
type until struct {
	held bytes.Buffer // not embedded: exec would use its ReadFrom, past our Write
	text string
	do   func()
}

func (u *until) String() string { return u.held.String() }

func (u *until) Write(p []byte) (int, error) {
	n, err := u.held.Write(p)
	if strings.Contains(u.String(), u.text) {
		u.do()
	}
	return n, err
}
