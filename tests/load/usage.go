package load

import "time"

// A usage is CPU time used so far.
type usage struct {
	server  time.Duration // the processes given, with their descendants
	load    time.Duration // this process
	machine time.Duration // everything
}

// Memory is what processes have in memory.
type Memory struct {
	Processes int
	RSS       int64 // bytes, pages that several share counted for each of them
	PSS       int64 // bytes, shared pages counted once
}
