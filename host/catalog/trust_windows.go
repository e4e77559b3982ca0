package catalog

import "io/fs"

const openFlags = 0

// Permissions are lists on this system, and not in the mode; there is nothing
// here that looks at them.

func unsafeFile(path string, info fs.FileInfo) string {
	if info.Size() == 0 {
		return "empty"
	}
	return ""
}

func unsafeDir(string, fs.FileInfo) string { return "" }
