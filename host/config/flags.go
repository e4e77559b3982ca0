package config

import (
	"fmt"
	"slices"
	"strings"

	"github.com/transporthost/transporthost/shared/transport"
)

// Flags are what a command line says instead of a file.
type Flags struct {
	Listen  []string // stdio://, ws://IP:PORT, wss://…, unix:///PATH, off; empty: stdio://
	Command []string
	Builtin string
	Mode    string
	Framing string

	Remote    bool   // adds the transport remotecontrol
	RemoteURL string // of its backend
	AuthFile  string // auth.json
	StateDir  string
}

// listenOff is the address of a host that has remote control only.
const listenOff = "off"

// FromFlags makes the configuration of a command line. Errors name the flag.
func FromFlags(f Flags) (*Config, error) {
	c := &Config{Application: Application{
		Command: f.Command, Builtin: f.Builtin, Mode: ModePerConnection, Framing: transport.NDJSON,
	}}
	var errs Errors
	complain := func(format string, args ...any) { errs = append(errs, Error{Summary: fmt.Sprintf(format, args...)}) }
	switch {
	case len(f.Command) > 0 && f.Builtin != "":
		complain("--builtin and a program behind -- exclude each other")
	case len(f.Command) == 0 && f.Builtin == "":
		complain("no application; give a program behind --, or --builtin echo, or --config FILE")
	}
	if f.Builtin != "" && f.Builtin != BuiltinEcho {
		complain("--builtin is %q, want echo", f.Builtin)
	}
	switch f.Mode {
	case "":
	case ModePerConnection, ModeShared:
		c.Application.Mode = f.Mode
		if f.Builtin != "" {
			complain("--mode is of a program; a built-in application has none")
		}
	default:
		complain("--mode is %q, want %s or %s", f.Mode, ModePerConnection, ModeShared)
	}
	if f.Framing != "" {
		framing, err := transport.ParseFraming(f.Framing)
		if err != nil {
			complain("--framing is %q, want %s or %s", f.Framing, transport.NDJSON, transport.ContentLength)
		}
		c.Application.Framing = framing
	}
	if len(f.Listen) == 0 {
		f.Listen = []string{"stdio://"}
	}
	if off := slices.Contains(f.Listen, listenOff); off && len(f.Listen) > 1 {
		complain("--listen off and other addresses exclude each other")
	} else if off {
		f.Listen = nil
		if !f.Remote {
			complain("no transport configured; use --listen or enable remote control") // the reference's words, spec 3.5
		}
	}
	var stdio bool
	var addresses []string
	for _, address := range f.Listen {
		switch address {
		case "stdio://", "stdio":
			stdio = true
			continue
		case listenOff:
			continue // complained about above
		}
		if text := badListen(address); text != "" {
			text = strings.Replace(text, "listen URL", "--listen URL", 1)
			if strings.HasPrefix(text, "unsupported") {
				text = strings.Replace(text, "expected `ws", "expected `stdio://`, `off`, `ws", 1)
			}
			complain("%s", text)
			continue
		}
		if socket := socketOf(address); socket != "" && slices.ContainsFunc(addresses, func(a string) bool { return socketOf(a) == socket }) {
			complain("--listen %s is there twice", address)
		}
		addresses = append(addresses, address)
	}
	if stdio {
		t := Transport{Name: "stdio", Plugin: "stdio", Enabled: true}
		if c.Application.Framing == transport.ContentLength {
			// A language server's client at the terminal speaks as the server does.
			t.keys = []key{{name: "framing", value: string(transport.ContentLength)}}
		}
		c.Transports = append(c.Transports, t)
	}
	if len(addresses) > 0 {
		c.Transports = append(c.Transports, Transport{Name: "websocket", Plugin: "websocket", Enabled: true, Listen: addresses})
	}
	if f.Remote {
		t := Transport{Name: RemotePlugin, Plugin: RemotePlugin, Enabled: true}
		if f.RemoteURL != "" {
			t.keys = []key{{name: "url", value: f.RemoteURL}} // the plugin checks it
		}
		c.Transports = append(c.Transports, t)
		c.Credentials.File, c.State.Dir = expandHome(f.AuthFile), expandHome(f.StateDir)
	} else {
		for _, flag := range []struct{ name, value string }{
			{"--remote-url", f.RemoteURL}, {"--auth-file", f.AuthFile}, {"--state-dir", f.StateDir},
		} {
			if flag.value != "" {
				complain("%s is of remote control; add --remote", flag.name)
			}
		}
	}
	if len(errs) > 0 {
		return nil, errs
	}
	return c, nil
}
