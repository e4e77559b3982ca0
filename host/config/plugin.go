package config

import (
	"encoding/json"
	"fmt"
	"maps"
	"math/big"
	"slices"
	"strings"

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
		_, there := out[k.Name]
		// What is there, and wrong, is not missing.
		there = there || slices.Contains(t.mistaken, k.Name) || slices.ContainsFunc(t.keys, func(have key) bool { return have.name == k.Name })
		if k.Required && !there {
			p.complain(t.Range, k.Help, "transport %q needs the key %q", t.Name, k.Name)
		}
	}
	if len(p.errs) > 0 {
		return nil, p.errs.sorted()
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
			p.complain(t.place(k.named), didYouMean(k.name, slices.Compact(names)), "unsupported key %q in %s", k.name, where)
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
		if namesPath(k.name) {
			v = expandHome(v)
		}
		return v, true
	case list:
		all := make([]any, 0, len(v))
		for _, e := range v {
			all = append(all, e.value)
		}
		return all, true
	default:
		return v, true
	}
}
