package config

import (
	"math"
	"math/big"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/transporthost/transporthost/host/internal/sandbox"
	"github.com/transporthost/transporthost/shared/transport"
)

// A Sandbox says what a transport's processes may do beyond the default.
type Sandbox = sandbox.Exceptions

// typeSandbox is "off", or an object with sandboxKeys.
const typeSandbox transport.ConfigType = "sandbox"

// sandboxOff is what a person writes who wants none.
const sandboxOff = "off"

func sandboxKeys() map[string]transport.ConfigType {
	return map[string]transport.ConfigType{
		"read": transport.TypeStrings, "write": transport.TypeStrings, "network": transport.TypeBool, "processes": transport.TypeBool,
		"memory": transport.TypeString, "files": transport.TypeNumber,
	}
}

// sandbox reads the value of the key sandbox. It complains about everything in
// it that is wrong, and reports whether nothing is.
func (p *parser) sandbox(k key) (s Sandbox, fine bool) {
	before := len(p.errs)
	switch v := k.value.(type) {
	case string:
		if v != sandboxOff {
			p.complain(k.at, `write "off" for none, or { … } for exceptions; leave it out for the default`, "sandbox is %q", v)
		}
		s.Off = true
	case object:
		p.sandboxExceptions(v, &s)
	default:
		p.complain(k.at, `write "off" for none, or { … } for exceptions; leave it out for the default`, "sandbox is %s", kindOf(k.value))
	}
	return s, len(p.errs) == before
}

func (p *parser) sandboxExceptions(o object, s *Sandbox) {
	v := values{}
	for _, k := range o {
		want, known := sandboxKeys()[k.name]
		if !known {
			var names []string
			for name := range sandboxKeys() {
				names = append(names, name)
			}
			slices.Sort(names)
			p.complain(k.named, didYouMean(k.name, names), "unsupported key %q in sandbox", k.name)
			continue
		}
		if p.check(k, want) {
			v[k.name] = k
		}
	}
	s.Read, s.Write = p.paths(v, "read"), p.paths(v, "write")
	if network, ok := v["network"].value.(bool); ok {
		s.Network = &network
	}
	s.Processes, _ = v["processes"].value.(bool)
	if k, ok := v["memory"]; ok {
		n, ok := size(v.str("memory"))
		switch {
		case !ok:
			p.complain(k.at, `write it as "512MiB" or "2GiB"`, "memory is %q, want a size", v.str("memory"))
		case n < sandbox.MinMemory:
			p.complain(k.at, "want at least "+sandbox.Bytes(sandbox.MinMemory)+": the runtime of a plugin in Go takes that", "memory is %q", v.str("memory"))
		}
		s.Memory = n
	}
	if k, ok := v["files"]; ok {
		if v.number("files") < sandbox.MinFiles {
			p.complain(k.at, "want at least "+strconv.Itoa(sandbox.MinFiles), "files is %d", v.number("files"))
		}
		s.Files = uint64(max(0, v.number("files")))
	}
}

// paths reads a list of files and directories.
func (p *parser) paths(v values, name string) []string {
	items, _ := v[name].value.(list)
	var paths []string
	for _, i := range items {
		text, _ := i.value.(string)
		path := expandHome(text)
		if !filepath.IsAbs(path) {
			p.complain(i.at, "write it from / or ~/ on", "%s has the path %q, which depends on where the host is started", name, text)
			continue
		}
		paths = append(paths, filepath.Clean(path))
	}
	return paths
}

// size reads "512MiB".
func size(text string) (uint64, bool) {
	m := regexp.MustCompile(`^([0-9]{1,9}) ?(KiB|MiB|GiB|TiB|kB|KB|MB|GB|TB)$`).FindStringSubmatch(text)
	if m == nil {
		return 0, false
	}
	n, err := strconv.ParseUint(m[1], 10, 64)
	if err != nil {
		return 0, false
	}
	unit, power := uint64(1000), strings.IndexByte("KMGT", strings.ToUpper(m[2])[0])+1
	if strings.Contains(m[2], "i") {
		unit = 1024
	}
	for range power {
		if n > math.MaxInt64/unit {
			return 0, false
		}
		n *= unit
	}
	return n, true
}

// Paths returns the files and directories that the block names: every string of
// the plugin's own keys, and of env, that is a path from / or ~/ on; of keys that
// end in _file or _dir also one that is not.
func (t Transport) Paths() []string {
	var paths []string
	add := func(name, text string) {
		path := expandHome(text)
		if !filepath.IsAbs(path) {
			if !namesPath(name) || text == "" {
				return
			}
			full, err := filepath.Abs(path)
			if err != nil {
				return // nobody could find it then
			}
			path = full
		}
		paths = append(paths, path)
	}
	var walk func(keys []key)
	walk = func(keys []key) {
		for _, k := range keys {
			switch v := k.value.(type) {
			case string:
				add(k.name, v)
			case list:
				walk(v)
			case object:
				walk(v)
			case bool, *big.Float:
			}
		}
	}
	walk(t.keys)
	for _, value := range t.Env {
		add("", value)
	}
	slices.Sort(paths)
	return slices.Compact(paths)
}

// namesPath reports whether a key of this name holds a path.
func namesPath(name string) bool {
	return strings.HasSuffix(name, "_file") || strings.HasSuffix(name, "_dir")
}
