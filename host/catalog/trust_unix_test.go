//go:build unix

package catalog

import (
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// TestOpenRefuses: each is made of a file that may be run.
func TestOpenRefuses(t *testing.T) {
	const nobody = 54321
	tests := []struct {
		name   string
		asRoot bool
		spoil  func(dir, path string) error
		want   string // DIR and PATH stand for themselves
	}{
		{"nothing", false, func(_, _ string) error { return nil }, ""},
		{"a file that is gone", false, func(_, p string) error { return os.Remove(p) }, "cannot be looked at: "},
		{"a named pipe", false, replaced(func(p string) error { return syscall.Mkfifo(p, 0o755) }), "not a regular file, but a named pipe"},
		{"a directory", false, replaced(func(p string) error { return os.Mkdir(p, 0o755) }), "a directory"},
		{"a device", true, replaced(func(p string) error { return syscall.Mknod(p, syscall.S_IFCHR|0o755, 1<<8|3) }), "not a regular file, but a device"},
		{"a file that cannot be executed", false, mode(0o644), "not executable; chmod +x PATH"},
		{"an empty file", false, func(_, p string) error { return os.Truncate(p, 0) }, "empty"},
		{"setuid", false, mode(0o755 | fs.ModeSetuid), "it would run with the rights of its owner or group; chmod ug-s PATH"},
		{"setgid", false, mode(0o755 | fs.ModeSetgid), "chmod ug-s PATH"},
		{"writable by everybody", false, mode(0o757), "PATH is writable by everybody; chmod o-w PATH"},
		{"of another user", true, func(_, p string) error { return os.Chown(p, nobody, -1) },
			"PATH belongs to user 54321, neither to root nor to the user of the host, 0; chown it, or copy it as that user"},
		{"writable by a group", true, func(d, p string) error { return errors.Join(os.Chown(p, -1, nobody), mode(0o775)(d, p)) },
			"PATH is writable by the group 54321, of which nobody here knows who is in it; chmod g-w PATH"},
		{"readable by a group", true, func(_, p string) error { return os.Chown(p, -1, nobody) }, ""},
		{"in a directory that everybody may write", false, func(d, _ string) error { return os.Chmod(d, 0o777) },
			"the directory DIR is writable by everybody; chmod o-w DIR"},
		{"in a sticky directory", false, func(d, _ string) error { return os.Chmod(d, 0o777|fs.ModeSticky) }, ""},
		{"in a directory of another user", true, func(d, _ string) error { return os.Chown(d, nobody, -1) }, "the directory DIR belongs to user 54321"},
		{"in a directory that a group may write", true, func(d, _ string) error { return errors.Join(os.Chown(d, -1, nobody), os.Chmod(d, 0o775)) },
			"the directory DIR is writable by the group 54321"},
		{"below a directory that everybody may write", false, func(d, _ string) error { return os.Chmod(filepath.Dir(d), 0o777) },
			"the directory above, UP, is writable by everybody; chmod o-w UP"},
		{"a link inside", false, func(d, p string) error {
			return errors.Join(os.Rename(p, filepath.Join(d, "v2")), os.Symlink("v2", p))
		}, ""},
		{"a link out", false, replaced(func(p string) error { return os.Symlink("/bin/sh", p) }), "a symbolic link out of the plugin directory, to "},
		{"a link to nothing", false, replaced(func(p string) error { return os.Symlink("gone", p) }), "a symbolic link that leads nowhere"},
		{"a link to what is not safe", false, func(d, p string) error {
			v2 := filepath.Join(d, "v2")
			return errors.Join(os.Rename(p, v2), os.Chmod(v2, 0o777), os.Symlink("v2", p))
		}, "is writable by everybody"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if tt.asRoot && os.Geteuid() != 0 {
				t.Skip("needs root")
			}
			dir := filepath.Join(t.TempDir(), "plugins")
			if err := os.Mkdir(dir, 0o755); err != nil {
				t.Fatal(err)
			}
			path := file(t, dir, "transport-a", 0o755)
			if err := tt.spoil(dir, path); err != nil {
				t.Fatal(err)
			}
			want := strings.NewReplacer("PATH", path, "DIR", dir, "UP", filepath.Dir(dir)).Replace(tt.want)
			exe, err := Open(path, "")
			if want == "" && (err != nil || exe.Path != path) || want != "" && (!errors.Is(err, ErrUntrusted) || !strings.Contains(err.Error(), want)) {
				t.Errorf("Open: %+v, %v; want %q", exe, err, want)
			}
			if strings.Contains(want, "cannot be looked at") {
				return // nor found
			}
			if e, err := Find([]string{dir}, "a"); (err == nil) != (want == "") || !strings.Contains(e.Problem, want) {
				t.Errorf("Find: %+v, %v; want %q", e, err, want)
			}
		})
	}
}

func mode(m fs.FileMode) func(string, string) error {
	return func(_, path string) error { return os.Chmod(path, m) }
}

func replaced(by func(path string) error) func(string, string) error {
	return func(_, path string) error { return errors.Join(os.Remove(path), by(path)) }
}

func TestOpenRefusesASocket(t *testing.T) {
	dir, err := os.MkdirTemp("", "c") // t.TempDir's paths are too long
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "transport-a")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if _, err := Open(path, ""); !errors.Is(err, ErrUntrusted) || !strings.Contains(err.Error(), "not a regular file, but a socket") {
		t.Errorf("got %v", err)
	}
}

// TestOthersIn: who may write what a group may write.
func TestOthersIn(t *testing.T) {
	users := rows(strings.NewReader("root:x:0:0:root:/root:/bin/sh\n# no line\nann:x:1000:1000::/:\nbob:x:1001:1001::/:\ncat:x:1002:50::/:\nbroken\n"))
	groups := rows(strings.NewReader("root:x:0:\nann:x:1000:\nbob:x:1001:\nstaff:x:50:\nwheel:x:10:root,ann\nweb:x:60:ann,bob\nold:x:70:gone\nempty:x:80:\nshort:x:90\n"))
	for _, tt := range []struct {
		name    string
		gid, us uint32
		want    string
	}{
		{"the user's own", 1000, 1000, ""},
		{"another user's own", 1001, 1000, "which bob is in"},
		{"the user's own, for root", 1000, 0, "which ann is in"},
		{"of root and the user", 10, 1000, ""},
		{"of root and another", 10, 1001, "which ann is in"},
		{"of two", 60, 1000, "which bob is in"},
		{"of whom it is the first group", 50, 1000, "which cat is in"},
		{"of somebody unknown", 70, 1000, "which gone is in"},
		{"of nobody", 80, 1000, ""},
		{"unknown", 99, 1000, "of which nobody here knows who is in it"},
		{"of which the file says nothing", 90, 1000, "of which nobody here knows who is in it"},
		{"root's", 0, 1000, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := othersIn(tt.gid, tt.us, groups, users); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
	if got := notOurGroup(4294967, 0); got == "" {
		t.Error("a group that this system does not have is ours")
	}
}
