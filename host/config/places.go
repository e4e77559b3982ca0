package config

import (
	"fmt"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
)

// Where things are that the configuration does not mention. getenv is
// [os.Getenv], or what a test has instead.

// AuthFile returns where auth.json is: $CODEX_HOME/auth.json, else
// ~/.codex/auth.json.
func AuthFile(getenv func(string) string) (string, error) {
	dir := getenv("CODEX_HOME")
	if dir == "" {
		home, err := os.UserHomeDir()
		if err != nil {
			return "", fmt.Errorf("finding auth.json: %w; set CODEX_HOME, or name the file", err)
		}
		dir = filepath.Join(home, ".codex")
	}
	path, err := filepath.Abs(filepath.Join(dir, "auth.json"))
	if err != nil {
		return "", fmt.Errorf("finding auth.json: %w", err)
	}
	return path, nil
}

// stateName is this program's folder among those of others.
const stateName = "transporthost"

// StateDir returns where the state is: $XDG_STATE_HOME/transporthost, else the
// system's usual place.
func StateDir(getenv func(string) string) (string, error) {
	// The XDG rules: a relative path is ignored.
	if xdg := getenv("XDG_STATE_HOME"); filepath.IsAbs(xdg) {
		return filepath.Join(xdg, stateName), nil
	}
	if runtime.GOOS == "windows" {
		if local := getenv("LocalAppData"); local != "" {
			return filepath.Join(local, stateName), nil
		}
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "", fmt.Errorf("finding the state directory: %w; set XDG_STATE_HOME, or name the directory", err)
	}
	switch runtime.GOOS {
	case "windows":
		return filepath.Join(home, "AppData", "Local", stateName), nil
	case "darwin":
		return filepath.Join(home, "Library", "Application Support", stateName), nil
	}
	return filepath.Join(home, ".local", "state", stateName), nil
}

// TokenURL returns what the environment says instead of the default address
// where tokens are refreshed, or "".
func TokenURL(getenv func(string) string) string { return getenv("CODEX_REFRESH_TOKEN_URL_OVERRIDE") }

// Originator returns what the environment says instead of the default name of
// this program to backends, or "". Text that a header cannot hold is no name.
func Originator(getenv func(string) string) string {
	name := getenv("CODEX_INTERNAL_ORIGINATOR_OVERRIDE")
	if strings.ContainsFunc(name, func(r rune) bool { return r < ' ' || r > '~' }) {
		return ""
	}
	return name
}

// WithoutPassword is an address as an error may show it. What cannot be parsed is
// shown as far as no password can stand in it.
func WithoutPassword(address string) string {
	u, err := url.Parse(address)
	if err != nil || u.User == nil {
		before, _, found := strings.Cut(address, "@")
		if !found {
			return address
		}
		scheme, _, found := strings.Cut(before, "://")
		if !found {
			return "…"
		}
		return scheme + "://…"
	}
	return u.Redacted()
}

// BadProxy says what is wrong with the address of a proxy, or "". It may hold a
// password, and is nothing to show.
func BadProxy(address string) string {
	u, err := url.Parse(address)
	if address == "direct" || err == nil && u.Hostname() != "" && slices.Contains([]string{"http", "https", "socks5", "socks5h"}, u.Scheme) {
		return ""
	}
	return `write http://HOST:PORT, https://HOST:PORT or socks5://HOST:PORT, with USER:PASSWORD@ if the proxy wants them, or "direct"`
}

// BadTokenURL says what is wrong with an address that refresh tokens are sent
// to, or "".
func BadTokenURL(address string) string {
	const want = "want https://HOST/PATH, or http:// to this machine"
	u, err := url.Parse(address)
	if err != nil || u.Host == "" || u.User != nil || u.Fragment != "" {
		return want
	}
	switch u.Scheme {
	case "https":
		return ""
	case "http":
		at, err := netip.ParseAddr(u.Hostname())
		if strings.EqualFold(u.Hostname(), "localhost") || err == nil && at.IsLoopback() {
			return ""
		}
	}
	return want
}
