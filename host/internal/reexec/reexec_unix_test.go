//go:build unix

package reexec

import (
	"os"
	"os/exec"
	"strings"
	"testing"
)

func init() {
	As("test", func() int {
		_, _ = os.Stdout.WriteString("in the role with " + strings.Join(os.Args[1:], " "))
		return 7
	})
}

func TestCommandRunsTheRoleInPlaceOfTheProgram(t *testing.T) {
	path, name, err := Command("test")
	if err != nil {
		t.Fatal(err)
	}
	cmd := &exec.Cmd{Path: path, Args: []string{name, "a", "b"}}
	out, err := cmd.Output()
	exit, ok := err.(*exec.ExitError)
	if !ok || exit.ExitCode() != 7 || string(out) != "in the role with a b" {
		t.Errorf("it said %q and ended with %v, want the role's words and status 7", out, err)
	}
	other, name, err := Command("another")
	if err != nil {
		t.Fatal(err)
	}
	// A role that nobody has: the program itself runs, here with no test.
	cmd = &exec.Cmd{Path: other, Args: []string{name, "-test.run=^$"}}
	if out, err := cmd.CombinedOutput(); err != nil || strings.Contains(string(out), "role") {
		t.Errorf("of another role: %q, %v", out, err)
	}
}
