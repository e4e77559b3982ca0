package config

import (
	"path/filepath"
	"strconv"
	"testing"

	"github.com/transporthost/transporthost/shared/transport"
)

// description is of a plugin with a key of each type.
func description() transport.Description {
	return transport.Description{Name: "pigeon", Config: []transport.ConfigKey{
		{Name: "listen", Type: transport.TypeStrings},
		{Name: "breed", Type: transport.TypeString, Required: true, Allowed: []string{"homing", "racing"}, Help: "kind of bird"},
		{Name: "speed", Type: transport.TypeNumber},
		{Name: "tame", Type: transport.TypeBool},
		{Name: "rest", Type: transport.TypeDuration},
		{Name: "names", Type: transport.TypeStrings},
		{Name: "loft", Type: transport.TypeObject, Keys: []transport.ConfigKey{
			{Name: "key_file", Type: transport.TypeString, Required: true, Help: "opens the loft"},
			{Name: "perches", Type: transport.TypeNumber},
		}},
	}}
}

func transportOf(t *testing.T, keys string) Transport {
	t.Helper()
	return parse(t, "application { builtin = \"echo\" }\ntransport \"pigeon\" {\n"+keys+"\n}\n").Transports[0]
}

func TestPluginConfig(t *testing.T) {
	home := t.TempDir()
	t.Setenv("HOME", home)
	t.Setenv("USERPROFILE", home) // the same on Windows
	got, err := transportOf(t, `
  listen = ["ws://127.0.0.1:1"]
  breed  = "homing"
  speed  = 9007199254740993
  tame   = false
  rest   = "1m30s"
  names  = ["a", "<b>"]
  loft   = { key_file = "~/key", perches = 2 }
`).PluginConfig(description())
	if err != nil {
		t.Fatal(err)
	}
	key := filepath.Join(home, "key")
	want := `{"breed":"homing","listen":["ws://127.0.0.1:1"],"loft":{"key_file":` + strconv.Quote(key) + `,"perches":2},` +
		`"names":["a","\u003cb\u003e"],"rest":"1m30s","speed":9007199254740993,"tame":false}`
	if string(got) != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestMistakesInPluginKeys(t *testing.T) {
	for _, tt := range []struct {
		name, keys, want string
	}{
		{"required", ``, `host.hcl:2:1: transport "pigeon" needs the key "breed"; kind of bird`},
		{"unknown", "breed = \"homing\"\nsped = 1", `host.hcl:4:1: unsupported key "sped" in transport "pigeon"; did you mean "speed"? allowed are breed, enabled, env, grant, listen, loft, names, plugin, rest, sandbox, sha256, speed, tame`},
		{"all at once", "breed = \"grey\"\nspeed = 1.5\ntame = 1\nrest = \"long\"\nnames = [1, \"x\"]\nloft = 3",
			`host.hcl:3:9: breed is "grey"; allowed are homing, racing
host.hcl:4:9: speed is 1.5, want a whole number that is not huge
host.hcl:5:8: tame is the number 1, want a bool
host.hcl:6:8: rest is "long", want a duration; write it as "30s", "5m" or "250ms"
host.hcl:7:10: names holds the number 1, want only strings
host.hcl:8:8: loft is the number 3, want an object`},
		{"nested", "breed = \"homing\"\nloft = { perchs = 1, perches = \"x\" }",
			`host.hcl:4:8: transport "pigeon".loft needs the key "key_file"; opens the loft
host.hcl:4:10: unsupported key "perchs" in transport "pigeon".loft; did you mean "perches"? allowed are key_file, perches
host.hcl:4:32: perches is a string, want a whole number`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := transportOf(t, tt.keys).PluginConfig(description())
			if err == nil {
				t.Fatalf("got %s, want an error", got)
			}
			if err.Error() != tt.want {
				t.Errorf("got\n%v\nwant\n%s", err, tt.want)
			}
		})
	}
}

// TestMistakenKeysAreThere: who wrote a required key wrongly is told what is wrong
// with it, and not that it is missing.
func TestMistakenKeysAreThere(t *testing.T) {
	d := transport.Description{Name: "pigeon", Config: []transport.ConfigKey{
		{Name: "listen", Type: transport.TypeStrings, Required: true},
		{Name: "breed", Type: transport.TypeString, Required: true},
		{Name: "loft", Type: transport.TypeObject, Required: true, Keys: []transport.ConfigKey{{Name: "key_file", Type: transport.TypeString, Required: true}}},
	}}
	for _, tt := range []struct {
		name, keys, want string
	}{
		{"types", "listen = \"ws://127.0.0.1:1\"\nbreed = 1\nloft = { key_file = 2 }", `
host.hcl:3:10: listen is a string, want a list of strings
host.hcl:4:9: breed is the number 1, want a string
host.hcl:5:21: key_file is the number 2, want a string`},
		{"elements", "listen = [1]\nbreed = [\"x\"]\nloft = []", `
host.hcl:3:11: listen holds the number 1, want only strings
host.hcl:4:9: breed is a list, want a string
host.hcl:5:8: loft is a list, want an object`},
		{"null", "listen = null\nbreed = null\nloft = { key_file = null }", `
host.hcl:3:10: listen is null; leave the key out instead
host.hcl:4:9: breed is null; leave the key out instead
host.hcl:5:21: loft.key_file is null; leave the key out instead`},
		{"variables", "listen = [a]\nbreed = b\nloft = { key_file = c }", `
host.hcl:3:11: listen: Variables not allowed; values are written out; there are no variables and functions
host.hcl:4:9: breed: Variables not allowed; values are written out; there are no variables and functions
host.hcl:5:21: loft: Variables not allowed; values are written out; there are no variables and functions`},
		{"missing", "loft = {}", `
host.hcl:2:1: transport "pigeon" needs the key "listen"
host.hcl:2:1: transport "pigeon" needs the key "breed"
host.hcl:3:8: transport "pigeon".loft needs the key "key_file"`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c, mistakes := Parse("host.hcl", []byte("application { builtin = \"echo\" }\ntransport \"pigeon\" {\n"+tt.keys+"\n}\n"))
			_, more := c.Transports[0].PluginConfig(d)
			if got := "\n" + Also(mistakes, more).Error(); got != tt.want {
				t.Errorf("got%s\nwant%s", got, tt.want)
			}
		})
	}
}

func TestAPluginThatDoesNotListen(t *testing.T) {
	_, err := transportOf(t, `listen = ["ws://127.0.0.1:1"]`).PluginConfig(transport.Description{Name: "pigeon"})
	if want := `host.hcl:2:1: the plugin "pigeon" does not listen; leave it out`; err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}
