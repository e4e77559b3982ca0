//go:build unix

package main

import (
	"os"
	"syscall"
)

// interrupt asks p to stop.
func interrupt(p *os.Process) error { return p.Signal(syscall.SIGTERM) }
