package childproc

import (
	"maps"
	"os"
	"slices"
	"strings"
)

// passed are the variables of the host's environment that children get: what a
// program needs to find its home, its language, its temporary files, and its way
// out to the network. Tokens and keys live in other variables.
func passed(name string) bool {
	switch strings.ToUpper(name) {
	case "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY": // both spellings are usual
		return true
	}
	switch name {
	case "SSL_CERT_FILE", "SSL_CERT_DIR", "CODEX_HOME", "CODEX_INTERNAL_ORIGINATOR_OVERRIDE":
		return true
	case "PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LANGUAGE", "TZ", "TERM", "TMPDIR", "TMP", "TEMP",
		// Windows starts nothing without these.
		"SYSTEMROOT", "SystemRoot", "WINDIR", "COMSPEC", "PATHEXT", "USERPROFILE", "APPDATA", "LOCALAPPDATA", "PROGRAMDATA":
		return true
	}
	return strings.HasPrefix(name, "LC_") || strings.HasPrefix(name, "XDG_")
}

// Environ returns the environment of a child: the host's, as far as it is
// passed, and add, whose entries win.
func Environ(add map[string]string) []string {
	var env []string
	for _, kv := range os.Environ() {
		name, _, _ := strings.Cut(kv, "=")
		if _, replaced := add[name]; passed(name) && !replaced {
			env = append(env, kv)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(add)) {
		env = append(env, name+"="+add[name])
	}
	return env
}
