//go:build unix

package pluginsdk

import "syscall"

// makePollable lets Go's poller have an inherited file, so that deadlines end a
// read or write that waits: passing a file to a process makes it blocking.
func makePollable(fd int) { _ = syscall.SetNonblock(fd, true) }
