package remotecontrol

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strings"
)

// A target is where the backend is reached: the places below the configured
// URL, in the form in which they are requested, stored and reported.
type target struct {
	enroll    string
	refresh   string
	websocket string // also a part of the key of a stored enrollment
}

// parseTarget applies the rules of spec 1 to the configured URL. allowedHosts
// are names that https may reach beside those of ChatGPT and this machine. The
// error's text is the spec's; it shows input as it was configured, without a
// password.
func parseTarget(input string, allowedHosts []string) (target, error) {
	u, err := url.Parse(strings.TrimSpace(input))
	if err != nil {
		// net/url quotes its whole input, which may hold a password
		cause := err
		if ue, ok := errors.AsType[*url.Error](err); ok {
			cause = ue.Err
		}
		shown := withoutUserinfo(input)
		if shown != input {
			cause = errors.New("it does not parse") // the parser's words quote parts of it
		}
		return target{}, fmt.Errorf("invalid remote control URL `%s`: %w", shown, cause)
	}
	host := strings.ToLower(u.Hostname())
	var scheme string // of the websocket
	switch {
	case u.Opaque != "" || u.User != nil || !validPort(u):
	case u.Scheme == "https" && (isThisMachine(host) || isChatGPT(host) || isAllowed(host, allowedHosts)):
		scheme = "wss"
	case u.Scheme == "http" && isThisMachine(host):
		scheme = "ws"
	}
	if scheme == "" {
		return target{}, fmt.Errorf("invalid remote control URL `%s`; expected HTTPS URL for chatgpt.com or chatgpt-staging.com, or HTTP/HTTPS URL for localhost", withoutUserinfo(input))
	}
	// A default port would make two keys of one backend.
	u.Host = hostPort(host, u.Port(), u.Scheme)
	if escaped := u.EscapedPath(); !strings.HasSuffix(escaped, "/") {
		u.Path += "/"
		u.RawPath = escaped + "/"
	}
	below := func(scheme, path string) string {
		r := u.ResolveReference(&url.URL{Path: path}) // drops query and fragment
		r.Scheme = scheme
		return r.String()
	}
	const server = "wham/remote/control/server"
	return target{
		enroll:    below(u.Scheme, server+"/enroll"),
		refresh:   below(u.Scheme, server+"/refresh"),
		websocket: below(scheme, server),
	}, nil
}

// withoutUserinfo is input without what stands before an @ in its authority.
// It works on text that is no URL, too.
func withoutUserinfo(input string) string {
	before, rest, ok := strings.Cut(input, "//")
	if !ok {
		before, rest = "", input
	} else {
		before += "//"
	}
	authority, tail := rest, ""
	if i := strings.IndexAny(rest, `/\?#`); i >= 0 {
		authority, tail = rest[:i], rest[i:]
	}
	if i := strings.LastIndexByte(authority, '@'); i >= 0 {
		authority = "xxxxx" + authority[i:]
	} else if strings.Contains(tail, "@") && strings.Contains(authority, ":") {
		// a password with a slash in it: the end of the authority is a guess
		return before + "xxxxx" + tail[strings.LastIndexByte(tail, '@'):]
	}
	return before + authority + tail
}

func validPort(u *url.URL) bool {
	p := u.Port()
	if p == "" {
		return true
	}
	_, err := netip.ParseAddrPort("127.0.0.1:" + p)
	return err == nil
}

func hostPort(host, port, scheme string) string {
	if port == "" || scheme == "https" && port == "443" || scheme == "http" && port == "80" {
		if strings.Contains(host, ":") {
			return "[" + host + "]"
		}
		return host
	}
	return net.JoinHostPort(host, port)
}

// isThisMachine accepts localhost and loopback addresses. A name below
// localhost is somebody's resolver's to decide about, and not accepted.
func isThisMachine(host string) bool {
	if host == "localhost" {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.Zone() == "" && (ip.Is4() && ip.IsLoopback() || ip == netip.IPv6Loopback())
}

func isChatGPT(host string) bool {
	for _, domain := range [...]string{"chatgpt.com", "chatgpt-staging.com"} {
		if host == domain || strings.HasSuffix(host, "."+domain) {
			return true
		}
	}
	return false
}

func isAllowed(host string, allowed []string) bool {
	return host != "" && slices.ContainsFunc(allowed, func(a string) bool { return strings.EqualFold(a, host) })
}
