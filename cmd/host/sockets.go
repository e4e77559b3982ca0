package main

import (
	"fmt"
	"os"
	"strconv"

	"github.com/coreos/go-systemd/v22/activation"
	"github.com/hashicorp/go-hclog"
)

// maxPassedSockets is more than any unit passes: a count beyond it is a mistake,
// and not worth an attempt.
const maxPassedSockets = 1024

// passedSockets takes the sockets that a service manager bound for this process
// (systemd's socket activation). Its variables are gone then, and no child
// inherits the sockets.
func passedSockets(log hclog.Logger) ([]*os.File, error) {
	count, pid := os.Getenv("LISTEN_FDS"), os.Getenv("LISTEN_PID")
	if count == "" {
		return nil, nil
	}
	if n, err := strconv.Atoi(count); err != nil || n < 0 || n > maxPassedSockets {
		return nil, usageError{fmt.Errorf("LISTEN_FDS is %q, want the number of passed sockets, at most %d", count, maxPassedSockets)}
	}
	if pid != strconv.Itoa(os.Getpid()) {
		log.Warn("sockets were passed to another process than this one; let that one start the host with exec",
			"LISTEN_PID", pid, "pid", os.Getpid())
	}
	return activation.Files(true), nil
}
