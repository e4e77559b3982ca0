package config

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/transporthost/transporthost/host/internal/backoff"
	"github.com/transporthost/transporthost/shared/transport"
)

// smallest is the least that a file may say.
const smallest = "application { builtin = \"echo\" }\ntransport \"stdio\" {}\n"

func parse(t *testing.T, src string) *Config {
	t.Helper()
	c, err := Parse("host.hcl", []byte(src))
	if err != nil {
		t.Fatalf("parsing\n%s\n%v", src, err)
	}
	return c
}

func TestEverythingThatAFileMaySay(t *testing.T) {
	home := t.TempDir()
	t.Setenv("HOME", home)
	t.Setenv("USERPROFILE", home) // the same on Windows
	c := parse(t, `
application {
  command    = ["serve", "--fast"]
  mode       = "shared"
  framing    = "content-length"
  env        = { RUST_LOG = "warn", "odd-name" = "" }
  dir        = "~/work"
  stop_grace = "2s"
}
admin { listen = "127.0.0.1:9464" }
limits {
  max_message_bytes = 1048576
  max_connections   = 10
  slow_after        = "1m"
  drain_timeout     = "250ms"
}
supervision {
  probe_interval    = "1s"
  probe_timeout     = "3s"
  restart_delay     = "100ms"
  max_restart_delay = "1m"
  healthy_after     = "2m"
  give_up_after     = 7
  give_up_within    = "1h"
}
credentials {
  file      = "~/auth.json"
  token_url = "https://auth.example/token"
  client_id = "app_1"
  proxy     = "http://user:pass@proxy.example:3128"
  ca_file   = "~/ca.pem"
}
state { dir = "~/state" }
transport "stdio" {}
transport "web-1" {
  grant   = ["state", "client-name"]
  plugin  = "websocket"
  listen  = ["ws://127.0.0.1:4500", "unix:///run/web.sock"]
  sha256  = "`+strings.Repeat("0a", 32)+`"
  env     = { A = "b" }
  enabled = false
  colour  = "red"
}
`)
	want := Application{
		Command: []string{"serve", "--fast"}, Mode: ModeShared, Framing: transport.ContentLength,
		Env: map[string]string{"RUST_LOG": "warn", "odd-name": ""}, Dir: filepath.Join(home, "work"), StopGrace: 2 * time.Second,
	}
	if !reflect.DeepEqual(c.Application, want) {
		t.Errorf("application: got %+v, want %+v", c.Application, want)
	}
	if c.Admin.Listen != "127.0.0.1:9464" {
		t.Errorf("admin: got %+v", c.Admin)
	}
	if want := (Limits{MaxMessageBytes: 1 << 20, MaxConnections: 10, SlowAfter: time.Minute, DrainTimeout: 250 * time.Millisecond}); c.Limits != want {
		t.Errorf("limits: got %+v, want %+v", c.Limits, want)
	}
	if want := (Supervision{ProbeInterval: time.Second, ProbeTimeout: 3 * time.Second, Restart: backoff.Policy{
		Min: 100 * time.Millisecond, Max: time.Minute, ResetAfter: 2 * time.Minute, GiveUpAfter: 7, GiveUpWindow: time.Hour,
	}}); c.Supervision != want {
		t.Errorf("supervision: got %+v, want %+v", c.Supervision, want)
	}
	if want := (Credentials{
		File: filepath.Join(home, "auth.json"), TokenURL: "https://auth.example/token", ClientID: "app_1",
		Proxy: "http://user:pass@proxy.example:3128", CAFile: filepath.Join(home, "ca.pem"), caFile: c.Credentials.caFile,
	}); c.Credentials != want {
		t.Errorf("credentials: got %+v, want %+v", c.Credentials, want)
	}
	if want := filepath.Join(home, "state"); c.State.Dir != want {
		t.Errorf("state: got %+v, want %s", c.State, want)
	}
	if len(c.Transports) != 2 {
		t.Fatalf("got %d transports, want 2", len(c.Transports))
	}
	if s := c.Transports[0]; s.Name != "stdio" || s.Plugin != "stdio" || !s.Enabled || s.Framing() != transport.NDJSON {
		t.Errorf("stdio: got %+v", s)
	}
	w := c.Transports[1]
	if s := c.Transports[0]; s.Grant != nil || !reflect.DeepEqual(w.Grant, []Grant{GrantState, GrantClientName}) {
		t.Errorf("grants: got %v and %v", s.Grant, w.Grant)
	}
	if w.Name != "web-1" || w.Plugin != "websocket" || w.Enabled || len(w.SHA256) != 64 || w.Env["A"] != "b" ||
		!reflect.DeepEqual(w.Listen, []string{"ws://127.0.0.1:4500", "unix:///run/web.sock"}) {
		t.Errorf("web-1: got %+v", w)
	}
}

func TestDefaultsOfAFile(t *testing.T) {
	c := parse(t, smallest)
	if a := c.Application; a.Builtin != BuiltinEcho || a.Mode != ModePerConnection || a.Framing != transport.NDJSON || a.StopGrace != 0 {
		t.Errorf("application: got %+v", a)
	}
	if c.Limits != (Limits{}) || c.Admin != (Admin{}) {
		t.Errorf("got %+v and %+v, want nothing", c.Limits, c.Admin)
	}
}

// TestMistakes compares whole texts: they are what a person has to work with.
func TestMistakes(t *testing.T) {
	for _, tt := range []struct {
		name, src, want string
	}{
		{"nothing", "", `
host.hcl:1:1: no application block; write application { command = ["PROGRAM"] }
host.hcl:1:1: no transport configured; write transport "websocket" { listen = ["ws://127.0.0.1:4500"] }`},
		{"unknown block, key and place", `mode = "shared"
application {
  comand = ["x"]
}
transprt "stdio" {}
credentials { file = "x" }
transport "stdio" {
  settings { a = 1 }
}`, `
host.hcl:1:1: unsupported key "mode" outside a block; blocks are application, transport, credentials, state, admin, limits, supervision
host.hcl:3:3: unsupported key "comand" in application; did you mean "command"? allowed are builtin, command, dial, dir, env, framing, mode, stop_grace
host.hcl:5:1: unsupported block "transprt"; did you mean "transport"? allowed are admin, application, credentials, limits, state, supervision, transport
host.hcl:8:3: unsupported block "settings" inside transport; write settings = { … }`},
		{"wrong types", `application {
  command = ["cat", 3, true]
  env     = { A = 1, B = "fine", C = [] }
  dir     = null
  framing = 7
}
limits {
  max_message_bytes = 1.5
  max_connections   = "many"
  slow_after        = 30
}
transport "stdio" {
  enabled = "yes"
  listen  = "ws://127.0.0.1:1"
}`, `
host.hcl:2:21: command holds the number 3, want only strings
host.hcl:2:24: command holds a bool, want only strings
host.hcl:3:19: env.A is the number 1, want a string
host.hcl:3:38: env.C is a list, want a string
host.hcl:4:13: dir is null; leave the key out instead
host.hcl:5:13: framing is the number 7, want a string
host.hcl:8:23: max_message_bytes is 1.5, want a whole number that is not huge
host.hcl:9:23: max_connections is a string, want a whole number
host.hcl:10:23: slow_after is the number 30, want a duration
host.hcl:13:13: enabled is a string, want a bool
host.hcl:14:13: listen is a string, want a list of strings`},
		{"values that are not allowed", `application {
  command    = []
  mode       = "both"
  framing    = "xml"
  stop_grace = "0s"
}
limits {
  max_message_bytes = 0
  max_connections   = -1
  slow_after        = "soon"
  drain_timeout     = "-1s"
}
admin { listen = "9464" }
transport "Web" {
  sha256 = "12"
}`, `
host.hcl:2:16: command is empty; write command = ["PROGRAM", "ARGUMENT"]
host.hcl:3:16: mode is "both"; allowed are "per-connection" and "shared"
host.hcl:4:16: framing is "xml"; allowed are "ndjson" and "content-length"
host.hcl:5:16: stop_grace is 0s, want more than 0
host.hcl:8:23: max_message_bytes is 0, want 1 or more
host.hcl:9:23: max_connections is -1, want 1 or more
host.hcl:10:23: slow_after is "soon", want a duration; write it as "30s", "5m" or "250ms"
host.hcl:11:23: drain_timeout is -1s, want more than 0
host.hcl:13:18: listen is "9464"; want HOST:PORT, such as 127.0.0.1:9464
host.hcl:14:11: transport name "Web"; use lower-case letters, digits, - and _
host.hcl:15:12: sha256 is "12"; want the 64 hexadecimal digits that sha256sum prints`},
		{"credentials, state and grants", smallest + `credentials {
  file      = ""
  token_url = "http://auth.example/token"
  client_id = ""
  secret    = "s"
  proxy     = ""
  ca_file   = ""
}
state { dir = "" }
credentials {}
transport "phone" {
  plugin = "remotecontrol"
  grant  = ["credentials", "tokens", "credentials", "client-name"]
}
transport "tablet" { grant = "state" }`, `
host.hcl:4:15: file is empty; leave it out for the default
host.hcl:5:15: token_url is "http://auth.example/token"; want https://HOST/PATH, or http:// to this machine
host.hcl:6:15: client_id is empty; leave it out for the default
host.hcl:7:3: unsupported key "secret" in credentials; allowed are ca_file, client_id, file, proxy, token_url
host.hcl:8:15: proxy is empty; leave it out for the default
host.hcl:9:15: ca_file is empty; leave it out for the default
host.hcl:11:15: dir is empty; leave it out for the default
host.hcl:12:1: duplicate block credentials; the first is at line 3
host.hcl:15:28: grant is "tokens"; allowed are "credentials", "state" and "client-name"
host.hcl:15:38: grant has "credentials" twice
host.hcl:17:30: grant is a string, want a list of strings`},
		{"the way to the token endpoint", smallest + `credentials {
  token_url = "user:passw0rd@auth.example/token"
  proxy     = "user:passw0rd@proxy.example:3128"
  ca_file   = ["x"]
}`, `
host.hcl:4:15: token_url is "…"; want https://HOST/PATH, or http:// to this machine
host.hcl:5:15: proxy is not the address of a proxy; write http://HOST:PORT, https://HOST:PORT or socks5://HOST:PORT, with USER:PASSWORD@ if the proxy wants them, or "direct"
host.hcl:6:15: ca_file is a list, want a string`},
		{"huge number", smallest + `limits { max_message_bytes = 1e30 }`, `
host.hcl:3:30: max_message_bytes is 1e+30, want a whole number that is not huge`},
		{"command and builtin", `application {
  builtin = "echo"
  command = ["x"]
}
transport "stdio" {}`, `
host.hcl:3:3: builtin and command are both set; one of them is enough`},
		{"dialled with a command's keys", `application {
  dial = "tcp://127.0.0.1:1"
  dir  = "/"
}
transport "stdio" {}`, `
host.hcl:2:10: invalid dial URL ` + "`tcp://127.0.0.1:1`; expected `unix:///PATH`, `ws://HOST:PORT/PATH` or `wss://HOST:PORT/PATH`" + `
host.hcl:3:3: dir is of a command; an application that is dialled has none; leave it out`},
		{"built in with a command's keys", `application {
  builtin = "ecko"
  mode    = "shared"
  env     = { A = "b" }
}
transport "stdio" {}`, `
host.hcl:2:13: builtin is "ecko"; allowed is "echo"
host.hcl:3:3: mode is of a command; a built-in application has none; leave it out
host.hcl:4:3: env is of a command; a built-in application has none; leave it out`},
		{"no command", `application {}
transport "stdio" {}`, `
host.hcl:1:1: the application has no command; write command = ["PROGRAM", "ARGUMENT"]`},
		{"twice", `application { builtin = "echo" }
application { builtin = "echo" }
transport "stdio" {}
transport "web" {
  plugin = "websocket"
  listen = ["ws://127.0.0.1:1"]
  listen = ["ws://127.0.0.1:2"]
}
transport "web" {}
limits { slow_after = "x" }`, `
host.hcl:2:1: duplicate block application; the first is at line 1
host.hcl:7:3: Attribute redefined; The argument "listen" was already set at host.hcl:6,3-9. Each argument may be set only once
host.hcl:9:1: duplicate block transport web; the first is at line 4
host.hcl:10:23: slow_after is "x", want a duration; write it as "30s", "5m" or "250ms"`},
		{"twice in an object", `application {
  command = ["x"]
  env     = { A = "1", A = "2" }
}
transport "stdio" {}`, `
host.hcl:3:24: duplicate key "A" in env`},
		{"names of blocks", `application "x" { builtin = "echo" }
transport {}
transport "a" "b" {}`, `
host.hcl:1:13: the block application has no name; write application { … }
host.hcl:2:1: a transport has one name, this one has 0; write transport "NAME" { … }
host.hcl:3:1: a transport has one name, this one has 2; write transport "NAME" { … }`},
		{"variables and functions", `application {
  command = [upper("x")]
  dir     = var.dir
  env     = { for k in ["a"] : k => "v" }
}
transport "stdio" {}`, `
host.hcl:2:14: command: Function calls not allowed; values are written out; there are no variables and functions
host.hcl:3:13: dir: Variables not allowed; values are written out; there are no variables and functions
host.hcl:4:13: env has a value of a kind that is not used here`},
		{"addresses", `application { builtin = "echo" }
transport "websocket" {
  listen = [
    "ws://localhost:4500", "ws://127.0.0.1", "wss://127.0.0.1:99999",
    "ws://127.0.0.1:80/path", "ws://u@127.0.0.1:80",
    "unix:relative", "unix://host/x", "http://127.0.0.1:1", "stdio://", "", "ws://%zz",
  ]
}`, "\n" +
			"host.hcl:4:5: invalid websocket listen URL `ws://localhost:4500`; expected `ws://IP:PORT`; write ws://127.0.0.1:4500\n" +
			"host.hcl:4:28: invalid websocket listen URL `ws://127.0.0.1`; expected `ws://IP:PORT`\n" +
			"host.hcl:4:46: invalid websocket listen URL `wss://127.0.0.1:99999`; expected `wss://IP:PORT`\n" +
			"host.hcl:5:5: invalid websocket listen URL `ws://127.0.0.1:80/path`; expected `ws://IP:PORT` and nothing else; write ws://127.0.0.1:80\n" +
			"host.hcl:5:31: invalid websocket listen URL `ws://u@127.0.0.1:80`; expected `ws://IP:PORT` and nothing else; write ws://127.0.0.1:80\n" +
			"host.hcl:6:5: invalid listen URL `unix:relative`; expected `unix:///PATH`, with an absolute path\n" +
			"host.hcl:6:22: invalid listen URL `unix://host/x`; expected `unix:///PATH`, with an absolute path\n" +
			"host.hcl:6:39: unsupported listen URL `http://127.0.0.1:1`; expected `ws://IP:PORT`, `wss://IP:PORT` or `unix:///PATH`\n" +
			"host.hcl:6:61: unsupported listen URL `stdio://`; expected `ws://IP:PORT`, `wss://IP:PORT` or `unix:///PATH`\n" +
			"host.hcl:6:73: unsupported listen URL ``; expected `ws://IP:PORT`, `wss://IP:PORT` or `unix:///PATH`\n" +
			"host.hcl:6:77: unsupported listen URL `ws://%zz`; expected `ws://IP:PORT`, `wss://IP:PORT` or `unix:///PATH`"},
		{"transports that exclude each other", `application { builtin = "echo" }
transport "a" { plugin = "stdio" }
transport "b" { plugin = "stdio" }
transport "c" { listen = ["ws://127.0.0.1:4500", "ws://127.0.0.1:0", "ws://127.0.0.1:0"] }
transport "d" { listen = ["wss://127.0.0.1:4500", "unix:///x"] }
transport "e" { listen = ["unix:///x"] }`, `
host.hcl:3:1: a second transport with the plugin stdio; there is one stdin; transport "a" has it
host.hcl:5:27: wss://127.0.0.1:4500 is listened on twice; the first is at line 4
host.hcl:6:27: unix:///x is listened on twice; the first is at line 5`},
		{"all disabled", `application { builtin = "echo" }
transport "stdio" { enabled = false }`, `
host.hcl:2:1: every transport is disabled; remove enabled = false from one of them`},
		{"syntax", "application {\n  command = [\n", `
host.hcl:3:1: Missing expression; Expected the start of an expression, but found the end of the file`},
		{"brackets without end", "x = " + strings.Repeat("[", 1000), `
host.hcl:1:69: nested deeper than 64 levels`},
		{"signs without end", "x = " + strings.Repeat("-", 1000) + "1", `
host.hcl:1:69: nested deeper than 64 levels`},
		{"too large", "#" + strings.Repeat(" ", maxFileBytes), `
host.hcl:1:1: the file has more than 65536 bytes`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := Parse("host.hcl", []byte(tt.src))
			if err == nil {
				t.Fatal("got no error")
			}
			if got := "\n" + err.Error(); got != tt.want {
				t.Errorf("got%s\nwant%s", got, tt.want)
			}
		})
	}
}

// TestDisabledTransportsExcludeNobody: one that is switched off may keep the
// address of another.
func TestDisabledTransportsExcludeNobody(t *testing.T) {
	parse(t, `application { builtin = "echo" }
transport "a" { listen = ["ws://127.0.0.1:4500"] }
transport "b" {
  listen  = ["ws://127.0.0.1:4500"]
  enabled = false
}`)
}

// TestAConfigBesideItsMistakes: what could be read is there for further checks.
func TestAConfigBesideItsMistakes(t *testing.T) {
	c, err := Parse("host.hcl", []byte(`application { comand = 1 }
transport "a" {}
transport "b" { sha256 = 5 }
transport "c" { sha256 = "x" }
transport "d" { plugin = null }
transport "e" { listen = 1 }`))
	if err == nil || c == nil {
		t.Fatalf("got %v and %v, want both", c, err)
	}
	for i, want := range []bool{true, false, false, false, true} {
		if tr := c.Transports[i]; tr.Launchable() != want {
			t.Errorf("transport %q: Launchable is %v, want %v", tr.Name, !want, want)
		}
	}
	if c, err := Parse("host.hcl", []byte("application {")); c != nil || err == nil {
		t.Errorf("of a text that is not HCL: got %v and %v", c, err)
	}
}

func TestLoad(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "host.hcl")
	if err := os.WriteFile(path, []byte(smallest+"x = 1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := Load(path)
	errs, ok := errors.AsType[Errors](err)
	if !ok || len(errs) != 1 || errs[0].Filename != path || errs[0].Line != 3 || errs[0].Column != 1 {
		t.Errorf("got %#v, want one error at 3:1 of %s", err, path)
	}
	if _, err := Load(filepath.Join(dir, "none.hcl")); !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), "none.hcl") {
		t.Errorf("of no file: got %v", err)
	}
	if _, err := Load(dir); err == nil || !strings.Contains(err.Error(), "reading the configuration") {
		t.Errorf("of a directory: got %v", err)
	}
}

func TestAlso(t *testing.T) {
	if err := Also(nil, nil); err != nil {
		t.Errorf("of nothing: got %v", err)
	}
	at := func(line int, text string) Error { return Error{Filename: "f", Line: line, Column: 1, Summary: text} }
	err := Also(Errors{at(1, "a"), at(9, "z")}, nil, at(5, "m"), errors.New("nowhere"))
	if got, want := err.Error(), "nowhere\nf:1:1: a\nf:5:1: m\nf:9:1: z"; got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestDidYouMean(t *testing.T) {
	for _, tt := range []struct {
		name string
		want string
	}{
		{"listne", `did you mean "listen"? allowed are env, listen, plugin`},
		{"lisen", `did you mean "listen"? allowed are env, listen, plugin`},
		{"evn", `did you mean "env"? allowed are env, listen, plugin`},
		{"colour", "allowed are env, listen, plugin"},
		{"", "allowed are env, listen, plugin"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := didYouMean(tt.name, []string{"plugin", "env", "listen"}); got != tt.want {
				t.Errorf("didYouMean(%q): got %s, want %s", tt.name, got, tt.want)
			}
		})
	}
}

// FuzzParse: no text makes the parser panic, run away, or complain without a
// place. What it accepts a host can be made of.
func FuzzParse(f *testing.F) {
	for _, seed := range []string{
		"", smallest, "application {", "x = [}[}[", "a \"b\" {}\n", "application { command = [\"${1+1}\", <<A\nx\nA\n] }",
		"application {\n  env = { (1) = 2, a.b = 3, \"${true}\" = 4 }\n}", "transport \"a\" { listen = [[[]]] }",
		"limits { max_message_bytes = -1e309 }", "credentials { token_url = \"http://[::1%25x]:y/#\" }\nstate { dir = 1 }\ntransport \"a\" { grant = [\"state\", \"\", 1] }", "transport \"x\" { a = { b = { c = [1, null, true ? 1 : 2] } } }",
		"application { command = [for x in [\"a\"] : x] }", "\xef\xbb\xbfapplication {}", "\x00\xff",
	} {
		f.Add([]byte(seed))
	}
	d := description()
	f.Fuzz(func(t *testing.T, src []byte) {
		c, err := Parse("host.hcl", src)
		if err != nil {
			errs, ok := errors.AsType[Errors](err)
			if !ok || len(errs) == 0 {
				t.Fatalf("got %T of %d complaints", err, len(errs))
			}
			for _, e := range errs {
				if e.Filename != "host.hcl" || e.Line < 1 || e.Column < 1 || e.Summary == "" {
					t.Errorf("a complaint without a place or text: %#v", e)
				}
			}
			if c == nil {
				return
			}
		} else if a := c.Application; (len(a.Command) > 0) == (a.Builtin != "") || len(c.Transports) == 0 {
			t.Errorf("accepted %+v", c)
		}
		for _, tr := range c.Transports {
			if json, err := tr.PluginConfig(d); err != nil && json != nil {
				t.Errorf("both %s and %v", json, err)
			}
		}
	})
}
