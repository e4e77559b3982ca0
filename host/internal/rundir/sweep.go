package rundir

import (
	"context"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/transporthost/transporthost/host/internal/lineage"
	"github.com/transporthost/transporthost/host/internal/unixsocket"
)

// A Run is the directory of one host.
type Run struct {
	PID    int // in the host's pid namespace; 0: that is not known any more
	Path   string
	record Record
	known  bool // it has a record
}

// Runs lists the directories of hosts below a runtime directory.
func Runs(dir string) []Run {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil // nobody has run here yet
	}
	var list []Run
	for _, e := range entries {
		pid, ok := parseName(e.Name())
		if !ok || !e.IsDir() {
			continue
		}
		r := Run{PID: pid, Path: filepath.Join(dir, e.Name())}
		r.record, r.known = read(r.Path)
		if pid == 0 {
			r.PID = r.record.Host.PID
		}
		list = append(list, r)
	}
	return list
}

// parseName reads the name of a directory. pid is 0 if its record has it.
func parseName(name string) (pid int, ok bool) {
	text, ok := strings.CutPrefix(name, runPrefix)
	if !ok {
		return 0, false
	}
	if digits, ok := strings.CutPrefix(text, sparePrefix); ok {
		_, err := strconv.ParseUint(digits, 16, 64)
		return 0, err == nil && len(digits) == runDigits
	}
	pid, err := strconv.Atoi(text)
	return pid, err == nil && pid > 0
}

// Running reports whether the host of the directory runs, here or in another
// pid namespace.
func (r Run) Running() bool { return held(r.Path) || r.Here() }

// Here reports whether the host of the directory is a process that runs in this
// pid namespace: that very one, and not another that has its number now.
func (r Run) Here() bool {
	if r.known {
		ours := r.record.Namespace == "" || r.record.Namespace == lineage.Namespace()
		return ours && r.record.Host.PID == r.PID && r.record.Host.Running()
	}
	// Of an older version: the number is all there is.
	_, ok := lineage.Of(r.PID)
	return ok
}

// recycled reports whether the directory, which has this process's number, is
// that of an earlier one: where start times are not told, or none was recorded.
func (r Run) recycled() bool { return r.PID == os.Getpid() && r.record.Host.Start == 0 }

// sweep removes what hosts that are gone have left below a runtime directory.
func sweep(ctx context.Context, dir string, log hclog.Logger) {
	for _, r := range Runs(dir) {
		if !held(r.Path) && (!r.Here() || r.recycled()) {
			clearAway(ctx, r.Path, r.record, log)
		}
	}
	fresh, _ := filepath.Glob(filepath.Join(dir, newPrefix+"*-*")) // the pattern is right
	for _, path := range fresh {
		if pid, start, ok := parseFresh(filepath.Base(path)); ok {
			sweepFresh(path, pid, start, log)
		}
	}
}

// sweepFresh removes a directory that was being made, by one that is gone and
// has started nothing yet.
func sweepFresh(path string, pid int, start uint64, log hclog.Logger) {
	defer unixsocket.Lock(path)() // else it could be there already, and its lock not yet
	maker, ok := lineage.Of(pid)
	if held(path) || ok && maker.Start == start {
		return
	}
	remove(path, pid, log)
}

// parseFresh reads the name of a directory that is being made. Older versions
// give it no run.
func parseFresh(name string) (pid int, start uint64, ok bool) {
	text, ok := strings.CutPrefix(name, newPrefix)
	pidText, rest, ok2 := strings.Cut(text, "-")
	startText, runText, named := strings.Cut(rest, "-")
	pid, err := strconv.Atoi(pidText)
	start, err2 := strconv.ParseUint(startText, 10, 64)
	if named {
		_, err3 := lineage.ParseRun(runText)
		ok = ok && err3 == nil
	}
	return pid, start, ok && ok2 && err == nil && err2 == nil && pid > 0
}

// sweepOwn does the same where directories of runs are beside all else, and
// others may make what looks like one.
func sweepOwn(ctx context.Context, dir string, log hclog.Logger) {
	list, _ := filepath.Glob(filepath.Join(dir, ownPrefix+"*"))
	for _, path := range list {
		if private(path) != nil {
			continue
		}
		// The record first: where there is one, there was the lock before.
		if r, ok := read(path); ok && !held(path) && !r.Host.Running() {
			clearAway(ctx, path, r, log)
		}
	}
}

// clearLimit is what the processes of a dead host get to be gone once they have
// been killed.
const clearLimit = 2 * time.Second

// clearAway ends and removes what a dead host has left. What cannot be ended
// keeps its record, for the next time.
func clearAway(ctx context.Context, path string, r Record, log hclog.Logger) {
	if left := r.Run.End(clearLimit); left > 0 {
		log.Warn("processes of a host that is gone cannot be ended", "host", r.Host.PID, "processes", left)
		return
	}
	RemoveSockets(ctx, r.Sockets)
	defer unixsocket.Lock(path)()
	if now, ok := read(path); ok && now.Run != r.Run {
		return // others have cleared it away meanwhile, and it is a new host's
	}
	remove(path, r.Host.PID, log)
}

func remove(path string, pid int, log hclog.Logger) {
	if err := os.RemoveAll(path); err != nil {
		log.Warn("what a host that is gone has left cannot be removed", "host", pid, "error", err)
		return
	}
	log.Info("what a host that is gone had left is cleared away", "directory", path)
}

// RemoveSockets removes those of the files that are sockets on which nobody
// listens.
func RemoveSockets(ctx context.Context, paths []string) {
	for _, path := range paths {
		unlock := unixsocket.Lock(path)
		_ = unixsocket.RemoveAbandoned(ctx, path) // somebody else's now, or no socket
		unlock()
	}
}

// RemoveDir removes the directory of a run, unless it is another run's.
func RemoveDir(path string, run lineage.Run) {
	defer unixsocket.Lock(path)() // with the name, another could have made it anew
	if r, ok := read(path); !ok || r.Run == run {
		_ = os.RemoveAll(path)
	}
}
