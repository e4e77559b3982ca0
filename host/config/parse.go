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

// A key is one attribute, or one element of a list or object, as plain Go
// values: string, bool, *big.Float, list, object.
type key struct {
	name  string
	value any
	at    hcl.Range // of the value
	named hcl.Range // of the name; that of the value in a list
}

// A list and an object are nested values with the places of what they hold.
type (
	list   []key
	object []key
)

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
// The Config beside an error holds what could be read, for checks that find
// more mistakes; it is nil if the text is not HCL.
func Parse(filename string, src []byte) (*Config, error) {
	p := &parser{}
	if len(src) > maxFileBytes {
		p.complain(hcl.Range{Filename: filename, Start: hcl.InitialPos}, "", "the file has more than %d bytes", maxFileBytes)
		return nil, p.errs
	}
	if at, deep := tooDeep(filename, src); deep {
		p.complain(at, "", "nested deeper than %d levels", maxNesting)
		return nil, p.errs
	}
	file, diags := hclsyntax.ParseConfig(src, filename, hcl.InitialPos)
	for _, d := range diags {
		at := hcl.Range{Filename: filename, Start: hcl.InitialPos}
		if d.Subject != nil {
			at = *d.Subject
		}
		p.complain(at, strings.TrimSuffix(d.Detail, "."), "%s", d.Summary)
	}
	// After any other mistake in the syntax the parser guesses, and complaints
	// about its guesses would mislead.
	guessed := slices.ContainsFunc(diags, func(d *hcl.Diagnostic) bool { return d.Summary != diagRedefined })
	if guessed {
		return nil, p.errs
	}
	c := &Config{}
	body, ok := file.Body.(*hclsyntax.Body)
	if !ok {
		p.complain(hcl.Range{Filename: filename, Start: hcl.InitialPos}, "", "not HCL syntax")
		return nil, p.errs
	}
	p.file(body, c)
	p.together(c)
	if len(p.errs) > 0 {
		return c, p.errs.sorted()
	}
	return c, nil
}

// diagRedefined is how the parser calls a key that is there twice. It keeps the
// first and reads on.
const diagRedefined = "Attribute redefined"

// blockNames are the blocks of a file.
func blockNames() []string {
	return []string{"application", "transport", "credentials", "state", "admin", "limits", "supervision"}
}

func (p *parser) file(body *hclsyntax.Body, c *Config) {
	for _, a := range attributes(body) {
		p.complain(a.NameRange, "blocks are "+strings.Join(blockNames(), ", "), "unsupported key %q outside a block", a.Name)
	}
	seen := map[string]hcl.Range{}
	applications, declared := 0, 0
	for _, b := range body.Blocks {
		id := b.Type + " " + strings.Join(b.Labels, " ")
		if at, again := seen[id]; again {
			p.complain(b.DefRange(), fmt.Sprintf("the first is at line %d", at.Start.Line), "duplicate block %s", strings.TrimSpace(id))
			continue
		}
		seen[id] = b.DefRange()
		if b.Type == "transport" && len(b.Labels) != 1 {
			declared++
			p.complain(b.DefRange(), `write transport "NAME" { … }`, "a transport has one name, this one has %d", len(b.Labels))
			continue
		}
		if b.Type != "transport" && len(b.Labels) > 0 && slices.Contains(blockNames(), b.Type) {
			p.complain(b.LabelRanges[0], fmt.Sprintf("write %s { … }", b.Type), "the block %s has no name", b.Type)
			b.Labels = nil
		}
		for _, inner := range b.Body.Blocks {
			p.complain(inner.DefRange(), fmt.Sprintf("write %s = { … }", inner.Type), "unsupported block %q inside %s", inner.Type, b.Type)
		}
		switch b.Type {
		case "application":
			applications++
			c.Application = p.application(b)
		case "admin":
			c.Admin = p.admin(b)
		case "credentials":
			c.Credentials = p.credentials(b)
		case "state":
			c.State = p.state(b)
		case "limits":
			c.Limits = p.limits(b)
		case "supervision":
			c.Supervision = p.supervision(b)
		case "transport":
			declared++
			c.Transports = append(c.Transports, p.transport(b))
		default:
			p.complain(b.TypeRange, didYouMean(b.Type, blockNames()), "unsupported block %q", b.Type)
		}
	}
	end := hcl.Range{Filename: body.SrcRange.Filename, Start: body.EndRange.Start}
	if applications == 0 {
		p.complain(end, `write application { command = ["PROGRAM"] }`, "no application block")
	}
	if declared == 0 {
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
	items, _ := v[name].value.(list)
	out := make([]string, 0, len(items))
	for _, i := range items {
		s, _ := i.value.(string)
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

// unknown reports whether b has a key that is not known: a complaint about a
// missing one would only repeat that.
func unknown(b *hclsyntax.Block, known map[string]transport.ConfigType) bool {
	for name := range b.Body.Attributes {
		if _, ok := known[name]; !ok {
			return true
		}
	}
	return false
}

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
	return key{name: a.Name, value: plain, at: a.Expr.Range(), named: a.NameRange}, ok
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
		all := make(list, 0, v.LengthInt())
		for i, e := range v.AsValueSlice() {
			at := expr
			if tuple, ok := expr.(*hclsyntax.TupleConsExpr); ok && i < len(tuple.Exprs) {
				at = tuple.Exprs[i]
			}
			one, ok := p.plain(name, e, at)
			if !ok {
				return nil, false
			}
			all = append(all, key{name: name, value: one, at: at.Range(), named: at.Range()})
		}
		return all, true
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
			o = append(o, key{name: k.AsString(), value: inner, at: item.ValueExpr.Range(), named: item.KeyExpr.Range()})
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
		if f, ok := k.value.(*big.Float); ok {
			n, accuracy := f.Int64()
			if accuracy == big.Exact && n == int64(int(n)) {
				return true
			}
			p.complain(k.at, "", "%s is %s, want a whole number that is not huge", k.name, f.Text('g', 10))
			return false
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
		if l, ok := k.value.(list); ok {
			return p.strings(k.name, l)
		}
	case typeTable:
		if o, ok := k.value.(object); ok {
			fine := true
			for _, v := range o {
				if _, ok := v.value.(string); !ok {
					p.complain(v.at, "", "%s.%s is %s, want a string", k.name, v.name, kindOf(v.value))
					fine = false
				}
			}
			return fine
		}
	case transport.TypeObject:
		if _, ok := k.value.(object); ok {
			return true
		}
	}
	p.complain(k.at, "", "%s is %s, want %s", k.name, kindOf(k.value), wanted(want))
	return false
}

// strings reports whether the list called name has only strings.
func (p *parser) strings(name string, elements list) bool {
	fine := true
	for _, e := range elements {
		if _, ok := e.value.(string); !ok {
			p.complain(e.at, "", "%s holds %s, want only strings", name, kindOf(e.value))
			fine = false
		}
	}
	return fine
}

// wanted names a type as a person would.
func wanted(t transport.ConfigType) string {
	switch t {
	case transport.TypeNumber:
		return "a whole number"
	case transport.TypeObject:
		return "an object"
	}
	return "a " + string(t)
}

func kindOf(v any) string {
	switch v := v.(type) {
	case string:
		return "a string"
	case bool:
		return "a bool"
	case *big.Float:
		return "the number " + v.Text('g', 20)
	case list:
		return "a list"
	}
	return "an object"
}
