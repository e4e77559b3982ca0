package rundir

// private cannot tell here: permissions are lists, and those of a user's own
// directories keep others out.
func private(string) error { return nil }
