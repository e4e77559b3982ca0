package lineage

import (
	"bytes"
	"os"
	"strconv"
	"strings"
)

// Of returns the identity of a process that runs.
func Of(pid int) (Identity, bool) {
	s, ok := statOf(pid)
	if !ok || s.dead {
		return Identity{}, false
	}
	boot, _ := os.ReadFile("/proc/sys/kernel/random/boot_id") // without it two boots are taken for one
	return Identity{PID: pid, Start: s.start, Boot: strings.TrimSpace(string(boot))}, true
}

// Namespace names the pid namespace of this process, among those that there are
// at one time; "" if the system does not tell.
func Namespace() string {
	name, _ := os.Readlink("/proc/self/ns/pid")
	return name
}

// A stat is what is needed of /proc/PID/stat.
type stat struct {
	dead  bool // at most somebody has to wait for it
	start uint64
}

func statOf(pid int) (stat, bool) {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return stat{}, false
	}
	return parseStat(b)
}

// parseStat reads a line of proc(5): the name of the process may hold anything,
// parentheses and spaces too.
func parseStat(b []byte) (stat, bool) {
	// Behind the name stand state, the third field, and 19 more up to the time
	// of the start, the twenty-second.
	f := bytes.Fields(b[bytes.LastIndexByte(b, ')')+1:])
	if len(f) < 20 {
		return stat{}, false
	}
	start, err := strconv.ParseUint(string(f[19]), 10, 64)
	if err != nil {
		return stat{}, false
	}
	// The state is that of the first thread. It may be dead while others are on
	// their way, with all that is open: sockets still take connections then.
	state, threads := f[0][0], string(f[17])
	dead := state == 'Z' || state == 'X' || state == 'x'
	return stat{dead: dead && (threads == "0" || threads == "1"), start: start}, true
}
