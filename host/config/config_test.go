package config

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/transporthost/transporthost/shared/transport"
)

func TestParse(t *testing.T) {
	home, err := os.UserHomeDir()
	if err != nil {
		t.Fatal(err)
	}
	c, err := Parse("host.hcl", []byte(`
application {
  command    = ["codex", "app-server"]
  mode       = "shared"
  framing    = "content-length"
  env        = { RUST_LOG = "warn", "A-B" = "c" }
  dir        = "~/work"
  stop_grace = "5s"
}
limits {
  max_message_bytes = 1048576
  slow_after        = "10s"
}
admin { listen = "127.0.0.1:9464" }
transport "stdio" {}
transport "ws" {
  plugin  = "websocket"
  listen  = ["ws://127.0.0.1:0", "unix:///run/app.sock"]
  sha256  = "`+strings.Repeat("ab", 32)+`"
  enabled = false
}
`))
	if err != nil {
		t.Fatal(err)
	}
	a := c.Application
	if strings.Join(a.Command, " ") != "codex app-server" || a.Mode != ModeShared || a.Framing != transport.ContentLength ||
		a.Env["RUST_LOG"] != "warn" || a.Env["A-B"] != "c" || a.Dir != filepath.Join(home, "work") || a.StopGrace != 5*time.Second {
		t.Errorf("application %+v", a)
	}
	if c.Limits.MaxMessageBytes != 1<<20 || c.Limits.SlowAfter != 10*time.Second || c.Limits.DrainTimeout != 0 || c.Admin.Listen != "127.0.0.1:9464" {
		t.Errorf("limits %+v, admin %+v", c.Limits, c.Admin)
	}
	if len(c.Transports) != 2 || c.Transports[0].Plugin != "stdio" || !c.Transports[0].Enabled {
		t.Fatalf("transports %+v", c.Transports)
	}
	ws := c.Transports[1]
	if ws.Name != "ws" || ws.Plugin != "websocket" || len(ws.Listen) != 2 || ws.Enabled || ws.SHA256 == "" {
		t.Errorf("transport %+v", ws)
	}
}

const app = "application { builtin = \"echo\" }\n"

func TestMistakesOfAFile(t *testing.T) {
	for _, tt := range []struct {
		name, src string
		want      string // all errors, a line each
	}{
		{"empty", "", "f:1:1: no application block; write application { command = [\"PROGRAM\"] }\nf:1:1: no transport configured; write transport \"websocket\" { listen = [\"ws://127.0.0.1:4500\"] }"},
		{"key outside", "x = 1\n" + app + "transport \"stdio\" {}", "f:1:1: unsupported key \"x\" outside a block; blocks are application, transport, admin, limits"},
		{"unknown block", app + "transport \"stdio\" {}\nlimit {}", "f:3:1: unsupported block \"limit\"; did you mean \"limits\"? allowed are admin, application, limits, transport"},
		{"two applications", app + app + "transport \"stdio\" {}", "f:2:1: duplicate block application; the first is at line 1"},
		{"two transports", app + "transport \"stdio\" {}\ntransport \"stdio\" {}", "f:3:1: duplicate block transport stdio; the first is at line 2"},
		{"no name", app + "transport {}", "f:2:1: block transport has 0 names, want 1; write transport \"NAME\" { … } and the other blocks without a name\nf:2:13: no transport configured; write transport \"websocket\" { listen = [\"ws://127.0.0.1:4500\"] }"},
		{"bad name", app + "transport \"A b\" {}", "f:2:11: transport name \"A b\"; use lower-case letters, digits, - and _"},
		{"block inside", app + "transport \"stdio\" {\n  auth {}\n}", "f:3:3: unsupported block \"auth\" inside transport; write auth = { … }"},
		{"both", "application {\n  builtin = \"echo\"\n  command = [\"x\"]\n}\ntransport \"stdio\" {}", "f:2:13: command and builtin are both set; one of them is enough"},
		{"builtin", "application { builtin = \"cat\" }\ntransport \"stdio\" {}", "f:1:25: builtin is \"cat\"; allowed is \"echo\""},
		{"empty command", "application { command = [] }\ntransport \"stdio\" {}", "f:1:25: command is empty; write command = [\"PROGRAM\", \"ARGUMENT\"]"},
		{"types", "application {\n  command = \"x\"\n  env = { A = 1 }\n}\ntransport \"stdio\" { enabled = \"no\" }", "f:2:13: command is a string, want a list of strings\nf:3:9: env is an object, want a table of strings\nf:5:31: enabled is a string, want a bool"},
		{"number", app + "transport \"stdio\" {}\nlimits { max_message_bytes = 1.5 }", "f:3:30: max_message_bytes is the number 1.5, want a whole number"},
		{"duration", app + "transport \"stdio\" {}\nlimits { slow_after = \"-1s\" }", "f:3:23: slow_after is -1s, want more than 0"},
		{"variable", app + "transport \"websocket\" { listen = [address] }", "f:2:35: listen: Variables not allowed; values are written out; there are no variables and functions"},
		{"null", app + "transport \"stdio\" { plugin = null }", "f:2:30: plugin is null; leave the key out instead"},
		{"sum", app + "transport \"stdio\" { sha256 = \"abc\" }", "f:2:30: sha256 is \"abc\"; want the 64 hexadecimal digits that sha256sum prints"},
		{"listen", app + "transport \"websocket\" { listen = [\"ws://localhost:1\"] }", "f:2:34: invalid websocket listen URL `ws://localhost:1`; expected `ws://IP:PORT`; write ws://127.0.0.1:1"},
		{"syntax", "application {\n", "f:1:13: Unclosed configuration block; There is no closing brace for this block before the end of the file. This may be caused by incorrect brace nesting elsewhere in this file"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := Parse("f", []byte(tt.src))
			if err == nil || err.Error() != tt.want {
				t.Errorf("got\n%v\nwant\n%s", err, tt.want)
			}
		})
	}
}

func TestPluginConfig(t *testing.T) {
	schema := transport.Description{Config: []transport.ConfigKey{
		{Name: "listen", Type: transport.TypeStrings, Required: true, Help: "addresses"},
		{Name: "auth", Type: transport.TypeObject, Keys: []transport.ConfigKey{
			{Name: "mode", Type: transport.TypeString, Required: true, Allowed: []string{"a", "b"}, Help: "kind"},
			{Name: "token_file", Type: transport.TypeString},
		}},
		{Name: "max", Type: transport.TypeNumber},
		{Name: "every", Type: transport.TypeDuration},
		{Name: "on", Type: transport.TypeBool},
	}}
	for _, tt := range []struct {
		name, body string
		json       string
		err        string
	}{
		{"everything", "listen = [\"ws://127.0.0.1:1\"]\n auth = { mode = \"a\", token_file = \"/t\" }\n max = 3\n every = \"1m\"\n on = true", `{"auth":{"mode":"a","token_file":"/t"},"every":"1m","listen":["ws://127.0.0.1:1"],"max":3,"on":true}`, ""},
		{"missing", "max = 3", "", "f:2:1: transport \"t\" needs the key \"listen\"; addresses"},
		{"unknown", "listen = [\"unix:///s\"]\n maxx = 3", "", "f:4:2: unsupported key \"maxx\" in transport \"t\"; did you mean \"max\"? allowed are auth, enabled, env, every, listen, max, on, plugin, sha256"},
		{"unknown inside", "listen = [\"unix:///s\"]\n auth = { mode = \"a\", tokn = 1 }", "", "f:4:23: unsupported key \"tokn\" in transport \"t\".auth; allowed are mode, token_file"},
		{"missing inside", "listen = [\"unix:///s\"]\n auth = {}", "", "f:4:2: transport \"t\".auth needs the key \"mode\"; kind"},
		{"not allowed", "listen = [\"unix:///s\"]\n auth = { mode = \"c\" }", "", "f:4:11: mode is \"c\"; allowed are a, b"},
		{"type", "listen = [\"unix:///s\"]\n max = \"3\"", "", "f:4:2: max is a string, want a whole number"},
		{"duration", "listen = [\"unix:///s\"]\n every = \"soon\"", "", "f:4:2: every is \"soon\", want a duration; write it as \"30s\", \"5m\" or \"250ms\""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c, err := Parse("f", []byte(app+"transport \"t\" {\n"+tt.body+"\n}"))
			if err != nil {
				t.Fatal(err)
			}
			got, err := c.Transports[0].PluginConfig(schema)
			text := ""
			if err != nil {
				text = err.Error()
			}
			if string(got) != tt.json || text != tt.err {
				t.Errorf("got %s, %s\nwant %s, %s", got, text, tt.json, tt.err)
			}
		})
	}
	c, err := Parse("f", []byte(app+"transport \"t\" { listen = [\"unix:///s\"] }"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Transports[0].PluginConfig(transport.Description{}); err == nil || !strings.Contains(err.Error(), "does not listen") {
		t.Errorf("a plugin that does not listen: %v", err)
	}
}

func TestFromFlags(t *testing.T) {
	c, err := FromFlags(Flags{Listen: []string{"ws://127.0.0.1:1", "stdio://", "unix:///s"}, Command: []string{"gopls"}, Framing: "content-length", Remote: true})
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, tr := range c.Transports {
		names = append(names, tr.Name+" "+strings.Join(tr.Listen, " "))
	}
	if got := strings.Join(names, ", "); got != "stdio , websocket ws://127.0.0.1:1 unix:///s, remotecontrol " {
		t.Errorf("transports %s", got)
	}
	if f := c.Transports[0].Framing(); f != transport.ContentLength {
		t.Errorf("the terminal speaks %q, want what the program does", f)
	}
	if c, err := FromFlags(Flags{Builtin: "echo"}); err != nil || len(c.Transports) != 1 || c.Transports[0].Name != "stdio" {
		t.Errorf("without --listen: %+v, %v", c, err)
	}
	_, err = FromFlags(Flags{Listen: []string{"tcp://x"}, Mode: "m", Framing: "f", Builtin: "b", Command: []string{"c"}})
	for _, want := range []string{"--listen URL `tcp://x`", `--mode is "m"`, `--framing is "f"`, `--builtin is "b"`, "exclude each other"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("no %q in %v", want, err)
		}
	}
}

// FuzzParse: no text makes the loader panic, and every error has its place.
func FuzzParse(f *testing.F) {
	f.Add(app + "transport \"websocket\" { listen = [\"ws://127.0.0.1:0\"]\n auth = { a = [1, {}] } }")
	f.Add("application {\n command = [\"x\", 1]\n env = { \"a\" = null } }")
	f.Fuzz(func(t *testing.T, src string) {
		c, err := Parse("f", []byte(src))
		if err == nil {
			for _, tr := range c.Transports {
				_, _ = tr.PluginConfig(transport.Description{Config: []transport.ConfigKey{{Name: "auth", Type: transport.TypeObject}}})
			}
			return
		}
		errs, ok := errors.AsType[Errors](err)
		if !ok || len(errs) == 0 {
			t.Fatalf("Parse(%q): %v is no list of errors", src, err)
		}
		for _, e := range errs {
			if e.Filename != "f" || e.Line < 1 || e.Column < 1 || e.Summary == "" {
				t.Errorf("Parse(%q): an error without a place: %+v", src, e)
			}
		}
	})
}
