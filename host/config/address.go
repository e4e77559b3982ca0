package config

import (
	"net"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
)

// badListen says what is wrong with an address to listen on (spec 8.1), or "".
func badListen(address string) string {
	u, err := url.Parse(address)
	if err != nil {
		return unsupportedListen(address)
	}
	switch u.Scheme {
	case "ws", "wss":
		if _, err := netip.ParseAddrPort(u.Host); err != nil {
			hint := ""
			if h, port, err := net.SplitHostPort(u.Host); err == nil && strings.EqualFold(h, "localhost") {
				hint = "; write " + u.Scheme + "://127.0.0.1:" + port
			}
			return "invalid websocket listen URL `" + address + "`; expected `" + u.Scheme + "://IP:PORT`" + hint
		}
		if bare := u.Scheme + "://" + u.Host; address != bare && address != bare+"/" {
			// Peers choose their path; the listener takes all of them.
			return "invalid websocket listen URL `" + address + "`; expected `" + u.Scheme + "://IP:PORT` and nothing else; write " + bare
		}
		return ""
	case "unix":
		if u.Path == "" || u.Host != "" || address != "unix://"+u.Path {
			return "invalid listen URL `" + address + "`; expected `unix:///PATH`, with an absolute path"
		}
		return ""
	}
	return unsupportedListen(address)
}

func unsupportedListen(address string) string {
	return "unsupported listen URL `" + address + "`; expected `ws://IP:PORT`, `wss://IP:PORT` or `unix:///PATH`"
}

// socketOf names what an address binds, so that two of the same can be told;
// "" if the system chooses.
func socketOf(address string) string {
	u, err := url.Parse(address)
	if err != nil {
		return ""
	}
	if u.Scheme == "unix" {
		return u.Path
	}
	at, err := netip.ParseAddrPort(u.Host)
	if err != nil || at.Port() == 0 {
		return ""
	}
	return at.String()
}

// badHostPort says what is wrong with a HOST:PORT to listen on, or "".
func badHostPort(address string) string {
	_, port, err := net.SplitHostPort(address)
	if err == nil {
		_, err = strconv.ParseUint(port, 10, 16)
	}
	if err != nil {
		return "want HOST:PORT, such as 127.0.0.1:9464"
	}
	return ""
}
