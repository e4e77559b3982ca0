package supervisor

import "os"

// A stamp tells one file from another that takes its place. A running program
// cannot be written to, so a new version is another file: comparing what the
// system knows of it is enough, and costs no reading. A file that was only
// touched counts as another one, which costs a replacement that nobody notices.
type stamp struct{ info os.FileInfo }

// stampOf returns that of the file at path; the zero stamp if there is none.
func stampOf(path string) stamp {
	info, err := os.Stat(path)
	if err != nil {
		return stamp{}
	}
	return stamp{info}
}

// changed reports whether the file at path is another one now.
func (s stamp) changed(path string) bool {
	now := stampOf(path)
	if s.info == nil || now.info == nil {
		return s.info != now.info
	}
	return !os.SameFile(s.info, now.info) || s.info.Size() != now.info.Size() || !s.info.ModTime().Equal(now.info.ModTime())
}
