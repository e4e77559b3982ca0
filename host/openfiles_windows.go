package host

// openFiles: handles are not counted cheaply here.
func openFiles() int { return 0 }
