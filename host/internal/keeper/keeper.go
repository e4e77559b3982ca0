// Package keeper clears away after a host that was killed. What a host does at
// its end it cannot do after SIGKILL, so a keeper is there for it: a small
// process that does nothing until the pipe from the host ends. The kernel ends
// that whatever the host dies of.
package keeper

import (
	"bufio"
	"context"
	"io"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/transporthost/transporthost/host/internal/lineage"
	"github.com/transporthost/transporthost/host/internal/rundir"
)

// What a host says to its keeper, a line each.
const (
	sayDir    = "dir"    // and, quoted, the path of a directory of the run
	saySocket = "socket" // and, quoted, the path of a socket file of the run
	sayDone   = "done"   // there is nothing left to clear away
)

// How a keeper ends. Only its host sees it, if it still lives.
const (
	endDone      = 0
	endMisuse    = 2
	endAbandoned = 3 // the host lives, but said that it does not
	endLeft      = 4 // something cannot be ended
)

const (
	// dyingLimit is what a host gets to be gone once its pipe has ended: the
	// kernel closes that at the very end of a process.
	dyingLimit = time.Second
	dyingPause = 2 * time.Millisecond
	// endLimit is how long what the host has started is killed again and again.
	// What resists longer is left for the next start in the same directory.
	endLimit = 30 * time.Second
)

// A will is what a keeper is told to clear away.
type will struct {
	dirs    []string
	sockets []string
	done    bool // by the host itself
}

// keep is the main of a keeper.
func keep(args []string, pipe io.Reader) (status int) {
	// A stop of the host by a terminal or a service manager may reach its keeper
	// too: only the host knows when it has ended.
	signal.Ignore(os.Interrupt, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT)
	run, host, ok := parseArgs(args)
	if !ok {
		return endMisuse
	}
	w := listen(pipe)
	if w.done {
		return endDone
	}
	for deadline := time.Now().Add(dyingLimit); host.Running(); time.Sleep(dyingPause) {
		if time.Now().After(deadline) {
			return endAbandoned
		}
	}
	return w.execute(context.Background(), run)
}

// arguments are what parseArgs reads.
func arguments(run lineage.Run, host lineage.Identity) []string {
	return []string{run.String(), strconv.Itoa(host.PID), strconv.FormatUint(host.Start, 10), host.Boot}
}

func parseArgs(args []string) (run lineage.Run, host lineage.Identity, ok bool) {
	if len(args) != 4 {
		return 0, host, false
	}
	run, err := lineage.ParseRun(args[0])
	if err != nil {
		return 0, host, false
	}
	host.Boot = args[3]
	host.PID, err = strconv.Atoi(args[1])
	if err != nil {
		return 0, host, false
	}
	host.Start, err = strconv.ParseUint(args[2], 10, 64)
	return run, host, err == nil
}

// listen reads what the host says until it says no more. What is no whole line
// of those above is left out: the host may have died over it.
func listen(pipe io.Reader) (w will) {
	r := bufio.NewReader(pipe)
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return w
		}
		word, rest, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		if word == sayDone {
			w.done = true
			return w
		}
		path, err := strconv.Unquote(rest)
		if err != nil {
			continue
		}
		switch word {
		case sayDir:
			w.dirs = append(w.dirs, path)
		case saySocket:
			w.sockets = append(w.sockets, path)
		}
	}
}

// execute ends what the run has started and removes what it has made.
func (w will) execute(ctx context.Context, run lineage.Run) (status int) {
	left := run.End(endLimit)
	rundir.RemoveSockets(ctx, w.sockets)
	if left > 0 {
		return endLeft // the record in the directory is for the next start
	}
	for _, dir := range w.dirs {
		rundir.RemoveDir(dir, run)
	}
	return endDone
}
