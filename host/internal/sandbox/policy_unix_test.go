//go:build unix

package sandbox

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// tree makes files below a new directory, whose name has no links in it.
func tree(t *testing.T, files ...string) string {
	t.Helper()
	root := resolve(t.TempDir())
	for _, f := range files {
		path := filepath.Join(root, f)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

// TestWhatIsNamedIsOpened, with as much around it as its renewal needs, and no
// more than its owner can have meant.
func TestWhatIsNamedIsOpened(t *testing.T) {
	root := tree(t, "certs/cert.pem", "home/file", "home/.codex/auth.json", "home/.codex/cert.pem", "archive/x/cert1.pem", "live/x/README")
	if err := os.Symlink("../../archive/x/cert1.pem", filepath.Join(root, "live/x/cert.pem")); err != nil {
		t.Fatal(err)
	}
	b := borders{home: filepath.Join(root, "home"), protected: []string{filepath.Join(root, "home/.codex/auth.json")}}
	for _, tt := range []struct {
		name, path string
		want       []string
	}{
		{"a file, and its successor", "certs/cert.pem", []string{"certs"}},
		{"a file that will be there", "certs/later.pem", []string{"certs"}},
		{"a directory", "certs", []string{"certs"}},
		{"a link, and where it leads", "live/x/cert.pem", []string{"live/x", "archive/x"}},
		{"a file in the home", "home/file", []string{"home/file"}},
		{"the home", "home", nil},
		{"what the home is in", ".", nil},
		{"a file beside a secret", "home/.codex/cert.pem", []string{"home/.codex/cert.pem"}},
		{"a secret's directory", "home/.codex", nil},
		{"a secret", "home/.codex/auth.json", nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var want []string
			for _, w := range tt.want {
				want = append(want, filepath.Join(root, w))
			}
			if got := b.near(filepath.Join(root, tt.path)); !slices.Equal(got, want) {
				t.Errorf("got %q, want %q", got, want)
			}
		})
	}
	for path, want := range map[string][]string{"/": nil, "/etc/token": {"/etc/token"}, "relative": nil, "/home/jane": {"/home/jane"}} {
		if got := b.near(path); !slices.Equal(got, want) {
			t.Errorf("near(%q): got %q, want %q", path, got, want)
		}
	}
}

// TestSecretsInSystemDirectories are left out, and their neighbours are not.
func TestSecretsInSystemDirectories(t *testing.T) {
	root := tree(t, "etc/hosts", "etc/ssl/cert.pem", "etc/host/auth.json", "etc/host/other")
	b := borders{protected: []string{filepath.Join(root, "etc/host/auth.json")}}
	var got []string
	for _, path := range b.without(filepath.Join(root, "etc")) {
		got = append(got, strings.TrimPrefix(path, root))
	}
	if want := []string{"/etc/host/other", "/etc/hosts", "/etc/ssl"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// TestPolicies of transports with and without sockets of the host.
func TestPolicies(t *testing.T) {
	no := false
	at := Place{Executable: "/opt/plugins/transport-x", Private: "/run/x/p", Getenv: func(string) string { return "" }}
	for _, tt := range []struct {
		name   string
		r      Request
		change func(*Place)
		check  func(Policy) bool
	}{
		{"its own sockets", Request{}, func(*Place) {}, func(p Policy) bool { return p.Network && slices.Contains(p.Read, "/etc") }},
		{"as root", Request{}, func(p *Place) { p.Root = true }, func(p Policy) bool { return !slices.Contains(p.Read, "/etc") && len(p.Notes) == 1 }},
		{"inherited", Request{}, func(p *Place) { p.Inherited = true }, func(p Policy) bool { return !p.Network && !slices.Contains(p.Read, "/etc") }},
		{"none by exception", Request{Exceptions: Exceptions{Network: &no}}, func(*Place) {}, func(p Policy) bool { return !p.Network }},
		{"the default limits", Request{}, func(*Place) {}, func(p Policy) bool { return p.Memory == 2<<30 && p.Files == DefaultFiles && !p.Processes }},
		{"huge messages", Request{MaxMessageBytes: 1 << 30}, func(*Place) {}, func(p Policy) bool { return p.Memory == 32<<30 }},
		{"limits", Request{Exceptions: Exceptions{Memory: 1 << 30, Files: 100}, MaxMessageBytes: 1 << 30}, func(*Place) {},
			func(p Policy) bool { return p.Memory == 1<<30 && p.Files == 100 }},
		{"off", Request{Exceptions: Exceptions{Off: true, Memory: 1}}, func(*Place) {}, func(p Policy) bool { return p.Off && p.Memory == 0 }},
		{"only its own room to write", Request{}, func(*Place) {}, func(p Policy) bool { return slices.Equal(p.Write, []string{"/run/x/p"}) }},
		{"authorities of its own", Request{}, func(p *Place) {
			p.Getenv = func(name string) string {
				return map[string]string{"SSL_CERT_FILE": "/srv/ca/bundle.pem", "SSL_CERT_DIR": "/srv/a/x:/srv/b/y"}[name]
			}
		}, func(p Policy) bool {
			return slices.Contains(p.Read, "/srv/ca") && slices.Contains(p.Read, "/srv/a") && slices.Contains(p.Read, "/srv/b")
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			place := at
			tt.change(&place)
			if p := tt.r.Policy(place); !tt.check(p) {
				t.Errorf("got %+v", p)
			}
		})
	}
}

func TestReports(t *testing.T) {
	for want, r := range map[string]Report{
		"off, as the configuration says":                     {Off: true, Enforced: []string{}},
		"nothing is enforced; not enforced: anything":        {Missing: []string{"anything"}},
		"memory ≤ 2 GiB, files; not enforced: signals, more": {Enforced: []string{"memory ≤ 2 GiB", "files"}, Missing: []string{"signals", "more"}},
	} {
		if got := r.String(); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	for n, want := range map[uint64]string{2 << 30: "2 GiB", 1536 << 20: "1536 MiB", 1000: "1000 bytes", 1 << 40: "1 TiB", 0: "0 bytes"} {
		if got := Bytes(n); got != want {
			t.Errorf("Bytes(%d): got %q, want %q", n, got, want)
		}
	}
}
