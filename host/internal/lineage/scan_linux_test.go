package lineage

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"
)

// asking starts a shell that bears a mark, runs what it is told to, and stays
// until the test ends.
type asking struct {
	cmd  *exec.Cmd
	said *bufio.Reader
}

func start(t *testing.T, m Mark, script string) *asking {
	t.Helper()
	cmd := exec.Command("sh", "-c", "read go; "+script)
	cmd.Env = environ(os.Environ(), m, "")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
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
	m.Bear(cmd.Process.Pid)
	if _, err := fmt.Fprintln(in, "go"); err != nil {
		t.Fatal(err)
	}
	return &asking{cmd, bufio.NewReader(out)}
}

// pid reads one that the shell prints.
func (a *asking) pid(t *testing.T) int {
	t.Helper()
	line, err := a.said.ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(line))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if _, ok := Of(pid); ok {
			t.Errorf("process %d is left", pid)
			p, _ := os.FindProcess(pid)
			_ = p.Kill()
		}
	})
	return pid
}

// stubborn is a program that ignores what asks it to end, and tells its pid.
const stubborn = `sh -c 'trap "" HUP TERM INT; echo $$; while :; do sleep 1000; done'`

// TestNobodyEscapes: each of these has left what the system gives to find it by.
func TestNobodyEscapes(t *testing.T) {
	for name, script := range map[string]string{
		"a child":                               stubborn + " & wait",
		"its parent has ended":                  "(" + stubborn + " &)",
		"in a session of its own":               "setsid " + stubborn + " & wait",
		"a daemon":                              "(setsid " + stubborn + " &)",
		"with an environment of its own making": "(env -i PATH=$PATH " + stubborn + " &)",
		"a daemon with an environment of its own making": "(env -i PATH=$PATH setsid " + stubborn + " &)",
	} {
		t.Run(name, func(t *testing.T) {
			run := NewRun()
			a := start(t, Mark{run, 1}, script)
			pid := a.pid(t)
			if left := run.End(time.Minute); left != 0 {
				t.Errorf("%d are left", left)
			}
			if _, ok := Of(pid); ok {
				t.Error("it lives")
			}
		})
	}
}

// TestEitherHalfOfTheMarkIsEnough, where the other cannot be set or was lost.
func TestEitherHalfOfTheMarkIsEnough(t *testing.T) {
	run := NewRun()
	cmd := exec.Command("sleep", "1000")
	cmd.Env = environ(nil, Mark{run, 1}, "")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if left := run.End(time.Minute); left != 0 || cmd.Wait() == nil {
		t.Errorf("with the variable only: %d left, state %v", left, cmd.ProcessState)
	}
	cmd = exec.Command("sleep", "1000")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	Mark{run, 2}.Bear(cmd.Process.Pid)
	if left := run.End(time.Minute); left != 0 || cmd.Wait() == nil {
		t.Errorf("with the limit only: %d left, state %v", left, cmd.ProcessState)
	}
}

// TestOnlyTheRunIsEnded, and not what only looks like it.
func TestOnlyTheRunIsEnded(t *testing.T) {
	run := NewRun()
	alike := Run(uint64(run) ^ 1<<63) // with the same limits
	if alike.prefix() != run.prefix() {
		t.Fatal("the two runs differ in their limits; the test sees nothing")
	}
	a := start(t, Mark{alike, 1}, "echo $$; read ever")
	line, err := a.said.ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	if len(run.Members()) == 0 {
		t.Fatal("the other does not look like a member; the test sees nothing")
	}
	if left := run.End(time.Minute); left != 0 {
		t.Errorf("%d left", left)
	}
	if left := Run(0).End(time.Minute); left != 0 {
		t.Errorf("of no run: %d left", left)
	}
	if _, ok := Of(a.cmd.Process.Pid); !ok {
		t.Errorf("process %s of another run was ended", strings.TrimSpace(line))
	}
}

// TestTheDeadAreNotCounted: what waits for its parent to look at it is gone.
func TestTheDeadAreNotCounted(t *testing.T) {
	run := NewRun()
	cmd := exec.Command("true")
	cmd.Env = environ(nil, Mark{run, 1}, "")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	Mark{run, 1}.Bear(cmd.Process.Pid)
	_, _ = out.Read(make([]byte, 1)) // its end
	if left := run.End(time.Minute); left != 0 {
		t.Errorf("%d left", left)
	}
	if _, ok := Of(cmd.Process.Pid); ok {
		t.Error("a dead process is said to run")
	}
	_ = cmd.Wait()
}

// TestANumberIsNoIdentity: the process that has it now is another one.
func TestANumberIsNoIdentity(t *testing.T) {
	self, ok := Of(os.Getpid())
	if !ok || self.Start == 0 || self.Boot == "" || !self.Running() {
		t.Fatalf("of this process: %+v, %v", self, ok)
	}
	for name, other := range map[string]Identity{
		"another start": {self.PID, self.Start - 1, self.Boot}, "another boot": {self.PID, self.Start, "x"},
		"no process": {1 << 30, self.Start, self.Boot}, "nothing": {},
	} {
		if other.Running() {
			t.Errorf("%s: it is said to run", name)
		}
	}
}

func TestStatOfStrangeNames(t *testing.T) {
	const rest = " S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 1 18 4711 20 21"
	for line, want := range map[string]stat{
		"7 (a)" + rest:                               {start: 4711},
		"7 (a) Z 1 (b) (c)" + rest:                   {start: 4711},
		"7 (\n)\x00) S" + ")" + rest:                 {start: 4711},
		"7 (a)" + strings.Replace(rest, "S", "Z", 1): {start: 4711, dead: true},
		"7 (a)" + strings.Replace(strings.Replace(rest, "S", "Z", 1), "16 1 ", "16 2 ", 1): {start: 4711},
	} {
		if got, ok := parseStat([]byte(line)); !ok || got != want {
			t.Errorf("%q: got %+v, %v, want %+v", line, got, ok, want)
		}
	}
	for _, line := range []string{"", "7", "7 (a) S", "7 (a)" + strings.Replace(rest, "4711", "x", 1)} {
		if got, ok := parseStat([]byte(line)); ok {
			t.Errorf("%q: got %+v, want an error", line, got)
		}
	}
}

func BenchmarkMembers(b *testing.B) {
	run := NewRun()
	for b.Loop() {
		if n := len(run.Members()); n != 0 {
			b.Fatalf("%d members", n)
		}
	}
}
