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
	PID    int
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
		text, ok := strings.CutPrefix(e.Name(), runPrefix)
		pid, err := strconv.Atoi(text)
		if !ok || err != nil || pid <= 0 || !e.IsDir() {
			continue
		}
		r := Run{PID: pid, Path: filepath.Join(dir, e.Name())}
		r.record, r.known = read(r.Path)
		list = append(list, r)
	}
	return list
}

// Running reports whether the host of the directory runs: that very process,
// and not another that has its number now.
func (r Run) Running() bool {
	if r.known {
		return r.record.Host.PID == r.PID && r.record.Host.Running()
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
		if !r.Running() || r.recycled() {
			clearAway(ctx, r.Path, r.record, log)
		}
	}
	fresh, _ := filepath.Glob(filepath.Join(dir, newPrefix+"*-*")) // the pattern is right
	for _, path := range fresh {
		if pid, start, ok := parseFresh(filepath.Base(path)); ok {
			if maker, ok := lineage.Of(pid); !ok || maker.Start != start {
				clearAway(ctx, path, Record{}, log) // it has started nothing yet
			}
		}
	}
}

// parseFresh reads the name of a directory that is being made.
func parseFresh(name string) (pid int, start uint64, ok bool) {
	text, ok := strings.CutPrefix(name, newPrefix)
	pidText, startText, ok2 := strings.Cut(text, "-")
	pid, err := strconv.Atoi(pidText)
	start, err2 := strconv.ParseUint(startText, 10, 64)
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
		if r, ok := read(path); ok && !r.Host.Running() {
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
	if err := os.RemoveAll(path); err != nil {
		log.Warn("what a host that is gone has left cannot be removed", "host", r.Host.PID, "error", err)
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
	if r, ok := read(path); !ok || r.Run == run {
		_ = os.RemoveAll(path)
	}
}
