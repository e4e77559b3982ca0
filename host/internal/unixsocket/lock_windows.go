package unixsocket

import "os"

// tryLock does without.
func tryLock(*os.File) bool { return true }
