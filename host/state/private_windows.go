package state

// Permissions are lists here, and those of a user's own directories keep
// others out.

func ownDirectory(string) error { return nil }

func closeToOthers(string) error { return nil }
