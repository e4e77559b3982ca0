package config

import (
	"cmp"
	"net"
	"net/netip"
	"net/url"
	"regexp"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"

	"github.com/transporthost/transporthost/shared/transport"
)

func (p *parser) application(b *hclsyntax.Block) Application {
	v := p.values(b, map[string]transport.ConfigType{
		"command": transport.TypeStrings, "builtin": transport.TypeString, "mode": transport.TypeString,
		"framing": transport.TypeString, "env": typeTable, "dir": transport.TypeString, "stop_grace": transport.TypeDuration,
	})
	a := Application{
		Command: v.list("command"), Builtin: v.str("builtin"), Mode: cmp.Or(v.str("mode"), ModePerConnection),
		Framing: transport.NDJSON, Env: v.table("env"), Dir: expandHome(v.str("dir")), StopGrace: v.duration("stop_grace"),
	}
	_, command := b.Body.Attributes["command"]
	_, builtin := b.Body.Attributes["builtin"]
	switch {
	case command && builtin:
		p.complain(v["builtin"].at, "one of them is enough", "command and builtin are both set")
	case !command && !builtin:
		p.complain(b.DefRange(), `write command = ["PROGRAM", "ARGUMENT"]`, "the application has no command")
	}
	if k, ok := v["command"]; ok && (len(a.Command) == 0 || a.Command[0] == "") {
		p.complain(k.at, `write command = ["PROGRAM", "ARGUMENT"]`, "command is empty")
	}
	if k, ok := v["builtin"]; ok && a.Builtin != BuiltinEcho {
		p.complain(k.at, `allowed is "echo"`, "builtin is %q", a.Builtin)
	}
	if k, ok := v["mode"]; ok && a.Mode != ModePerConnection && a.Mode != ModeShared {
		p.complain(k.at, `allowed are "per-connection" and "shared"`, "mode is %q", a.Mode)
	}
	if k, ok := v["framing"]; ok {
		f, err := transport.ParseFraming(v.str("framing"))
		if err != nil {
			p.complain(k.at, `allowed are "ndjson" and "content-length"`, "framing is %q", v.str("framing"))
		}
		a.Framing = f
	}
	if k, ok := v["stop_grace"]; ok && a.StopGrace <= 0 {
		p.complain(k.at, "", "stop_grace is %v, want more than 0", a.StopGrace)
	}
	return a
}

func (p *parser) limits(b *hclsyntax.Block) Limits {
	v := p.values(b, map[string]transport.ConfigType{
		"max_message_bytes": transport.TypeNumber, "slow_after": transport.TypeDuration, "drain_timeout": transport.TypeDuration,
	})
	l := Limits{MaxMessageBytes: v.number("max_message_bytes"), SlowAfter: v.duration("slow_after"), DrainTimeout: v.duration("drain_timeout")}
	if k, ok := v["max_message_bytes"]; ok && l.MaxMessageBytes < 1 {
		p.complain(k.at, "", "max_message_bytes is %d, want 1 or more", l.MaxMessageBytes)
	}
	for _, name := range []string{"slow_after", "drain_timeout"} {
		if k, ok := v[name]; ok && v.duration(name) <= 0 {
			p.complain(k.at, "", "%s is %v, want more than 0", name, v.duration(name))
		}
	}
	return l
}

// hostKeys are the keys of a transport block that are the host's.
func hostKeys() map[string]transport.ConfigType {
	return map[string]transport.ConfigType{
		"plugin": transport.TypeString, "listen": transport.TypeStrings, "sha256": transport.TypeString,
		"env": typeTable, "enabled": transport.TypeBool,
	}
}

func isSHA256(s string) bool { return regexp.MustCompile(`^[0-9a-fA-F]{64}$`).MatchString(s) }

func (p *parser) transport(b *hclsyntax.Block) Transport {
	t := Transport{Name: b.Labels[0], Enabled: true, Range: b.DefRange()}
	if !regexp.MustCompile(`^[a-z0-9][a-z0-9_-]{0,62}$`).MatchString(t.Name) {
		p.complain(b.LabelRanges[0], "use lower-case letters, digits, - and _", "transport name %q", t.Name)
	}
	v := values{}
	for _, a := range attributes(b.Body) {
		k, ok := p.attribute(a)
		if !ok {
			continue
		}
		want, ours := hostKeys()[a.Name]
		if !ours {
			k.at = a.NameRange
			t.keys = append(t.keys, k)
			continue
		}
		if p.check(k, want) {
			v[a.Name] = k
		}
	}
	t.Plugin = cmp.Or(v.str("plugin"), t.Name)
	t.SHA256, t.Env, t.Listen = v.str("sha256"), v.table("env"), v.list("listen")
	if enabled, ok := v["enabled"].value.(bool); ok {
		t.Enabled = enabled
	}
	if k, ok := v["sha256"]; ok && !isSHA256(t.SHA256) {
		p.complain(k.at, "want the 64 hexadecimal digits that sha256sum prints", "sha256 is %q", t.SHA256)
	}
	for _, address := range t.Listen {
		if text := badListen(address); text != "" {
			p.complain(v["listen"].at, "", "%s", text)
		}
	}
	return t
}

// badListen says what is wrong with an address to listen on (spec 8.1), or "".
func badListen(address string) string {
	u, err := url.Parse(address)
	if err != nil {
		return "unsupported listen URL `" + address + "`; expected `ws://IP:PORT`, `wss://IP:PORT` or `unix:///PATH`"
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
		return ""
	case "unix":
		if u.Path == "" || u.Host != "" {
			return "invalid listen URL `" + address + "`; expected `unix:///PATH`, with an absolute path"
		}
		return ""
	}
	return "unsupported listen URL `" + address + "`; expected `ws://IP:PORT`, `wss://IP:PORT` or `unix:///PATH`"
}

// place is where a key of t stands, or t itself.
func (t Transport) place(at hcl.Range) hcl.Range {
	if at.Filename == "" {
		return t.Range
	}
	return at
}
