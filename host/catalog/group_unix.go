//go:build unix

package catalog

import (
	"bufio"
	"io"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
)

// notOurGroup says who else than root and the user us is in a group, or "". Many
// systems give every user a group of the same name and let it write (umask 002):
// that is nobody else.
//
// It reads the files, and not what a directory service adds to them: a group
// that they do not have is not known to be ours.
func notOurGroup(gid, us uint32) string {
	if runtime.GOOS == "darwin" {
		// People are in no file there. Who is in the group admin may become root.
		const wheel, admin = 0, 80
		if gid == wheel || gid == admin {
			return ""
		}
		return "of which the files of this system do not say who is in it"
	}
	return othersIn(gid, us, table("/etc/group"), table("/etc/passwd"))
}

func othersIn(gid, us uint32, groups, users [][]string) string {
	i := slices.IndexFunc(groups, func(g []string) bool { return len(g) >= 4 && g[2] == strconv.Itoa(int(gid)) })
	if i < 0 {
		return "of which nobody here knows who is in it"
	}
	members := strings.FieldsFunc(groups[i][3], func(r rune) bool { return r == ',' })
	known := map[string]bool{}
	for _, u := range users {
		if len(u) < 4 {
			continue
		}
		known[u[0]] = true
		trusted := u[2] == "0" || u[2] == strconv.Itoa(int(us))
		if !trusted && (u[3] == strconv.Itoa(int(gid)) || slices.Contains(members, u[0])) {
			return "which " + u[0] + " is in"
		}
	}
	for _, m := range members {
		if !known[m] {
			return "which " + m + " is in"
		}
	}
	return ""
}

// table reads a file of the system; what cannot be read is empty.
func table(path string) [][]string {
	f, err := os.Open(path)
	if err != nil {
		return nil
	}
	defer f.Close()
	return rows(f)
}

// rows reads lines with fields between colons.
func rows(r io.Reader) [][]string {
	var all [][]string
	for s := bufio.NewScanner(r); s.Scan(); {
		if line := strings.TrimSpace(s.Text()); line != "" && line[0] != '#' {
			all = append(all, strings.Split(line, ":"))
		}
	}
	return all
}
