package config

import (
	"fmt"
	"math/big"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"

	"github.com/transporthost/transporthost/shared/transport"
)

// A key is one attribute of a plugin's own, as plain Go values: string, bool,
// *big.Float, []any, object.
type key struct {
	name  string
	value any
	at    hcl.Range
}

// An object is a nested value with the places of its keys.
type object []key

// A parser collects what is wrong with a file.
type parser struct {
	errs Errors
}

func (p *parser) complain(at hcl.Range, detail, summary string, args ...any) {
	p.errs = append(p.errs, Error{
		Filename: at.Filename, Line: at.Start.Line, Column: at.Start.Column,
		Summary: fmt.Sprintf(summary, args...), Detail: detail,
	})
}

// Parse reads the text of a file called filename. The error is an [Errors].
func Parse(filename string, src []byte) (*Config, error) {
	p := &parser{}
	file, diags := hclsyntax.ParseConfig(src, filename, hcl.InitialPos)
	for _, d := range diags {
		at := hcl.Range{Filename: filename, Start: hcl.InitialPos}
		if d.Subject != nil {
			at = *d.Subject
		}
		p.complain(at, strings.TrimSuffix(d.Detail, "."), "%s", d.Summary)
	}
	if diags.HasErrors() {
		return nil, p.errs
	}
	c := &Config{}
	body, ok := file.Body.(*hclsyntax.Body)
	if !ok {
		p.complain(hcl.Range{Filename: filename, Start: hcl.InitialPos}, "", "not HCL syntax")
		return nil, p.errs
	}
	p.file(body, c)
	slices.SortStableFunc(p.errs, func(a, b Error) int {
		if a.Line != b.Line {
			return a.Line - b.Line
		}
		return a.Column - b.Column
	})
	if len(p.errs) > 0 {
		return nil, p.errs
	}
	return c, nil
}

// blockNames are the blocks of a file.
func blockNames() []string { return []string{"application", "transport", "admin", "limits"} }

func (p *parser) file(body *hclsyntax.Body, c *Config) {
	for _, a := range attributes(body) {
		p.complain(a.NameRange, "blocks are "+strings.Join(blockNames(), ", "), "unsupported key %q outside a block", a.Name)
	}
	seen := map[string]hcl.Range{}
	applications := 0
	for _, b := range body.Blocks {
		id := b.Type + " " + strings.Join(b.Labels, " ")
		if at, again := seen[id]; again {
			p.complain(b.DefRange(), fmt.Sprintf("the first is at line %d", at.Start.Line), "duplicate block %s", strings.TrimSpace(id))
			continue
		}
		seen[id] = b.DefRange()
		labels := 0
		if b.Type == "transport" {
			labels = 1
		}
		if len(b.Labels) != labels && slices.Contains(blockNames(), b.Type) {
			p.complain(b.DefRange(), `write transport "NAME" { … } and the other blocks without a name`, "block %s has %d names, want %d", b.Type, len(b.Labels), labels)
			continue
		}
		for _, inner := range b.Body.Blocks {
			p.complain(inner.DefRange(), fmt.Sprintf("write %s = { … }", inner.Type), "unsupported block %q inside %s", inner.Type, b.Type)
		}
		switch b.Type {
		case "application":
			applications++
			c.Application = p.application(b)
		case "admin":
			v := p.values(b, map[string]transport.ConfigType{"listen": transport.TypeString})
			c.Admin.Listen = v.str("listen")
		case "limits":
			c.Limits = p.limits(b)
		case "transport":
			c.Transports = append(c.Transports, p.transport(b))
		default:
			p.complain(b.TypeRange, didYouMean(b.Type, blockNames()), "unsupported block %q", b.Type)
		}
	}
	end := hcl.Range{Filename: body.SrcRange.Filename, Start: body.EndRange.Start}
	if applications == 0 {
		p.complain(end, `write application { command = ["PROGRAM"] }`, "no application block")
	}
	if len(c.Transports) == 0 {
		p.complain(end, `write transport "websocket" { listen = ["ws://127.0.0.1:4500"] }`, "no transport configured")
	}
}

func attributes(body *hclsyntax.Body) []*hclsyntax.Attribute {
	list := make([]*hclsyntax.Attribute, 0, len(body.Attributes))
	for _, a := range body.Attributes {
		list = append(list, a)
	}
	slices.SortFunc(list, func(a, b *hclsyntax.Attribute) int { return a.SrcRange.Start.Byte - b.SrcRange.Start.Byte })
	return list
}

// values are the keys of a block that passed their check.
type values map[string]key

func (v values) str(name string) string {
	s, _ := v[name].value.(string)
	return s
}

func (v values) list(name string) []string {
	items, _ := v[name].value.([]any)
	out := make([]string, 0, len(items))
	for _, i := range items {
		s, _ := i.(string)
		out = append(out, s)
	}
	return out
}

func (v values) table(name string) map[string]string {
	o, ok := v[name].value.(object)
	if !ok {
		return nil
	}
	out := make(map[string]string, len(o))
	for _, k := range o {
		s, _ := k.value.(string)
		out[k.name] = s
	}
	return out
}

func (v values) duration(name string) time.Duration {
	d, _ := time.ParseDuration(v.str(name)) // it passed its check
	return d
}

func (v values) number(name string) int {
	f, ok := v[name].value.(*big.Float)
	if !ok {
		return 0
	}
	n, _ := f.Int64()
	return int(n)
}

// typeTable is an object of strings: an environment.
const typeTable transport.ConfigType = "table of strings"

// values reads a block whose keys are all ours.
func (p *parser) values(b *hclsyntax.Block, known map[string]transport.ConfigType) values {
	v := values{}
	for _, a := range attributes(b.Body) {
		t, ok := known[a.Name]
		if !ok {
			names := make([]string, 0, len(known))
			for n := range known {
				names = append(names, n)
			}
			p.complain(a.NameRange, didYouMean(a.Name, names), "unsupported key %q in %s", a.Name, b.Type)
			continue
		}
		if k, ok := p.attribute(a); ok && p.check(k, t) {
			v[a.Name] = k
		}
	}
	return v
}

// attribute evaluates an attribute: constants only.
func (p *parser) attribute(a *hclsyntax.Attribute) (key, bool) {
	value, diags := a.Expr.Value(nil)
	if diags.HasErrors() {
		at := a.Expr.Range()
		if diags[0].Subject != nil {
			at = *diags[0].Subject
		}
		p.complain(at, "values are written out; there are no variables and functions", "%s: %s", a.Name, diags[0].Summary)
		return key{}, false
	}
	plain, ok := p.plain(a.Name, value, a.Expr)
	return key{name: a.Name, value: plain, at: a.Expr.Range()}, ok
}

// plain turns a cty value into Go values, with the places of nested keys.
func (p *parser) plain(name string, v cty.Value, expr hclsyntax.Expression) (any, bool) {
	if v.IsNull() || !v.IsWhollyKnown() {
		p.complain(expr.Range(), "leave the key out instead", "%s is null", name)
		return nil, false
	}
	t := v.Type()
	switch {
	case t == cty.String:
		return v.AsString(), true
	case t == cty.Bool:
		return v.True(), true
	case t == cty.Number:
		return v.AsBigFloat(), true
	case t.IsTupleType():
		list := make([]any, 0, v.LengthInt())
		for i, e := range v.AsValueSlice() {
			at := expr
			if tuple, ok := expr.(*hclsyntax.TupleConsExpr); ok && i < len(tuple.Exprs) {
				at = tuple.Exprs[i]
			}
			one, ok := p.plain(name, e, at)
			if !ok {
				return nil, false
			}
			list = append(list, one)
		}
		return list, true
	case t.IsObjectType():
		cons, ok := expr.(*hclsyntax.ObjectConsExpr)
		if !ok {
			break
		}
		var o object
		for _, item := range cons.Items {
			k, diags := item.KeyExpr.Value(nil)
			if diags.HasErrors() || k.IsNull() || k.Type() != cty.String {
				p.complain(item.KeyExpr.Range(), "", "%s: bad key", name)
				return nil, false
			}
			if slices.ContainsFunc(o, func(have key) bool { return have.name == k.AsString() }) {
				p.complain(item.KeyExpr.Range(), "", "duplicate key %q in %s", k.AsString(), name)
				return nil, false
			}
			value, diags := item.ValueExpr.Value(nil)
			if diags.HasErrors() {
				p.complain(item.ValueExpr.Range(), "", "%s: %s", k.AsString(), diags[0].Summary)
				return nil, false
			}
			inner, ok := p.plain(name+"."+k.AsString(), value, item.ValueExpr)
			if !ok {
				return nil, false
			}
			o = append(o, key{name: k.AsString(), value: inner, at: item.KeyExpr.Range()})
		}
		return o, true
	}
	p.complain(expr.Range(), "", "%s has a value of a kind that is not used here", name)
	return nil, false
}

// check compares a value with the type that its key wants.
func (p *parser) check(k key, want transport.ConfigType) bool {
	switch want {
	case transport.TypeString:
		if _, ok := k.value.(string); ok {
			return true
		}
	case transport.TypeBool:
		if _, ok := k.value.(bool); ok {
			return true
		}
	case transport.TypeNumber:
		if f, ok := k.value.(*big.Float); ok && f.IsInt() {
			if n, accuracy := f.Int64(); accuracy == big.Exact && n == int64(int(n)) {
				return true
			}
		}
	case transport.TypeDuration:
		if s, ok := k.value.(string); ok {
			if _, err := time.ParseDuration(s); err == nil {
				return true
			}
			p.complain(k.at, `write it as "30s", "5m" or "250ms"`, "%s is %q, want a duration", k.name, s)
			return false
		}
	case transport.TypeStrings:
		if list, ok := k.value.([]any); ok && !slices.ContainsFunc(list, func(v any) bool { _, s := v.(string); return !s }) {
			return true
		}
	case typeTable:
		if o, ok := k.value.(object); ok && !slices.ContainsFunc(o, func(v key) bool { _, s := v.value.(string); return !s }) {
			return true
		}
	case transport.TypeObject:
		if _, ok := k.value.(object); ok {
			return true
		}
	}
	wanted := "a " + string(want)
	switch want {
	case transport.TypeNumber:
		wanted = "a whole number"
	case transport.TypeObject:
		wanted = "an object"
	}
	p.complain(k.at, "", "%s is %s, want %s", k.name, kindOf(k.value), wanted)
	return false
}

func kindOf(v any) string {
	switch v := v.(type) {
	case string:
		return "a string"
	case bool:
		return "a bool"
	case *big.Float:
		return "the number " + v.Text('g', 20)
	case []any:
		return "a list"
	}
	return "an object"
}
