// Package reexec starts the running program once more, in another role: what has
// to be a process of its own (one that confines itself before it becomes a
// plugin, one that outlives a host that was killed) needs no second binary
// beside every program that embeds the host.
package reexec

import (
	"os"
	"runtime"
	"strings"
)

// prefix marks the name of a process that has a role. No program is called so.
const prefix = "transporthost:"

// Command returns what to execute to have this program in a role: a path, and
// the name of the process, which is its first argument. On Linux the path is
// the very program that runs, also after its file was replaced or removed.
func Command(role string) (path, name string, err error) {
	path = "/proc/self/exe" // the child's own until it executes: a copy of this process
	if runtime.GOOS != "linux" {
		if path, err = os.Executable(); err != nil {
			return "", "", err
		}
	}
	return path, prefix + role, nil
}

// As runs f in place of the program, and ends the process with its status, if
// [Command] for role started it. It is called from an init function, so that
// it comes before the main of whatever program this is.
func As(role string, f func() int) {
	if name, ok := strings.CutPrefix(os.Args[0], prefix); ok && name == role {
		os.Exit(f())
	}
}
