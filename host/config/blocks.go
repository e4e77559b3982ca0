package config

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"

	"github.com/transporthost/transporthost/host/application"
	"github.com/transporthost/transporthost/shared/transport"
)

func (p *parser) application(b *hclsyntax.Block) Application {
	known := map[string]transport.ConfigType{
		"command": transport.TypeStrings, "builtin": transport.TypeString, "dial": transport.TypeString, "mode": transport.TypeString,
		"framing": transport.TypeString, "env": typeTable, "dir": transport.TypeString, "stop_grace": transport.TypeDuration,
	}
	v := p.values(b, known)
	a := Application{
		Command: v.list("command"), Builtin: v.str("builtin"), Dial: v.str("dial"), Mode: cmp.Or(v.str("mode"), ModePerConnection),
		Framing: transport.NDJSON, Env: v.table("env"), Dir: expandHome(v.str("dir")), StopGrace: v.duration("stop_grace"),
	}
	p.oneApplication(b, v, known)
	if k, ok := v["command"]; ok && (len(a.Command) == 0 || a.Command[0] == "") {
		p.complain(k.at, `write command = ["PROGRAM", "ARGUMENT"]`, "command is empty")
	}
	if k, ok := v["builtin"]; ok && a.Builtin != BuiltinEcho {
		p.complain(k.at, `allowed is "echo"`, "builtin is %q", a.Builtin)
	}
	if k, ok := v["dial"]; ok {
		if err := (application.Endpoint{URL: a.Dial}).Check(); err != nil {
			p.complain(k.at, "", "%v", err)
		}
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

// oneApplication complains unless there is one application, with the keys that
// go with it.
func (p *parser) oneApplication(b *hclsyntax.Block, v values, known map[string]transport.ConfigType) {
	var kinds []string
	for _, a := range attributes(b.Body) {
		if slices.Contains([]string{"command", "builtin", "dial"}, a.Name) {
			kinds = append(kinds, a.Name)
		}
	}
	if len(kinds) == 0 {
		if !unknown(b, known) {
			p.complain(b.DefRange(), `write command = ["PROGRAM", "ARGUMENT"]`, "the application has no command")
		}
		return
	}
	if len(kinds) > 1 {
		p.complain(b.Body.Attributes[kinds[1]].NameRange, "one of them is enough", "%s and %s are both set", kinds[0], kinds[1])
		return
	}
	fitting, what := []string{"builtin"}, "a built-in application"
	switch kinds[0] {
	case "command":
		return
	case "dial":
		fitting, what = []string{"dial", "framing", "stop_grace"}, "an application that is dialled"
	}
	for _, a := range attributes(b.Body) {
		if _, known := v[a.Name]; known && !slices.Contains(fitting, a.Name) {
			p.complain(a.NameRange, "leave it out", "%s is of a command; %s has none", a.Name, what)
		}
	}
}

func (p *parser) admin(b *hclsyntax.Block) Admin {
	v := p.values(b, map[string]transport.ConfigType{"listen": transport.TypeString})
	a := Admin{Listen: v.str("listen")}
	if k, ok := v["listen"]; ok {
		if text := badHostPort(a.Listen); text != "" {
			p.complain(k.at, text, "listen is %q", a.Listen)
		}
	}
	return a
}

func (p *parser) credentials(b *hclsyntax.Block) Credentials {
	v := p.values(b, map[string]transport.ConfigType{
		"file": transport.TypeString, "token_url": transport.TypeString, "client_id": transport.TypeString,
		"proxy": transport.TypeString, "ca_file": transport.TypeString,
	})
	c := Credentials{
		File: expandHome(v.str("file")), TokenURL: v.str("token_url"), ClientID: v.str("client_id"),
		Proxy: transport.Secret(v.str("proxy")), CAFile: expandHome(v.str("ca_file")), caFile: v["ca_file"].at,
	}
	for _, name := range []string{"file", "client_id", "proxy", "ca_file"} {
		p.notEmpty(v, name)
	}
	if k, ok := v["proxy"]; ok && c.Proxy != "" {
		if text := BadProxy(string(c.Proxy)); text != "" {
			p.complain(k.at, text, "proxy is not the address of a proxy")
		}
	}
	if k, ok := v["token_url"]; ok {
		if text := BadTokenURL(c.TokenURL); text != "" {
			p.complain(k.at, text, "token_url is %q", WithoutPassword(c.TokenURL))
		}
	}
	return c
}

func (p *parser) state(b *hclsyntax.Block) State {
	v := p.values(b, map[string]transport.ConfigType{"dir": transport.TypeString})
	p.notEmpty(v, "dir")
	return State{Dir: expandHome(v.str("dir"))}
}

// notEmpty complains about a key that is there, and says nothing.
func (p *parser) notEmpty(v values, name string) {
	if k, ok := v[name]; ok && v.str(name) == "" {
		p.complain(k.at, "leave it out for the default", "%s is empty", name)
	}
}

func (p *parser) limits(b *hclsyntax.Block) Limits {
	v := p.values(b, map[string]transport.ConfigType{
		"max_message_bytes": transport.TypeNumber, "max_connections": transport.TypeNumber, "slow_after": transport.TypeDuration, "drain_timeout": transport.TypeDuration, "retire_timeout": transport.TypeDuration,
	})
	l := Limits{
		MaxMessageBytes: v.number("max_message_bytes"), MaxConnections: v.number("max_connections"),
		SlowAfter: v.duration("slow_after"), DrainTimeout: v.duration("drain_timeout"),
		RetireTimeout: v.duration("retire_timeout"),
	}
	for _, name := range []string{"max_message_bytes", "max_connections"} {
		if k, ok := v[name]; ok && v.number(name) < 1 {
			p.complain(k.at, "", "%s is %d, want 1 or more", name, v.number(name))
		}
	}
	for _, name := range []string{"slow_after", "drain_timeout", "retire_timeout"} {
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
		"env": typeTable, "enabled": transport.TypeBool, "grant": transport.TypeStrings, "sandbox": typeSandbox,
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
		want, ours := hostKeys()[a.Name]
		switch {
		case want == typeSandbox:
			fine := ok
			if ok {
				t.Sandbox, fine = p.sandbox(k)
			}
			if !fine {
				t.mistaken, t.doubtful = append(t.mistaken, a.Name), true
			}
		case !ok || ours && !p.check(k, want):
			t.mistaken = append(t.mistaken, a.Name)
		case ours:
			v[a.Name] = k
		default:
			t.keys = append(t.keys, k)
		}
	}
	for _, name := range []string{"plugin", "sha256", "env"} {
		t.doubtful = t.doubtful || slices.Contains(t.mistaken, name)
	}
	t.Plugin = cmp.Or(v.str("plugin"), t.Name)
	t.SHA256, t.Env, t.Listen = v.str("sha256"), v.table("env"), v.list("listen")
	if enabled, ok := v["enabled"].value.(bool); ok {
		t.Enabled = enabled
	}
	if k, ok := v["sha256"]; ok && !isSHA256(t.SHA256) {
		t.doubtful = true
		p.complain(k.at, "want the 64 hexadecimal digits that sha256sum prints", "sha256 is %q", t.SHA256)
	}
	if k, ok := v["grant"]; ok {
		t.Grant = p.grants(k)
	}
	t.addresses, _ = v["listen"].value.(list)
	for i, address := range t.Listen {
		if text := badListen(address); text != "" {
			p.complain(t.addresses[i].at, "", "%s", text)
		}
	}
	return t
}

// terminalPlugin is the plugin that serves the user's stdin and stdout.
const terminalPlugin = "stdio"

// together checks what only all transports together can have wrong.
func (p *parser) together(c *Config) {
	taken := map[string]key{}
	terminal, disabled := "", 0
	for _, t := range c.Transports {
		if !t.Enabled {
			disabled++
			continue
		}
		if t.Plugin == terminalPlugin && !slices.Contains(t.mistaken, "plugin") {
			if terminal != "" {
				p.complain(t.Range, fmt.Sprintf("transport %q has it", terminal), "a second transport with the plugin stdio; there is one stdin")
			}
			terminal = t.Name
		}
		for _, a := range t.addresses {
			address, _ := a.value.(string)
			socket := socketOf(address)
			if socket == "" || badListen(address) != "" {
				continue
			}
			if first, again := taken[socket]; again {
				p.complain(a.at, fmt.Sprintf("the first is at line %d", first.at.Start.Line), "%s is listened on twice", address)
			}
			taken[socket] = a
		}
	}
	if disabled > 0 && disabled == len(c.Transports) {
		p.complain(c.Transports[0].Range, "remove enabled = false from one of them", "every transport is disabled")
	}
}

// place is where a key of t stands, or t itself.
func (t Transport) place(at hcl.Range) hcl.Range {
	if at.Filename == "" {
		return t.Range
	}
	return at
}
