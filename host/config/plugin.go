package config

import (
	"encoding/json"
	"fmt"
	"maps"
	"math/big"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"

	"github.com/transporthost/transporthost/shared/transport"
)

// PluginConfig checks the plugin's own keys against what the plugin says of
// them, and returns its configuration as JSON. The addresses of Listen are part
// of it if the plugin knows the key. The error is an [Errors].
func (t Transport) PluginConfig(d transport.Description) (json.RawMessage, error) {
	p := &parser{}
	out := p.object(t, t.keys, d.Config, fmt.Sprintf("transport %q", t.Name))
	takesListen := slices.ContainsFunc(d.Config, func(k transport.ConfigKey) bool { return k.Name == "listen" })
	switch {
	case len(t.Listen) > 0 && !takesListen:
		p.complain(t.Range, "leave it out", "the plugin %q does not listen", t.Plugin)
	case len(t.Listen) > 0:
		out["listen"] = t.Listen
	}
	for _, k := range d.Config {
		if _, there := out[k.Name]; k.Required && !there && !slices.ContainsFunc(t.keys, func(have key) bool { return have.name == k.Name }) {
			p.complain(t.Range, k.Help, "transport %q needs the key %q", t.Name, k.Name)
		}
	}
	if len(p.errs) > 0 {
		return nil, p.errs
	}
	return json.Marshal(out)
}

// object checks keys against a schema and returns them as JSON values.
func (p *parser) object(t Transport, keys []key, schema []transport.ConfigKey, where string) map[string]any {
	out := map[string]any{}
	for _, k := range keys {
		i := slices.IndexFunc(schema, func(s transport.ConfigKey) bool { return s.Name == k.name })
		if i < 0 {
			names := slices.Collect(maps.Keys(hostKeys()))
			if strings.Contains(where, ".") {
				names = nil
			}
			for _, s := range schema {
				names = append(names, s.Name)
			}
			slices.Sort(names)
			p.complain(t.place(k.at), didYouMean(k.name, slices.Compact(names)), "unsupported key %q in %s", k.name, where)
			continue
		}
		if v, ok := p.value(t, k, schema[i], where); ok {
			out[k.name] = v
		}
	}
	return out
}

func (p *parser) value(t Transport, k key, s transport.ConfigKey, where string) (any, bool) {
	placed := k
	placed.at = t.place(k.at)
	if !p.check(placed, s.Type) {
		return nil, false
	}
	switch v := k.value.(type) {
	case object:
		inner := where + "." + k.name
		out := p.object(t, v, s.Keys, inner)
		for _, need := range s.Keys {
			if need.Required && !slices.ContainsFunc(v, func(have key) bool { return have.name == need.Name }) {
				p.complain(placed.at, need.Help, "%s needs the key %q", inner, need.Name)
			}
		}
		return out, true
	case *big.Float:
		n, _ := v.Int64()
		return n, true
	case string:
		if len(s.Allowed) > 0 && !slices.Contains(s.Allowed, v) {
			p.complain(placed.at, "allowed are "+strings.Join(s.Allowed, ", "), "%s is %q", k.name, v)
			return nil, false
		}
		if strings.HasSuffix(k.name, "_file") || strings.HasSuffix(k.name, "_dir") {
			v = expandHome(v)
		}
		return v, true
	default:
		return v, true
	}
}

// Flags are what a command line says instead of a file.
type Flags struct {
	Listen  []string // stdio://, ws://IP:PORT, wss://…, unix:///PATH; empty: stdio://
	Command []string
	Builtin string
	Mode    string
	Framing string
	Remote  bool
}

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
	var stdio bool
	var addresses []string
	for _, address := range f.Listen {
		if address == "stdio://" || address == "stdio" {
			stdio = true
			continue
		}
		if text := badListen(address); text != "" {
			text = strings.Replace(text, "listen URL", "--listen URL", 1)
			complain("%s", strings.Replace(text, "expected `ws", "expected `stdio://`, `ws", 1))
			continue
		}
		addresses = append(addresses, address)
	}
	if stdio {
		t := Transport{Name: "stdio", Plugin: "stdio", Enabled: true}
		if c.Application.Framing == transport.ContentLength {
			// A language server's client at the terminal speaks as the server does.
			t.keys = []key{{name: "framing", value: string(transport.ContentLength), at: hcl.Range{}}}
		}
		c.Transports = append(c.Transports, t)
	}
	if len(addresses) > 0 {
		c.Transports = append(c.Transports, Transport{Name: "websocket", Plugin: "websocket", Enabled: true, Listen: addresses})
	}
	if f.Remote {
		c.Transports = append(c.Transports, Transport{Name: "remotecontrol", Plugin: "remotecontrol", Enabled: true})
	}
	if len(errs) > 0 {
		return nil, errs
	}
	return c, nil
}
