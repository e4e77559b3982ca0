package config

import (
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

// environ is an environment of a test.
func environ(kv ...string) func(string) string {
	return func(name string) string {
		for i := 0; i < len(kv); i += 2 {
			if kv[i] == name {
				return kv[i+1]
			}
		}
		return ""
	}
}

func TestPasswordsAreNotShown(t *testing.T) {
	for address, want := range map[string]string{
		"https://user:hunter2@host/token": "https://user:xxxxx@host/token",
		"https://host/token":              "https://host/token",
		"https://user:hunter2@ho st/":     "https://…",
		"user:hunter2@host/token":         "…",
		"user:hunter2@ho st":              "…",
		"//user:hunter2@host/token":       "//user:xxxxx@host/token",
		"ftp":                             "ftp",
	} {
		if got := WithoutPassword(address); got != want {
			t.Errorf("%q is shown as %q, want %q", address, got, want)
		}
	}
}

func TestAuthFile(t *testing.T) {
	home, err := os.UserHomeDir()
	if err != nil {
		t.Skip(err)
	}
	codex := t.TempDir()
	for _, tt := range []struct {
		name   string
		getenv func(string) string
		want   string
	}{
		{"by default", environ(), filepath.Join(home, ".codex", "auth.json")},
		{"with CODEX_HOME", environ("CODEX_HOME", codex), filepath.Join(codex, "auth.json")},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got, err := AuthFile(tt.getenv); err != nil || got != tt.want {
				t.Errorf("got %q, %v; want %q", got, err, tt.want)
			}
		})
	}
	if got, err := AuthFile(environ("CODEX_HOME", "relative")); err != nil || !filepath.IsAbs(got) {
		t.Errorf("with a relative CODEX_HOME: got %q, %v; want an absolute path", got, err)
	}
}

func TestStateDir(t *testing.T) {
	xdg := t.TempDir()
	if got, err := StateDir(environ("XDG_STATE_HOME", xdg)); err != nil || got != filepath.Join(xdg, "transporthost") {
		t.Errorf("with XDG_STATE_HOME: got %q, %v", got, err)
	}
	usual, err := StateDir(environ())
	if err != nil || !filepath.IsAbs(usual) || filepath.Base(usual) != "transporthost" {
		t.Errorf("by default: got %q, %v", usual, err)
	}
	if home, err := os.UserHomeDir(); runtime.GOOS == "linux" && err == nil && usual != filepath.Join(home, ".local", "state", "transporthost") {
		t.Errorf("by default: got %q", usual)
	}
	if got, err := StateDir(environ("XDG_STATE_HOME", "relative")); err != nil || got != usual {
		t.Errorf("with a relative XDG_STATE_HOME: got %q, %v; want the default %q", got, err, usual)
	}
}

func TestTokenURL(t *testing.T) {
	if got := TokenURL(environ("CODEX_REFRESH_TOKEN_URL_OVERRIDE", "http://127.0.0.1:1/t")); got != "http://127.0.0.1:1/t" {
		t.Errorf("got %q", got)
	}
	for _, tt := range []struct {
		address string
		ok      bool
	}{
		{"https://auth.openai.com/oauth/token", true}, {"http://127.0.0.1:4000/token", true}, {"http://localhost/t", true}, {"http://[::1]:1", true},
		{"http://10.0.0.1/t", false}, {"http://localhost.example/t", false}, {"https:///t", false}, {"ftp://h/t", false},
		{"https://user@h/t", false}, {"/t", false}, {"", false}, {"https://h/%zz", false},
	} {
		if text := BadTokenURL(tt.address); (text == "") != tt.ok {
			t.Errorf("%q: got %q, want ok %v", tt.address, text, tt.ok)
		}
	}
}

func TestBadProxy(t *testing.T) {
	for _, tt := range []struct {
		address string
		ok      bool
	}{
		{"direct", true}, {"http://proxy:3128", true}, {"https://user:pass@proxy", true}, {"socks5://127.0.0.1:1080", true}, {"socks5h://[::1]:1", true},
		{"proxy:3128", false}, {"http://", false}, {"ftp://proxy", false}, {"user:pass@proxy:3128", false}, {"http://%zz", false}, {"", false}, {"http://:80", false},
	} {
		if text := BadProxy(tt.address); (text == "") != tt.ok {
			t.Errorf("%q: got %q, want ok %v", tt.address, text, tt.ok)
		}
	}
}

func TestOriginator(t *testing.T) {
	for value, want := range map[string]string{"": "", "my_app": "my_app", "a\nb": "", "é": ""} {
		if got := Originator(environ("CODEX_INTERNAL_ORIGINATOR_OVERRIDE", value)); got != want {
			t.Errorf("%q: got %q, want %q", value, got, want)
		}
	}
}

// FuzzAddresses: no address that may be typed shows its password, and what is
// accepted as that of a proxy or of the token endpoint has a host.
func FuzzAddresses(f *testing.F) {
	for _, s := range []string{"", "direct", "https://auth.example/token", "http://user:hunter2@proxy:3128", "user:hunter2@proxy", "//user:hunter2@proxy/x",
		"https://user:hunter2@ho st/", "https:user:hunter2@host", "socks5://:hunter2@[::1%25lo]:1080", "http://user%3Ahunter2@h"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, address string) {
		for what, text := range map[string]string{"proxy": BadProxy(address), "token_url": BadTokenURL(address)} {
			if text != "" {
				continue
			}
			if u, err := url.Parse(address); address != "direct" && (err != nil || u.Hostname() == "") {
				t.Errorf("%q is accepted as %s", address, what)
			}
		}
		shown := WithoutPassword(address)
		if before, behind, found := strings.Cut(address, ":hunter2@"); found && !strings.Contains(before+behind, "hunter2") && strings.Contains(shown, "hunter2") {
			t.Errorf("%q is shown as %q", address, shown)
		}
	})
}
