package main

import "os"

// interrupt stops p. Windows has no signal that one process can send to another
// alone; Ctrl-C in a console reaches all of its processes without our help.
func interrupt(p *os.Process) error { return p.Kill() }
