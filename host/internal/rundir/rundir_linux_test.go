package rundir

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/hashicorp/go-hclog"

	"github.com/transporthost/transporthost/host/internal/lineage"
)

// shortDir makes a directory whose path leaves room for sockets.
func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "rd")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

func plan(t *testing.T, dir string, sockets ...string) *Dir {
	t.Helper()
	d, err := Plan(t.Context(), dir, lineage.NewRun(), sockets, hclog.NewNullLogger())
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// sleeper is a process that bears the mark of a run.
func sleeper(t *testing.T, run lineage.Run) (cmd *exec.Cmd, lives func() bool) {
	t.Helper()
	cmd = exec.Command("sleep", "1000")
	cmd.Env = lineage.Mark{Run: run, Child: 1}.Environ(nil)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	return cmd, func() bool {
		_, ok := lineage.Of(cmd.Process.Pid)
		return ok
	}
}

// leave makes the directory of a host as that has left it.
func leave(t *testing.T, path string, record any) {
	t.Helper()
	if err := os.Mkdir(path, 0o700); err != nil {
		t.Fatal(err)
	}
	if record == nil {
		return
	}
	text, err := json.Marshal(record)
	if err == nil {
		err = os.WriteFile(filepath.Join(path, recordName), text, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func there(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

func socket(t *testing.T, path string) net.Listener {
	t.Helper()
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	return l
}

// TestARunOfAHost from its plan to its end, beside another in the same place.
func TestARunOfAHost(t *testing.T) {
	dir := filepath.Join(shortDir(t), "new")
	d := plan(t, dir)
	for _, p := range d.Places() {
		if there(p) {
			t.Errorf("%s is there before it is made", p)
		}
	}
	if err := d.Make(); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(d.Path()); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("the directory: %v, %v", info, err)
	}
	runs := Runs(dir)
	if len(runs) != 1 || runs[0].PID != os.Getpid() || runs[0].Path != d.Path() || !runs[0].Running() {
		t.Errorf("the runs are %+v", runs)
	}
	other := plan(t, dir) // sweeps
	if !there(d.Path()) {
		t.Error("a host that runs was swept")
	}
	err := other.Make()
	if err == nil || !strings.Contains(err.Error(), "another host in this process uses it") {
		t.Errorf("a second one in this process: got %v", err)
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 1 {
		t.Errorf("below the runtime directory are %v, %v", entries, err)
	}
	RemoveDir(d.Path(), other.record.Run)
	if !there(d.Path()) {
		t.Error("it was removed for another run")
	}
	d.Remove()
	if there(d.Path()) {
		t.Error("it is still there")
	}
}

// TestSweep: what a host has left is known by who it was, not by its number.
func TestSweep(t *testing.T) {
	dir := shortDir(t)
	self, _ := lineage.Of(os.Getpid())
	parent, ok := lineage.Of(os.Getppid())
	if !ok {
		t.Fatal("the parent of this process is not to be seen")
	}
	place := func(pid int) string { return filepath.Join(dir, fmt.Sprint("r", pid)) }

	// Of a host that is gone, whose number another process has now. It has left a
	// process, a socket, the file of one that another has bound anew, and a file
	// that is no socket.
	deadRun := lineage.NewRun()
	_, survives := sleeper(t, deadRun)
	abandoned, taken, plain := filepath.Join(dir, "abandoned"), filepath.Join(dir, "taken"), filepath.Join(dir, "plain")
	_ = socket(t, abandoned).Close()
	owner := socket(t, taken)
	defer owner.Close()
	if err := os.WriteFile(plain, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	leave(t, place(parent.PID), Record{
		Host: lineage.Identity{PID: parent.PID, Start: parent.Start + 1, Boot: parent.Boot}, Run: deadRun,
		Sockets: []string{abandoned, taken, plain, filepath.Join(dir, "never")},
	})
	// Of one that runs.
	liveRun := lineage.NewRun()
	_, lives := sleeper(t, liveRun)
	live, _ := sleeper(t, 0)
	old, _ := sleeper(t, 0)
	host, _ := lineage.Of(live.Process.Pid)
	leave(t, place(host.PID), Record{Host: host, Run: liveRun})
	// Of this process's number, before the last boot.
	leave(t, place(self.PID), Record{Host: lineage.Identity{PID: self.PID, Start: self.Start, Boot: "another"}, Run: lineage.NewRun()})
	// Of older versions, which recorded nothing.
	leave(t, place(1<<29), nil)
	leave(t, place(old.Process.Pid), nil)
	// With a record that makes no sense.
	leave(t, place(1<<29+1), "rubbish")
	// Just being made, by one that lives and by one that does not.
	making := filepath.Join(dir, fmt.Sprintf("n%d-%d", host.PID, host.Start))
	stuck := filepath.Join(dir, fmt.Sprintf("n%d-%d", host.PID, host.Start+1))
	leave(t, making, nil)
	leave(t, stuck, nil)
	notes, number := filepath.Join(dir, "r-notes"), filepath.Join(dir, "r-1234567")
	leave(t, notes, nil)
	leave(t, number, nil)
	// Of one whose name another had, and of one that was killed while it removed it.
	second, third := filepath.Join(dir, "r-00abcd"), filepath.Join(dir, "r-00abce")
	leave(t, second, Record{Host: lineage.Identity{PID: 1 << 29, Start: 1, Boot: self.Boot}, Run: lineage.NewRun()})
	leave(t, third, nil)

	running := func() (pids []int) {
		for _, r := range Runs(dir) {
			if r.Running() {
				pids = append(pids, r.PID)
			}
		}
		return pids
	}
	want := []int{host.PID, old.Process.Pid}
	slices.Sort(want)
	got := running()
	slices.Sort(got)
	if !slices.Equal(got, want) {
		t.Errorf("running are %v, want %v", got, want)
	}
	plan(t, dir)
	for path, keep := range map[string]bool{
		place(parent.PID): false, place(host.PID): true, place(self.PID): false, place(1 << 29): false,
		place(old.Process.Pid): true, place(1<<29 + 1): false, making: true, stuck: false, notes: true,
		number: true, second: false, third: false,
		abandoned: false, taken: true, plain: true,
	} {
		if there(path) != keep {
			t.Errorf("%s is there: %v, want %v", path, there(path), keep)
		}
	}
	if survives() {
		t.Error("a process of a host that is gone is still there")
	}
	if !lives() {
		t.Error("a process of a host that runs was ended")
	}
	if _, ok := lineage.Of(parent.PID); !ok {
		t.Error("a process was ended because it has the number of a host that is gone")
	}
}

// TestSweepOfWhatLiesWithTemporaryFiles, where others may make anything.
func TestSweepOfWhatLiesWithTemporaryFiles(t *testing.T) {
	temp := shortDir(t)
	t.Setenv("TMPDIR", temp)
	gone := lineage.Identity{PID: 1 << 29, Start: 1}
	dead, open, other := filepath.Join(temp, "transporthost-1"), filepath.Join(temp, "transporthost-2"), filepath.Join(temp, "transporthost-0")
	leave(t, dead, Record{Host: gone, Run: lineage.NewRun()})
	leave(t, open, Record{Host: gone, Run: lineage.NewRun()})
	if err := os.Chmod(open, 0o755); err != nil {
		t.Fatal(err)
	}
	leave(t, other, nil) // the runtime directory of a user has such a name
	link := filepath.Join(temp, "transporthost-3")
	if err := os.Symlink(dead, link); err != nil {
		t.Fatal(err)
	}
	d := plan(t, "")
	if filepath.Dir(d.Path()) != temp || len(d.Places()) != 1 {
		t.Errorf("places are %v", d.Places())
	}
	for path, keep := range map[string]bool{dead: false, open: true, other: true, link: true} {
		if there(path) != keep {
			t.Errorf("%s is there: %v, want %v", path, there(path), keep)
		}
	}
	if err := d.Make(); err != nil {
		t.Fatal(err)
	}
	second := plan(t, "")
	if err := second.Make(); err != nil || !there(d.Path()) {
		t.Errorf("a second one: %v; the first is there: %v", err, there(d.Path()))
	}
	d.Remove()
	second.Remove()
}

func TestNamesOfDirectoriesBeingMade(t *testing.T) {
	if pid, start, ok := parseFresh("n12-345"); !ok || pid != 12 || start != 345 {
		t.Errorf("got %d, %d, %v", pid, start, ok)
	}
	if pid, start, ok := parseFresh("n12-345-00000000000000ff"); !ok || pid != 12 || start != 345 {
		t.Errorf("with a run: got %d, %d, %v", pid, start, ok)
	}
	for _, name := range []string{"", "n", "n1", "n1-", "n-1", "n0-1", "n-1-2", "r1-2", "nx-1", "n1-x", "n1-1-1", "n1-1-", "n1-1-00000000000000ff-"} {
		if pid, start, ok := parseFresh(name); ok {
			t.Errorf("%q: got %d, %d", name, pid, start)
		}
	}
}

func TestRecordsThatAreNone(t *testing.T) {
	dir := shortDir(t)
	for _, text := range []string{"", "{}", "[]", `{"host":{"pid":1},"run":"1"}`, `{"host":{"pid":0},"run":"00000000000000ff"}`, `{"host":{"pid":1}}`} {
		if err := os.WriteFile(filepath.Join(dir, recordName), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if r, ok := read(dir); ok {
			t.Errorf("%q: got %+v", text, r)
		}
	}
	if err := os.Remove(filepath.Join(dir, recordName)); err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	want := Record{Host: lineage.Identity{PID: 1, Start: 2, Boot: "b"}, Run: lineage.NewRun(), Sockets: []string{"s"}}
	if err := want.write(dir); err != nil {
		t.Fatal(err)
	}
	if got, ok := read(dir); !ok || got.Host != want.Host || got.Run != want.Run || !slices.Equal(got.Sockets, want.Sockets) {
		t.Errorf("got %+v, %v, want %+v", got, ok, want)
	}
}

// TestFurtherSockets are in the record before they are there, and with those of
// before; a record that cannot be written stays what it was.
func TestFurtherSockets(t *testing.T) {
	d := plan(t, shortDir(t), "/1")
	if err := d.Make(); err != nil {
		t.Fatal(err)
	}
	if err := d.Add([]string{"/2", "/3"}); err != nil {
		t.Fatal(err)
	}
	want := []string{"/1", "/2", "/3"}
	if r, ok := read(d.Path()); !ok || !slices.Equal(r.Sockets, want) || r.Run != d.record.Run || r.Host != d.record.Host {
		t.Errorf("the record is %+v, %v", r, ok)
	}
	if entries, err := os.ReadDir(d.Path()); err != nil || len(entries) != 2 {
		t.Errorf("in the directory are %v, %v, want the record and the lock", entries, err)
	}
	d.Remove()
	if err := d.Add([]string{"/4"}); !errors.Is(err, os.ErrNotExist) || !slices.Equal(d.Sockets(), want) {
		t.Errorf("without the directory: got %v, with %v", err, d.Sockets())
	}
}
