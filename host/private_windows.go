package host

// private cannot tell here: permissions are lists, and those of a user's own
// directories keep others out.
func private(string) error { return nil }

// running cannot tell here, and says yes: nothing is removed by mistake.
func running(int) bool { return true }

func systemPluginDirs() []string { return nil }
